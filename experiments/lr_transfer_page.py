"""The report of the study `lr_transfer`: the answer in a sentence, figures, claims, what is not identified."""

from __future__ import annotations

from typing import Any

import pandas as pd

from experiments.continual import claims_table, claims_text, plain, said
from experiments.critical_ratio_page import cost_table
from experiments.lr_transfer import (
    LAYERWISE,
    MUP,
    STANDARD,
    Findings,
    decayed,
    losses,
    spectral_slopes,
    time_constants,
)
from experiments.page import Page
from experiments.statistics import Interval
from scaling.figures import estimates, transfer
from scaling.figures.style import png
from scaling.store import Store


def _interval(table: pd.DataFrame, arm: str) -> Interval:
    return Interval(*table.loc[table.name == arm, ["value", "low", "high"]].to_numpy(float)[0])


def headline(found: Findings) -> str:
    """The answer in a sentence."""
    s = found.settings
    parts = [f"{arm}: {said(_interval(found.shifts, arm), '')}, {said(_interval(found.regrets, arm))}"
             for arm in (STANDARD, MUP, decayed(LAYERWISE))]
    return (f"From width {s.widths[0]} to {s.widths[-1]}, shift of the best rate (log2 per doubling of width) and loss "
            f"that the narrowest's best rate costs the widest: {'; '.join(parts)} ({s.level:.0%} intervals over "
            f"{len(s.seeds)} seeds).")


def best_table(found: Findings) -> pd.DataFrame:
    """Best rate with interval, by arm and width."""
    rows = found.best.assign(text=[f"{row.lr:.3g} [{row.low:.2g}, {row.high:.2g}]" + " refused" * bool(row.refused)
                                   for row in found.best.itertuples()])
    return rows.pivot(index="arm", columns="width", values="text").loc[list(found.settings.arms)].rename(
        columns="width {}".format).reset_index().rename_axis(columns=None)


def arms_table(found: Findings) -> pd.DataFrame:
    """Shift and cost of transfer, by arm."""
    arms = list(found.settings.arms)
    return pd.DataFrame({
        "arm": arms, "shift, log2 rate per doubling of width": [said(_interval(found.shifts, arm), "") for arm in arms],
        "cost of the narrowest's best rate at the widest, nats/token": [
            said(_interval(found.regrets, arm), "") for arm in arms]})


def spectra_table(found: Findings) -> pd.DataFrame:
    """Mean slope of log top singular values by rule, what the steady state would have, time constants at both ends."""
    s, rate = found.settings, found.best.set_index(["arm", "width"]).lr
    slopes, rows = spectral_slopes(found.spectra), []
    for exponent in s.exponents:
        arm = decayed(exponent)
        own = slopes[slopes.arm == arm].slope
        ends = [time_constants(s, rate[arm, s.widths[0]], exponent, width) for width in (s.widths[0], s.widths[-1])]
        rows.append({"arm": arm, "mean slope": f"{own.mean():+.3f}", "mean |slope|": f"{own.abs().mean():.3f}",
                     "slope in a steady state": f"{0.25 - exponent / 2:+.2f}",
                     "time constants, narrowest to widest": f"{ends[0]:.1f} to {ends[1]:.1f}"})
    return pd.DataFrame(rows)


def summary(found: Findings) -> str:
    """What a person needs on the terminal."""
    tables = (table.to_string(index=False) for table in (best_table(found), arms_table(found), spectra_table(found)))
    return "\n\n".join([headline(found), *tables, claims_text(found.claims)])


def record(found: Findings) -> dict[str, Any]:
    """fits.json: every number behind the answers."""
    tables = {"shifts": found.shifts, "regrets": found.regrets}
    listed = {name: plain(table.assign(values=table["values"].map(list))) for name, table in tables.items()}
    return {"headline": headline(found), **plain(found), **listed}


def figures(store: Store, found: Findings) -> dict[str, tuple[bytes, str]]:
    """PNG and caption by name."""
    s = found.settings
    swept = losses(store, s)
    swept, level = swept[swept.seed.isin(s.seeds)], f"{s.level:.0%} intervals over seeds"
    shifts, regrets = ({title: table[table.value.notna()]} for title, table in (
        ("shift of the best rate with width", found.shifts), ("cost of the narrowest's best rate", found.regrets)))
    drawn = {
        "rate_curves": (transfer.rate_curves(swept, found.best),
                        "Final loss against the peak rate, mean and range over seeds. Strokes at the foot: the optima. "
                        "Losses worse than half of all runs may lie above the frame."),
        "optima": (transfer.optima_by_width(found.best), f"The optima against width; {level}."),
        "shifts": (estimates.by_name(shifts, "log2 rate per doubling of width", -1.0),
                   f"Slope of the log optimum, {level}; dots: seeds. Dashed: a rate that goes as 1/width. Arms with a "
                   "refused optimum are left out."),
        "regrets": (estimates.by_name(regrets, "excess loss, nats/token", 0.0),
                    f"Width {s.widths[-1]} at width {s.widths[0]}'s best rate less at its own, on fresh seeds; "
                    f"{level}; dots: seeds."),
        "spectra": (transfer.spectra_by_width(found.spectra),
                    f"Top singular values of hidden matrices at the end of the constant part (step {s.settled}), at "
                    f"rate {found.spectra.lr.iloc[0]:g}. Bold: geometric mean of the matrices."),
    }
    return {name: (png(figure), caption) for name, (figure, caption) in drawn.items()}


def page(store: Store, found: Findings) -> tuple[Page, dict[str, bytes]]:
    """The page and its figures."""
    drawn = figures(store, found)
    made = Page("Does the best learning rate of a narrow model hold for a wide one?")
    made.paragraph(headline(found), "answer")
    for name in ("rate_curves", "optima"):
        made.figure(*drawn[name])
    made.table(best_table(found))
    made.heading("What moves, and what it costs")
    for name in ("shifts", "regrets"):
        made.figure(*drawn[name])
    made.table(arms_table(found))
    made.heading("Decay and top singular values")
    made.figure(*drawn["spectra"])
    made.table(spectra_table(found))
    made.heading("Claims")
    made.table(claims_table(found.claims))
    made.end(found.not_identified, [cost_table(store)], method(found))
    return made, {name: content for name, (content, _) in drawn.items()}


def method(found: Findings) -> list[str]:
    """How the numbers came about."""
    s = found.settings
    return [
        f"Every arm at widths {', '.join(map(str, s.widths))} (heads of width {s.head_width}), {len(s.rates)} peak "
        f"rates a factor of {s.rates[1] / s.rates[0]:g} apart and {len(s.seeds)} seeds. At width {s.widths[0]} muP is "
        "the standard model, and the three rules of decay are one.",
        f"Standard and muP have no weight decay; the other arms {s.decay:g} on hidden matrices at the base, times the "
        "rate. Warm-up, a constant part, then linear to zero over the last fifth.",
        f"Optimum of a seed: vertex of a quadratic in the log rate, weights exp(-excess/{s.near:g}) of the relative "
        "excess of the loss. An arm in which an optimum lies at an end of the swept rates has no shift.",
        f"Cost of transfer: {len(s.fresh_seeds)} fresh seeds train the widest model at both rates, which the other "
        "seeds chose.",
        "Singular values: in a steady state of AdamW they go as √(rate/decay) width^¾ (Fan et al. 2025), with muP's "
        "rate as width^(¼ - exponent/2).",
        "Made again from the store alone by python -m experiments.report.",
    ]
