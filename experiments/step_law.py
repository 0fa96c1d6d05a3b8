"""Study: the best learning rate and batch over sizes and tokens, and what a law of them costs one size further up.

Paper: Li et al. 2025, the Step Law, arXiv 2503.04715. Its procedure: of every setting (N, D) the runs within 0.25% of
the lowest loss are kept; least squares of log rate on (log N, log D), of log batch on log D. Ours differs in taking
held-out losses, mean over seeds. A law is judged by its regret: fitted without the largest size, its rate, and the
swept batch nearest to its batch, are trained there from fresh seeds, beside the best of that size's own grid.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from experiments.claims import Claim, Verdict, verdict
from experiments.continual import equivalent
from experiments.published.steplaw import WITHIN, regret, selected, step_law_fit
from experiments.rate_runs import capped, ended
from experiments.statistics import Interval, t_interval
from scaling import fields, fitting
from scaling.fields import check, static
from scaling.fitting import Fit, Optimum, Refusal
from scaling.laws.learning_rate import DEEPSEEK_BATCH, DEEPSEEK_LR, STEP_LAW, STEP_LAW_BATCH, STEP_LAW_PUBLISHED
from scaling.store import Store

PAPER = "Li et al. 2025"
HEADLINE = 0.0009  # the paper's own excess over the best of its grid
LAWS = (("step-law", STEP_LAW, "lr"), ("step-law-batch", STEP_LAW_BATCH, "batch"), ("deepseek-lr", DEEPSEEK_LR, "lr"),
        ("deepseek-batch", DEEPSEEK_BATCH, "batch"))
RATE_N, RATE_D, BATCH_D, BATCH_N = "rate by N", "rate by D", "batch by D", "batch by N"  # exponents
LAW, SMALLER, COMPUTE, BEST = "Step Law", "best of the next smaller size", "laws of compute", "best of the grid"


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the configuration says of the study. `tokens` a run, `batches` in windows, `floor` an absolute rate."""

    name: str = static()
    domain: str = static()
    widths: tuple[int, ...] = static()
    tokens: tuple[int, ...] = static()
    batches: tuple[int, ...] = static()
    rates: tuple[float, ...] = static()
    floor: float = static()
    warmup: float = static()
    seeds: tuple[int, ...] = static()
    fresh_seeds: tuple[int, ...] = static()
    batch_margin: float = static()
    bootstrap: int = static()
    level: float = static()

    def __post_init__(self) -> None:
        shared = sorted(set(self.seeds) & set(self.fresh_seeds))
        check(not shared, "study.fresh_seeds", self.fresh_seeds, "seeds that the grid does not have", "use others")
        for name, least in (("widths", 3), ("tokens", 2), ("batches", 3), ("rates", 3)):
            values = getattr(self, name)
            check(len(set(values)) >= least, f"study.{name}", values, f"{least} or more different values", "add some")


@dataclasses.dataclass(frozen=True, order=True)
class Trial:
    """A run to train at the largest size: by which way, on how many tokens, at which batch (windows) and peak rate."""

    way: str
    width: int
    tokens: int
    batch: int
    rate: float


@dataclasses.dataclass(frozen=True)
class Exponent:
    """An exponent, ours with its interval and of every seed alone, and the paper's."""

    name: str
    published: float
    value: float
    low: float
    high: float
    seeds: tuple[float, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Findings:
    """All that the study concludes. `cells`: mean over seeds of every (N, D, batch, lr). `optima`: the quadratic's of
    every setting. `fits`: laws of all sizes; `smaller`: of all but the largest. `regrets`: way, tokens,
    seed, loss, regret of every trial.
    """

    settings: Settings
    cells: pd.DataFrame
    diverged: int
    optima: dict[str, Optimum]
    fits: dict[str, Fit]
    smaller: dict[str, Fit]
    exponents: list[Exponent]
    trials: list[Trial]
    regrets: pd.DataFrame
    claims: list[Claim]
    not_identified: list[str]


def settings_of(study: Mapping[str, Any]) -> Settings:
    """The study's settings, converted as strictly as a run's."""
    return fields.convert(Settings, study, "study")


def to_check(store: Store, study: Mapping[str, Any]) -> list[Trial]:
    """What is to be trained at the largest size, decided by the grid alone."""
    s = settings_of(study)
    cells = cells_of(grid_runs(ended(store, s.domain), s))
    return recommended(cells, fit_laws(_smaller(cells), s), s)


def analyse(store: Store, study: Mapping[str, Any]) -> Findings:
    """Optima and laws of the grid, their exponents, and the regret of carrying them to the largest size."""
    s = settings_of(study)
    table = ended(store, s.domain)
    grid = grid_runs(table, s)
    cells = cells_of(grid)
    optima = {str(name): sweep_of(rows, s) for name, rows in _named(grid).groupby("setting", sort=False)}
    fits, smaller = fit_laws(cells, s), fit_laws(_smaller(cells), s)
    batch_by_size = step_law_fit(STEP_LAW, _finite(cells), "batch", bootstrap=s.bootstrap)
    exponents = exponents_of(grid, fits, batch_by_size, s.level)
    trials = recommended(cells, smaller, s)
    regrets = regrets_of(table, trials, s)
    claims = [*exponent_claims(exponents, s), *regret_claims(regrets, s)]
    fits = {**fits, "batch by size and tokens": batch_by_size}
    return Findings(s, cells, int(np.isinf(grid.loss).sum()), optima, fits, smaller, exponents, trials, regrets, claims,
                    _not_identified(optima, fits, smaller, s))


def grid_runs(table: pd.DataFrame, s: Settings) -> pd.DataFrame:
    """The runs of the grid. ConfigError where a setting lacks some."""
    grid = table[table.seed.isin(s.seeds)].sort_values(["N", "D", "batch", "lr", "seed"], ignore_index=True)
    expected = math.prod(map(len, (s.widths, s.tokens, s.batches, s.rates, s.seeds)))
    check(len(grid) == expected, "store", f"{len(grid)} runs of the grid", f"{expected}, one a size, tokens, batch, "
          "rate and seed", "run the sweep to its end")
    return grid


def cells_of(grid: pd.DataFrame) -> pd.DataFrame:
    """Mean loss over seeds of every (N, D, batch, lr), inf where a run diverged, with `setting` and C = 6 N D."""
    keys = ["width", "N", "D", "batch", "windows", "lr"]
    return _named(grid.groupby(keys)["loss"].mean().reset_index())


def _named(table: pd.DataFrame) -> pd.DataFrame:
    setting = [f"{n:,.0f} parameters, {d:,.0f} tokens" for n, d in zip(table.N, table.D, strict=True)]
    return table.assign(setting=setting, C=6.0 * table.N * table.D)


def _finite(cells: pd.DataFrame) -> pd.DataFrame:
    return cells[np.isfinite(cells.loss)].reset_index(drop=True)


def _smaller(cells: pd.DataFrame) -> pd.DataFrame:
    return cells[cells.width < cells.width.max()].reset_index(drop=True)


def sweep_of(runs: pd.DataFrame, s: Settings) -> Optimum:
    """The quadratic in log rate and log batch of one setting's runs."""
    return fitting.sweep_optimum(runs, ("lr", "batch"), bootstrap=s.bootstrap, level=s.level)


def fit_laws(cells: pd.DataFrame, s: Settings) -> dict[str, Fit]:
    """The laws of rate and batch by name, with the paper's selection."""
    return {name: step_law_fit(law, _finite(cells), target, bootstrap=s.bootstrap) for name, law, target in LAWS}


def exponents_of(grid: pd.DataFrame, fits: Mapping[str, Fit], batch_by_size: Fit, level: float) -> list[Exponent]:
    """Exponents whose intervals are the wider, end by end, of the bootstrap over settings and Student's over seeds,
    each fitted alone.
    """
    alone = [_exponents(_named(rows)) for _, rows in grid.groupby("seed")]
    rate, batch = STEP_LAW_PUBLISHED["step-law"], STEP_LAW_PUBLISHED["step-law-batch"]
    sources = {RATE_N: (fits["step-law"], "a", -1.0, -rate["a"]), RATE_D: (fits["step-law"], "b", 1.0, rate["b"]),
               BATCH_D: (fits["step-law-batch"], "b", 1.0, batch["b"]), BATCH_N: (batch_by_size, "a", -1.0, 0.0)}
    found = []
    for name, (fit, parameter, sign, published) in sources.items():
        over_settings = sorted(sign * end for end in fit.parameter_interval(level)[parameter])
        seeds = tuple(each[name] for each in alone)
        over_seeds = t_interval(seeds, level)
        found.append(Exponent(name, published, sign * fit.parameters[parameter],
                              float(np.minimum(over_settings[0], over_seeds.low)),
                              float(np.maximum(over_settings[1], over_seeds.high)), seeds))
    return found


def _exponents(runs: pd.DataFrame) -> dict[str, float]:
    """The paper's procedure on the runs of one seed: least squares of logs over the runs near each setting's best."""
    best = selected(_finite(runs))
    n, d, one = np.log(best.N), np.log(best.D), np.ones(len(best))
    (_, rate_n, rate_d), (_, batch_n, _) = (
        np.linalg.lstsq(np.stack([one, n, d], axis=1), np.log(best[name]), rcond=None)[0] for name in ("lr", "batch"))
    _, batch_d = np.linalg.lstsq(np.stack([one, d], axis=1), np.log(best.batch), rcond=None)[0]
    return {RATE_N: float(rate_n), RATE_D: float(rate_d), BATCH_D: float(batch_d), BATCH_N: float(batch_n)}


def recommended(cells: pd.DataFrame, smaller: Mapping[str, Fit], s: Settings) -> list[Trial]:
    """At the largest size, for every number of tokens: what each way recommends; the laws of compute where their
    parameters are identified.
    """
    below, width = sorted(cells.width.unique())[-2:]
    trials = []
    for tokens, rows in cells[cells.width == width].groupby("D"):
        sizes = {"N": float(rows.N.iloc[0]), "D": float(tokens), "C": float(rows.C.iloc[0])}

        def law(way: str, rate: str, batch: str, rows: pd.DataFrame = rows,
                at: Mapping[str, float] = sizes) -> Trial:
            values = [fitting.optimal_rate(fit, {name: at[name] for name in fit.law.input_names}, level=s.level).value
                      for fit in (smaller[rate], smaller[batch])]
            swept = rows.loc[np.log(rows.batch / values[1]).abs().idxmin(), "windows"]
            return Trial(way, int(width), int(at["D"]), int(swept), float(f"{values[0]:.6g}"))

        trials.append(law(LAW, "step-law", "step-law-batch"))
        if not smaller["deepseek-lr"].refusals + smaller["deepseek-batch"].refusals:
            trials.append(law(COMPUTE, "deepseek-lr", "deepseek-batch"))
        for way, source in ((SMALLER, cells[(cells.width == below) & (cells.D == tokens)]), (BEST, rows)):
            best = source.loc[source.loss.idxmin()]
            trials.append(Trial(way, int(width), int(tokens), int(best.windows), float(best.lr)))
    return trials


def regrets_of(table: pd.DataFrame, trials: Sequence[Trial], s: Settings) -> pd.DataFrame:
    """Rows way, tokens, seed, loss (capped at that before training), regret: excess over the run of the same seed and
    tokens at the best of the grid, a share of its loss.
    """
    fresh = table[table.seed.isin(s.fresh_seeds)]
    parts = []
    for trial in trials:
        found = fresh[(fresh.width == trial.width) & (fresh.D == trial.tokens) & (fresh.windows == trial.batch)
                      & np.isclose(fresh.lr, trial.rate, rtol=1e-5)]
        check(sorted(found.seed) == sorted(s.fresh_seeds), "store", f"{len(found)} runs at {trial}",
              f"one a fresh seed, {len(s.fresh_seeds)}", "run the sweep to its end")
        parts.append(found[["seed"]].assign(way=trial.way, tokens=trial.tokens, loss=capped(found)))
    regrets = pd.concat(parts, ignore_index=True)
    best = regrets[regrets.way == BEST].set_index(["tokens", "seed"]).loss
    return regrets.assign(regret=regrets.loss / regrets[["tokens", "seed"]].join(best.rename("best"),
                                                                                 on=["tokens", "seed"]).best - 1)


def regret_by_seed(regrets: pd.DataFrame, way: str) -> pd.Series:
    """Regret of one way, mean over tokens, by seed."""
    return regrets[regrets.way == way].groupby("seed").regret.mean()


def grid_regrets(found: Findings) -> pd.Series:
    """By setting of the fitted grid: excess of the grid point nearest the law of all sizes over the best, a share."""
    cells = _finite(found.cells)
    return regret(cells, found.fits["step-law"].predict(cells), found.fits["step-law-batch"].predict(cells))


def exponent_claims(exponents: Sequence[Exponent], s: Settings) -> list[Claim]:
    """Signs of the exponents, and that the best batch does not depend on the size."""
    found = {each.name: each for each in exponents}
    cases = {RATE_N: ("The best learning rate falls with model size", -1.0),
             RATE_D: ("The best learning rate rises with tokens", 1.0),
             BATCH_D: ("The best batch rises with tokens", 1.0)}
    claims = []
    for name, (statement, sign) in cases.items():
        own = found[name]
        low, high = sorted((sign * own.low, sign * own.high))
        claims.append(_exponent_claim(statement, f"exponent {own.published:+.3g}", own, verdict(low, high, 0.0)))
    own = found[BATCH_N]
    said = equivalent(Interval(own.value, own.low, own.high), s.batch_margin)
    statement = f"The best batch does not depend on model size (exponent within ±{s.batch_margin:g})"
    return [*claims, _exponent_claim(statement, "a law of D alone", own, said)]


def _exponent_claim(statement: str, published: str, own: Exponent, said: Verdict) -> Claim:
    measured = f"exponent {own.value:+.2f} [{own.low:+.2f}, {own.high:+.2f}], over settings and seeds"
    return Claim(statement, f"{PAPER}, {published}", measured, own.value, own.low, own.high, len(own.seeds), said)


def regret_claims(regrets: pd.DataFrame, s: Settings) -> list[Claim]:
    """The law's regret at the size it never saw, against the paper's figures and against other ways."""
    own = regret_by_seed(regrets, LAW)
    interval = t_interval(own, s.level)
    claims = [Claim(
        f"Fitted without the largest size, the law's rate and batch there lose less than {bound:.2%} on the best of "
        "the grid", f"{PAPER}, {source}", f"regret {_percent(interval)}, mean of {len(s.tokens)} numbers of tokens",
        *interval, len(own), verdict(-interval.high, -interval.low, -bound))
        for bound, source in ((HEADLINE, "0.09% over the best of the grid"), (WITHIN, "what it selects as optimal"))]
    for way in (SMALLER, COMPUTE):
        if way in set(regrets.way):
            gain = t_interval(regret_by_seed(regrets, way) - own, s.level)
            claims.append(Claim(
                f"At the size it never saw, the law is better than: {way}", f"{PAPER}, comparison of laws",
                f"gain {_percent(gain)} of the loss, by fresh seed", *gain, len(own),
                verdict(gain.low, gain.high, 0.0)))
    return claims


def _percent(interval: Interval) -> str:
    return f"{interval.value:+.2%} [{interval.low:+.2%}, {interval.high:+.2%}]"


def best_cells(cells: pd.DataFrame) -> pd.DataFrame:
    """The cell of least loss of every setting."""
    return cells.loc[cells.groupby("setting", sort=False).loss.idxmin()]


def at_edges(cells: pd.DataFrame) -> dict[str, int]:
    """How many settings have their best cell at an end of the swept rates, and of the batches."""
    best = best_cells(cells)
    return {name: int(best[name].isin([cells[name].min(), cells[name].max()]).sum()) for name in ("lr", "batch")}


def _not_identified(
    optima: Mapping[str, Optimum], fits: Mapping[str, Fit], smaller: Mapping[str, Fit], s: Settings
) -> list[str]:
    """Every refusal in words, and what the intervals do not count."""
    notes = [f"{name}: {refusal}" for name, fit in fits.items() for refusal in fit.refusals]
    notes += [f"{name}, without the largest size: {refusal}" for name, fit in smaller.items()
              for refusal in fit.refusals]
    refusals: list[tuple[str, str, Refusal]] = [
        (setting, name, decision.refusal) for setting, optimum in optima.items()
        for name, decision in optimum.at.items() if decision.refusal is not None]
    notes += [f"quadratic at {setting}, {name}: {refusal}" for setting, name, refusal in refusals]
    return [*notes, f"Regret is measured at one size, {max(s.widths)} wide; its interval counts fresh seeds, not the "
            f"{len(s.seeds)} seeds that the laws were fitted to, nor the held-out windows."]
