"""What a law is: a formula, its inputs with units and domains, and its parameters.

Letters: M points, P parameters.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

Transform = Literal["positive", "real", "unit"]
Scale = Literal["log", "raw"]
_BOUNDS: dict[str, tuple[float, float]] = {
    "positive": (1e-9, 1e9),
    "real": (-math.inf, math.inf),
    "unit": (1e-9, 1 - 1e-9),
}


ROUNDING_OF_SHARES = 0.03  # published tables print shares with few digits; some sum to 1.02
LARGEST_GAP = 1e4  # between neighbouring values of a count in one unit; a slip of unit is a factor 1e6 or 1e9
_COUNTED = frozenset({"parameters", "tokens", "steps", "FLOPs", "examples", "samples"})


class RecordError(ValueError):
    """JSON that is no record of a law or a fit; the message names the part and what was expected."""


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
        """`unit` as (input, exponent's parameter or number, sign of the exponent)."""
        if self.unit is None:
            return None
        base, exponent = self.unit.split("^", 1)
        return base, exponent.removeprefix("-"), -1 if exponent.startswith("-") else 1


@dataclass(frozen=True)
class Input:
    """One input of a law: its unit, the interval it lives in, and what the law needs to see of it.

    `distinct`: distinct values needed to tell the parameters attached to this input apart. One value is an error unless
    one is enough, fewer than `distinct` a refusal of the fit. `share_of`: for a mixture ratio, the corpus whose share
    it is: the one on which the loss is measured, or the domain corpus whatever is measured.
    """

    name: str
    unit: str
    low: float = 0.0
    high: float = math.inf
    low_included: bool = False
    distinct: int = 3
    share_of: Literal["measured", "domain"] | None = None
    labels: tuple[str, ...] = ()

    @property
    def domain(self) -> str:
        """The interval in words: "(0, inf)"; or the labels."""
        if self.labels:
            return "{" + ", ".join(self.labels) + "}"
        return f"{'[' if self.low_included else '('}{self.low:g}, {self.high:g}{')' if math.isinf(self.high) else ']'}"

    @property
    def counted(self) -> bool:
        """Whether it counts something (parameters, tokens, steps, FLOPs), which tables write in units, M, B or T."""
        return math.isinf(self.high) and not _COUNTED.isdisjoint(re.findall(r"\w+", self.unit))

    def outside(self, values_M: np.ndarray) -> np.ndarray:
        """Which values lie outside the interval."""
        below_M = values_M < self.low if self.low_included else values_M <= self.low
        return below_M | (values_M > self.high)


@dataclass(frozen=True, eq=False)
class Law:
    """A parametric formula from a run's features to its loss.

    One object each, compared and hashed by identity: a module-level constant, or the cached member of a `Family`.
    `predict(parameters, inputs)` is pure `jax.numpy`: scalars by parameter name, arrays of one shape by input name.
    `notes` states conventions, above all whether N counts embeddings. `exchangeable`: terms of one shape, each as its
    parameters' names, that may be swapped without changing the law; a fit orders them by their first parameter.
    `scale`: on which residuals are taken unless the objective says otherwise; "raw" where the target may be zero or
    negative. `simplex`: inputs that are shares of one mixture and sum to 1. `family`, `arguments`: what
    `catalogue.law_named` makes it from again, arguments as JSON; the family's name is the law's own by default.
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
    scale: Scale = "log"
    simplex: tuple[str, ...] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict, repr=False)
    family: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        inputs, names = {i.name for i in self.inputs}, {p.name for p in self.parameters}
        for parameter in self.parameters:
            low, high = parameter.limits
            if not low <= parameter.start[0] < parameter.start[1] <= high:
                raise ValueError(
                    f"law {self.name!r}: start {parameter.start} of parameter {parameter.name!r} must be an interval"
                    f" within {(low, high)}"
                )
            if parameter.power and not (
                parameter.power[0] in inputs and (parameter.power[1] in names or _is_number(parameter.power[1]))
            ):
                raise ValueError(
                    f"law {self.name!r}: unit {parameter.unit!r} of {parameter.name!r} must be INPUT^PARAMETER or"
                    " INPUT^-PARAMETER"
                )

    @property
    def record(self) -> dict[str, Any]:
        """What `catalogue.law_named(**record)` makes the law from, as JSON."""
        return {"name": self.family or self.name, **self.arguments}

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
            purpose = f"input {i.name!r} ({i.unit}) of law {self.name!r}; map it with columns="
            if i.labels:
                values[i.name] = _read_labels(table, column, purpose, i.labels)
                continue
            values[i.name] = read_column(table, column, purpose)
            if (bad_M := i.outside(values[i.name])).any():
                row, value = _first(table, values[i.name], bad_M)
                raise TableError(
                    f"column {column!r}, row {row}: {value:g} is outside {i.domain}, the domain of {i.name}"
                    f" ({i.unit}) in law {self.name!r}; correct or drop the row"
                )
        if self.simplex:
            self._check_simplex(table, values)
        return values

    def _check_simplex(self, table: Mapping[str, Any] | pd.DataFrame, values: Mapping[str, np.ndarray]) -> None:
        total_M = np.asarray(sum(values[name] for name in self.simplex))
        if (bad_M := np.abs(total_M - 1) > ROUNDING_OF_SHARES).any():
            row, total = _first(table, total_M, bad_M)
            raise TableError(
                f"row {row}: the shares {', '.join(self.simplex)} sum to {total:.4g}, expected 1 within"
                f" {ROUNDING_OF_SHARES}; they are shares of one mixture in law {self.name!r}: name every domain, or"
                " rescale"
            )

    def check_units(self, table: Mapping[str, Any] | pd.DataFrame, columns: Mapping[str, str] | None = None) -> None:
        """Raises TableError where a count's values leave a gap of more than `LARGEST_GAP`: 70 for 70M in some rows."""
        values = self.read_inputs(table, columns)
        for i in self.inputs:
            distinct_K = np.unique(values[i.name][values[i.name] > 0]) if i.counted else np.ones(1)
            wide_K = distinct_K[1:] > LARGEST_GAP * distinct_K[:-1]
            if not wide_K.any():
                continue
            below, above = distinct_K[int(np.argmax(wide_K)) :][:2]
            rows = [_first(table, values[i.name], values[i.name] == value)[0] for value in (below, above)]
            raise TableError(
                f"column {(columns or {}).get(i.name, i.name)!r}, rows {rows[0]} and {rows[1]}: {below:g} and"
                f" {above:g}, a factor {above / below:.2g} with nothing between; mixed units suspected, such as 70 for"
                f" 70M: write every row of {i.name} in {i.unit}"
            )

    def check_design(self, inputs: Mapping[str, np.ndarray]) -> None:
        """Raises TableError for fewer points than parameters, or an input that takes only one value."""
        points = len(next(iter(inputs.values())))
        if points < len(self.parameters):
            raise TableError(
                f"table: {points} rows for the {len(self.parameters)} parameters of law {self.name!r}; add runs or"
                " choose a law with fewer parameters"
            )
        for i in self.inputs:
            if not i.labels and i.distinct > 1 and (distinct := np.unique(inputs[i.name])).size == 1:
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


def _read_labels(
    table: Mapping[str, Any] | pd.DataFrame, column: str, purpose: str, labels: tuple[str, ...]
) -> np.ndarray:
    if column not in table:
        raise TableError(f"column {column!r} is missing: it is {purpose}; the table has {', '.join(map(str, table))}")
    place = {label: float(i) for i, label in enumerate(labels)}
    names = np.asarray(table[column], dtype=object)
    code_M = np.array([place.get(str(name), math.nan) for name in names.ravel()]).reshape(names.shape)
    if (unknown_M := np.isnan(code_M)).any():
        position = int(np.flatnonzero(unknown_M)[0])
        row = table.index[position] if isinstance(table, pd.DataFrame) else position
        raise TableError(
            f"column {column!r}, row {row}: {names.ravel()[position]!r} is none of {', '.join(labels)}: it is {purpose}"
        )
    return code_M


def _first(table: Mapping[str, Any] | pd.DataFrame, values_M: np.ndarray, bad_M: np.ndarray) -> tuple[Any, float]:
    position = int(np.flatnonzero(bad_M)[0])
    row = table.index[position] if isinstance(table, pd.DataFrame) else position
    return row, float(values_M.flat[position])


@dataclass(frozen=True)
class Family:
    """Laws of one formula whose inputs or parameters depend on the table: how many domains, which schedules.

    `make(**arguments)` gives a member, the same object for equal arguments; `arguments` says what each one is.
    """

    name: str
    formula: str
    citation: str
    target: str
    arguments: Mapping[str, str]
    make: Callable[..., Law] = field(repr=False)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def power(base: Any, exponent: Any) -> jax.Array:
    """base**exponent for base >= 0, with finite derivatives at base 0, where it is 0 (inf for a negative exponent)."""
    inside = base > 0
    at_zero = jnp.where(exponent > 0, 0.0, jnp.inf)
    return jnp.where(inside, jnp.exp(exponent * jnp.log(jnp.where(inside, base, 1.0))), at_zero)
