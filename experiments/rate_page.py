"""The report of experiments.rate: the rates found, the plot of each part, how they came about."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from experiments.critical_ratio_page import decision_record
from experiments.page import Page
from experiments.rate import LEVEL, SPACING, Findings
from scaling.figures.rates import range_tests, rate_sweep
from scaling.figures.style import png
from scaling.fitting.range_test import FIRST_RATES, SMOOTHING, WITHIN
from scaling.store import Store


def headline(found: Findings) -> str:
    """Both answers in a sentence each."""
    value, low, high = found.highest
    best, tests = found.optimum.at["lr"], len(found.tests)
    refused = sum(test.refusal is not None for test in found.tests.values())
    interval = "" if math.isnan(low) else f" ({LEVEL:.0%} interval {low:.2g} to {high:.2g} over seeds)"
    range_text = (f"Range test: the largest rate borne is {value:.2g}{interval}, {tests} runs, {refused} refused; "
                  f"start a cycle at {value / FIRST_RATES[0]:.1g} to {value / FIRST_RATES[1]:.1g}.")
    count = f"{len(found.sweep)} runs, {found.optimum.dropped} diverged"
    if best.refusal is not None:
        return f"{range_text} Sweep: no best peak is known ({count}): {best.refusal.reason}."
    low, high = found.optimum.basin(0.01)["lr"]
    return (f"{range_text} Sweep: the best peak is {best.value:.3g} ({LEVEL:.0%} interval {best.low:.3g} to "
            f"{best.high:.3g}), {count}; by the quadratic, {low:.2g} to {high:.2g} cost at most 1 % of the loss.")


def sweep_table(found: Findings) -> pd.DataFrame:
    """Final loss by peak rate: mean and range over the seeds that did not diverge."""
    rows = []
    for rate, part in found.sweep.groupby("lr"):
        loss = part.loss.dropna()
        span = f"{loss.mean():.4f} [{loss.min():.4f}, {loss.max():.4f}]" if len(loss) else "none"
        rows.append({"peak": f"{rate:.3g}", "loss, mean [range]": span, "diverged": f"{len(part) - len(loss)}"})
    return pd.DataFrame(rows)


def summary(found: Findings) -> str:
    """What a person needs on the terminal."""
    return "\n".join([headline(found), "", sweep_table(found).to_string(index=False)])


def record(found: Findings) -> dict[str, Any]:
    """fits.json: every number behind the answers."""
    tests = {str(seed): {"highest": test.highest, "refusal": test.refusal and str(test.refusal)}
             for seed, test in found.tests.items()}
    ends = [None if math.isnan(end) else end for end in found.highest]
    curvature = found.optimum.by_curvature["lr"]
    return {"headline": headline(found), "range_tests": tests, "highest": dict(zip(("value", "low", "high"), ends,
                                                                                   strict=True)),
            "sweep": [{**row, "loss": None if math.isnan(row["loss"]) else row["loss"]}
                      for row in found.sweep.to_dict("records")],
            "optimum": decision_record(found.optimum.at["lr"]),
            "interval_by_curvature": [end if math.isfinite(end) else None for end in curvature]}


def page(store: Store, found: Findings) -> tuple[Page, dict[str, bytes]]:
    """The page and its figures."""
    s = found.settings
    drawn = {
        "range_test": png(range_tests({f"seed {seed}": test for seed, test in found.tests.items()}, found.highest)),
        "rate_sweep": png(rate_sweep(found.optimum)),
    }
    lag = 1 / (1 - SMOOTHING)
    rate_T = next(iter(found.tests.values())).rate_T
    at = float(np.interp(found.highest.value, rate_T, np.arange(len(rate_T))))
    growth = rate_T[round(at)] / rate_T[max(round(at - lag), 0)]
    made = Page("Which learning rate?")
    made.paragraph(headline(found), "answer")
    made.heading("Range test")
    made.figure(drawn["range_test"], f"The rate grows every step ({s.growth}), {s.steps} steps a run. Dots: training "
                "loss of each batch; lines: smoothed; large dots: lr_max of each run.")
    made.heading("Sweep of peak rates")
    made.figure(drawn["rate_sweep"], "Last held-out loss of the whole configuration at each peak.")
    made.table(sweep_table(found))
    made.heading("Method")
    made.items([
        f"Range test: lr_max is the largest rate at which the smoothed loss (moving average, weight {SMOOTHING:g}, "
        f"free of its start) is within {WITHIN:.0%} of its least. Smoothing lags by about {lag:.0f} steps, and lr_max "
        f"may be too high by as many steps of growth, a factor of {growth:.2g} there: more --range_steps lower it. "
        "The interval is Student's over seeds, of the "
        "logarithm: it does not count the choice of rule, length and growth, on which lr_max depends.",
        f"Sweep: peaks a factor of {SPACING:g} apart, the highest {SPACING:g} lr_max; weighted least squares of the "
        "loss in the log rate. The interval is a bootstrap over runs: it does not count that runs of one seed share "
        "their start and data, nor the held-out windows.",
        "Made again from the store alone by python -m experiments.report.",
    ])
    return made, drawn
