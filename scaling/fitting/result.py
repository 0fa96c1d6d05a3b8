"""A fit: a law, its estimated parameters, their joint uncertainty, and what it may not be used for.

Letters: B bootstrap draws, M points, P parameters, R noises a draw.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import stats

from scaling.fitting.evaluate import at_each
from scaling.fitting.objectives import Objective
from scaling.fitting.points import Points
from scaling.fitting.problem import Problem
from scaling.fitting.record import array, real, text_of, texts, whole
from scaling.fitting.uncertainty import spent
from scaling.laws.catalogue import law_of
from scaling.laws.law import Law, RecordError

_NOISES = 10  # for each bootstrap draw

Kind = Literal[
    "bound",
    "flat",
    "few_distinct",
    "few_groups",
    "collinear",
    "extrapolated",
    "no_interior_minimum",
    "few_budgets",
    "starts_disagree",
    "infeasible",
    "unbounded",
    "non_monotone",
    "unstable",
    "no_turning_point",
]


@dataclass(frozen=True)
class Refusal:
    """A reason not to call something known, and the parameters it concerns."""

    kind: Kind
    reason: str
    parameters: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.kind}: {self.reason}"


@dataclass(frozen=True)
class Errors:
    """Prediction error over `points` rows, by raw target: root mean square, and mean |error|/|target| (nan if a
    target is 0).
    """

    points: int
    rmse: float
    relative: float

    @classmethod
    def of(cls, prediction_M: np.ndarray, target_M: np.ndarray) -> "Errors":
        """Errors of predictions."""
        error_M = prediction_M - target_M
        relative = float(np.mean(np.abs(error_M / target_M))) if (target_M != 0).all() else math.nan
        return cls(len(target_M), float(np.sqrt(np.mean(error_M**2))), relative)

    def __str__(self) -> str:
        return f"rmse {self.rmse:.4g}, mean relative {self.relative:.3%} over {self.points} rows"


@dataclass(frozen=True, eq=False)
class Fit:
    """The result of `fitting.fit`.

    `parameters` as the law writes them, and `covariance_PxP` (clustered sandwich) and `draws_BxP` (bootstrap by group)
    of the same. `value`: the objective, summed. `agreement`: share of polished starts within 1e-6 of the best.
    `points`: the rows, held out ones included. `held_out`: errors on those, which the fit did not see.
    """

    law: Law
    objective: Objective
    parameters: dict[str, float]
    covariance_PxP: np.ndarray
    draws_BxP: np.ndarray
    value: float
    agreement: float
    points: Points
    errors: Errors
    held_out: Errors | None
    refusals: tuple[Refusal, ...]

    @property
    def groups(self) -> int:
        """Groups (runs) among the fitted rows."""
        return self.points.fitted.groups

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """Extremes of each input among the fitted rows."""
        return {name: (float(x_M.min()), float(x_M.max())) for name, x_M in self.points.fitted.inputs.items()}

    @property
    def status(self) -> Literal["ok", "refused"]:
        """Whether any refusal stands."""
        return "refused" if self.refusals else "ok"

    @property
    def standard_errors(self) -> dict[str, float]:
        """Square roots of the covariance's diagonal, by parameter."""
        return dict(zip(self.parameters, np.sqrt(np.diagonal(self.covariance_PxP)).tolist(), strict=True))

    def predict(self, inputs: Mapping[str, Any] | pd.DataFrame) -> np.ndarray:
        """The law at the estimate; inputs by the law's names, broadcast. TableError for a bad input."""
        estimate_1xP = np.array([list(self.parameters.values())])
        return at_each(self.law, estimate_1xP, self.law.read_inputs(inputs))[0]

    def predict_draws(self, inputs: Mapping[str, Any] | pd.DataFrame) -> np.ndarray:
        """The law at every bootstrap draw, [B, ...]. ValueError where the fit has no draws."""
        self._need_draws()
        return at_each(self.law, self.draws_BxP, self.law.read_inputs(inputs))

    def interval(self, inputs: Mapping[str, Any] | pd.DataFrame, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Bootstrap percentile interval of the mean curve; `prediction_interval` is that of a new run's own loss."""
        low, high = np.quantile(self.predict_draws(inputs), tails(level), axis=0)
        return low, high

    def prediction_interval(
        self, inputs: Mapping[str, Any] | pd.DataFrame, level: float = 0.95
    ) -> tuple[np.ndarray, np.ndarray]:
        """Interval of a loss measured in a new run: each draw of the law, plus the noise of one measurement.

        Noise is a residual of a random point of a random group, on the objective's scale, times
        t/z*sqrt(G/(G - spent)): fitted residuals are smaller than the noise, and few of them do not show its tails (t
        of Student with G - spent degrees of freedom, z of the normal, at `level`). The noise of the new run is taken to
        be like that of the fitted ones, whatever its size. ValueError without draws, or where the groups are at most
        one more than the fit spends.
        """
        prediction_Bx = self.predict_draws(inputs)
        noise_RxB = self._noise(level)
        shape = (*noise_RxB.shape, *(1,) * (prediction_Bx.ndim - 1))
        if self.objective.scale == "log":
            loss_RxBx = prediction_Bx * np.exp(noise_RxB.reshape(shape))
        else:
            loss_RxBx = prediction_Bx + noise_RxB.reshape(shape)
        low, high = np.quantile(loss_RxBx.reshape(-1, *prediction_Bx.shape[1:]), tails(level), axis=0)
        return low, high

    def _noise(self, level: float) -> np.ndarray:
        """Noise of a measurement, `_NOISES` for each draw."""
        seen = self.points.fitted
        problem = Problem(self.law, self.objective, seen)
        near = problem.expansion(problem.coordinates(np.array([list(self.parameters.values())]))[0])
        freedom = seen.groups - spent(near.jacobian_PxM, seen.weight_M, seen.group_M)
        if freedom < 1:
            raise ValueError(
                f"groups: {seen.groups} runs, of which the fit of {self.law.name!r} spends {seen.groups - freedom:.1f};"
                " at least one more is needed to tell noise from curve; add runs"
            )
        upper = tails(level)[1]
        factor = stats.t.ppf(upper, freedom) / stats.norm.ppf(upper) * math.sqrt(seen.groups / freedom)
        share_M = 1 / (seen.groups * np.bincount(seen.group_M)[seen.group_M])
        residual_M = -near.residual_M * problem.data.unit_M[: len(seen)]
        size = (_NOISES, len(self.draws_BxP))
        return factor * np.random.default_rng(0).choice(residual_M, size, p=share_M)

    def parameter_interval(self, level: float = 0.95) -> dict[str, tuple[float, float]]:
        """Bootstrap percentile interval of each parameter."""
        self._need_draws()
        low_P, high_P = np.quantile(self.draws_BxP, tails(level), axis=0)
        return {name: (float(low), float(high)) for name, low, high in zip(self.parameters, low_P, high_P, strict=True)}

    def summary(self) -> str:
        """The fit in words: formula, parameters with intervals, errors, agreement, refusals."""
        lines = [
            f"{self.law.name}: {self.law.formula} [{self.law.target}]",
            f"  {self.law.citation}; {self.objective} = {self.value:.6g}",
        ]
        intervals = self.parameter_interval() if len(self.draws_BxP) else {}
        units = {parameter.name: parameter.unit or "" for parameter in self.law.parameters}
        for name, value in self.parameters.items():
            span = "[{:.5g}, {:.5g}]".format(*intervals[name]) if name in intervals else "no interval"
            lines.append(f"  {name:>8} = {value:<12.6g} 95% {span} {units[name]}".rstrip())
        lines.append(f"  fitted: {self.errors}, {self.groups} groups, {len(self.draws_BxP)} draws")
        lines.append(f"  held out: {self.held_out or 'nothing'}")
        lines.append(f"  starts that agree: {self.agreement:.0%}; status: {self.status}")
        return "\n".join(lines + [f"  refused, {refusal}" for refusal in self.refusals])

    def to_json(self) -> str:
        """The whole fit, its points included; the law by its name and arguments."""
        record = {
            "law": self.law.record,
            "objective": {"delta": _number(self.objective.delta), "scale": self.objective.scale},
            "parameters": self.parameters,
            "covariance": [[_number(x) for x in row] for row in self.covariance_PxP.tolist()],
            "draws": self.draws_BxP.tolist(),
            "value": self.value,
            "agreement": self.agreement,
            "points": self.points.to_record(),
            "errors": _errors_to_json(self.errors),
            "held_out": _errors_to_json(self.held_out),
            "refusals": [vars(refusal) for refusal in self.refusals],
        }
        return json.dumps(record, allow_nan=False)

    @classmethod
    def from_json(cls, text: str, law: Law | None = None) -> "Fit":
        """The fit that `to_json` wrote. Raises RecordError for other text, or where law and record differ.

        `law` is needed for one outside the catalogue.
        """
        try:
            record = json.loads(text)
            law = law or law_of(record["law"])
            if law.record != record["law"] or list(law.parameter_names) != list(record["parameters"]):
                raise RecordError(
                    f"law: the record is of {record['law']['name']!r} with parameters"
                    f" {', '.join(record['parameters'])}, not of {law.name!r} with {', '.join(law.parameter_names)};"
                    " fit again, or pass the law it was fitted with"
                )
            return cls._from_record(record, law)
        except RecordError:
            raise
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            why = f"{type(error).__name__}: {error}"[:2000]
            raise RecordError(f"fit: not the record of one ({why}); write it again with Fit.to_json") from error

    @classmethod
    def _from_record(cls, record: dict[str, Any], law: Law) -> "Fit":
        size = len(law.parameters)
        delta = record["objective"]["delta"]
        fit = cls(
            law=law,
            objective=Objective(math.inf if delta is None else real(delta, "objective.delta"),
                                record["objective"]["scale"]),
            parameters={name: real(value, name) for name, value in record["parameters"].items()},
            covariance_PxP=array(record["covariance"], (size, size), "covariance", unknown=True),
            draws_BxP=array(record["draws"] or np.zeros((0, size)), (len(record["draws"]), size), "draws"),
            value=real(record["value"], "value"),
            agreement=real(record["agreement"], "agreement"),
            points=Points.from_record(record["points"]),
            errors=_errors_from_json(record["errors"]),
            held_out=_errors_from_json(record["held_out"]) if record["held_out"] is not None else None,
            refusals=tuple(
                Refusal(text_of(r["kind"], "kind"), text_of(r["reason"], "reason"),
                        texts(r["parameters"], "parameters"))
                for r in record["refusals"]
            ),
        )
        if list(fit.points.inputs) != list(law.input_names):
            raise RecordError(f"points: expected the inputs {', '.join(law.input_names)} of law {law.name!r}")
        return fit

    def _need_draws(self) -> None:
        if not len(self.draws_BxP):
            raise ValueError(
                f"bootstrap: this fit of {self.law.name!r} has no draws, so no interval; fit with bootstrap > 0 and"
                f" at least two groups (it had {self.groups})"
            )


def tails(level: float) -> list[float]:
    """The two quantiles that bound a central interval. ValueError for a level outside (0, 1)."""
    if not 0 < level < 1:
        raise ValueError(f"level: {level} must lie in (0, 1), e.g. 0.95")
    return [(1 - level) / 2, (1 + level) / 2]


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _errors_to_json(errors: Errors | None) -> dict[str, Any] | None:
    if errors is None:
        return None
    return {"points": errors.points, "rmse": errors.rmse, "relative": _number(errors.relative)}


def _errors_from_json(record: dict[str, Any]) -> Errors:
    relative = math.nan if record["relative"] is None else real(record["relative"], "relative")
    return Errors(whole(record["points"], "points"), real(record["rmse"], "rmse"), relative)
