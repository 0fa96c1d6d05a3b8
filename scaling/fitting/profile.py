"""Profile likelihood: how the objective rises as one parameter, or anything computed from them, is held away from its
estimate.

Letters: K grid values, S starts, L lanes, P parameters.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from scaling.fitting import coordinates, solver, starts
from scaling.fitting.constrained import Constrained, Quantity
from scaling.fitting.problem import Problem
from scaling.fitting.result import Fit, Refusal
from scaling.fitting.solver import Expansion
from scaling.fitting.uncertainty import sandwich, slopes, spent
from scaling.laws.law import Law, Transform

REACH = math.log(1e4)  # how far, in log or logit, an interval's end is looked for
_SIDE = solver.LANES // 2 - 1
_GAIN = 1e-7  # relative; a smaller one is kept, but not passed on to the neighbours


@dataclass(frozen=True, eq=False)
class Profile:
    """The lowest objective at each value of a quantity, and the interval where it stays below a threshold.

    `values_K`: the objective minimised over the other parameters at `grid_K` (ascending; nan where no parameters within
    bounds reach the value), `parameters_KxP` where. `low`, `high`: the interval at `level`; an end that was never
    crossed is infinite and named in `refusals`. Where the region is in pieces, the interval spans them.
    """

    quantity: str
    parameter_names: tuple[str, ...]
    estimate: float
    value: float
    threshold: float
    level: float
    low: float
    high: float
    grid_K: np.ndarray
    values_K: np.ndarray
    parameters_KxP: np.ndarray
    refusals: tuple[Refusal, ...] = ()

    @property
    def open_ends(self) -> tuple[bool, bool]:
        """Whether the interval is open below, above."""
        return math.isinf(self.low), math.isinf(self.high)

    def __str__(self) -> str:
        span = f"[{self.low:.5g}, {self.high:.5g}]"
        text = f"{self.quantity} = {self.estimate:.5g}, {self.level:.0%} profile interval {span}"
        return "; refused, ".join([text, *map(str, self.refusals)])

    def to_json(self) -> str:
        """The whole profile; infinite ends and unreachable values as null."""
        record = {name: getattr(self, name) for name in ("quantity", "estimate", "value", "level")}
        record |= {name: _finite(getattr(self, name)) for name in ("threshold", "low", "high")}
        record |= {name: [_finite(x) for x in getattr(self, name)] for name in ("grid_K", "values_K")}
        record["parameters"] = {
            name: [_finite(x) for x in column_K]
            for name, column_K in zip(self.parameter_names, self.parameters_KxP.T, strict=True)
        }
        record["refusals"] = [vars(refusal) for refusal in self.refusals]
        return json.dumps(record, allow_nan=False)


def profile(fit: Fit, quantity: str | Quantity, grid: np.ndarray | None = None, *, level: float = 0.95) -> Profile:
    """The profile of a parameter (by name), or of a function of the parameters, such as a predicted loss:

        profile(fit, lambda p: fit.law.predict(p, {"N": 7e10, "D": 1.4e12}))

    The function maps a dict of scalars to a scalar in jax.numpy, on whatever scale the search shall step evenly (its
    logarithm where it spans decades); each new function object is compiled once. `grid`: values to visit, at least one
    on each side of the estimate; by default it grows away from the estimate until the threshold is crossed, a bound is
    met, or four decades are passed.

    The interval is {c : V(c) - min V <= phi F/2}, F the `level` quantile of F(1, G - m) where the fit spends m of G
    groups (`uncertainty.spent`), and phi the scale on which twice the rise of V is chi-squared: phi = a'Ca / a'H^-1 a,
    a the quantity's gradient, H the expected curvature, and C = H^-1 (sum of s_g s_g') H^-1 * G/(G - m) the sandwich of
    the groups' scores (Kent 1982, Biometrika 69, 19-27; for M-estimators Heritier and Ronchetti 1994, JASA 89,
    897-904). Where every row is a group, its noise is taken as alike everywhere and m = P, the number of parameters:
    C = H^-1 J W J' H^-1 * (sum of w score^2)/(G - P). For least squares that is exact, phi = RSS/(M - P).

    Each value is reached by the method of multipliers (a quadratic penalty whose target shifts until the constraint
    holds), from the fit's local minima and from both neighbours, so the curve is the lower envelope of all basins.

    Raises ValueError for an unknown parameter, a function that is not finite at the estimate or not a scalar, a level
    outside (0, 1), and a grid on one side only. Refusals: "flat" (an end that is open), "few_groups" (the fit
    spends all groups but one, or all: no threshold, ends are nan), "starts_disagree" (a lower objective than the fit's
    was found).
    """
    if not 0 < level < 1:
        raise ValueError(f"level: {level} must lie in (0, 1), e.g. 0.95")
    path = _Path.of(fit, quantity)
    rise = path.rise(level)
    if grid is None:
        curve = path.refined(path.envelope(path.bracket()), rise)
    else:
        curve = path.envelope(path.given(np.asarray(grid, dtype=np.float64)))
    ends = [curve.end(side, rise) for side in (-1, 1)]
    return path.profile(fit, curve, ends, level, rise)


@dataclass(frozen=True, eq=False)
class _Curve:
    """The envelope so far: coordinates and objective by value of the quantity, on the scale on which it is stepped."""

    at_K: np.ndarray
    u_KxP: np.ndarray
    value_K: np.ndarray
    least: float

    def end(self, side: int, rise: float) -> tuple[float, int, int | None]:
        """The outermost crossing of the threshold on a side (infinite where none), the last index inside it, and the
        first beyond (None where the curve ends).

        Between two values the signed root of the rise is taken as straight, which it is for a parabola.
        """
        deviance_K = np.where(np.isnan(self.value_K), np.inf, self.value_K - self.least)
        inside = np.flatnonzero(deviance_K <= rise)
        if not inside.size:
            return math.nan, int(np.argmin(deviance_K)), None
        last = int(inside[0 if side < 0 else -1])
        beyond = last + side
        if not 0 <= beyond < len(self.at_K):
            return side * math.inf, last, None
        if math.isinf(deviance_K[beyond]):
            return side * math.inf, last, beyond
        near, far = (math.sqrt(max(deviance_K[k], 0.0)) for k in (last, beyond))
        share = (math.sqrt(rise) - near) / (far - near)
        return float(self.at_K[last] + share * (self.at_K[beyond] - self.at_K[last])), last, beyond


@dataclass(frozen=True, eq=False)
class _Path:
    """A fit's problem, and the quantity whose values are stepped through from the estimate."""

    problem: Problem
    held: Constrained
    name: str
    transform: Transform
    near: Expansion
    slope_P: np.ndarray
    estimate: float
    value: float
    basins_SxP: np.ndarray

    @classmethod
    def of(cls, fit: Fit, quantity: str | Quantity) -> "_Path":
        """The path of a quantity through the estimate."""
        problem = Problem(fit.law, fit.objective, fit.points.fitted)
        function, name, transform = _quantity(fit.law, quantity)
        u_P = np.clip(problem.coordinates(np.array([list(fit.parameters.values())]))[0], *coordinates.bounds(fit.law))
        held = Constrained(problem, function)
        g, slope_P = held.measured(u_P)
        if g.shape or not (np.isfinite(g) and np.isfinite(slope_P).all()):
            raise ValueError(f"quantity {name}: {g} with gradient {slope_P} must be one finite number at the estimate")
        near, basins_SxP = problem.expansion(u_P), _basins(problem, u_P)
        return cls(problem, held, name, transform, near, slope_P, float(g), fit.value, basins_SxP)

    @cached_property
    def spread(self) -> float:
        """Square root of a'H^-1 a: the standard error of g were the noise's phi 1; H the solver's curvature."""
        weight_M = self.problem.points.weight_M
        information_PxP = (self.near.jacobian_PxM * weight_M) @ self.near.jacobian_PxM.T
        return math.sqrt(max(float(self.slope_P @ np.linalg.pinv(information_PxP, hermitian=True) @ self.slope_P), 0.0))

    def rise(self, level: float) -> float:
        """phi F/2; nan where too few groups, or no residual near zero, leave it unknown."""
        points, delta = self.problem.points, self.problem.objective.delta
        j_PxM, residual_M, weight_M = self.near.jacobian_PxM, self.near.residual_M, points.weight_M
        bread_PxP = np.linalg.pinv((j_PxM * (weight_M * slopes(residual_M, delta))) @ j_PxM.T, hermitian=True)
        naive = float(self.slope_P @ bread_PxP @ self.slope_P)
        single = points.groups == len(points)
        freedom = points.groups - (len(self.slope_P) if single else spent(j_PxM, weight_M, points.group_M))
        if not (freedom >= 1 and naive > 0):
            return math.nan
        if single:
            noise = float(np.sum(weight_M * np.clip(residual_M, -delta, delta) ** 2)) / freedom
            covariance_PxP = noise * bread_PxP @ ((j_PxM * weight_M) @ j_PxM.T) @ bread_PxP
        else:
            clustered_PxP = sandwich(j_PxM, residual_M, weight_M, points.group_M, delta)
            covariance_PxP = clustered_PxP * (points.groups - 1) / freedom
        phi = float(self.slope_P @ covariance_PxP @ self.slope_P) / naive
        return float(phi * stats.f.ppf(level, 1, freedom) / 2)

    def bracket(self) -> np.ndarray:
        """Values that grow away from the estimate on both sides, as far as four decades."""
        step = self.unit / 10
        offset = np.geomspace(step, REACH if self.transform != "real" else 1e5 * step, _SIDE)
        return np.sort(np.concatenate([self.estimate - offset, [self.estimate], self.estimate + offset]))

    @cached_property
    def unit(self) -> float:
        """A step that is worth taking: the standard error, at most a factor of e^(1/2) in a logarithm."""
        points, delta = self.problem.points, self.problem.objective.delta
        noise = float(np.average(np.clip(self.near.residual_M, -delta, delta) ** 2, weights=points.weight_M))
        curved = float(np.mean(slopes(self.near.residual_M, delta)))
        sd = math.sqrt(noise) * self.spread / max(curved, 1 / len(points))
        if self.transform == "real":
            return max(sd, 1e-9 * abs(self.estimate), 1e-12)
        return min(max(sd, 1e-9), 0.5)

    def given(self, grid_K: np.ndarray) -> np.ndarray:
        """A user's grid on the stepping scale, with the estimate in it."""
        at_K = _forward(self.transform, np.sort(grid_K.ravel()))
        if not np.isfinite(at_K).all() or not at_K.size or at_K[0] >= self.estimate or at_K[-1] <= self.estimate:
            raise ValueError(
                f"grid: {grid_K} must hold finite values of {self.name} on both sides of its estimate"
                f" {self.natural(np.array([self.estimate]))[0]:.6g}"
            )
        return np.union1d(at_K, [self.estimate])

    def natural(self, at_K: np.ndarray) -> np.ndarray:
        """Values of the quantity as it is reported."""
        backward: dict[str, Any] = {"positive": np.exp, "unit": lambda v: 1 / (1 + np.exp(-v)), "real": np.asarray}
        return np.asarray(backward[self.transform](at_K))

    def envelope(self, at_K: np.ndarray, known: _Curve | None = None) -> _Curve:
        """The least objective at each value: from every basin, or the nearest known values, then from neighbours until
        none helps.
        """
        curve = _Curve(at_K, np.tile(self.basins_SxP[0], (len(at_K), 1)), np.full(len(at_K), np.nan), self.value)
        if known is None:
            fresh = np.arange(len(at_K))
            tries = [(int(k), u_P) for u_P in self.basins_SxP for k in fresh]
        else:
            place_K = np.searchsorted(at_K, known.at_K)
            curve.u_KxP[place_K], curve.value_K[place_K] = known.u_KxP, known.value_K
            fresh = np.setdiff1d(np.arange(len(at_K)), place_K)
            above = np.searchsorted(known.at_K, at_K[fresh])
            sides = np.maximum(above - 1, 0), np.minimum(above, len(known.at_K) - 1)
            tries = [(int(k), known.u_KxP[near]) for side in sides for k, near in zip(fresh, side, strict=True)]
        self._improve(curve, tries)
        pairs = {(k, j) for k in fresh.tolist() for j in (k - 1, k + 1)}
        pairs |= {(j, k) for k, j in pairs}
        while pairs:
            within = [(j, k) for j, k in pairs if 0 <= j < len(at_K) and 0 <= k < len(at_K)]
            gained = self._improve(curve, [(k, curve.u_KxP[j]) for j, k in sorted(within)])
            pairs = {(k, j) for k in gained for j in (k - 1, k + 1)}
        least = min(self.value, float(np.nanmin(curve.value_K)))
        return _Curve(at_K, curve.u_KxP, curve.value_K, least)

    def _improve(self, curve: _Curve, tries: Iterable[tuple[int, np.ndarray]]) -> list[int]:
        """Tries (index, start)s, keeps what is lower (in place), and returns the indices that gained notably."""
        index_L, start_L = zip(*tries, strict=True)
        stiffness, tolerance = 100 / max(self.spread, 1e-12) ** 2, 1e-7 * self.unit
        end_LxP, value_L = self.held.minimise(np.stack(start_L), curve.at_K[list(index_L)], stiffness, tolerance)
        gained = set()
        for index, end_P, value in zip(index_L, end_LxP, value_L, strict=True):
            before = curve.value_K[index]
            if value < before or (np.isnan(before) and np.isfinite(value)):
                curve.u_KxP[index], curve.value_K[index] = end_P, value
                if not before - value <= _GAIN * abs(before):
                    gained.add(index)
        return sorted(gained)

    def refined(self, coarse: _Curve, rise: float) -> _Curve:
        """The curve with the two crossings narrowed down, and evenly spaced values between them."""
        curve = coarse
        for fresh in (33, 15, 15):
            cells = [curve.end(side, rise) for side in (-1, 1)]
            added = [np.linspace(curve.at_K[i], curve.at_K[j], 17)[1:-1] for _, i, j in cells if j is not None]
            if fresh == 33 and len(added) == 2:
                first, last = (curve.at_K[i if j is None else j] for _, i, j in cells)
                added.append(np.linspace(first, last, fresh)[1:-1])
            if not added:
                break
            curve = self.envelope(np.union1d(curve.at_K, np.concatenate(added)), curve)
        ends = [j if j is not None else i for _, i, j in (curve.end(side, rise) for side in (-1, 1))]
        wide = (curve.at_K[ends[1]] - curve.at_K[ends[0]]) / 4
        keep_K = (curve.at_K >= curve.at_K[ends[0]] - wide) & (curve.at_K <= curve.at_K[ends[1]] + wide)
        return _Curve(curve.at_K[keep_K], curve.u_KxP[keep_K], curve.value_K[keep_K], curve.least)

    def profile(
        self, fit: Fit, curve: _Curve, ends: list[tuple[float, int, int | None]], level: float, rise: float
    ) -> Profile:
        """The result, with its refusals."""
        low, high = (end if math.isinf(end) else float(self.natural(np.array(end))) for end, _, _ in ends)
        last = [float(self.natural(curve.at_K[index])) for _, index, _ in ends]
        return Profile(
            quantity=self.name,
            parameter_names=fit.law.parameter_names,
            estimate=float(self.natural(np.array(self.estimate))),
            value=curve.least,
            threshold=curve.least + rise,
            level=level,
            low=low,
            high=high,
            grid_K=self.natural(curve.at_K),
            values_K=curve.value_K,
            parameters_KxP=self.problem.natural(curve.u_KxP),
            refusals=tuple(self._refusals(curve, ends, last, rise)),
        )

    def _refusals(
        self, curve: _Curve, ends: list[tuple[float, int, int | None]], last: list[float], rise: float
    ) -> list[Refusal]:
        named = (self.name,)
        found = []
        if math.isnan(rise):
            reason = f"{self.problem.points.groups} groups (runs) for {len(self.slope_P)} parameters give no threshold"
            found.append(Refusal("few_groups", f"{reason}; add runs, or hold parameters with with_fixed", named))
        for (end, _, beyond), at, side in zip(ends, last, ("below", "above"), strict=True):
            if math.isinf(end):
                why = "no parameters within their bounds go further" if beyond is not None else "the search ends there"
                reason = (
                    f"{self.name} is not bounded {side}: the objective stays under the threshold as far as {at:.4g}"
                )
                found.append(Refusal("flat", f"{reason} ({why}); quote the other end only", named))
        if self.value - curve.least > 1e-6 * abs(self.value):
            reason = f"the profile found objective {curve.least:.8g}, below the fit's {self.value:.8g}"
            found.append(Refusal("starts_disagree", f"{reason}; fit again with another seed", named))
        return found


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _forward(transform: Transform, values_K: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        forward: dict[str, Any] = {"positive": np.log, "real": np.asarray, "unit": lambda v: np.log(v) - np.log1p(-v)}
        return np.asarray(forward[transform](values_K))


def _quantity(law: Law, quantity: str | Quantity) -> tuple[Quantity, str, Transform]:
    if not isinstance(quantity, str):
        return quantity, getattr(quantity, "__name__", "quantity").replace("<lambda>", "quantity"), "real"
    for parameter in law.parameters:
        if parameter.name == quantity:
            return _parameter(quantity, parameter.transform), quantity, parameter.transform
    raise ValueError(
        f"quantity: law {law.name!r} has no parameter {quantity!r}; it has {', '.join(law.parameter_names)}; or pass a"
        " function of the parameters"
    )


@cache
def _parameter(name: str, transform: Transform) -> Quantity:
    """A parameter on the scale on which it is stepped; one object each, since jit knows it by identity."""
    forward: dict[str, Any] = {"positive": jnp.log, "real": jnp.asarray, "unit": lambda v: jnp.log(v) - jnp.log1p(-v)}
    return lambda p: forward[transform](p[name])


def _basins(problem: Problem, u_P: np.ndarray, keep: int = 3) -> np.ndarray:
    """Coordinates of the estimate and of the best other local minima that the fit's starts end in, [S, P]."""
    with jax.enable_x64(True):
        start_SxP = starts.screened(problem.law, problem.objective, problem.data, problem.weights()[0], seed=0)
    end_SxP, value_S = problem.minimise(start_SxP, None, steps=300, tolerance=1e-12)
    kept = [u_P]
    lowest = float(np.min(value_S))
    for index in np.argsort(value_S):
        if len(kept) <= keep and value_S[index] > lowest * (1 + 1e-4):
            kept.append(coordinates.ordered(problem.law, end_SxP[index]))
            lowest = float(value_S[index])
    return np.stack(kept)
