"""The report of the study `cmr`: ratios by tokens and size, how well the four laws hold, what sharing saved."""

from __future__ import annotations

import dataclasses
from typing import Any

import pandas as pd

from experiments.branches import branches
from experiments.cmr import Findings, Settings, Size
from experiments.cmr_claims import UNSEEN_RATIO_ERROR
from experiments.continual import claims_table, claims_text, plain
from experiments.critical_ratio_page import cost_table, decision_record, share_text
from experiments.page import Page
from experiments.statistics import Interval
from scaling.figures import critical, mixture
from scaling.figures.style import png
from scaling.fitting import Decision
from scaling.store import Store


def headline(found: Findings) -> str:
    """The answer for the largest size in one sentence."""
    s, size = found.settings, found.sizes[-1]
    known = {tokens: decision for tokens, decision in size.critical.items() if decision.refusal is None}
    subject = f"A model of {size.parameters:,.0f} parameters (without embeddings) trained on {s.general}"
    if not known:
        return f"{subject} has no critical share of {s.target} that the data identify."
    first, *rest = [f"{share_text(decision)} {s.target} after {tokens:,.0f} tokens"
                    for tokens, decision in sorted(known.items())]
    return (f"{subject} may hold at most {', '.join([first, *rest])}: with more, its {s.general} loss still rises "
            f"then, or is up by more than {s.tolerance} nats/token where it turns.")


def answers_table(found: Findings) -> pd.DataFrame:
    """Both ratios by size and tokens."""
    rows = []
    for size in found.sizes:
        for tokens, within in size.within.items():
            rows.append({"width": size.width, "parameters": f"{size.parameters:,.0f}", "tokens": f"{tokens:,.0f}",
                         "critical ratio, turned": share_text(size.critical.get(tokens)),
                         "within the tolerance, ratio law": share_text(within),
                         "within the tolerance, measured": _interval(size.crossings[tokens])})
    return pd.DataFrame(rows)


def _interval(interval: Interval) -> str:
    if interval.value != interval.value:
        return "none"
    return f"{interval.value:.0%} [{interval.low:.0%}, {interval.high:.0%}]"


def turning_table(found: Findings) -> pd.DataFrame:
    """Turning points by size and ratio, in tokens, with the reason where one is left out."""
    rows = []
    for size in found.sizes:
        for share, turn in size.curve.turning.items():
            refusal = size.curve.left_out.get(share)
            rows.append({"width": size.width, "share": f"{share:.0%}", "turns at": _tokens(turn),
                         "left out": "" if refusal is None else refusal.reason})
    return pd.DataFrame(rows)


def _tokens(turn: Decision) -> str:
    return f"{turn.value:,.0f} [{turn.low:,.0f}, {turn.high:,.0f}]"


def sharing_table(found: Findings) -> pd.DataFrame:
    """What the sweep cost, and each branch from scratch, by size."""
    cost = found.cost
    return pd.DataFrame({
        "width": cost.width, "trunks": cost.trunks, "branches": cost.branches,
        "FLOPs": cost.shared_flops.map("{:.3g}".format), "from scratch": cost.scratch_flops.map("{:.3g}".format),
        "ratio": (cost.shared_flops / cost.scratch_flops).map("{:.2f}".format),
        "seconds": cost.shared_seconds.map("{:.0f}".format),
        "seconds from scratch": cost.scratch_seconds.map("{:.0f}".format),
        "ratio of seconds": (cost.shared_seconds / cost.scratch_seconds).map("{:.2f}".format)})


def summary(found: Findings) -> str:
    """What a person needs on the terminal."""
    return "\n".join([headline(found), "", answers_table(found).to_string(index=False), "", claims_text(found.claims)])


def record(found: Findings) -> dict[str, Any]:
    """fits.json: laws with draws as `Fit.from_json` reads them, those in tokens by their parameters, every decision,
    claim and refusal.
    """
    return {
        "settings": plain(found.settings), "headline": headline(found),
        "sizes": [_size_record(size) for size in found.sizes], "unseen": plain(found.unseen),
        "quality": plain(found.quality), "cost": plain(found.cost),
        "claims": [plain(dataclasses.asdict(claim)) for claim in found.claims],
        "not_identified": found.not_identified,
    }


def _size_record(size: Size) -> dict[str, Any]:
    curve = size.curve
    fits = {f"{role} loss against ratio": fit for role, fit in size.ratio_laws.items()}
    if curve.curve is not None:
        fits["critical ratio against tokens"] = curve.curve
    in_tokens = [{"share": share, "general": plain(curve.general[share].parameters),
                  "domain": plain(curve.domain[share].parameters), "turning": decision_record(turn),
                  "left_out": plain(curve.left_out.get(share))} for share, turn in curve.turning.items()]
    return {
        "width": size.width, "parameters": size.parameters, "laws_in_tokens": in_tokens,
        "critical": {f"{tokens:.0f}": decision_record(each) for tokens, each in size.critical.items()},
        "within": {f"{tokens:.0f}": decision_record(each) for tokens, each in size.within.items()},
        "crossings": {f"{tokens:.0f}": plain(tuple(each)) for tokens, each in size.crossings.items()},
        "fits": {name: fit.to_json() for name, fit in fits.items()},
    }


def figures(store: Store, found: Findings) -> dict[str, tuple[bytes, str]]:
    """PNG and caption by name."""
    s, sizes = found.settings, found.sizes
    table = branches(store, s.target)
    curves = {size.parameters: size.curve for size in sizes}
    last = {size.parameters: size.within[max(size.within)] for size in sizes}
    laws = {size.parameters: size.ratio_laws["general"] for size in sizes}
    drawn = {
        "turning_curves": (critical.turning_curves(table, s.general, curves, s.tolerance),
                           f"{s.general} loss after the branch by share of {s.target}: means over trunks, the law with "
                           "two powers of tokens, and where it turns (ratios left out have no star)."),
        "critical_by_tokens": (critical.critical_by_tokens(curves, s.level),
                               f"The critical ratio against tokens, with {s.level:.0%} intervals."),
        "critical_by_size": (critical.shares_by_size(list(curves), _panels(found)),
                             "The critical ratio, and the largest ratio within the tolerance, against model size."),
        "ratio_law": (mixture.ratio_law(table, s.general, laws, last, s.tolerance),
                      f"Change of {s.general} loss at the end of the branches, and the largest share within the "
                      "tolerance."),
        "target_curves": (mixture.change_curves(table, s.target), f"{s.target} loss after the branch, by its share."),
        "unseen_ratios": (critical.unseen_errors(found.unseen, UNSEEN_RATIO_ERROR),
                          "Each inner ratio held out and predicted by the ratio law (dots), or by a straight line "
                          "between its neighbours (crosses); the dotted lines are the mean error of a perfect law."),
    }
    return {name: (png(figure), caption) for name, (figure, caption) in drawn.items()}


def _panels(found: Findings) -> dict[str, dict[str, list[Decision | None]]]:
    times = sorted(found.sizes[0].within)
    return {"critical ratio (turned)": {f"{t:,.0f} tokens": [size.critical.get(t) for size in found.sizes]
                                        for t in times},
            "within the tolerance": {f"{t:,.0f} tokens": [size.within.get(t) for size in found.sizes] for t in times}}


def page(store: Store, found: Findings) -> tuple[Page, dict[str, bytes]]:
    """The page and its figures."""
    s, drawn = found.settings, figures(store, found)
    made = Page(f"How the critical share of {s.target} moves with tokens and model size")
    made.paragraph(headline(found), "answer")
    made.heading("Claims")
    made.table(claims_table(found.claims))
    made.heading("Critical ratio by size and tokens")
    made.table(answers_table(found))
    for name in ("critical_by_tokens", "critical_by_size"):
        made.figure(*drawn[name])
    made.heading("Where the general loss turns")
    made.figure(*drawn["turning_curves"])
    made.table(turning_table(found))
    made.heading("Losses against the ratio")
    for name in ("ratio_law", "unseen_ratios", "target_curves"):
        made.figure(*drawn[name])
    fits = {f"width {size.width}, {name}": fit.summary() for size in found.sizes
            for name, fit in {**size.ratio_laws, "critical ratio": size.curve.curve}.items() if fit is not None}
    made.end(found.not_identified, [sharing_table(found), cost_table(store)], method(s), fits)
    return made, {name: content for name, (content, _) in drawn.items()}


def method(s: Settings) -> list[str]:
    """How the numbers came about."""
    return [
        f"Trunks: widths {', '.join(map(str, s.widths))}, seeds {', '.join(map(str, s.seeds))}, on {s.general} alone, "
        f"a cosine down to {s.branch_peak:g}. Each is continued at that rate for {s.branch_steps} steps at every share "
        f"of {s.target}: {', '.join(f'{share:g}' for share in s.shares)}. The paper's trunks saw 200B tokens of a "
        "mixture, ours are small and far from converged.",
        "Losses are nats a token on held-out windows. Every loss is held against its own trunk's.",
        "Critical ratio: laws in tokens a ratio, least squares; the turning point of the general loss; the law through "
        f"the turning points that lie within the branch and rise by at most {s.tolerance} nats/token. Within the "
        "tolerance: the ratio law of the general loss's change, solved for the tolerance.",
        f"Intervals: {s.level:.0%}, bootstrap over trunk seeds ({s.bootstrap} draws; a seed's branches of all ratios "
        "stay together), or over sizes where a claim says so. They count seeds, not the choice of held-out windows "
        "or of text, and hold given the form of the laws.",
        "From scratch: a branch's own FLOPs and seconds, and its trunk's up to where it left. Seconds are wall clock, "
        "a pack's evenly among its runs.",
        "Made again from the store alone by python -m experiments.report.",
    ]
