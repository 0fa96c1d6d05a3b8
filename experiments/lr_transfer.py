"""Study: does the best learning rate of a narrow model hold for a wide one?

Arms: the standard parametrization; muP (Yang et al. 2022, arXiv 2203.03466), both without weight decay; muP with a
decay of hidden matrices that acts within the run and goes as m^exponent with width, where ½ is the layer-wise rule (Fan
et al. 2025, arXiv 2510.15262), 0 a fixed decay and 1 a fixed product of rate and decay. Every arm is swept over peak
rates at every width; m is width over the smallest one, at which all arms of one decay are the same model. Fresh seeds
then train the widest model of each arm at its own best rate and at the narrowest's.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from experiments.claims import Claim, verdict
from experiments.continual import claim, said, seeds_interval
from experiments.rate_runs import capped, ended
from experiments.statistics import Interval, t_interval
from scaling import fields
from scaling.fields import check, static
from scaling.fitting.optimum import sweep_optimum
from scaling.store import Store
from scaling.sweeps.grid import Point

STANDARD, MUP = "standard", "muP"
LAYERWISE = 0.5
SPECTRUM = "singular_value_1."
_YANG, _FAN = "Yang et al. 2022, arXiv 2203.03466", "Fan et al. 2025, arXiv 2510.15262"
_DOUBLING = "log2 of the rate per doubling of width"
_AT_END = 1 + 1e-6  # an optimum within this factor of an end of the swept rates was put there


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the configuration says of the study. `near`: relative excess of the loss at which a run's weight in a
    quadratic has fallen to 1/e. `settled`: last step at the peak rate, where spectra are read. `constants`: time
    constants 1/(rate × decay) within it from which on a matrix counts as settled.
    """

    name: str = static()
    domain: str = static()
    widths: tuple[int, ...] = static()
    head_width: int = static()
    rates: tuple[float, ...] = static()
    seeds: tuple[int, ...] = static()
    fresh_seeds: tuple[int, ...] = static()
    decay: float = static()
    exponents: tuple[float, ...] = static()
    near: float = static()
    settled: int = static()
    constants: float = static()
    level: float = static()

    def __post_init__(self) -> None:
        check(len(self.widths) >= 2 and list(self.widths) == sorted(set(self.widths)), "study.widths", self.widths,
              "two or more that rise", "sort them")
        check(not set(self.seeds) & set(self.fresh_seeds), "study.fresh_seeds", self.fresh_seeds,
              f"none of study.seeds = {self.seeds}, on which the rates are chosen", "use others")
        check(LAYERWISE in self.exponents, "study.exponents", self.exponents, f"{LAYERWISE} among them", "add it")

    @property
    def arms(self) -> dict[str, Point]:
        """Overrides of a configuration by arm."""
        base = {"width": self.widths[0], "heads": self.heads(self.widths[0])}
        plain = {"model.base": None, "optimizer.weight_decay": 0.0, "optimizer.width_exponent": None}
        mup = {**plain, "model.base": base, "optimizer.width_exponent": 0.0}
        return {STANDARD: plain, MUP: mup, **{
            decayed(exponent): {**mup, "optimizer.weight_decay": self.decay, "optimizer.width_exponent": exponent}
            for exponent in self.exponents}}

    def heads(self, width: int) -> int:
        return width // self.head_width


@dataclasses.dataclass(frozen=True)
class Findings:
    """All that the study concludes.

    `optima`: as `optima`; `best`: as `best`; `shifts` (log2 rate per doubling of width) and `regrets` (nats/token): one
    row an arm with value, interval, `values` by seed; `spectra`: as `spectra`.
    """

    settings: Settings
    optima: pd.DataFrame
    best: pd.DataFrame
    shifts: pd.DataFrame
    regrets: pd.DataFrame
    spectra: pd.DataFrame
    claims: list[Claim]
    not_identified: list[str]


def settings_of(study: Mapping[str, Any]) -> Settings:
    """The study's settings, converted as strictly as a run's."""
    return fields.convert(Settings, study, "study")


def decayed(exponent: float) -> str:
    """The arm whose decay goes as m^exponent."""
    return f"muP, decay x m^{exponent:g}"


def widths_axis(s: Settings, widths: Iterable[int]) -> list[Point]:
    """A point a width, with heads of one width."""
    return [{"model.width": width, "model.heads": s.heads(width)} for width in widths]


def losses(store: Store, s: Settings) -> pd.DataFrame:
    """`rate_runs.ended` with `arm`, and `capped`, the loss as `rate_runs.capped` has it."""
    table, runs = ended(store, s.domain), store.read("runs")
    rule = runs["optimizer.width_exponent"].map(decayed, na_action="ignore")
    arm = np.select([runs["model.base.width"].isna(), runs["optimizer.weight_decay"] == 0], [STANDARD, MUP], rule)
    return table.merge(pd.DataFrame({"run_id": runs.run_id, "arm": arm}), on="run_id").assign(capped=capped(table))


def optima(table: pd.DataFrame, s: Settings) -> pd.DataFrame:
    """Rate of the least loss by arm, width and seed: arm, width, seed, lr, `refused`.

    The vertex of a quadratic in the log rate; where that has no minimum within the swept range it is refused, and the
    rate is the range's end or the best run's. How sure it is, the spread over seeds says.
    """
    rows = []
    for (arm, width, seed), part in table[table.seed.isin(s.seeds)].groupby(["arm", "width", "seed"], sort=False):
        at = sweep_optimum(part, width=s.near, bootstrap=0).at["lr"]
        curved = at.refusal is None or at.refusal.kind != "no_interior_minimum"
        inside = part.lr.min() * _AT_END < at.value < part.lr.max() / _AT_END
        rows.append({"arm": arm, "width": width, "seed": seed, "lr": at.value, "refused": not (curved and inside)})
    return pd.DataFrame(rows)


def best(found: pd.DataFrame, s: Settings) -> pd.DataFrame:
    """By arm and width: `lr`, the geometric mean of the seeds' optima to 3 digits, with Student's interval, `low` to
    `high`, of its logarithm; `refused`, how many seeds' optima lie at or beyond an end of the range.
    """
    rows = []
    for (arm, width), part in found.groupby(["arm", "width"], sort=False):
        value, low, high = np.exp(t_interval(np.log(part.lr), s.level))
        rows.append({"arm": arm, "width": width, "lr": float(f"{value:.3g}"), "low": low, "high": high,
                     "n": len(part), "refused": int(part.refused.sum())})
    return pd.DataFrame(rows)


def check_points(store: Store, s: Settings) -> list[Point]:
    """The widest model of every arm at its own best rate and at the narrowest's, on the fresh seeds."""
    table = best(optima(losses(store, s), s), s).set_index(["arm", "width"]).lr
    (widest,) = widths_axis(s, s.widths[-1:])
    return [{**widest, **point, "schedule.peak": peak, "training.seed": seed} for arm, point in s.arms.items()
            for peak in dict.fromkeys(table[arm, width] for width in (s.widths[0], s.widths[-1]))
            for seed in s.fresh_seeds]


def shift_by_seed(found: pd.DataFrame, arm: str) -> pd.Series:
    """Slope of the log optimal rate against the log width, by seed; nan where an optimum is refused."""
    rows = found[found.arm == arm]
    log_lr = np.log(rows.lr.where(~rows.refused))
    log_SxW = rows.assign(lr=log_lr).pivot(index="seed", columns="width", values="lr")
    log_W = np.log(log_SxW.columns.to_numpy(float))
    centred_W = log_W - log_W.mean()
    return pd.Series(log_SxW.to_numpy() @ centred_W / (centred_W @ centred_W), index=log_SxW.index)


def regret_by_seed(table: pd.DataFrame, rates: pd.DataFrame, arm: str, s: Settings) -> pd.Series:
    """Loss of the widest model at the narrowest's best rate less that at its own, by fresh seed."""
    rate = rates.set_index(["arm", "width"]).lr
    rows = table[(table.arm == arm) & (table.width == s.widths[-1]) & table.seed.isin(s.fresh_seeds)]
    by_width = []
    for width in (s.widths[0], s.widths[-1]):
        part = rows[np.isclose(rows.lr, rate[arm, width], rtol=1e-6)].set_index("seed").capped
        check(len(part) == len(s.fresh_seeds), f"runs of {arm} at {rate[arm, width]:g}", len(part),
              f"{len(s.fresh_seeds)}, on fresh seeds", "run the sweep to its end")
        by_width.append(part)
    return (by_width[0] - by_width[1]).sort_index()


def spectra(store: Store, s: Settings, rates: pd.DataFrame) -> pd.DataFrame:
    """Largest singular value of every hidden matrix after step `settled`: arm (those with decay), width, seed, matrix,
    value. At the swept rate nearest the narrowest's best, which the arms share.
    """
    rate = rates.set_index(["arm", "width"]).lr[decayed(LAYERWISE), s.widths[0]]
    near = min(s.rates, key=lambda swept_rate: abs(math.log(swept_rate / rate)))
    told = store.read("diagnostics")
    check(len(told) > 0, "store", str(store.root), "singular values", "set diagnostics.spectra = 1 and run it again")
    facts = losses(store, s)
    chosen = facts.arm.isin([decayed(exponent) for exponent in s.exponents]) & facts.seed.isin(s.seeds)
    facts = facts.loc[chosen & np.isclose(facts.lr, near), ["run_id", "arm", "width", "seed", "lr"]]
    told = told[(told.step == s.settled) & told.name.str.match(rf"{SPECTRUM}block_.*/kernel$")]
    table = told.merge(facts, on="run_id")
    return table.assign(matrix=table.name.str.removeprefix(SPECTRUM).str.removesuffix("/kernel"))[
        ["arm", "width", "seed", "lr", "matrix", "value"]]


def spectral_slopes(table: pd.DataFrame) -> pd.DataFrame:
    """Slope of the log singular value against the log width: arm, seed, matrix, slope."""
    rows = [{"arm": arm, "seed": seed, "matrix": matrix,
             "slope": float(np.polyfit(np.log(part.width), np.log(part.value), 1)[0])}
            for (arm, seed, matrix), part in table.groupby(["arm", "seed", "matrix"], sort=False)]
    return pd.DataFrame(rows)


def mismatch_by_seed(slopes: pd.DataFrame, exponent: float) -> pd.Series:
    """Mean |slope| over the hidden matrices of an arm, by seed."""
    rows = slopes[slopes.arm == decayed(exponent)]
    return rows.slope.abs().groupby(rows.seed).mean()


def time_constants(s: Settings, rate: float, exponent: float, width: int) -> float:
    """settled × rate/m × decay m^exponent: how often 1/(rate × decay) of a hidden matrix fits into the run's constant
    part.
    """
    m = width / s.widths[0]
    return s.settled * rate * s.decay * m ** (exponent - 1)


def analyse(store: Store, study: Mapping[str, Any]) -> Findings:
    """Optimal rates by width, their shifts, what a transferred rate costs, spectra, and the papers' claims."""
    s = settings_of(study)
    table = losses(store, s)
    found = optima(table, s)
    rates = best(found, s)
    shift = {arm: shift_by_seed(found, arm) for arm in s.arms}
    regret = {arm: regret_by_seed(table, rates, arm, s) for arm in s.arms}
    spectral = spectra(store, s, rates)
    claims = [falls(shift[STANDARD], s), *_nearer(shift, s), *_cheaper(regret, s), wider_is_better(table, s),
              *spectral_claims(spectral_slopes(spectral), s)]
    return Findings(s, found, rates, _by_arm(shift, s), _by_arm(regret, s), spectral, claims,
                    _not_identified(table, rates, s))


def _by_arm(by_seed: Mapping[str, pd.Series], s: Settings) -> pd.DataFrame:
    """One row an arm: name, n, value, low, high, and the values by seed."""
    return pd.DataFrame([{"name": arm, "n": len(values), **seeds_interval(identified(values), s.level)._asdict(),
                          "values": values.to_numpy()} for arm, values in by_seed.items()])


def identified(values: pd.Series) -> pd.Series:
    """The values, or none of them where one is nan: those left would be a choice of the convenient ones."""
    return values if values.notna().all() else values.iloc[:0]


def _pairs(s: Settings) -> list[tuple[str, str, str]]:
    """Arms that the papers call better, those they are held against, and the paper."""
    others = [exponent for exponent in s.exponents if exponent != LAYERWISE]
    return [(MUP, STANDARD, _YANG), *((decayed(LAYERWISE), decayed(exponent), _FAN) for exponent in others)]


def falls(shift: pd.Series, s: Settings) -> Claim:
    """The standard parametrization's optimum against width."""
    return claim("In the standard parametrization the best rate falls with width", f"{_YANG}, figure 1",
                 "fall of the optimum", identified(-shift), s.level, unit=_DOUBLING)


def _nearer(shift: Mapping[str, pd.Series], s: Settings) -> list[Claim]:
    return [claim(f"The best rate moves less with width under {good} than under {other}", source,
                  f"|shift| of {other} less |shift| of {good}", identified(shift[other].abs() - shift[good].abs()),
                  s.level, unit=_DOUBLING) for good, other, source in _pairs(s)]


def _cheaper(regret: Mapping[str, pd.Series], s: Settings) -> list[Claim]:
    return [claim(f"The narrow model's best rate costs the wide one less under {good} than under {other}", source,
                  f"excess loss of {other} less that of {good}", regret[other] - regret[good], s.level)
            for good, other, source in _pairs(s)]


def gains(table: pd.DataFrame, arm: str, s: Settings) -> pd.DataFrame:
    """Loss of a width less that of the next, by rate, mean over seeds with intervals that hold for all rows at once
    (Bonferroni): width (the wider), lr, value, low, high.
    """
    rows = table[(table.arm == arm) & table.seed.isin(s.seeds)].set_index(["width", "lr", "seed"]).capped
    cells = [(narrow, wide, rate) for narrow, wide in itertools.pairwise(s.widths) for rate in s.rates]
    level = 1 - (1 - s.level) / len(cells)
    return pd.DataFrame([{"width": wide, "lr": rate, **seeds_interval(
        rows[narrow, rate] - rows[wide, rate], level)._asdict()} for narrow, wide, rate in cells])


def wider_is_better(table: pd.DataFrame, s: Settings) -> Claim:
    """The least gain of all pairs of neighbouring widths and all rates, under muP."""
    cells = gains(table, MUP, s).sort_values("value")
    least = cells.iloc[0]
    interval = Interval(least.value, cells.low.min(), cells.high.min())
    what = f"least gain, width {least.width:.0f} at rate {least.lr:g}, interval for all {len(cells)} cells at once"
    return Claim("Under muP a wider model is better at every rate", f"{_YANG}, section 8", f"{what}: {said(interval)}",
                 *interval, len(s.seeds), verdict(interval.low, interval.high, 0.0))


def spectral_claims(slopes: pd.DataFrame, s: Settings) -> list[Claim]:
    """Do top singular values go less with width under the layer-wise rule?"""
    ours = mismatch_by_seed(slopes, LAYERWISE)
    return [claim(f"Decay x m^{LAYERWISE:g} matches the top singular values of hidden matrices across widths better "
                  f"than decay x m^{other:g}", _FAN, "difference of mean |slope| of log value on log width",
                  mismatch_by_seed(slopes, other) - ours, s.level, unit="") for other in s.exponents
            if other != LAYERWISE]


def _not_identified(table: pd.DataFrame, rates: pd.DataFrame, s: Settings) -> list[str]:
    """Refused optima, matrices that have not settled, lost runs, and what the intervals do not count."""
    notes = [f"{row.arm}, width {row.width}: {row.refused} of {row.n} seeds have no optimum within the swept rates, so "
             "that the arm's shift is refused" for row in rates[rates.refused > 0].itertuples()]
    rate = rates.set_index(["arm", "width"]).lr
    for exponent in s.exponents:
        counts = {width: time_constants(s, rate[decayed(exponent), s.widths[0]], exponent, width) for width in s.widths}
        early = [f"{width} ({count:.1f})" for width, count in counts.items() if count < s.constants]
        if early:
            notes.append(f"{decayed(exponent)}: at the narrowest's best rate fewer than {s.constants:g} time constants "
                         f"1/(rate x decay) fit before the spectra are read at width {', '.join(early)}: singular "
                         "values there still remember their start, and the rule's steady state is not tested")
    lost = int(np.isinf(table.loss).sum())
    notes += [f"{lost} runs diverged: no quadratic sees them, differences count them as untrained"] * bool(lost)
    return [*notes, "Intervals are over seeds: they do not count the held-out windows, the choice of rates and of the "
            "quadratic's weights, nor schedule, horizon, depth and batch, which stay fixed",
            "A mean of |shift| over seeds is above the |shift| of the mean where the sign varies, which speaks against "
            "the arm that moves least"]
