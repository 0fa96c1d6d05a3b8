"""Study: does a bound for convex problems say which schedule and which rate suit a transformer?

The last-iterate bound of SGD (Schaipp et al. 2025, arXiv 2501.18965) of each schedule is held against a sweep of peak
rates: its order of tuned schedules, its ratio of best rates, its rule that the best rate falls as 1/sqrt(steps), and
its advice to lower the rate where a run is extended.

A best rate is the least of a quadratic in the log rate; its interval is the jackknife's over seeds.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar

from experiments.claims import Claim, verdict
from experiments.continual import claim, equivalent, seeds_interval
from experiments.correlation import correlation_interval
from experiments.schedule_runs import COSINE, LINEAR, WSD, Shapes, curves, points_section, sections, shape
from experiments.statistics import Interval
from scaling import fields
from scaling.fields import check, check_key, static
from scaling.fitting.optimum import sweep_optimum
from scaling.laws.convex_bound import bound
from scaling.store import Store

_SCHAIPP = "Schaipp et al. 2025, arXiv 2501.18965"
KEPT, LOWERED, STEPPED, BOUND = "rate kept", "lowered throughout", "lowered from there on", "lowered as the bound says"
LAST = 0.8  # share of a run at which wsd begins to fall
DRAWS = 4000
WIDTH = 0.02  # of the quadratic: relative excess at which a mean loss weighs 1/e; about the scatter of a run


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the configuration says of the study.

    `steps`: of the sweep of all schedules; `horizons`: of the sweeps of `over_horizons`. `warmup`: share of a run.
    `extensions`: lengths of extended runs over `steps`. `ratio_margin`: a factor; `exponent_margin`: a difference.
    """

    name: str = static()
    schedules: tuple[str, ...] = static()
    over_horizons: tuple[str, ...] = static()
    steps: int = static()
    horizons: tuple[int, ...] = static()
    warmup: float = static()
    peaks: tuple[float, ...] = static()
    seeds: tuple[int, ...] = static()
    check_seeds: tuple[int, ...] = static()
    extensions: tuple[int, ...] = static()
    ratio_margin: float = static()
    exponent_margin: float = static()
    level: float = static()

    def __post_init__(self) -> None:
        for name in (*self.schedules, *self.over_horizons):
            check_key(name, sections(self.steps, 1, 0.0), "study.schedules, study.over_horizons")
        needed = sorted({WSD, COSINE, LINEAR, *self.over_horizons} - {*self.schedules})
        check(not needed, "study.schedules", self.schedules, f"also {', '.join(needed)}",
              "the claims read them; add them")
        check(self.steps in self.horizons, "study.horizons", self.horizons, f"study.steps, {self.steps}, among them",
              "add it")
        shared = sorted({*self.seeds} & {*self.check_seeds})
        check(not shared, "study.check_seeds", shared, "seeds that are not in study.seeds", "take others")

    def warmup_steps(self, steps: int) -> int:
        """Warm-up of a run."""
        return round(self.warmup * steps)


@dataclasses.dataclass(frozen=True)
class Findings:
    """All that the study concludes.

    `sweeps`: last losses, schedule, steps, peak, seed. `optima`: best rate (nan where refused) by schedule, steps and
    seed, `refusal`. `tuned`: last loss at the best swept peak, by seed and schedule. `theory`: best rate and bound of
    every schedule at `steps`, up to factors of the problem. `arms`: last losses of extended runs: multiple, arm, seed.
    """

    settings: Settings
    sweeps: pd.DataFrame
    optima: pd.DataFrame
    tuned: pd.DataFrame
    theory: pd.DataFrame
    arms: pd.DataFrame
    claims: list[Claim]
    not_identified: list[str]


def settings_of(study: Mapping[str, Any]) -> Settings:
    """The study's settings, converted as strictly as a run's."""
    return fields.convert(Settings, study, "study")


def swept_sections(s: Settings, steps: int) -> dict[str, dict[str, Any]]:
    """Sections without their peak of the schedules swept at a horizon; all fall to 0."""
    made = sections(steps, s.warmup_steps(steps), 0.0)
    return {name: made[name] for name in (s.schedules if steps == s.steps else s.over_horizons)}


def extended(s: Settings, steps: int, factor: float) -> dict[str, Any]:
    """A wsd run of `s.steps`, gone on with to `steps` at `factor` of its rate from where it would have fallen."""
    there = LAST * s.steps / steps
    return points_section((0, 0), (s.warmup_steps(s.steps) / steps, 1), (there, 1), (there, factor), (LAST, factor),
                          (1, 0))


def best_factor(s: Settings, steps: int) -> float:
    """The factor of an extension that the bound likes best, at the base rate that is best for the wsd run itself."""
    rate = bound(shape(swept_sections(s, s.steps)[WSD], s.steps)).best_rate
    found = minimize_scalar(lambda factor: bound(shape(extended(s, steps, factor), steps)).at(rate), bounds=(0.05, 1),
                            method="bounded")
    return float(found.x)


def arms(s: Settings, steps: int) -> dict[str, tuple[float, dict[str, Any]]]:
    """Ways to extend a wsd run to `steps`: its peak over the tuned one, and its section without a peak."""
    root, kept = math.sqrt(s.steps / steps), extended(s, steps, 1.0)
    return {KEPT: (1.0, kept), LOWERED: (root, kept), STEPPED: (1.0, extended(s, steps, root)),
            BOUND: (1.0, extended(s, steps, best_factor(s, steps)))}


def known(s: Settings) -> Callable[[Mapping[Any, Any]], Shapes]:
    """The schedules of the study by length: those swept, and for longer runs the ways to extend."""
    by_steps: dict[int, dict[str, np.ndarray]] = {}
    for steps in s.horizons:
        by_steps[steps] = {name: shape(values, steps) for name, values in swept_sections(s, steps).items()}
    for multiple in s.extensions:
        steps = multiple * s.steps
        by_steps.setdefault(steps, {}).update(
            {name: shape(values, steps) for name, (_, values) in arms(s, steps).items() if name != LOWERED})
    return lambda run: by_steps[int(run["steps"])]


def read(store: Store, s: Settings) -> pd.DataFrame:
    """Last losses of all runs: run_id, seed, schedule, peak, steps, loss."""
    table = curves(store, known(s))
    return table[table.step == table.steps].drop(columns="step").reset_index(drop=True)


def sweep(last: pd.DataFrame, s: Settings) -> pd.DataFrame:
    """The swept runs of `read`; ConfigError where a whole sweep is missing."""
    table = last.loc[last.seed.isin(s.seeds), ["schedule", "steps", "peak", "seed", "loss"]].reset_index(drop=True)
    found = set(zip(table.schedule, table.steps, strict=True))
    missing = [f"{name}, {steps} steps" for steps in s.horizons for name in swept_sections(s, steps)
               if (name, steps) not in found]
    check(not missing, "sweeps without a finished run", missing, "none", "run the sweep to its end")
    return table


def find_optima(sweeps: pd.DataFrame) -> pd.DataFrame:
    """Best peak rate of every schedule and length: the least of a quadratic in the log rate through the mean losses
    over seeds (`sweep_optimum`), as one value a seed: the jackknife's pseudo-value n log r - (n-1) log r without that
    seed, whose mean and spread are those of the estimate (Tukey 1958). nan, with the refusal, where a quadratic has no
    minimum inside the sweep.
    """
    rows = []
    for (schedule, steps), runs in sweeps.groupby(["schedule", "steps"], sort=False):
        seeds = sorted(runs.seed.unique())
        parts = {None: runs} | {seed: runs[runs.seed != seed] for seed in seeds}
        found = {left_out: optimum(part) for left_out, part in parts.items()}
        refusal = next((reason for _, reason in found.values() if reason), None)
        whole = found[None][0]
        for seed in seeds:
            log = len(seeds) * whole - (len(seeds) - 1) * found[seed][0]
            rows.append({"schedule": schedule, "steps": steps, "seed": seed, "refusal": refusal,
                         "rate": math.nan if refusal else math.exp(log)})
    return pd.DataFrame(rows)


def optimum(runs: pd.DataFrame) -> tuple[float, str | None]:
    """Log of the best peak rate by the mean losses over seeds, of the peaks at which none was lost, and why there is
    none inside the sweep.
    """
    mean = runs.pivot_table(index="seed", columns="peak", values="loss").dropna(axis=1).mean().rename("loss")
    found = sweep_optimum(mean.rename_axis("lr").reset_index(), width=WIDTH, bootstrap=0).at["lr"]
    low, high = mean.index.min(), mean.index.max()
    if found.refusal and found.refusal.kind == "no_interior_minimum":
        return math.log(found.value), str(found.refusal)
    if not low * (1 + 1e-9) < found.value < high * (1 - 1e-9):  # what lies beyond is put at the end
        return math.log(found.value), f"extrapolated: the best rate lies beyond the swept {low:g} to {high:g}"
    return math.log(found.value), None


def tuned_losses(sweeps: pd.DataFrame, s: Settings) -> pd.DataFrame:
    """Last loss at the peak of least mean loss over seeds, by seed and schedule, over `s.steps` steps."""
    by_peak = sweeps[sweeps.steps == s.steps].pivot_table(index="seed", columns=["schedule", "peak"], values="loss")
    best = by_peak.mean().groupby("schedule").idxmin()
    return pd.DataFrame({name: by_peak[key] for name, key in best.items()})


def by_seed(optima: pd.DataFrame, schedule: str, steps: int, column: str) -> pd.Series:
    """A column of the optima of one sweep, by seed."""
    return optima[(optima.schedule == schedule) & (optima.steps == steps)].set_index("seed")[column]


def tuned_rate(optima: pd.DataFrame, s: Settings) -> float:
    """Geometric mean over seeds of wsd's best peak; ConfigError where no seed has one."""
    rates = by_seed(optima, WSD, s.steps, "rate").dropna()
    check(len(rates) > 0, "study.peaks", s.peaks, "peaks with the best one between them", "widen them")
    return float(np.exp(np.log(rates).mean()))


def to_extend(store: Store, study: Mapping[str, Any]) -> dict[int, list[dict[str, Any]]]:
    """Sections of every way to extend the tuned wsd run, by length in steps."""
    s = settings_of(study)
    peak = tuned_rate(find_optima(sweep(read(store, s), s)), s)
    return {multiple * s.steps: [{**values, "peak": share * peak}
                                 for share, values in arms(s, multiple * s.steps).values()]
            for multiple in s.extensions}


def extended_runs(last: pd.DataFrame, s: Settings) -> pd.DataFrame:
    """The fresh runs of `read`: multiple of the length, arm, seed, loss. Kept is what has the highest peak."""
    fresh = last[last.seed.isin(s.check_seeds)]
    lowered = (fresh.schedule == KEPT) & (fresh.peak < 0.99 * fresh.peak.max())
    named = fresh.assign(arm=np.where(lowered, LOWERED, fresh.schedule), multiple=fresh.steps // s.steps)
    return named[["multiple", "arm", "seed", "loss"]].reset_index(drop=True)


def theory_of(s: Settings) -> pd.DataFrame:
    """Best base rate and the bound at it, of every schedule as it acts, D = G = 1."""
    found = {name: bound(shape(values, s.steps)) for name, values in swept_sections(s, s.steps).items()}
    return pd.DataFrame([{"schedule": name, "rate": each.best_rate, "bound": each.best}
                         for name, each in found.items()])


def analyse(store: Store, study: Mapping[str, Any]) -> Findings:
    """Optima of every sweep and seed, the bound's say, and the paper's claims."""
    s = settings_of(study)
    last = read(store, s)
    sweeps = sweep(last, s)
    optima, theory = find_optima(sweeps), theory_of(s)
    runs = extended_runs(last, s)
    tuned = tuned_losses(sweeps, s)
    claims = [*order_claims(optima, tuned, theory, s), *ratio_claims(optima, theory, s), *horizon_claims(optima, s),
              *extension_claims(runs, s)]
    return Findings(s, sweeps, optima, tuned, theory, runs, claims, _not_identified(store, optima, s))


def order_claims(optima: pd.DataFrame, tuned: pd.DataFrame, theory: pd.DataFrame, s: Settings) -> list[Claim]:
    """Rank correlations over schedules of bound and tuned loss, of best rates in theory and measured; linear's gain."""
    claims = []
    rates = optima[optima.steps == s.steps].pivot_table(index="seed", columns="schedule", values="rate")
    for column, measured, statement in (
            ("bound", tuned, "The bound of a schedule ranks schedules as their tuned losses do"),
            ("rate", rates, "The bound's best rates rank schedules as their measured best rates do")):
        whole = measured.reindex(columns=theory.schedule)
        interval = Interval(math.nan, math.nan, math.nan)
        if whole.notna().all(axis=None):
            proxy = np.tile(theory[column].to_numpy(), (len(whole), 1))
            interval = correlation_interval([(proxy, whole.to_numpy())], True, DRAWS, s.level)
        value, low, high = interval
        claims.append(Claim(statement, _SCHAIPP, f"{len(theory)} schedules, mean rank correlation {value:.2f} "
                            f"[{low:.2f}, {high:.2f}] over seeds and schedules", *interval, len(whole),
                            verdict(low, high, 0.0)))
    return [*claims, claim("With the rate tuned for each, a linear fall over the whole run ends lower than wsd",
                           _SCHAIPP, f"{WSD} less {LINEAR}, each at its best peak",
                           (tuned[WSD] - tuned[LINEAR]).dropna(), s.level)]


def ratio_claims(optima: pd.DataFrame, theory: pd.DataFrame, s: Settings) -> list[Claim]:
    """Best rate of wsd over that of cosine and of linear: below 1, and within a factor of what the bound gives."""
    claims = []
    rate = theory.set_index("schedule").rate
    for other in (COSINE, LINEAR):
        ratio = by_seed(optima, WSD, s.steps, "rate") / by_seed(optima, other, s.steps, "rate")
        log = ratio.map(math.log, na_action="ignore")
        interval, expected = refused_interval(log, s), float(rate[WSD] / rate[other])
        value, low, high = np.exp(interval)
        measured = f"ratio {value:.3f} [{low:.3f}, {high:.3f}], the bound's {expected:.3f}"
        off = Interval(*(np.array(interval) - math.log(expected)))
        claims += [
            Claim(f"The best rate of wsd is below that of {other}", _SCHAIPP, measured, value, low, high,
                  int(log.notna().sum()), verdict(-interval.high, -interval.low, 0.0)),
            Claim(f"The best rate of wsd over that of {other} is the bound's, within a factor of {s.ratio_margin:g}",
                  _SCHAIPP, measured, value, low, high, int(log.notna().sum()),
                  equivalent(off, math.log(s.ratio_margin)))]
    return claims


def refused_interval(values: pd.Series, s: Settings) -> Interval:
    """Mean and interval over seeds; without ends where the optimum of a seed was refused, as it is missing for a reason
    that is not chance.
    """
    found = seeds_interval(values.dropna(), s.level)
    return Interval(found.value, math.nan, math.nan) if values.isna().any() else found


def exponents(optima: pd.DataFrame, schedule: str, s: Settings) -> pd.Series:
    """Slope of the log best rate in the log length of the run, by seed; nan where an optimum was refused."""
    log = pd.DataFrame({math.log(steps): np.log(by_seed(optima, schedule, steps, "rate")) for steps in s.horizons})
    centred_H = np.array(log.columns) - np.mean(log.columns)
    return (log * centred_H).sum(axis=1, skipna=False) / float(centred_H @ centred_H)


def horizon_claims(optima: pd.DataFrame, s: Settings) -> list[Claim]:
    """The exponent of the best rate in the length of the run, against -1/2."""
    claims = []
    for name in s.over_horizons:
        slope = exponents(optima, name, s)
        interval = refused_interval(slope, s)
        measured = (f"{min(s.horizons)} to {max(s.horizons)} steps: exponent {interval.value:+.2f} "
                    f"[{interval.low:+.2f}, {interval.high:+.2f}]")
        off = Interval(*(end + 0.5 for end in interval))
        claims += [
            Claim(f"The best rate of {name} falls as runs get longer", _SCHAIPP, measured, *interval,
                  int(slope.notna().sum()), verdict(-interval.high, -interval.low, 0.0)),
            Claim(f"The best rate of {name} falls as 1/sqrt(steps), exponent within {s.exponent_margin:g}", _SCHAIPP,
                  measured, *interval, int(slope.notna().sum()), equivalent(off, s.exponent_margin))]
    return claims


def extension_gaps(runs: pd.DataFrame, multiple: int) -> dict[str, pd.Series]:
    """Last loss of a run extended at its rate less that of each other way, by seed."""
    loss = runs[runs.multiple == multiple].pivot_table(index="seed", columns="arm", values="loss")
    loss = loss.reindex(columns=[KEPT, LOWERED, STEPPED, BOUND])
    return {arm: (loss[KEPT] - loss[arm]).dropna() for arm in (LOWERED, STEPPED, BOUND)}


def extension_claims(runs: pd.DataFrame, s: Settings) -> list[Claim]:
    """Lowering the rate of an extended wsd run against keeping it."""
    said = {LOWERED: "by sqrt(T/T') from the start", STEPPED: "by sqrt(T/T') from where it is extended",
            BOUND: "by the bound's best factor from where it is extended"}
    return [claim(f"A wsd run extended to {multiple} T ends lower with its rate lowered {said[arm]}", _SCHAIPP,
                  f"rate kept less lowered, T = {s.steps} steps, peak tuned for T, fresh seeds", gap, s.level)
            for multiple in s.extensions for arm, gap in extension_gaps(runs, multiple).items()]


def _not_identified(store: Store, optima: pd.DataFrame, s: Settings) -> list[str]:
    """Refused optima, lost runs, and what the intervals leave out."""
    refused = optima.loc[optima.refusal.notna(), ["schedule", "steps", "refusal"]].drop_duplicates()
    lost = int((store.read("runs").status != "done").sum())
    return [
        *(f"{name}, {steps} steps: {reason}; what needs this best rate is inconclusive"
          for name, steps, reason in refused.itertuples(index=False)),
        *([f"{lost} runs did not end; they are left out"] if lost else []),
        f"Intervals are over {len(s.seeds)} seeds ({len(s.check_seeds)} fresh ones for extensions), given one set of "
        "held-out windows; rank correlations also count the choice of schedules",
        "AdamW with clipping on a network is no SGD on a convex function: the bound's D and G are unknown, so only "
        "ratios, exponents and order are held against it",
        f"The weight of the quadratic, {WIDTH:g}, was set after a first look at the scatter of runs; before it was "
        "0.01; a best rate in a flat sweep moves with it by more than its interval says",
        "One size of model",
    ]
