"""PowerNorm and Unified Normalization by hand and against their rules in numpy; statistics apart from parameters."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import Array

from helpers import small_run
from scaling.fields import ConfigError
from scaling.models.normalization import rms
from scaling.models.running import apart, merge, split
from scaling.models.running_norms import EPSILON, RunningNorm, outlying, powernorm, unified

X_NxC = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]])
Memory = dict[str, Any]


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def fresh(channels: int, batches: int | None = None, **values: Any) -> Memory:
    memory = {"count": 0.0, "square": np.ones(channels), "gradient": np.zeros(channels)}
    if batches is not None:
        memory |= {"window": np.ones((batches, channels)), "gradients": np.zeros((batches, channels))}
    return {**memory, **values}


def powered(warmup: int) -> Callable[..., Array]:
    return lambda x, scale, bias, memory: powernorm(warmup, (), x, scale, bias, memory)


def unifying(warmup: int, filtered: bool = False) -> Callable[..., Array]:
    return lambda x, scale, bias, memory: unified(warmup, filtered, (), x, scale, bias, memory)


def both_ways(norm: Callable[..., Array], x: Any, scale: Any, bias: Any, memory: Memory, dy: Any) -> tuple[Any, Any]:
    """The output, and gradients by x, scale, bias and memory, the last being what it becomes."""
    inputs = jax.tree.map(jnp.asarray, (x, scale, bias, memory))
    y, pull = jax.vjp(norm, *inputs)
    return y, pull(jnp.asarray(dy))


ONES, ZEROS = np.ones(2), np.zeros(2)


def test_power_statistics_by_hand() -> None:
    """ψ² of the batch; after one average from φ = 1; and, in warm-up, a plain mean that forgets the 1."""
    _, (_, _, _, after) = both_ways(powered(0), X_NxC, ONES, ZEROS, fresh(2), X_NxC)
    np.testing.assert_allclose(after["square"], [1.366667, 47.566667], rtol=1e-6)
    y, (_, _, _, after) = both_ways(powered(1), X_NxC, ONES, ZEROS, fresh(2), X_NxC)
    np.testing.assert_allclose(after["square"], [4.666667, 466.666667], rtol=1e-6)
    np.testing.assert_allclose(y, X_NxC / np.sqrt(np.array([4.666667, 466.666667])), rtol=1e-5)
    assert after["count"] == 1


def test_without_memory_of_gradients_powers_gradient_ignores_statistics() -> None:
    dy, scale = np.random.default_rng(0).normal(size=(3, 2)), np.array([0.5, 2.0])
    memory = fresh(2, count=9.0, square=np.mean(X_NxC**2, axis=0))
    y, (dx, dscale, dbias, _) = both_ways(powered(3), X_NxC, scale, np.array([1.0, 2.0]), memory, dy)
    z = X_NxC / np.sqrt(memory["square"] + 1e-5)
    np.testing.assert_allclose(y, scale * z + [1, 2], rtol=1e-12)
    np.testing.assert_allclose(dx, scale * dy / np.sqrt(memory["square"] + 1e-5), rtol=1e-12)
    np.testing.assert_allclose(dscale, (dy * z).sum(0), rtol=1e-12)
    np.testing.assert_allclose(dbias, dy.sum(0), rtol=1e-12)


def test_identical_tokens_have_the_root_mean_square_of_one() -> None:
    """A batch of one token, over and over: each channel over its own size."""
    y, _ = both_ways(powered(5), np.tile(X_NxC[:1], (4, 1)), ONES, ZEROS, fresh(2), np.zeros((4, 2)))
    np.testing.assert_allclose(y, 1, rtol=1e-5)


def test_power_goes_by_its_rule_through_warm_up_and_after() -> None:
    """The rule as the paper has it, with e the mean over tokens of gradients of the mean loss."""
    rng, scale = np.random.default_rng(0), np.array([0.5, 2.0])
    memory, phi, e = fresh(2), np.ones(2), np.zeros(2)
    for step in range(1, 7):
        x, dy = rng.normal(size=(5, 2)) * step, rng.normal(size=(5, 2))
        square = (x**2).mean(0)
        divisor = square if step <= 3 else phi
        z = x / np.sqrt(divisor + 1e-5)
        g = scale * dy - 0.1 * e * z
        expected = g / np.sqrt(divisor + 1e-5)
        e = e + (g * z).mean(0)
        phi = (phi * (step - 1) + square) / step if step <= 3 else 0.9 * phi + 0.1 * square
        _, (dx, _, _, memory) = both_ways(powered(3), x, scale, ZEROS, memory, dy)
        np.testing.assert_allclose(dx, expected, rtol=1e-10)
        np.testing.assert_allclose(memory["square"], phi, rtol=1e-12)
        np.testing.assert_allclose(memory["gradient"] / 5, e, rtol=1e-10, atol=1e-12)


def test_unified_takes_the_geometric_mean_of_its_window() -> None:
    """1, 1, 1 and 16 have the geometric mean 2."""
    x = np.full((3, 1), 4.0)
    memory = fresh(1, 4, count=50.0)
    y, (_, _, _, after) = both_ways(unifying(10), x, np.ones(1), np.zeros(1), memory, x)
    np.testing.assert_allclose(y, 4 / np.sqrt(2 + EPSILON), rtol=1e-12)
    np.testing.assert_allclose(after["square"], [0.9 + 0.1 * 2], rtol=1e-12)
    np.testing.assert_allclose(after["window"][:, 0], [1, 1, 1, 16], rtol=1e-12)


@pytest.mark.parametrize(("square", "expected"), [(1.2, False), (16.0, True)])
def test_outliers_by_hand(square: float, expected: bool) -> None:
    """Arithmetic less geometric mean .005991 and 2.755 against 4 Var(√window) = .006686."""
    window_MxC = np.array([[1.0], [1.1], [0.9], [1.0]])
    after = np.append(window_MxC[1:, 0], square)
    gap, threshold = after.mean() - np.prod(after) ** 0.25, 4 * np.var(np.sqrt(window_MxC), ddof=1)
    assert gap == pytest.approx(0.005991 if square < 2 else 2.755, rel=1e-3)
    assert threshold == pytest.approx(0.006686, rel=1e-3)
    assert bool(outlying(jnp.asarray(window_MxC), jnp.array([square]))) is expected
    x = np.full((3, 1), square**0.5)
    memory = fresh(1, 4, count=50.0, window=window_MxC, square=np.array([1.05]))
    y, (_, _, _, memory) = both_ways(unifying(10, filtered=True), x, np.ones(1), np.zeros(1), memory, x)
    np.testing.assert_allclose(y**2, square / ((square if expected else np.prod(after) ** 0.25) + 1e-5), rtol=1e-10)
    assert float(memory["window"][-1, 0]) == pytest.approx(1.05 if expected else 1.2)


def test_a_window_of_one_is_the_root_mean_square_of_the_batch_with_its_exact_gradient() -> None:
    def plain(x: Array, scale: Array, bias: Array, memory: Memory) -> Array:
        return x / jnp.sqrt(jnp.mean(jnp.square(x), axis=0) + EPSILON)[None] * scale[None] + bias[None]

    dy = np.random.default_rng(0).normal(size=(3, 2))
    given = (X_NxC, np.array([0.5, 2.0]), np.array([1.0, 2.0]), fresh(2, 1, count=5000.0, square=np.ones(2) * 3), dy)
    (y, found), (expected_y, expected) = both_ways(unifying(10), *given), both_ways(plain, *given)
    np.testing.assert_allclose(y, expected_y, rtol=1e-12)
    for ours, theirs in zip(found[:3], expected[:3], strict=True):  # ε keeps the mean of z² a little below 1
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("start", [0, 2000])
def test_unified_goes_by_its_rule_through_warm_up_and_after(start: int) -> None:
    """As the authors' code: e a mean over tokens; from update 1001 on gradients are corrected, within 1/5 and 5."""
    rng, scale, corrected = np.random.default_rng(0), np.array([0.5, 2.0]), 0
    memory = fresh(2, 4, count=float(start))
    squares, products = [np.ones(2)] * 4, [np.zeros(2)] * 4
    running, e = np.ones(2), np.zeros(2)
    for step in range(start + 1, start + 10):
        x, dy = rng.normal(size=(5, 2)) * rng.uniform(0.1, 20), rng.normal(size=(5, 2))
        squares = [*squares[1:], (x**2).mean(0)]
        variance = squares[-1] if step <= 5 else np.prod(squares, axis=0) ** 0.25
        r = np.clip(np.sqrt((variance + 1e-5) / (running + 1e-5)), 0.2, 5) if step > 1000 else np.ones(2)
        corrected += int(((r != 1) & (r != 5)).any())
        z = x / np.sqrt(variance + 1e-5)
        g = r * scale * dy
        products = [*products[1:], (g * z).mean(0)]
        e = 0.9 * e + 0.1 * (products[-1] if step <= 5 else np.mean(products, axis=0))
        running = 0.9 * running + 0.1 * variance
        _, (dx, dscale, _, memory) = both_ways(unifying(5), x, scale, ZEROS, memory, dy)
        np.testing.assert_allclose(dx, (g - e * z) / np.sqrt(variance + 1e-5), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(dscale, (dy * r * z).sum(0), rtol=1e-10)
        np.testing.assert_allclose(memory["square"], running, rtol=1e-12)
        np.testing.assert_allclose(memory["gradient"] / 5, e, rtol=1e-9, atol=1e-12)
    assert (corrected > 0) == (start > 0)


@pytest.mark.parametrize(("norm", "memory"), [
    (functools.partial(powernorm, 0), fresh(2)), (functools.partial(powernorm, 3), fresh(2)),
    (functools.partial(unified, 0, False), fresh(2, 4, count=50.0)),
    (functools.partial(unified, 10, True), fresh(2, 4, count=2.0)),
])
def test_halves_of_a_batch_on_two_devices_are_the_batch(norm: Callable, memory: Memory) -> None:
    """With the gradient of a half's mean loss, twice what a token has in the whole batch, and the mean over devices."""
    x, dy = np.random.default_rng(0).normal(size=(2, 6, 2))
    scale, bias, memory = np.array([0.5, 2.0]), np.array([1.0, 2.0]), {**memory, "gradient": np.array([0.3, -0.2])}
    y, (dx, dscale, dbias, after) = both_ways(
        lambda *given: norm((), *given), x, scale, bias, memory, dy)
    halves_x, halves_dy = (half.reshape(2, 3, 2) for half in (x, dy))
    y_2x3x2, (dx_2x3x2, *rest) = jax.vmap(
        lambda x, dy: both_ways(lambda *given: norm(("data",), *given), x, scale, bias, memory, 2 * dy),
        axis_name="data")(halves_x, halves_dy)
    np.testing.assert_allclose(y_2x3x2.reshape(6, 2), y, rtol=1e-12)
    np.testing.assert_allclose(dx_2x3x2.reshape(6, 2), 2 * dx, rtol=1e-10)
    for ours, theirs in zip(jax.tree.leaves(rest), jax.tree.leaves((dscale, dbias, after)), strict=True):
        np.testing.assert_allclose(ours.mean(axis=0), theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", ["powernorm", "unified"])
def test_an_evaluation_goes_by_running_statistics_and_gives_them_no_gradient(kind: str) -> None:
    training, still = (RunningNorm(kind, 3, False, axes, jnp.dtype("float64")) for axes in ((), None))
    params = training.init(jax.random.key(0), X_NxC)["params"]
    params["statistics"]["square"] = jnp.array([4.0, 9.0])
    expected = (np.asarray(rms(X_NxC, 1e-5)) if kind == "powernorm" else X_NxC) / np.sqrt(np.array([4.0, 9.0]) + 1e-5)
    np.testing.assert_allclose(still.apply({"params": params}, X_NxC), expected, rtol=1e-12)
    gradient = jax.grad(lambda p, m: jnp.sum(m.apply({"params": p}, X_NxC)), argnums=0)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradient(params, still)["statistics"]))
    assert gradient(params, training)["statistics"]["count"] == 1


def test_statistics_part_from_parameters_and_come_back() -> None:
    tree = {"a": {"scale": 1, "statistics": {"count": 2}}, "b": {"kernel": 3}, "statistics": {"square": 4}}
    trained, statistics = split(tree)
    assert trained == {"a": {"scale": 1}, "b": {"kernel": 3}}
    assert statistics == {"a": {"statistics": {"count": 2}}, "statistics": {"square": 4}}
    assert merge(trained, statistics) == tree
    assert split({"a": {"scale": 1}}) == ({"a": {"scale": 1}}, {})


def test_an_optimizer_sees_no_statistics_and_they_become_their_gradients() -> None:
    """The clip at 1 would bite on 3 and 4 with 12; and momentum of a statistic would be a leaf of the state."""
    params = {"a": {"scale": jnp.array([0.0, 0.0]), "statistics": {"square": jnp.array(7.0)}}}
    gradients = {"a": {"scale": jnp.array([3.0, 4.0]), "statistics": {"square": jnp.array(12.0)}}}
    method = apart(optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(1.0, momentum=0.9)))
    updates, state = method.update(gradients, method.init(params), params)
    after = optax.apply_updates(params, updates)
    np.testing.assert_allclose(after["a"]["scale"], [-0.6, -0.8], rtol=1e-12)
    assert float(after["a"]["statistics"]["square"]) == 12
    assert [leaf.shape for leaf in jax.tree.leaves(state)] == [(2,)]


@pytest.mark.parametrize(("changes", "message"), [
    ({"model.norm": "powernorm"}, r"model.norm_warmup = None: expected a number of updates with powernorm and unified"),
    ({"model.norm_warmup": 5}, r"model.norm_warmup = 5: expected a number of updates with powernorm and unified, None"),
    ({"model.filter_outliers": True}, r"model.filter_outliers = True: expected False with model.norm = 'rmsnorm'"),
    ({"model.norm": "unified", "model.norm_warmup": 5,
      "packing": {"method": "best_fit", "attention": "document", "metadata": {}, "documents": {}}},
     r"packing = .*: expected None with model.norm = 'unified', whose statistics are those of whole"),
    ({"model.norm": "powernorm", "model.norm_warmup": 5, "mixer": {"name": "odm", "memory": 0.9}},
     r"mixer = .*: expected None with model.norm = 'powernorm'"),
])
def test_what_does_not_go_with_such_norms_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small_run(**changes)
