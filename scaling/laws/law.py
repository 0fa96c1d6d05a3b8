"""What a law is: a formula, its inputs with units and domains, and its parameters.

Letters: M points, P parameters.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

Transform = Literal["positive", "real", "unit"]
_BOUNDS: dict[str, tuple[float, float]] = {
    "positive": (1e-9, 1e9),
    "real": (-math.inf, math.inf),
    "unit": (1e-9, 1 - 1e-9),
}


class TableError(ValueError):
    """A table that a law cannot be fitted to; the message names column, row, value and cure."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a law.

    `transform`: its domain, and the coordinate in which it is fitted (log, identity, logit). `start`: where starts are
    drawn, uniformly in that coordinate. `bounds`: hard limits; an estimate that sits on one is refused. `unit`:
    "N^alpha" for a coefficient such as A in A/N^alpha ("T^-s" for a in a*T^s). Such a coefficient is fitted as
    A/N0^alpha, the size of its term at the geometric mean N0 of the data; `start` and `bounds` speak of that size, so
    they need no knowledge of units. `linear`: the law is affine in it (jointly with the other linear ones) while the
    rest is fixed.
    """

    name: str
    transform: Transform
    start: tuple[float, float]
    bounds: tuple[float, float] | None = None
    unit: str | None = None
    linear: bool = False

    @property
    def limits(self) -> tuple[float, float]:
        """`bounds`, or those of the transform."""
        return self.bounds or _BOUNDS[self.transform]

    @property
    def power(self) -> tuple[str, str, int] | None:
        """`unit` as (input, exponent's parameter, sign of the exponent)."""
        if self.unit is None:
            return None
        base, exponent = self.unit.split("^")
        return base, exponent.lstrip("-"), -1 if exponent.startswith("-") else 1


@dataclass(frozen=True)
class Input:
    """One input of a law: its unit, the interval it lives in, and what the law needs to see of it.

    `distinct`: distinct values needed to tell the parameters attached to this input apart. One value is an error, fewer
    than `distinct` a refusal of the fit. `share_of`: for a mixture ratio, the corpus whose share it is: the one on
    which the loss is measured, or the domain corpus whatever is measured.
    """

    name: str
    unit: str
    low: float = 0.0
    high: float = math.inf
    low_included: bool = False
    distinct: int = 3
    share_of: Literal["measured", "domain"] | None = None

    @property
    def domain(self) -> str:
        """The interval in words: "(0, inf)"."""
        return f"{'[' if self.low_included else '('}{self.low:g}, {self.high:g}{')' if math.isinf(self.high) else ']'}"

    def outside(self, values_M: np.ndarray) -> np.ndarray:
        """Which values lie outside the interval."""
        below_M = values_M < self.low if self.low_included else values_M <= self.low
        return below_M | (values_M > self.high)


@dataclass(frozen=True, eq=False)
class Law:
    """A parametric formula from a run's features to its loss.

    One module-level constant each, compared and hashed by identity.
    `predict(parameters, inputs)` is pure `jax.numpy`: scalars by parameter name, arrays of one shape by input name.
    `notes` states conventions, above all whether N counts embeddings. `exchangeable`: terms of one shape, each as its
    parameters' names, that may be swapped without changing the law; a fit orders them by their first parameter.
    """

    name: str
    formula: str
    citation: str
    inputs: tuple[Input, ...]
    target: str
    parameters: tuple[Parameter, ...]
    predict: Callable[[Mapping[str, Any], Mapping[str, Any]], jax.Array] = field(repr=False)
    notes: str = ""
    exchangeable: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        inputs, names = {i.name for i in self.inputs}, {p.name for p in self.parameters}
        for parameter in self.parameters:
            low, high = parameter.limits
            if not low <= parameter.start[0] < parameter.start[1] <= high:
                raise ValueError(
                    f"law {self.name!r}: start {parameter.start} of parameter {parameter.name!r} must be an interval"
                    f" within {(low, high)}"
                )
            if parameter.power and (parameter.power[0] not in inputs or parameter.power[1] not in names):
                raise ValueError(
                    f"law {self.name!r}: unit {parameter.unit!r} of {parameter.name!r} must be INPUT^PARAMETER or"
                    " INPUT^-PARAMETER"
                )

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Names in the order of every parameter vector."""
        return tuple(parameter.name for parameter in self.parameters)

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names in the order of every input table."""
        return tuple(i.name for i in self.inputs)

    def read_inputs(
        self, table: Mapping[str, Any] | pd.DataFrame, columns: Mapping[str, str] | None = None
    ) -> dict[str, np.ndarray]:
        """The law's inputs as float64 arrays, by input name; `columns` maps an input to its column.

        Raises TableError for a missing column, a value that is no number or not finite, and a value outside the input's
        domain.
        """
        columns = columns or {}
        if unknown := set(columns) - set(self.input_names):
            raise TableError(
                f"columns: law {self.name!r} has no input {sorted(unknown)[0]!r}; its inputs are"
                f" {', '.join(self.input_names)}"
            )
        values = {}
        for i in self.inputs:
            column = columns.get(i.name, i.name)
            values[i.name] = read_column(
                table, column, f"input {i.name!r} ({i.unit}) of law {self.name!r}; map it with columns="
            )
            if (bad_M := i.outside(values[i.name])).any():
                row, value = _first(table, values[i.name], bad_M)
                raise TableError(
                    f"column {column!r}, row {row}: {value:g} is outside {i.domain}, the domain of {i.name}"
                    f" ({i.unit}) in law {self.name!r}; correct or drop the row"
                )
        return values

    def check_design(self, inputs: Mapping[str, np.ndarray]) -> None:
        """Raises TableError for fewer points than parameters, or an input that takes only one value."""
        points = len(next(iter(inputs.values())))
        if points < len(self.parameters):
            raise TableError(
                f"table: {points} rows for the {len(self.parameters)} parameters of law {self.name!r}; add runs or"
                " choose a law with fewer parameters"
            )
        for i in self.inputs:
            if (distinct := np.unique(inputs[i.name])).size == 1:
                raise TableError(
                    f"input {i.name!r}: only one distinct value ({distinct[0]:g}) in the rows to fit, but law"
                    f" {self.name!r} ({self.formula}) has parameters that only its variation can tell; add runs at"
                    f" other values, or choose a law without {i.name}"
                )


def read_column(table: Mapping[str, Any] | pd.DataFrame, column: str, purpose: str) -> np.ndarray:
    """A column as finite float64; TableError names the column, the row and `purpose`."""
    if column not in table:
        raise TableError(f"column {column!r} is missing: it is {purpose}; the table has {', '.join(map(str, table))}")
    try:
        values_M = np.asarray(table[column], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TableError(f"column {column!r} must hold numbers: it is {purpose} ({error})") from error
    if (bad_M := ~np.isfinite(values_M)).any():
        row, value = _first(table, values_M, bad_M)
        raise TableError(
            f"column {column!r}, row {row}: {value} is not finite; drop such rows (a diverged run has no loss to fit)"
        )
    return values_M


def _first(table: Mapping[str, Any] | pd.DataFrame, values_M: np.ndarray, bad_M: np.ndarray) -> tuple[Any, float]:
    position = int(np.flatnonzero(bad_M)[0])
    row = table.index[position] if isinstance(table, pd.DataFrame) else position
    return row, float(values_M.flat[position])


def power(base: Any, exponent: Any) -> jax.Array:
    """base**exponent for base >= 0, with finite derivatives at base 0, where it is 0 (inf for a negative exponent)."""
    inside = base > 0
    at_zero = jnp.where(exponent > 0, 0.0, jnp.inf)
    return jnp.where(inside, jnp.exp(exponent * jnp.log(jnp.where(inside, base, 1.0))), at_zero)
