"""The report of the study `critical_ratio`: its answer in a sentence, figures, tables, cost, what is not identified."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pandas as pd

from experiments.branches import branches
from experiments.continual import claims_table
from experiments.critical_ratio import Findings, SizeAnswer
from experiments.page import Page
from scaling.figures import mixture
from scaling.figures.style import png
from scaling.fitting import Decision
from scaling.store import Store


def share_text(decision: Decision | None) -> str:
    """A critical share with its interval, or the word for why there is none."""
    if decision is None or math.isnan(decision.value):
        return "none"
    interval = f"{decision.value:.0%} [{decision.low:.0%}, {decision.high:.0%}]"
    return interval if decision.refusal is None else f"{interval}, refused: {decision.refusal.kind}"


def headline(found: Findings) -> str:
    """The answer for the largest size in one sentence."""
    s, largest = found.settings, found.answers[-1]
    subject = (f"A model of {largest.parameters:,.0f} parameters (without embeddings) trained on {s.general} can take "
               f"in {found.tokens:,.0f} tokens of which")
    shares = sum(share > 0 for share in s.shares)
    way = f"by the CMR ratio law, {len(s.seeds)} trunks x {shares} shares; the interval is given these trunks and text"
    decision = largest.cmr
    if decision.refusal is None:
        return (f"{subject} {decision.value:.0%} is {s.target} ({s.level:.0%} interval {decision.low:.0%} to "
                f"{decision.high:.0%}) before its {s.general} loss rises by more than {s.tolerance} nats/token "
                f"({way}).")
    if decision.refusal.kind == "unbounded":
        return (f"{subject} all may be {s.target}: even then its {s.general} loss rises by no more than {s.tolerance} "
                f"nats/token ({way}).")
    return f"No critical share is known for {largest.parameters:,.0f} parameters: {decision.refusal.reason} ({way})."


def answers_table(found: Findings) -> pd.DataFrame:
    """Critical shares by size and way."""
    def row(answer: SizeAnswer) -> dict[str, str]:
        measured = ", ".join("none" if math.isnan(x) else f"{x:.0%}" for x in answer.measured.values())
        return {"width": str(answer.width), "parameters": f"{answer.parameters:,.0f}", "measured, by trunk": measured,
                "CMR ratio law": share_text(answer.cmr), "D-CPT, all sizes": share_text(answer.d_cpt),
                "CMR from turning points": share_text(answer.turning)}

    return pd.DataFrame([row(answer) for answer in found.answers])


def summary(found: Findings) -> str:
    """What a person needs on the terminal."""
    claims = [f"{claim.verdict}: {claim.statement}; {claim.measured}, n = {claim.n}" for claim in found.claims]
    return "\n".join([headline(found), "", answers_table(found).to_string(index=False), "", *claims])


def decision_record(value: Decision | None) -> dict[str, Any] | None:
    """A decision as JSON values, without its draws."""
    if value is None:
        return None
    numbers = {name: _number(getattr(value, name)) for name in ("value", "low", "high", "level", "unsolved")}
    return {**numbers, "refusal": dataclasses.asdict(value.refusal) if value.refusal else None}


def record(found: Findings) -> dict[str, Any]:
    """fits.json: every fit as `Fit.from_json` reads it, every decision, claim and refusal."""
    answers = [{"width": a.width, "parameters": a.parameters, "tokens": found.tokens,
                "measured": {seed: _number(share) for seed, share in a.measured.items()},
                "turning_note": a.turning_note,
                **{way: decision_record(getattr(a, way)) for way in ("cmr", "d_cpt", "turning")}}
               for a in found.answers]
    claims = [{key: _number(value) if isinstance(value, float) else value
               for key, value in dataclasses.asdict(claim).items()} for claim in found.claims]
    return {"settings": dataclasses.asdict(found.settings), "headline": headline(found), "answers": answers,
            "claims": claims, "not_identified": found.not_identified,
            "fits": {name: fit.to_json() for name, fit in found.fits.items()}}


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def figures(store: Store, found: Findings) -> dict[str, tuple[bytes, str]]:
    """PNG and caption by name."""
    s = found.settings
    table = branches(store, s.target)
    sizes = [answer.parameters for answer in found.answers]
    cmr = {size: found.fits[f"cmr-ratio width {a.width}"] for size, a in zip(sizes, found.answers, strict=True)}
    decisions = {size: answer.cmr for size, answer in zip(sizes, found.answers, strict=True)}
    ways = {"CMR ratio law": [a.cmr for a in found.answers], "D-CPT": [a.d_cpt for a in found.answers]}
    drawn = {
        "ratio_law": (mixture.ratio_law(table, s.general, cmr, decisions, s.tolerance),
                      f"What {s.target} costs: change of {s.general} loss at the end of each branch. The shaded span "
                      f"is the {s.level:.0%} interval of the critical share."),
        "critical_share": (mixture.critical_by_size(sizes, ways, [list(a.measured.values()) for a in found.answers]),
                           "Critical share against model size, by law and as measured."),
        "general_curves": (mixture.change_curves(table, s.general),
                           f"{s.general} loss after the branch, mean over trunks, by share of {s.target}."),
        "target_curves": (mixture.change_curves(table, s.target),
                          f"{s.target} loss after the branch, mean over trunks, by share of {s.target}."),
        "held_out_size": (mixture.held_out_size(found.held_out),
                          "D-CPT fitted without the largest size, and what it says of that size's last losses."),
    }
    return {name: (png(figure), caption) for name, (figure, caption) in drawn.items()}


def page(store: Store, found: Findings) -> tuple[Page, dict[str, bytes]]:
    """The page and its figures."""
    s, drawn = found.settings, figures(store, found)
    made = Page(f"How much {s.target} can a model trained on {s.general} take in?")
    made.paragraph(headline(found), "answer")
    made.heading("Critical share by size")
    made.table(answers_table(found))
    for name in ("ratio_law", "critical_share", "general_curves", "target_curves"):
        made.figure(*drawn[name])
    made.heading("Does the law hold for a size it never saw?")
    made.figure(*drawn["held_out_size"])
    made.heading("Claims")
    made.table(claims_table(found.claims))
    made.end(found.not_identified, [cost_table(store)], method(found),
             {name: fit.summary() for name, fit in found.fits.items()})
    return made, {name: content for name, (content, _) in drawn.items()}


def cost_table(store: Store) -> pd.DataFrame:
    """Runs, tokens, FLOPs and seconds by kind, and how runs ended."""
    runs = store.read("runs")
    kind = np.where(runs.parent_id.isna(), "trunks", "branches")
    rows = []
    for name, part in runs.groupby(kind):
        ended = ", ".join(f"{count} {status}" for status, count in part.status.value_counts().items())
        rows.append({"kind": name, "runs": ended, "tokens": f"{part.tokens.sum():,.0f}",
                     "FLOPs": f"{part.flops.sum():.3g}", "seconds": f"{part.wall_seconds.sum():,.0f}",
                     "device": part.device.iloc[0]})
    return pd.DataFrame(rows)


def method(found: Findings) -> list[str]:
    """How the numbers came about."""
    s = found.settings
    return [
        f"Trunks: widths {', '.join(map(str, s.widths))}, seeds {', '.join(map(str, s.seeds))}, on {s.general} alone. "
        f"Each is continued for {s.branch_steps} steps at a constant rate of {s.branch_peak:g} at every share of "
        f"{s.target}: {', '.join(f'{share:g}' for share in s.shares)}.",
        "Losses are nats a token on held-out windows. Every loss is held against its own trunk's.",
        f"CMR ratio law: one fit a size to the last losses, shares above 0, least squares. D-CPT: all sizes, the "
        f"points after the first {s.fit_from:.0%} of each branch, Huber on log loss. Intervals: bootstrap over "
        f"branches, {s.bootstrap} draws, percentile, {s.level:.0%}.",
        "Held-out error: D-CPT fitted without the largest size, on that size's last losses.",
        "Made again from the store alone by python -m experiments.report.",
    ]
