"""The report of the study `schedule_theory`: the answer in a sentence, order, best rates, longer runs, claims."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from experiments.continual import claims_table, claims_text, plain, said, seeds_interval
from experiments.critical_ratio_page import cost_table
from experiments.page import Page
from experiments.schedule_runs import COSINE, WSD
from experiments.schedule_theory import WIDTH, Findings, exponents, extension_gaps, refused_interval
from scaling.figures import schedules
from scaling.figures.estimates import by_name
from scaling.figures.style import png
from scaling.store import Store


def measured(found: Findings, column: str) -> pd.DataFrame:
    """Mean over seeds (of a "rate" geometric) of best rates or of tuned losses, with interval: name, value, ends."""
    s, rows = found.settings, []
    optima = found.optima[found.optima.steps == s.steps].set_index("schedule")
    for name in s.schedules:
        values = np.log(optima.loc[name].rate) if column == "rate" else found.tuned[name]
        interval = np.array(refused_interval(values, s))
        value, low, high = np.exp(interval) if column == "rate" else interval
        rows.append({"name": name, "value": value, "low": low, "high": high})
    return pd.DataFrame(rows)


def headline(found: Findings) -> str:
    """The answer in one sentence."""
    s = found.settings
    ratio = next(claim for claim in found.claims if claim.statement.endswith(f"below that of {COSINE}"))
    order = found.claims[0]
    slopes = ", ".join(f"{refused_interval(exponents(found.optima, name, s), s).value:+.2f} ({name})"
                       for name in s.over_horizons)
    return (f"Bound and tuned losses rank {len(found.theory)} schedules with correlation {order.value:.2f} "
            f"({order.verdict} as positive); best rate of {WSD} over {COSINE}: {ratio.measured}; exponent of the best "
            f"rate in the length of a run: {slopes}, the theory's -0.5.")


def optima_table(found: Findings) -> pd.DataFrame:
    """Best rate and its loss of every schedule with intervals over seeds, beside the bound's."""
    rate, loss = measured(found, "rate"), measured(found, "loss")
    both = found.theory.merge(rate, left_on="schedule", right_on="name").merge(loss, on="name",
                                                                                     suffixes=("", "_loss"))
    return pd.DataFrame([
        {"schedule": row["name"], "best rate [interval]": f"{row['value']:.3g} [{row['low']:.3g}, {row['high']:.3g}]",
         "loss at the best peak [interval]": f"{row['value_loss']:.4f} [{row['low_loss']:.4f}, {row['high_loss']:.4f}]",
         "bound's rate": f"{row['rate']:.4f}",
         "bound there": f"{row['bound']:.4f}"} for row in both.to_dict("records")])


def horizons_table(found: Findings) -> pd.DataFrame:
    """Best rate by length of the run."""
    s, rows = found.settings, []
    for name in s.over_horizons:
        part = found.optima[found.optima.schedule == name]
        texts = {f"{steps} steps": "{:.3g} [{:.3g}, {:.3g}]".format(*np.exp(refused_interval(
            np.log(part.rate[part.steps == steps]), s))) for steps in s.horizons}
        slope = refused_interval(exponents(found.optima, name, s), s)
        rows.append({"schedule": name, **texts, "exponent": said(slope, "")})
    return pd.DataFrame(rows)


def gaps(found: Findings) -> dict[str, pd.DataFrame]:
    """Gain of each way to lower the rate of an extended run, by its length: name, interval, values."""
    s = found.settings
    return {f"extended to {multiple} T": pd.DataFrame([
        {"name": arm, **seeds_interval(gap, s.level)._asdict(), "values": gap.to_numpy()}
        for arm, gap in extension_gaps(found.arms, multiple).items()]) for multiple in s.extensions}


def arms_table(found: Findings) -> pd.DataFrame:
    """Mean last loss of extended runs, and the gain over keeping the rate."""
    mean = found.arms.groupby(["multiple", "arm"]).loss.mean().reset_index()
    gain = {(multiple, row["name"]): said(seeds_interval(pd.Series(row["values"]), found.settings.level))
            for multiple, table in zip(found.settings.extensions, gaps(found).values(), strict=True)
            for row in table.to_dict("records")}
    return pd.DataFrame([{"length": f"{multiple} T", "rate": arm, "last loss": f"{loss:.4f}",
                          "gain over the rate kept": gain.get((multiple, arm), "")}
                         for multiple, arm, loss in mean.itertuples(index=False)])


def summary(found: Findings) -> str:
    """What a person needs on the terminal."""
    tables = (optima_table(found), horizons_table(found), arms_table(found))
    return "\n".join([headline(found), *("\n" + table.to_string(index=False) for table in tables), "",
                      claims_text(found.claims)])


def record(found: Findings) -> dict[str, Any]:
    """fits.json: every optimum, the bound's say, extended runs, claims and refusals."""
    parts = ("settings", "sweeps", "optima", "tuned", "theory", "arms", "claims", "not_identified")
    return {"headline": headline(found), **{name: plain(getattr(found, name)) for name in parts}}


def figures(found: Findings) -> dict[str, tuple[bytes, str]]:
    """PNG and caption by name."""
    s = found.settings
    theory = found.theory.rename(columns={"schedule": "name"})
    rate, loss = (measured(found, column) for column in ("rate", "loss"))
    optima = {row["name"]: (row["value"], row["low"], row["high"]) for row in rate.to_dict("records")}
    swept = found.sweeps[found.sweeps.steps == s.steps].set_index("schedule").loc[[*s.schedules]].reset_index()
    order = loss.merge(theory.rename(columns={"bound": "theory"})[["name", "theory"]], on="name")
    rates = rate.merge(theory.rename(columns={"rate": "theory"})[["name", "theory"]], on="name")
    drawn = {
        "sweeps": (schedules.by_peak(swept, optima), f"Last loss by peak rate, {s.steps} steps, and each schedule's "
                   "best rate: geometric mean over seeds with interval."),
        "order": (schedules.against({"order of tuned schedules": order}, "bound at its best rate, D = G = 1",
                                    "last loss at the best peak, nats/token", "linear"),
                  "Tuned loss against the bound: the theory wants it to rise from left to right."),
        "best_rates": (schedules.against({"best rates": rates}, "the bound's best rate, D = G = 1",
                                         "measured best peak rate", "log"),
                       "Measured best rates against the bound's: the theory wants a straight line of slope 1."),
        "horizons": (schedules.horizons(found.optima[found.optima.schedule.isin(s.over_horizons)
                                                     & found.optima.rate.notna()], -0.5),
                     "Best rate against the length of a run; dashes fall as 1/sqrt(steps)."),
        "extensions": (by_name(gaps(found), "last loss, rate kept less lowered, nats/token", 0.0),
                       f"A wsd run tuned for T = {s.steps} steps and extended, {len(s.check_seeds)} fresh seeds: right "
                       "of 0 the lowered rate ends lower."),
    }
    return {name: (png(figure), caption) for name, (figure, caption) in drawn.items()}


def page(store: Store, found: Findings) -> tuple[Page, dict[str, bytes]]:
    """The page and its figures."""
    drawn = figures(found)
    made = Page("Does a bound from convex optimisation say which schedule and which rate are best?")
    made.paragraph(headline(found), "answer")
    made.figure(*drawn["order"])
    made.figure(*drawn["best_rates"])
    made.table(optima_table(found))
    made.figure(*drawn["sweeps"])
    made.heading("Longer runs")
    made.figure(*drawn["horizons"])
    made.table(horizons_table(found))
    made.figure(*drawn["extensions"])
    made.table(arms_table(found))
    made.heading("Claims")
    made.table(claims_table(found.claims))
    made.end(found.not_identified, [cost_table(store)], method(found))
    return made, {name: content for name, (content, _) in drawn.items()}


def method(found: Findings) -> list[str]:
    """How the numbers came about."""
    s = found.settings
    return [
        f"Runs of {', '.join(map(str, s.horizons))} steps, the first {s.warmup:.0%} warm-up, all to rate 0 but "
        "constant and inverse sqrt; wsd falls over the last fifth. Peaks: "
        f"{', '.join(f'{peak:g}' for peak in s.peaks)}.",
        "Best rate: a quadratic of the last loss in the log rate through the means over seeds, each weighted by "
        f"exp(-e/{WIDTH:g}), e its relative excess over the best; interval: jackknife over seeds. Tuned loss: at the "
        "swept peak of least mean loss, which favours every schedule a little.",
        "Bound: last iterate of SGD, gradients constant, on the table of rates that acted, warm-up included.",
        "Extensions: the wsd run at its best peak for T goes on from where it would have fallen, at that rate or at a "
        "lower one, and falls over the last fifth of the longer run; 'lowered throughout' has the lower peak from its "
        "start. The bound's factor is the best one at the bound's best rate for T.",
        f"Intervals: Student's over seeds at {s.level:.0%}; differences are paired by seed. A claim whose best rate "
        "was refused has none.",
        "Made again from the store alone by python -m experiments.report.",
    ]
