"""The report of the study `cpt_dynamics`: the answer in a sentence, predicted curves, errors, claims, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from experiments.continual import claims_table, claims_text, plain, seeds_interval
from experiments.cpt_dynamics import ONE, PURE, WHOLE, Findings
from experiments.critical_ratio_page import cost_table
from experiments.page import Page
from scaling.figures import dynamics
from scaling.figures.style import png
from scaling.store import Store


def headline(found: Findings) -> str:
    """The answer in one sentence."""
    s = found.settings
    whole = found.scores[(found.scores.part == WHOLE) & (found.scores.form == PURE)]
    errors = " and ".join(
        f"{part.law.mean():.2%} on {domain} (the mean curve of the seen ones: {part['mean'].mean():.2%})"
        for domain, part in whole.groupby("domain", sort=False))
    potential = next(claim for claim in found.claims if "potential" in claim.statement)
    return (f"Fitted to {' and '.join(s.seen)} rates, the law misses whole curves under {' and '.join(s.unseen)} rates "
            f"by {errors}; a model of higher loss potential ends lower on {s.new}: {potential.verdict} "
            f"({len(s.seeds)} seeds).")


def choices_table(found: Findings) -> pd.DataFrame:
    """The best momentum of every reading of re-warming, by domain."""
    best = found.choices.loc[found.choices.groupby(["domain", "reading"]).objective.idxmin()]
    return pd.DataFrame([{"domain": row.domain, "re-warming": row.reading, "best momentum": f"{row.momentum:g}",
                          "objective, seen curves": f"{row.objective:.3g}", "taken": "yes" if row.chosen else ""}
                         for row in best.itertuples()])


def scores_table(found: Findings) -> pd.DataFrame:
    """Errors on unseen schedules, mean over seeds with intervals."""
    def text(values: pd.Series, digits: int) -> str:
        interval = seeds_interval(values, found.settings.level)
        return "{:.{d}f} [{:.{d}f}, {:.{d}f}]".format(*interval, d=digits)

    return pd.DataFrame([
        {"part": part, "form": form, "domain": domain, "runs a seed": int(rows.runs.iloc[0]),
         "law, error %": text(100 * rows.law, 2), "mean of seen, error %": text(100 * rows["mean"], 2),
         "law, R2": text(rows.law_r2, 3), "mean of seen, R2": text(rows.mean_r2, 3)}
        for (part, form, domain), rows in found.scores.groupby(["part", "form", "domain"], sort=False)])


def parameters_table(found: Findings) -> pd.DataFrame:
    """Parameters of the fits: mean over seeds, range, and in how many fits each is refused."""
    rows = []
    names = dict.fromkeys(name.rsplit(", ", 1)[0] for name in found.fits)
    for form in names:
        fits = [fit for name, fit in found.fits.items() if name.startswith(f"{form}, ")]
        for parameter in fits[0].parameters:
            values = np.array([fit.parameters[parameter] for fit in fits])
            refused = sum(any(parameter in refusal.parameters for refusal in fit.refusals) for fit in fits)
            rows.append({"form": form, "parameter": parameter, "median over seeds": f"{np.median(values):.4g}",
                         "range": f"{values.min():.4g} to {values.max():.4g}",
                         "refused in": f"{refused} of {len(fits)}"})
    return pd.DataFrame(rows)


def summary(found: Findings) -> str:
    """What a person needs on the terminal."""
    tables = (choices_table(found), scores_table(found))
    return "\n".join([headline(found), *("\n" + table.to_string(index=False) for table in tables), "",
                      claims_text(found.claims)])


def record(found: Findings) -> dict[str, Any]:
    """fits.json: every fit as `Fit.from_json` reads it, choices, errors, claims and refusals."""
    parts = ("settings", "choices", "scores", "potentials", "shifts", "claims", "not_identified")
    return {"headline": headline(found), **{name: plain(getattr(found, name)) for name in parts},
            "fits": {name: fit.to_json() for name, fit in found.fits.items()}}


def figures(found: Findings) -> dict[str, tuple[bytes, str]]:
    """PNG and caption by name."""
    s, held = found.settings, found.held_out
    domains = (s.old, s.new)
    shown = held[(held.form == PURE) & (held.seed == min(s.seeds)) & np.isclose(held.peak, 1.0)
                 & (held.start == held.start.max())]
    drawn = {
        "predicted": (dynamics.predicted(shown, domains),
                      f"Whole curves of schedules that the fit has not seen, seed {min(s.seeds)}, the longer "
                      f"pre-training, re-warmed to its peak, {s.new} alone."),
        "errors": (dynamics.errors(found.scores, {"law": "law", "mean": "mean curve of the seen schedules"}),
                   "Error on unseen schedules, one mark a seed: over the whole curve, in its first tenth, where all "
                   "schedules have nearly the same rate, and with every logged point (dense early) counted alike."),
        "potentials": (dynamics.potentials(found.potentials, domains),
                       f"Last loss less that at the lowest loss potential of the same seed, after equal pre-training, "
                       f"{s.new} alone; bars are the range over seeds."),
        "shifts": (dynamics.shifts(found.shifts, domains),
                   "Distribution shift at a constant rate: the loss when going on with the new domain less the loss "
                   "when going on with the old one, from the same point."),
    }
    return {name: (png(figure), caption) for name, (figure, caption) in drawn.items()}


def page(store: Store, found: Findings) -> tuple[Page, dict[str, bytes]]:
    """The page and its figures."""
    drawn = figures(found)
    made = Page("Does one law give the loss curves of continual pre-training under any schedule?")
    made.paragraph(headline(found), "answer")
    made.figure(*drawn["predicted"])
    made.figure(*drawn["errors"])
    made.table(scores_table(found))
    made.heading("How does re-warming count?")
    made.table(choices_table(found))
    made.heading("Loss potential and shift")
    made.figure(*drawn["potentials"])
    made.figure(*drawn["shifts"])
    made.heading("Claims")
    made.table(claims_table(found.claims))
    made.heading("Parameters")
    made.table(parameters_table(found))
    made.end(found.not_identified, [cost_table(store)], method(found))
    return made, {name: content for name, (content, _) in drawn.items()}


def method(found: Findings) -> list[str]:
    """How the numbers came about."""
    s = found.settings
    return [
        f"Trunks on {s.old} at a constant rate; from two ages {s.anneal} steps, linear to a loss potential of "
        f"{', '.join(f'{p:g}' for p in (*s.potentials, s.between))} of the peak, equal in tokens; then "
        f"{s.branch_steps} steps with {s.new}, re-warmed in {s.rewarm_steps} steps: shares "
        f"{', '.join(f'{share:g}' for share in (*s.shares, 1.0))}, peaks {s.low_peak:g} and 1 of the trunk's.",
        f"Fits: one a seed, on {' and '.join(s.seen)} schedules of every potential, age and peak (with replay: share), "
        f"Huber on log loss. Predictions: the same cells under {' and '.join(s.unseen)}.",
        "Points are weighted by the steps for which they stand, in fits and errors, as if logged at equal distances; "
        "evaluations are dense early.",
        f"'{ONE}': the areas run through both phases, so that re-warming undoes annealing; else each phase has its "
        "own, and re-warming counts as its peak. Reading and momentum: least objective on the seen schedules' mean "
        f"curves over seeds; momenta {', '.join(f'{m:g}' for m in s.momenta)}.",
        "The mean curve of the seen schedules has the same age, potential, peak, share and seed, and so has accidents "
        f"of the order of data that no law knows. Shift: {s.new} alone less {s.old} alone, constant rate, same start.",
        f"Intervals: Student's over {len(s.seeds)} seeds at {s.level:.0%}; a shift is the same when the whole interval "
        f"lies within ±{s.shift_margin:.0%}.",
        "Runs that anneal a trunk count as branches in the table of cost.",
        "Made again from the store alone by python -m experiments.report.",
    ]
