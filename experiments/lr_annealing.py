"""Study: do laws of the learning rate's schedule predict unseen schedules, and do those that they recommend win?

The annealing law (Tissue et al. 2024, arXiv 2408.11029) and the multi-power law (Luo et al. 2025, arXiv 2503.12811) are
fitted to the curves of two schedules, seed by seed, and predict the others at every evaluated step. Fitted to the means
over seeds at every peak, each recommends a schedule from there to the common floor. Recommended ones and rivals are
tuned alike, over the same peaks and seeds, and then meet on fresh seeds.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from experiments.claims import Claim
from experiments.continual import claim
from experiments.recommended_schedule import section
from experiments.schedule_laws import (
    ANNEALED,
    BASELINES,
    LAWS,
    MULTI,
    Family,
    choose_momentum,
    predictions,
)
from experiments.schedule_runs import CONSTANT, Shapes, curves, points_section, sections, shape
from scaling import fields
from scaling.fields import check, check_key, static
from scaling.fitting import Fit
from scaling.fitting.best_schedule import BestSchedule
from scaling.laws.schedule import MOMENTUM, Schedules
from scaling.store import Store

_TISSUE = "Tissue et al. 2024, arXiv 2408.11029"
_LUO = "Luo et al. 2025, arXiv 2503.12811"
_SOURCES = {ANNEALED: _TISSUE, MULTI: _LUO}
PUBLISHED_ERROR = 0.00168  # mean relative, of the multi-power law on six unseen schedules; the worst of three sizes
DROPS = (0.3, 0.1)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the configuration says of the study; `floor` as a share of the peak, `fit_from` in updates."""

    name: str = static()
    peak: float = static()
    peaks: tuple[float, ...] = static()
    warmup: int = static()
    floor: float = static()
    seen: tuple[str, ...] = static()
    unseen: tuple[str, ...] = static()
    rivals: tuple[str, ...] = static()
    seeds: tuple[int, ...] = static()
    check_seeds: tuple[int, ...] = static()
    steps: int = static()
    fit_from: int = static()
    momenta: tuple[float, ...] = static()
    level: float = static()

    def __post_init__(self) -> None:
        both = sorted({*self.seen} & {*self.unseen})
        check(not both, "study.unseen", both, "schedules that are not in study.seen", "drop them from one of the two")
        check(CONSTANT in self.seen, "study.seen", self.seen, "constant among them", "the baseline reads it; add it")
        shared = sorted({*self.seeds} & {*self.check_seeds})
        check(not shared, "study.check_seeds", shared, "seeds that are not in study.seeds",
              "what is recommended must be new to its check")
        check(self.peak in self.peaks, "study.peak", self.peak, f"one of study.peaks {self.peaks}", "choose among them")
        for name in (*self.seen, *self.unseen, *self.rivals):
            check_key(name, _all_sections(self), "study.seen, study.unseen, study.rivals")


@dataclasses.dataclass(frozen=True, eq=False)
class Recommendation:
    """What a law asks for at a peak, and the fit behind it."""

    law: str
    peak: float
    fit: Fit
    best: BestSchedule


@dataclasses.dataclass(frozen=True)
class Findings:
    """All that the study concludes.

    `momenta`: tried for the annealing area. `held_out`: unseen curves at `peak` and what was predicted; `scores`: mean
    relative errors by seed, schedule and predictor. `tuning`: mean last loss of every contender at every peak.
    `finals`: last losses on fresh seeds, at the best peaks. `promises`: gains that each law foretold, and measured.
    """

    settings: Settings
    momenta: pd.DataFrame
    held_out: pd.DataFrame
    scores: pd.DataFrame
    fits: dict[str, Fit]
    recommendations: list[Recommendation]
    tuning: pd.DataFrame
    finals: pd.DataFrame
    promises: pd.DataFrame
    claims: list[Claim]
    not_identified: list[str]


def _all_sections(s: Settings) -> dict[str, dict[str, Any]]:
    start = s.warmup / s.steps
    drops = {f"drop to {low:g}": points_section((0, 0), (start, 1), (0.5, 1), (0.5, low), (1, low)) for low in DROPS}
    return {**sections(s.steps, s.warmup, s.floor), **drops}


def _sections(s: Settings) -> dict[str, dict[str, Any]]:
    known = _all_sections(s)
    return {name: known[name] for name in dict.fromkeys((*s.seen, *s.unseen, *s.rivals))}


def settings_of(study: Mapping[str, Any]) -> Settings:
    """The study's settings, converted as strictly as a run's."""
    return fields.convert(Settings, study, "study")


def named_sections(study: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Sections without their peak, by name, of every schedule that the study names."""
    return _sections(settings_of(study))


def shapes(s: Settings) -> dict[str, np.ndarray]:
    """The study's own schedules."""
    return {name: shape(values, s.steps) for name, values in _sections(s).items()}


def known(s: Settings, found: list[Recommendation]) -> Callable[[Mapping[Any, Any]], Shapes]:
    """The study's own schedules; of runs that have a rate a step, by their law's name those recommended at a peak."""
    own = shapes(s)

    def of(run: Mapping[Any, Any]) -> Shapes:
        if pd.isna(run["schedule.values"]):
            return own
        return {each.law: each.best.lr_T / each.best.lr_T.max() for each in found
                if np.isclose(each.peak, run["schedule.peak"])}

    return of


def read(store: Store, s: Settings, found: list[Recommendation]) -> pd.DataFrame:
    """Logged points of all that is known: run_id, seed, schedule, peak, updates, loss."""
    return curves(store, known(s, found)).rename(columns={"step": "updates"})


def family(s: Settings, peak: float, momentum: float) -> Family:
    """The study's schedules at a peak."""
    tables = {name: peak * shape_T for name, shape_T in shapes(s).items()}
    return Family(Schedules.of(tables), s.seen, s.warmup, momentum)


def fitted(table: pd.DataFrame, s: Settings, peak: float) -> pd.DataFrame:
    """The part that laws are fitted to: one peak, the study's own seeds, some time after the warm-up."""
    own = np.isclose(table.peak, peak) & table.seed.isin(s.seeds)
    return table[own & (table.updates >= s.fit_from)]


def decide(store: Store, s: Settings) -> tuple[pd.DataFrame, list[Recommendation]]:
    """The momenta tried, at `peak`, and every law's recommendation at every peak, from the named schedules alone."""
    table = read(store, s, [])
    momenta = choose_momentum(family(s, s.peak, MOMENTUM), fitted(table, s, s.peak), s.momenta)
    momentum = float(momenta.momentum[momenta.chosen].iloc[0])
    found = []
    for law, peak in itertools.product(LAWS, s.peaks):
        fit, best = family(s, peak, momentum).best(law, fitted(table, s, peak), s.floor * peak)
        found.append(Recommendation(law, peak, fit, best))
    return momenta, found


def tune(table: pd.DataFrame, s: Settings) -> pd.DataFrame:
    """Last loss of every contender at every peak, by seed of the study's own: schedule, peak, seed, loss."""
    last = table[table.seed.isin(s.seeds) & (table.updates == s.steps) & table.schedule.isin([*s.rivals, *LAWS])]
    return last[["schedule", "peak", "seed", "loss"]].reset_index(drop=True)


def best_peaks(tuning: pd.DataFrame, s: Settings) -> dict[str, float]:
    """The peak of least mean loss of every contender, among those at which no run was lost."""
    by_peak = tuning.groupby(["schedule", "peak"]).loss.agg(["mean", "size"])
    whole = by_peak.loc[by_peak["size"] == len(s.seeds), "mean"].reset_index()
    best = whole.loc[whole.groupby("schedule")["mean"].idxmin()]
    return dict(zip(best.schedule, best.peak, strict=True))


def to_tune(store: Store, study: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Sections of what each law recommends at each peak."""
    return [section(each.best.lr_T) for each in decide(store, settings_of(study))[1]]


def to_check(store: Store, study: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Sections of every contender at its best peak."""
    s = settings_of(study)
    _, found = decide(store, s)
    peaks = best_peaks(tune(read(store, s, found), s), s)
    asked = {each.law: section(each.best.lr_T) for each in found if np.isclose(each.peak, peaks[each.law])}
    rivals = {name: {**_sections(s)[name], "peak": peaks[name]} for name in s.rivals}
    return [*rivals.values(), *asked.values()]


def analyse(store: Store, study: Mapping[str, Any]) -> Findings:
    """Fit, predict, recommend again, compare what was trained."""
    s = settings_of(study)
    momenta, found = decide(store, s)
    table = read(store, s, found)
    own = family(s, s.peak, float(momenta.momentum[momenta.chosen].iloc[0]))
    fits, held_out = predict(own, table, s)
    scores, tuning = score(held_out), tune(table, s)
    finals = table.loc[table.seed.isin(s.check_seeds) & (table.updates == s.steps),
                       ["schedule", "peak", "seed", "loss"]].reset_index(drop=True)
    claims = [*prediction_claims(scores, s), *contest_claims(finals, s)]
    promises = promised(found, tuning, s)
    return Findings(s, momenta, held_out, scores, fits, found, tuning, finals, promises, claims,
                    _not_identified(store, fits, found, momenta, tuning, s))


def predict(own: Family, table: pd.DataFrame, s: Settings) -> tuple[dict[str, Fit], pd.DataFrame]:
    """Fits of both laws to the seen schedules of every seed, and the unseen ones with what is predicted of them."""
    fits: dict[str, Fit] = {}
    held_out = []
    whole = table[np.isclose(table.peak, s.peak) & table.schedule.isin(own.schedules.names)]
    for seed, rows in fitted(whole, s, s.peak).groupby("seed"):
        of_seed = {law: own.fit(law, rows) for law in LAWS}
        fits |= {f"{law}, seed {seed}": fit for law, fit in of_seed.items()}
        held_out.append(predictions(own, rows, whole[whole.seed == seed], of_seed))
    return fits, pd.concat(held_out, ignore_index=True)


def score(held_out: pd.DataFrame) -> pd.DataFrame:
    """Mean relative error over the evaluated steps: seed, schedule, predictor, error, and at the last step: `last`."""
    rows = []
    for (seed, schedule), points in held_out.groupby(["seed", "schedule"], sort=False):
        for name in (*LAWS, *BASELINES):
            error = np.abs(points[name] / points.loss - 1)
            rows.append({"seed": seed, "schedule": schedule, "predictor": name, "error": error.mean(),
                         "last": error[points.updates.idxmax()]})
    return pd.DataFrame(rows)


def prediction_claims(scores: pd.DataFrame, s: Settings) -> list[Claim]:
    """Errors on unseen schedules, mean over them, against baselines, the other law and what is published."""
    error = scores.groupby(["seed", "predictor"]).error.mean().unstack()

    def better(first: str, second: str, source: str) -> Claim:
        return claim(f"The {first} law predicts unseen schedules better than the {second}", source,
                     f"{len(s.unseen)} schedules, mean error {error[first].mean():.2%} against "
                     f"{error[second].mean():.2%}, gain", 100 * (error[second] - error[first]), s.level, unit="points")

    found = [better(law, baseline, _SOURCES[law]) for law, baseline in itertools.product(LAWS, BASELINES)]
    bound = claim(f"The {MULTI} law predicts unseen schedules within {PUBLISHED_ERROR:.3%}", _LUO,
                  f"mean error {error[MULTI].mean():.3%}; {PUBLISHED_ERROR:.3%} less it",
                  100 * (PUBLISHED_ERROR - error[MULTI]), s.level, unit="points")
    contest = better(MULTI, ANNEALED, _LUO)
    return [*found, dataclasses.replace(contest, statement=f"{contest.statement} law"), bound]


def contest_claims(finals: pd.DataFrame, s: Settings) -> list[Claim]:
    """Last loss of every rival less that of each recommended schedule, seed by seed, each at its best peak."""
    loss = finals.pivot_table(index="seed", columns="schedule", values="loss")
    return [claim(f"The schedule that the {law} law recommends ends lower than {rival}", _SOURCES[law],
                  f"both at their best of {len(s.peaks)} peaks, fresh seeds, {rival} less recommended",
                  (loss[rival] - loss[law]).dropna(), s.level)
            for law, rival in itertools.product(LAWS, s.rivals)]


def promised(found: list[Recommendation], tuning: pd.DataFrame, s: Settings) -> pd.DataFrame:
    """Gain over the rivals that a law foretells, at the same peak: law, peak, rival, foretold, and by seed measured."""
    loss = tuning.set_index(["schedule", "peak", "seed"]).loss
    rows = []
    for each in found:
        for rival, gain in each.best.gains.items():
            if rival in s.rivals:
                measured = (loss[rival][each.peak] - loss[each.law][each.peak]).dropna()
                rows.append({"law": each.law, "peak": each.peak, "rival": rival, "foretold": gain.value,
                             "measured": measured.to_numpy()})
    return pd.DataFrame(rows)


def _not_identified(
    store: Store, fits: Mapping[str, Fit], found: list[Recommendation], momenta: pd.DataFrame, tuning: pd.DataFrame,
    s: Settings,
) -> list[str]:
    """Refusals, ends of ranges, and what the intervals leave out."""
    counts: dict[str, int] = {}
    for name, fit in fits.items():
        for refusal in fit.refusals:
            key = f"{name.split(',')[0]}: {refusal.kind} {', '.join(refusal.parameters)}"
            counts[key] = counts.get(key, 0) + 1
    ends = [name for name, peak in best_peaks(tuning, s).items() if peak in (min(s.peaks), max(s.peaks))]
    lost = int((store.read("runs").status != "done").sum())
    alike = momenta.momentum[momenta.objective < 1.02 * momenta.objective.min()]
    published = momenta.objective[momenta.momentum == MOMENTUM].iloc[0] / momenta.objective.min()
    return [
        *(f"{key} in {count} of {len(s.seeds)} fits: errors on unseen curves are measured, the parameters are not known"
          for key, count in counts.items()),
        *dict.fromkeys(f"recommended by the {each.law} law: {refusal}" for each in found
                       for refusal in each.best.refusals if each.peak == s.peak),
        *([f"Best at an end of the swept peaks, so perhaps better beyond: {', '.join(ends)}"] if ends else []),
        *([f"{lost} runs did not end; they are left out"] if lost else []),
        f"The momentum of the annealing area is chosen on the seen curves; the published {MOMENTUM} spans more steps "
        f"than a run has, and its objective is {published:.3g} times the least; "
        f"{', '.join(f'{m:g}' for m in alike)} fit within 2% of it, and "
        "where the annealing law's best schedule drops hangs on which is taken",
        f"Intervals are over seeds, {len(s.seeds)} for predictions and {len(s.check_seeds)} for comparisons, given one "
        "set of held-out windows; they do not count the choice of the peaks and of the recommended schedule",
        "One size and one horizon; schedules are recommended for the horizon that the laws were fitted at",
    ]
