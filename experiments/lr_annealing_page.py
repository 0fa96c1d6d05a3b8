"""The report of the study `lr_annealing`: the answer in a sentence, predicted curves, the contest, claims, refusals."""

from __future__ import annotations

from typing import Any

import pandas as pd

from experiments.continual import claims_table, claims_text, plain, said, seeds_interval
from experiments.critical_ratio_page import cost_table
from experiments.lr_annealing import PUBLISHED_ERROR, Findings, best_peaks
from experiments.page import Page
from experiments.schedule_laws import BASELINES, LAWS
from scaling.figures import schedules
from scaling.figures.estimates import by_name
from scaling.figures.style import png
from scaling.store import Store


def gaps(found: Findings) -> dict[str, pd.DataFrame]:
    """Last loss of every rival less that of each law's schedule on fresh seeds, by law: name, interval, values."""
    s = found.settings
    loss = found.finals.pivot_table(index="seed", columns="schedule", values="loss")
    return {law: pd.DataFrame([{"name": rival, **seeds_interval(gap, s.level)._asdict(), "values": gap.to_numpy()}
                               for rival in s.rivals for gap in [(loss[rival] - loss[law]).dropna()]])
            for law in LAWS}


def headline(found: Findings) -> str:
    """The answer in one sentence."""
    s = found.settings
    error = found.scores.groupby("predictor").error.mean()
    missed = " and ".join(f"{error[law]:.2%} ({law})" for law in LAWS)
    gained = "; ".join(
        f"{law}'s, {said(seeds_interval(pd.Series(row['values']), s.level))}" for law, table in gaps(found).items()
        for row in table.to_dict("records") if row["name"] == s.rivals[0])
    return (f"Fitted to {' and '.join(s.seen)} rates, the laws miss {len(s.unseen)} unseen schedules by {missed}; the "
            f"mean of the seen curves misses by {error[BASELINES[0]]:.2%}. Gain of the recommended schedule over the "
            f"tuned {s.rivals[0]} on {len(s.check_seeds)} fresh seeds: {gained}.")


def scores_table(found: Findings) -> pd.DataFrame:
    """Mean relative error by unseen schedule and over all, with intervals over seeds."""
    def row(name: str, part: pd.DataFrame) -> dict[str, str]:
        by_seed = part.groupby(["predictor", "seed"]).error.mean()
        texts = {f"{each}, error %": "{:.2f} [{:.2f}, {:.2f}]".format(
            *seeds_interval(100 * by_seed[each], found.settings.level)) for each in (*LAWS, *BASELINES)}
        return {"schedule": name, **texts}

    parts = found.scores.groupby("schedule", sort=False)
    last = found.scores.assign(error=found.scores["last"])
    return pd.DataFrame([*(row(str(name), part) for name, part in parts), row("all", found.scores),
                         row("all, last step", last)])


def tuning_table(found: Findings) -> pd.DataFrame:
    """Mean last loss of every contender by peak, and of fresh seeds at its best one."""
    peaks = best_peaks(found.tuning, found.settings)
    mean = found.tuning.groupby(["schedule", "peak"]).loss.mean()
    rows = []
    for name, peak in peaks.items():
        fresh = found.finals.loss[found.finals.schedule == name]
        rows.append({"schedule": name, **{f"peak {at:g}": f"{loss:.4f}" for at, loss in mean[name].items()},
                     "best": f"{peak:g}", f"{len(fresh)} fresh seeds": f"{fresh.mean():.4f}"})
    return pd.DataFrame(rows)


def promises_table(found: Findings) -> pd.DataFrame:
    """Gain over rivals at the same peak, as a law foretold it and as measured on the seeds that it was fitted to."""
    return pd.DataFrame([
        {"law": row["law"], "peak": f"{row['peak']:g}", "over": row["rival"], "foretold": f"{row['foretold']:+.4f}",
         "measured": said(seeds_interval(pd.Series(row["measured"]), found.settings.level))}
        for row in found.promises.to_dict("records")])


def momenta_table(found: Findings) -> pd.DataFrame:
    """Objective of the annealing law on the seen curves by momentum."""
    return pd.DataFrame([{"momentum": f"{row.momentum:g}", "objective, seen curves": f"{row.objective:.3g}",
                          "taken": "yes" if row.chosen else ""} for row in found.momenta.itertuples()])


def summary(found: Findings) -> str:
    """What a person needs on the terminal."""
    tables = (scores_table(found), tuning_table(found), promises_table(found))
    return "\n".join([headline(found), *("\n" + table.to_string(index=False) for table in tables), "",
                      claims_text(found.claims)])


def record(found: Findings) -> dict[str, Any]:
    """fits.json: every fit as `Fit.from_json` reads it, recommendations, errors, comparisons, claims and refusals."""
    parts = ("settings", "momenta", "scores", "tuning", "finals", "claims", "not_identified")
    asked = [{"law": each.law, "peak": each.peak, "lr": each.best.lr_T.tolist(), "loss": each.best.loss.value,
              "refusals": list(map(str, each.best.refusals)), "fit": each.fit.to_json()}
             for each in found.recommendations]
    promises = [{**row, "measured": row["measured"].tolist()} for row in found.promises.to_dict("records")]
    return {"headline": headline(found), **{name: plain(getattr(found, name)) for name in parts},
            "promises": plain(promises), "recommendations": asked,
            "fits": {name: fit.to_json() for name, fit in found.fits.items()}}


def figures(found: Findings) -> dict[str, tuple[bytes, str]]:
    """PNG and caption by name."""
    s = found.settings
    predictors = (*LAWS, *BASELINES)
    mean = found.held_out.groupby(["schedule", "updates"], sort=False, as_index=False)[["loss", *predictors]].mean()
    tables = {f"peak {peak:g}": {each.law: each.best.lr_T for each in found.recommendations if each.peak == peak}
              for peak in sorted({min(s.peaks), s.peak, max(s.peaks)})}
    by_seed = found.scores.groupby(["predictor", "seed"]).error.mean()
    errors = pd.DataFrame([
        {"name": each, **seeds_interval(100 * by_seed[each], s.level)._asdict(), "values": 100 * by_seed[each]}
        for each in predictors])
    tuning = found.tuning.set_index("schedule").loc[[*s.rivals, *LAWS]].reset_index()
    drawn = {
        "predicted": (schedules.predicted(mean, predictors),
                      f"Schedules that the fits have not seen, peak {s.peak:g}: loss and predictions, means over "
                      f"{len(s.seeds)} seeds, each predicted by its own fit to {' and '.join(s.seen)} rates."),
        "errors": (by_name({"unseen schedules": errors}, "mean relative error, %", 100 * PUBLISHED_ERROR),
                   f"Mean error over unseen schedules and evaluated steps: mean, interval over seeds, seeds. Dashes: "
                   f"{PUBLISHED_ERROR:.3%}, published of the multi-power law."),
        "recommended": (schedules.rates(tables, LAWS), f"What each law recommends, down to {s.floor:g} of the peak."),
        "contest": (by_name({f"against {law}'s schedule": table for law, table in gaps(found).items()},
                            "last loss of the rival less the recommended, nats/token", 0.0),
                    f"Each at its best of {len(s.peaks)} peaks, on {len(s.check_seeds)} fresh seeds, paired by seed: "
                    "right of 0 the recommended schedule ends lower."),
        "tuning": (schedules.by_peak(tuning, {}), f"Last loss by peak, {len(s.seeds)} seeds: what the peaks were "
                   "chosen by."),
    }
    return {name: (png(figure), caption) for name, (figure, caption) in drawn.items()}


def page(store: Store, found: Findings) -> tuple[Page, dict[str, bytes]]:
    """The page and its figures."""
    drawn = figures(found)
    made = Page("Do laws of the schedule predict unseen schedules, and do those that they recommend win?")
    made.paragraph(headline(found), "answer")
    made.figure(*drawn["contest"])
    made.figure(*drawn["recommended"])
    made.table(tuning_table(found))
    made.figure(*drawn["tuning"])
    made.heading("What the laws promised")
    made.table(promises_table(found))
    made.heading("Unseen schedules")
    made.figure(*drawn["predicted"])
    made.figure(*drawn["errors"])
    made.table(scores_table(found))
    made.heading("Claims")
    made.table(claims_table(found.claims))
    made.heading("Momentum of the annealing area")
    made.table(momenta_table(found))
    made.end(found.not_identified, [cost_table(store)], method(found))
    return made, {name: content for name, (content, _) in drawn.items()}


def method(found: Findings) -> list[str]:
    """How the numbers came about."""
    s = found.settings
    return [
        f"Every run has {s.steps} steps with {s.warmup} of warm-up. Rivals and recommended schedules end at "
        f"{s.floor:g} of their peak; wsd falls over the last fifth; a drop comes in the middle of the run.",
        f"Fits: one a seed at peak {s.peak:g}, on {' and '.join(s.seen)} rates after the first {s.fit_from} steps, "
        "Huber on log loss; errors on all other schedules at every evaluated step from there.",
        "Baselines of the same seed: the mean of the seen curves after as many steps; the run at constant rate when it "
        "had the same sum of rates.",
        "Recommended: the best schedule of each law, fitted at every peak to the means over seeds, among those that "
        "never rise after the warm-up. It and the rivals are tuned over the same peaks on the same seeds, then trained "
        "on fresh ones at the best.",
        f"Intervals: Student's over seeds at {s.level:.0%}; differences are paired by seed.",
        "Made again from the store alone by python -m experiments.report.",
    ]
