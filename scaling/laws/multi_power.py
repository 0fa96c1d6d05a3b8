"""The multi-power law: the whole loss curve under any learning-rate schedule.

Letters: M points, T steps, S schedules, N nodes, K nodes that stand for the changes of the rate before a step.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scaling.laws.law import Family, Input, Law, Parameter, power
from scaling.laws.merged_changes import CHUNK, SEGMENT, MergedChanges, join
from scaling.laws.schedule import Schedules

_NAME = "multi-power"
_FORMULA = "L0 + A*S1(t)^-alpha - B*sum_{k<=t} (eta_(k-1) - eta_k)*(1 - (1 + C*eta_k^-gamma*S_k(t))^-beta)"
_CITATION = "Luo et al. 2025, arXiv 2503.12811"
_TARGET = "nats/token"

# L0, A, alpha, B, C, beta, gamma by model size in millions of parameters, as released with the paper's code.
MULTI_POWER_PUBLISHED: dict[int, dict[str, float]] = {
    size: dict(zip(("L0", "A", "alpha", "B", "C", "beta", "gamma"), values, strict=True))
    for size, values in {
        25: (3.04045406, 0.52468604, 0.50786857, 363.78751622, 2.06560812, 0.58279013, 0.64142257),
        100: (2.6514477, 0.60115152, 0.45295811, 437.9464276, 2.13245612, 0.59785199, 0.65523644),
        400: (2.37474466, 0.65421216, 0.42878731, 523.42464371, 2.02462735, 0.59350493, 0.63472457),
    }.items()
}


_AT_ONCE = 64
_Kernel = tuple[Any, Any, Any]  # C, beta, gamma
_Sums = tuple[jax.Array, ...]  # the bonus and its derivatives by them


def _bonus(kernel: _Kernel, log_rate_K: Any, gap_K: Any, weight_K: Any) -> jax.Array:
    """sum_K w*(1 - (1+x)^-beta), x = C*exp(-gamma*log_rate)*gap."""
    c, beta, gamma = kernel
    log_K = jnp.log(1 + c * jnp.exp(-gamma * log_rate_K) * gap_K)
    return jnp.sum(weight_K * (1 - jnp.exp(-beta * log_K)), axis=-1)


def _bonus_and_slopes(kernel: _Kernel, log_rate_K: Any, gap_K: Any, weight_K: Any) -> tuple[jax.Array, ...]:
    """The sum and its derivatives by C, beta and gamma in one pass: a kernel costs three transcendentals."""
    c, beta, gamma = kernel
    x_K = c * jnp.exp(-gamma * log_rate_K) * gap_K
    log_K = jnp.log(1 + x_K)
    kept_K = weight_K * jnp.exp(-beta * log_K)
    steep_K = kept_K * (x_K / (1 + x_K))
    parts = (weight_K - kept_K, beta / c * steep_K, kept_K * log_K, -beta * steep_K * log_rate_K)
    return tuple(jnp.sum(part_K, axis=-1) for part_K in parts)


def _summed(changes: MergedChanges) -> Callable[[_Kernel, jax.Array], jax.Array]:
    """The sum over the changes before each of some steps [M], read chunk by chunk, as far as any step of a block sees.

    Values take blocks of many steps. Derivatives, which a fit takes in many lanes, go step by step, so that they stay
    in cache; a repeated step (padding) costs nothing.
    """
    chunks_G = -(-changes.count_G // CHUNK)
    seen_GxIxK = changes.seen_GxK.reshape(len(chunks_G), -1, CHUNK)

    def read(step: jax.Array, i: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """log eta, S(t) - S(k-1) and weight of the nodes in the i-th chunk of each step."""
        node_xK = jnp.asarray(seen_GxIxK)[step // SEGMENT, i]
        gap_xK = jnp.maximum(jnp.asarray(changes.area_T)[step][..., None] - jnp.asarray(changes.before_N)[node_xK], 0.0)
        past_xK = jnp.asarray(changes.step_N)[node_xK] <= step[..., None]
        weight_xK = jnp.where(past_xK, jnp.asarray(changes.weight_N)[node_xK], 0.0)
        return jnp.asarray(changes.log_rate_N)[node_xK], gap_xK, weight_xK

    @jax.custom_jvp
    def total(kernel: _Kernel, step_M: jax.Array) -> jax.Array:
        zero = jnp.zeros((), jnp.result_type(*kernel, float))

        def at(step_R: jax.Array) -> jax.Array:
            chunks = jnp.max(jnp.asarray(chunks_G)[step_R // SEGMENT])
            start_R = jnp.full(step_R.shape, zero)
            return jax.lax.fori_loop(0, chunks, lambda i, sum_R: sum_R + _bonus(kernel, *read(step_R, i)), start_R)

        rows = min(_AT_ONCE, step_M.size)
        padded_M = jnp.pad(step_M, (0, -step_M.size % rows), mode="edge")
        return jax.lax.map(at, padded_M.reshape(-1, rows)).ravel()[: step_M.size]

    @total.defjvp
    def _(primals: tuple[_Kernel, jax.Array], tangents: tuple[_Kernel, Any]) -> tuple[jax.Array, jax.Array]:
        kernel, step_M = primals
        zeros: _Sums = (jnp.zeros((), jnp.result_type(*kernel, float)),) * 4

        def at(last: tuple[jax.Array, _Sums], step: jax.Array) -> tuple[tuple[jax.Array, _Sums], _Sums]:
            def chunk(i: jax.Array, sums: _Sums) -> _Sums:
                return tuple(map(jnp.add, sums, _bonus_and_slopes(kernel, *read(step, i))))

            chunks = jnp.where(step == last[0], 0, jnp.asarray(chunks_G)[step // SEGMENT])
            fresh = jax.lax.fori_loop(0, chunks, chunk, zeros)
            sums = tuple(jnp.where(step == last[0], *pair) for pair in zip(last[1], fresh, strict=True))
            return (step, sums), sums

        value_M, *slopes = jax.lax.scan(at, (jnp.full_like(step_M[0], -1), zeros), step_M)[1]
        return value_M, sum(slope_M * change for slope_M, change in zip(slopes, tangents[0], strict=True))

    return total


def multi_power(schedules: Schedules | Mapping[str, Any]) -> Law:
    """The law for a set of schedules: inputs `schedule` (its name) and `step` (from 0).

    L0 + A*S1(t)^-alpha - B*sum_{k=1..t} (eta_(k-1) - eta_k) * (1 - (1 + C*eta_k^-gamma*S_k(t))^-beta), with S1(t) =
    sum_{i<=t} eta_i, warm-up included, and S_k(t) = sum_{i=k..t} eta_i, in learning rate x steps. As in the paper's
    code the sum over changes runs through the warm-up, so that L0 holds about -B*peak of it. A step costs O(log T)
    where the table is smooth between few breaks, however many changes came before; a rough table costs O(T) a step.
    Equal schedules give the same object. Outside its table's steps the law is nan.
    """
    return _multi_power(Schedules.of(schedules))


@cache
def _multi_power(schedules: Schedules) -> Law:
    tables = [schedules[name] for name in schedules.names]
    changes = join([MergedChanges.of(lr_T) for lr_T in tables])
    total = _summed(changes)
    first_S, steps_S = changes.first_S, np.array([len(lr_T) for lr_T in tables])

    def predict(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
        code, step = jnp.asarray(x["schedule"]).astype(int), jnp.asarray(x["step"])
        inside = (step >= 0) & (step < jnp.asarray(steps_S)[code]) & (step == jnp.floor(step))
        at = jnp.asarray(first_S)[code] + jnp.where(inside, step, 0).astype(int)
        bonus = total((p["C"], p["beta"], p["gamma"]), at.ravel()).reshape(at.shape)
        curve = p["L0"] + p["A"] * power(jnp.asarray(changes.area_T)[at], -p["alpha"]) + p["B"] * bonus
        return jnp.where(inside, curve, jnp.nan)

    peak = max(float(lr_T.max()) for lr_T in tables)
    area = max(float(lr_T.sum()) for lr_T in tables)
    return Law(
        name=_NAME,
        formula=_FORMULA,
        citation=_CITATION,
        inputs=(
            Input("schedule", "name of the schedule", labels=schedules.names),
            Input("step", "optimiser step, from 0", 0.0, float(steps_S.max() - 1), low_included=True, distinct=7),
        ),
        target=_TARGET,
        parameters=_parameters(peak, area),
        predict=predict,
        notes=_NOTES,
        arguments={"schedules": schedules.to_record()},
    )


def _parameters(peak: float, area: float) -> tuple[Parameter, ...]:
    """Start ranges in the units of the schedules: B*peak in nats, C*peak^-gamma*area against 1 at gamma = 1/2."""
    unit = peak**0.5 / area
    return (
        Parameter("L0", "positive", (0.05, 20.0), linear=True),
        Parameter("A", "positive", (1e-3, 100.0), linear=True),
        Parameter("alpha", "positive", (0.05, 2.0), bounds=(1e-3, 10.0)),
        Parameter("B", "positive", (1e-3 / peak, 10.0 / peak), linear=True),
        Parameter("C", "positive", (1.0 * unit, 1e4 * unit), bounds=(1e-6 * unit, 1e9 * unit)),
        Parameter("beta", "positive", (0.1, 2.0), bounds=(1e-3, 10.0)),
        Parameter("gamma", "positive", (0.05, 1.5), bounds=(1e-3, 5.0)),
    )


_NOTES = (
    "Per model size. B, C and gamma are nearly collinear: compare predictions. Needs a decaying schedule among the"
    " fitted ones. Learning rates in raw units; the table holds every step, warm-up included."
)


def final_loss(p: Mapping[str, Any], lr_T: Any) -> jax.Array:
    """The law at the last step of a schedule, in O(T); differentiable in the schedule, whose rates must be > 0 after
    index 0.
    """
    lr_T = jnp.asarray(lr_T)
    area_T = jnp.cumsum(lr_T)
    gap_T = area_T[-1] - area_T[:-1]
    bonus = _bonus((p["C"], p["beta"], p["gamma"]), jnp.log(lr_T[1:]), gap_T, jnp.diff(lr_T))
    return p["L0"] + p["A"] * power(area_T[-1], -p["alpha"]) + p["B"] * bonus


MULTI_POWER = Family(
    name=_NAME,
    formula=_FORMULA,
    citation=_CITATION,
    target=_TARGET,
    arguments={"schedules": "learning rate of every step, by name of the schedule"},
    make=multi_power,
)

LAWS = ()
FAMILIES = (MULTI_POWER,)
