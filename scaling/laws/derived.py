"""Laws made from laws: some parameters held at given values, or one law for many groups that share parameters."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp

from scaling.laws.law import Input, Law, Parameter


def with_fixed(law: Law, fixed: Mapping[str, float]) -> Law:
    """The law with some parameters held at given values, which are then no longer parameters: no interval of a fit or
    of a decision knows that they are uncertain, so hold what is known far better than the rest.

    Raises ValueError for a parameter that the law has not, a value outside its bounds, or all of them fixed.
    """
    for name, value in fixed.items():
        known = {p.name: p for p in law.parameters}
        if name not in known:
            raise ValueError(f"fixed: law {law.name!r} has no parameter {name!r}; it has {', '.join(known)}")
        low, high = _natural_limits(known[name])
        if not low <= value <= high:
            raise ValueError(f"fixed: {name} = {value:g} must lie in [{low:g}, {high:g}]")
    if len(fixed) >= len(law.parameters):
        raise ValueError(f"fixed: every parameter of law {law.name!r} is fixed; nothing is left to fit")
    return _fixed(law, tuple(sorted((name, float(value)) for name, value in fixed.items()))) if fixed else law


def _natural_limits(parameter: Parameter) -> tuple[float, float]:
    """Limits of a parameter as the law writes it: those of a coefficient with a unit speak of its term instead."""
    if parameter.unit is None:
        return parameter.limits
    return {"positive": (0.0, float("inf")), "real": (-float("inf"), float("inf"))}[parameter.transform]


@cache
def _fixed(law: Law, fixed: tuple[tuple[str, float], ...]) -> Law:
    values = dict(fixed)

    def predict(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
        return law.predict({**p, **values}, x)

    def free(parameter: Parameter) -> Parameter:
        if parameter.power is None or parameter.power[1] not in values:
            return parameter
        base, exponent, sign = parameter.power
        return replace(parameter, unit=f"{base}^{sign * values[exponent]!r}")

    return replace(
        law,
        name=f"{law.name} with {', '.join(f'{name} = {value:g}' for name, value in fixed)}",
        parameters=tuple(free(p) for p in law.parameters if p.name not in values),
        predict=predict,
        exchangeable=() if any(values.keys() & set(term) for term in law.exchangeable) else law.exchangeable,
        family="fixed",
        arguments={"law": law.record, "fixed": values},
    )


def pooled(law: Law, by: str, labels: Iterable[str], shared: Iterable[str]) -> Law:
    """One law for many groups: the parameters `shared` have one value, each other one a value a group.

    `by` is the column that names the group of a row, `labels` its values. A group's own parameter is named
    "alpha[group]". Raises ValueError for fewer than two labels, a repeated one, or a shared name that the law has not.
    """
    labels, shared = tuple(map(str, labels)), tuple(shared)
    if len(labels) < 2 or len(set(labels)) < len(labels):
        raise ValueError(f"labels: {labels} must be at least two different groups of column {by!r}")
    if unknown := set(shared) - set(law.parameter_names):
        raise ValueError(
            f"shared: law {law.name!r} has no parameter {sorted(unknown)[0]!r}; it has {', '.join(law.parameter_names)}"
        )
    return _pooled(law, by, labels, tuple(name for name in law.parameter_names if name in shared))


@cache
def _pooled(law: Law, by: str, labels: tuple[str, ...], shared: tuple[str, ...]) -> Law:
    def own(name: str, label: str) -> str:
        return name if name in shared else f"{name}[{label}]"

    def predict(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
        group = jnp.asarray(x[by]).astype(int)
        values = {
            q.name: p[q.name] if q.name in shared else jnp.stack([p[own(q.name, label)] for label in labels])[group]
            for q in law.parameters
        }
        return law.predict(values, {name: x[name] for name in law.input_names})

    def of_group(parameter: Parameter, label: str) -> Parameter:
        unit = parameter.unit
        if parameter.power and (exponent := parameter.power[1]) in law.parameter_names:
            unit = unit and unit.removesuffix(exponent) + own(exponent, label)
        return replace(parameter, name=own(parameter.name, label), unit=unit)

    parameters = {own(q.name, label): of_group(q, label) for label in labels for q in law.parameters}
    return replace(
        law,
        name=f"{law.name} by {by}, shared {', '.join(shared) or 'nothing'}",
        inputs=(*law.inputs, Input(by, "group", labels=labels)),
        parameters=tuple(parameters.values()),
        predict=predict,
        exchangeable=(),
        family="pooled",
        arguments={"law": law.record, "by": by, "labels": list(labels), "shared": list(shared)},
    )
