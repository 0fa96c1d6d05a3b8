"""The report of the study `lr_sensitivity`: what lowers the sensitivity, losses by rate, claims."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from experiments.continual import claims_table, claims_text, plain
from experiments.critical_ratio_page import cost_table
from experiments.lr_sensitivity import CONTRASTS, Findings, by_seed, change
from experiments.page import Page
from experiments.statistics import t_interval
from scaling.figures import estimates
from scaling.figures.sensitivity import losses_by_rate
from scaling.figures.style import png
from scaling.store import Store

PANELS = {
    "qk-norm and z-loss": ("plain", "qk-norm", "z-loss", "both"),
    "warm-up": ("plain", "no warm-up"),
    "warm-up, with qk-norm and z-loss": ("both", "both, no warm-up"),
    "decay": ("plain", "coupled decay"),
    "decay, with qk-norm and z-loss": ("both", "both, coupled decay"),
    "placement of norms": ("plain", "peri"),
}


def headline(found: Findings) -> str:
    """The answer in one sentence."""
    lowered = [contrast.name for contrast, claim in zip(CONTRASTS, found.claims, strict=False)
               if claim.verdict == "reproduced"]
    raised = [contrast.name for contrast, claim in zip(CONTRASTS, found.claims, strict=False)
              if claim.verdict == "not reproduced"]
    s = found.settings
    return (f"Over peak rates from {s.rates[0]:g} to {s.rates[-1]:g}, sensitivity is lowered by "
            f"{', '.join(lowered) or 'nothing tried'}, and raised by {', '.join(raised) or 'nothing tried'}; for the "
            f"other {len(CONTRASTS) - len(lowered) - len(raised)} of {len(CONTRASTS)} the interval over "
            f"{len(s.seeds)} seeds holds 0.")


def arms_table(found: Findings) -> pd.DataFrame:
    """Sensitivity and loss at the best rate of every arm, and how its runs failed."""
    rows = []
    for arm, values in found.arms.groupby("arm", sort=False):
        runs = found.losses[found.losses.arm == arm]
        sensitivity, best = (t_interval(values[name], found.settings.level) for name in ("sensitivity", "best"))
        rows.append({"arm": arm, "sensitivity": "{:.3f} [{:.3f}, {:.3f}]".format(*sensitivity),
                     "best rate": f"{values.rate.iloc[0]:g}", "loss there": "{:.4f} [{:.4f}, {:.4f}]".format(*best),
                     "diverged": f"{np.isinf(runs.loss).sum()} of {len(runs)}",
                     "worse than untrained": f"{((runs.loss > runs.initial) & np.isfinite(runs.loss)).sum()}"})
    return pd.DataFrame(rows)


def summary(found: Findings) -> str:
    """What a person needs on the terminal."""
    return "\n".join([headline(found), "", arms_table(found).to_string(index=False), "", claims_text(found.claims)])


def record(found: Findings) -> dict[str, Any]:
    """fits.json: every number behind the answers."""
    parts = ("settings", "losses", "arms", "claims", "notes")
    return {"headline": headline(found), **{name: plain(getattr(found, name)) for name in parts}}


def figures(found: Findings) -> dict[str, tuple[bytes, str]]:
    """PNG and caption by name."""
    level = found.settings.level

    def row(name: str, values: pd.Series) -> dict[str, Any]:
        return {"name": name, **t_interval(values, level)._asdict(), "values": values.to_numpy()}

    arms = pd.DataFrame([row(arm, by_seed(found.arms, arm, "sensitivity")) for arm in dict.fromkeys(found.arms.arm)])
    changes = pd.DataFrame([row(each.name, change(each, found.arms, "sensitivity")) for each in CONTRASTS])
    drawn = {
        "losses": (losses_by_rate(found.losses, PANELS),
                   "Final held-out loss by peak rate, capped at that before training (dashed); lines: mean over seeds, "
                   "dots: runs, crosses: runs that diverged."),
        "sensitivity": (estimates.by_name({"sensitivity": arms}, "nats/token",
                                          float(arms.value[arms.name == "plain"].iloc[0])),
                        "Mean over rates of the capped loss less the least; dots: seeds; dashed: the plain model."),
        "changes": (estimates.by_name({"change by the intervention": changes}, "sensitivity, nats/token", 0.0),
                    "With the intervention less without it, seed by seed; left of 0 it lowers the sensitivity."),
    }
    return {name: (png(figure), caption) for name, (figure, caption) in drawn.items()}


def page(store: Store, found: Findings) -> tuple[Page, dict[str, bytes]]:
    """The page and its figures."""
    drawn = figures(found)
    made = Page("What makes the learning rate matter less?")
    made.paragraph(headline(found), "answer")
    for name in ("losses", "sensitivity", "changes"):
        made.figure(*drawn[name])
    made.table(arms_table(found))
    made.heading("Claims")
    made.table(claims_table(found.claims))
    made.end(found.notes, [cost_table(store)], method(found))
    return made, {name: content for name, (content, _) in drawn.items()}


def method(found: Findings) -> list[str]:
    """How the numbers came about."""
    s = found.settings
    return [
        f"Peak rates {', '.join(f'{rate:g}' for rate in s.rates)}, {len(s.seeds)} seeds; AdamW, cosine to an absolute "
        f"floor of {s.floor:g}. Warm-up {s.warmup:.0%} of the steps, z-loss {s.z_loss:g}.",
        "Sensitivity of a seed: mean over the rates of min(loss, loss before training) less the least loss. A run that "
        "diverged counts as its loss before training.",
        "Independent decay takes in all as much as in the paper (1e-4 a step x 1e5 steps); coupled decay equals it at "
        f"a peak of {s.agreeing_rate:g}.",
        "The paper tests warm-up and decay on models with qk-norm and z-loss; here on models with and without.",
        f"Intervals: Student's over seeds, differences seed by seed, {s.level:.0%}. Loss at the best rate: at the "
        "swept rate whose mean over seeds is least.",
        "Made again from the store alone by python -m experiments.report.",
    ]
