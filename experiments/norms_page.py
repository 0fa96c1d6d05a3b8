"""The report of the study `norms`: what placement and kind of normalization change, claims, what is not identified."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from experiments.continual import claims_table, claims_text, plain, said, seeds_interval
from experiments.critical_ratio_page import cost_table
from experiments.norms import CENTRED, KINDS, LAYERNORM, PLACED, Arm, Findings, above_layernorm, gain
from experiments.page import Page
from experiments.statistics import Interval
from scaling.figures import continual, norms
from scaling.figures.sensitivity import losses_by_rate
from scaling.figures.style import png
from scaling.store import Store


def headline(found: Findings) -> str:
    """The answer in one sentence."""
    s, last = found.settings, found.settings.depths[-1]
    gains = {name: seeds_interval(gain(found.arms, s, name)[last], s.level) for name in s.placements if name != "pre"}
    kinds = {kind: seeds_interval(above_layernorm(found.arms, s, kind), s.level)
             for kind in KINDS if kind not in (LAYERNORM, CENTRED)}
    placed = ", ".join(f"{name} {said(interval, '')}" for name, interval in gains.items())
    kind_text = ", ".join(f"{kind} {said(interval, '')}" for kind, interval in kinds.items())
    return (f"At depth {last}, each at its best rate, Pre's loss less that of the others is {placed} nats/token; at "
            f"depth {s.kinds_depth} kinds less LayerNorm are {kind_text}; LayerNorm and RMSNorm of a centred stream "
            f"stay within {found.exact.difference.abs().max():.1e} of each other through training (n = {len(s.seeds)} "
            "seeds).")


def arms_table(found: Findings) -> pd.DataFrame:
    """Loss at the best rate and sensitivity of every arm, and how its runs failed."""
    rows = []
    for arm, values in found.arms.groupby("arm", sort=False):
        runs = found.losses[found.losses.arm == arm]
        best, sensitivity = (seeds_interval(values[name], found.settings.level) for name in ("best", "sensitivity"))
        rows.append({"arm": arm, "best rate": f"{values.rate.iloc[0]:g}", "loss there": _text(best),
                     "sensitivity": _text(sensitivity), "diverged": f"{np.isinf(runs.loss).sum()} of {len(runs)}"})
    return pd.DataFrame(rows)


def _text(interval: Interval) -> str:
    return f"{interval.value:.4f} [{interval.low:.4f}, {interval.high:.4f}]"


def summary(found: Findings) -> str:
    """What a person needs on the terminal."""
    return "\n".join([headline(found), "", arms_table(found).to_string(index=False), "", claims_text(found.claims)])


def record(found: Findings) -> dict[str, Any]:
    """fits.json: every number behind the answers; the study fits no law."""
    return {"headline": headline(found), **plain(found)}


def _panels(found: Findings) -> dict[str, list[str]]:
    """Arms that are to be seen side by side, by title."""
    s, last = found.settings, found.settings.depths[-1]
    depths = {f"depth {depth}": [str(Arm(depth, placement)) for placement in s.placements] for depth in s.depths}
    cold = [str(Arm(last, placement, warmup=warm)) for placement in ("pre", "post") for warm in (True, False)]
    return {**depths, "warm-up": cold, "kinds": [str(Arm(s.kinds_depth, kind=kind)) for kind in KINDS]}


def _by_depth(found: Findings) -> dict[str, pd.DataFrame]:
    """Loss and sensitivity of placements against depth, and what they gain on Pre."""
    s = found.settings

    def rows(names: list[str], values: dict[tuple[str, int], pd.Series]) -> pd.DataFrame:
        return pd.DataFrame([{"name": name, "depth": depth, **seeds_interval(values[name, depth], s.level)._asdict()}
                             for name in names for depth in s.depths])

    def own(column: str) -> dict[tuple[str, int], pd.Series]:
        by_arm = found.arms.set_index("arm")[column]
        return {(name, depth): by_arm[str(Arm(depth, name))] for name in s.placements for depth in s.depths}

    others = [name for name in s.placements if name != "pre"]
    gained = {(name, depth): gain(found.arms, s, name)[depth] for name in others for depth in s.depths}
    return {"loss at the best rate, nats/token": rows(list(s.placements), own("best")),
            "Pre's loss less this, nats/token": rows(others, gained),
            "sensitivity to the rate, nats/token": rows(list(s.placements), own("sensitivity"))}


def _kinds(found: Findings) -> pd.DataFrame:
    s, columns = found.settings, {"loss at the best rate": "best", "sensitivity to the rate": "sensitivity"}
    return pd.DataFrame([
        {"contrast": kind, "domain": name,
         **seeds_interval(above_layernorm(found.arms, s, kind, column), s.level)._asdict()}
        for kind in KINDS if kind != LAYERNORM for name, column in columns.items()])


def figures(found: Findings) -> dict[str, tuple[bytes, str]]:
    """PNG and caption by name."""
    s = found.settings
    level = f"{s.level:.0%} intervals over {len(s.seeds)} seeds"
    drawn = {
        "rates": (losses_by_rate(found.losses, _panels(found)),
                  "Last held-out loss by peak rate; lines: mean over seeds, dots: runs, crosses: runs that diverged, "
                  "at their loss before training (dashed)."),
        "depth": (norms.by_depth(_by_depth(found)),
                  f"Placements by depth; {level}. Middle: above 0 is better than Pre."),
        "kinds": (continual.differences(_kinds(found), s.margin),
                  f"Kinds of norm less LayerNorm at depth {s.kinds_depth}; {level}. Left of 0 is better; grey: the "
                  "margin of equality, set before the runs."),
        "drift": (norms.drift(found.exact, s.rounding),
                  "LayerNorm and RMSNorm of a centred stream, trained alike in float64: the largest difference of "
                  "their losses over seeds; dashed: the bound set before the runs."),
    }
    return {name: (png(figure), caption) for name, (figure, caption) in drawn.items()}


def page(store: Store, found: Findings) -> tuple[Page, dict[str, bytes]]:
    """The page and its figures."""
    drawn = figures(found)
    made = Page("What do the place and the kind of normalization change?")
    made.paragraph(headline(found), "answer")
    for name in ("depth", "rates"):
        made.figure(*drawn[name])
    made.heading("Kinds of norm")
    made.figure(*drawn["kinds"])
    made.heading("Equal functions")
    made.figure(*drawn["drift"])
    made.heading("Claims")
    made.table(claims_table(found.claims))
    made.heading("Every arm")
    made.table(arms_table(found))
    made.end(found.not_identified, [cost_table(store)], method(found))
    return made, {name: content for name, (content, _) in drawn.items()}


def method(found: Findings) -> list[str]:
    """How the numbers came about."""
    s = found.settings
    return [
        f"Placements: {PLACED} at depths {', '.join(map(str, s.depths))}; kinds: placement pre at depth "
        f"{s.kinds_depth}; all at peak rates {', '.join(f'{rate:g}' for rate in s.rates)} and the same {len(s.seeds)} "
        f"seeds, AdamW, {s.warmup} steps of warm-up, then a cosine. Output kernels are not scaled by depth at the "
        "start.",
        f"PowerNorm and Unified Normalization take each batch's own statistics in their first {s.warmup} updates "
        "(their papers: 10000 and 4000).",
        "Loss at the best rate: at the swept rate whose mean over seeds is least. Sensitivity: mean over the rates of "
        "min(loss, loss before training) less the least loss (Wortsman et al. 2023, arXiv 2309.14322), over this "
        "study's own narrower grid.",
        f"Every difference is within a seed; intervals are Student's over seeds, {s.level:.0%}. An equality is "
        f"reproduced when the whole interval lies within ±{s.margin:g} nats/token.",
        f"Equal functions: {LAYERNORM} and {CENTRED}, {s.exact_steps} steps in float64, at the rate that suits "
        f"{LAYERNORM} best, every loss logged.",
        "Made again from the store alone by python -m experiments.report.",
    ]
