"""What optax asks of an optimizer, of every matrix method: targets, dtypes, one compilation, MultiSteps, vmap, scan."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from scaling.fields import ConfigError
from scaling.optimizers.conda import conda
from scaling.optimizers.galore import galore
from scaling.optimizers.gradnormlorp import gradnormlorp
from scaling.optimizers.projection import refreshed_if
from scaling.optimizers.soap import soap

Method = Callable[..., optax.GradientTransformation]
RANK = {"rank": 2, "every": 5, "scale": 1.0}
METHODS: dict[str, Method] = {  # by learning_rate, b1, b2, eps, weight_decay and mask
    "conda": functools.partial(conda, scale=1.0, every=5),
    "soap": functools.partial(soap, every=5),
    "galore_short": functools.partial(galore, **RANK, long_side=False),
    "galore_long": functools.partial(galore, **RANK, long_side=True),
    "gradnormlorp_published": functools.partial(gradnormlorp, **RANK, released=False),
    "gradnormlorp_released": functools.partial(gradnormlorp, **RANK, released=True),
}
ADAM = {"b1": 0.9, "b2": 0.99, "eps": 1e-8, "weight_decay": 0.1}
methods = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
dtypes = pytest.mark.parametrize("dtype", ["float32", "bfloat16"])


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def kernels(dtype: str, seed: int = 0) -> dict[str, jax.Array]:
    """A dense layer's, 3 x 5, and a convolution's, 8 x 3 as a matrix."""
    return wide(dtype, seed) | {"window": jnp.asarray(normal(seed + 1, 2, 2, 2, 3), dtype)}


def wide(dtype: str, seed: int = 0) -> dict[str, jax.Array]:
    return {"wide": jnp.asarray(normal(seed, 3, 5), dtype)}


def quadratic(params: Any) -> Any:
    """½‖A - A*‖² + ½‖B - B*‖², with entries of both near 1."""
    return sum(jnp.sum((params[name] - normal(seed, *params[name].shape).astype(params[name].dtype)) ** 2) / 2
               for seed, name in enumerate(("a", "b"), start=7))


def valley(params: Any) -> Any:
    """‖A - A*‖² + 5‖B - AA'‖²: Rosenbrock's, of matrices. Its minimum is 0 where B = AA' lies on the curved floor."""
    a, b = params["a"], params["b"]
    target = (normal(7, *a.shape) / 2).astype(a.dtype)
    return jnp.sum((a - target) ** 2) + 5 * jnp.sum((b - a @ a.T) ** 2)


@dtypes
@pytest.mark.parametrize(("loss", "shape_a", "shape_b"), [(quadratic, (4, 6), (6, 4)), (valley, (3, 4), (3, 3))])
@methods
def test_it_converges_on_a_rate_that_falls_within_a_scan(method: Method, loss: Callable, shape_a: tuple, shape_b: tuple,
                                                         dtype: str) -> None:
    """The rate is traced; updates and state keep their dtypes, else the scan refuses them."""
    params = {"a": jnp.asarray(normal(1, *shape_a), dtype), "b": jnp.asarray(normal(2, *shape_b), dtype)}
    settings = ADAM | {"weight_decay": 0.0}

    def step(carry: Any, rate: Any) -> tuple[Any, Any]:
        params, state = carry
        updates, state = method(rate, **settings).update(jax.grad(loss)(params), state, params)
        assert [update.dtype for update in jax.tree.leaves(updates)] == [dtype, dtype]
        return (optax.apply_updates(params, updates), state), None

    rates_T = 0.1 * (1 - jnp.arange(600) / 600)
    first = params, method(0.1, **settings).init(params)
    (found, _), _ = jax.jit(lambda first: jax.lax.scan(step, first, rates_T))(first)
    assert float(loss(found)) < float(loss(params)) * (1e-3 if dtype == "float32" else 1e-2)


@methods
def test_it_compiles_once_for_all_hyperparameters(method: Method) -> None:
    traces = []

    @jax.jit
    def update(rate: Any, settings: Any, gradients: Any, state: Any, params: Any) -> Any:
        traces.append(1)
        return method(rate, **settings).update(gradients, state, params)

    params, found = wide("float32"), []
    state = method(0.1, **ADAM).init(params)
    for rate in (0.1, 0.2):
        for settings in (ADAM, {"b1": 0.8, "b2": 0.9, "eps": 1e-3, "weight_decay": 0.0}):
            updates, state = update(rate, settings, params, state, params)
            found.append(np.asarray(updates["wide"]))
    assert len(traces) == 1
    assert len({array.tobytes() for array in found}) == 4


@methods
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_the_state_keeps_its_structure_shapes_and_dtypes(method: Method, dtype: str) -> None:
    """Hyperparameters in float64 included: nothing is widened."""
    with jax.enable_x64(True):
        params = kernels(dtype)
        optimizer = method(np.float64(0.1), **{name: np.float64(value) for name, value in ADAM.items()})
        state = optimizer.init(params)
        updates, new = jax.eval_shape(optimizer.update, params, state, params)
        assert jax.tree.map(lambda x: (x.shape, x.dtype), new) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
        assert jax.tree.map(lambda x: (x.shape, x.dtype), updates) == jax.tree.map(lambda x: (x.shape, x.dtype), params)
        inner = {str(leaf.dtype) for leaf in jax.tree.leaves(state.matrices)}
        assert inner == {"float64" if dtype == "float64" else "float32"}


@methods
def test_two_accumulated_gradients_are_their_mean(method: Method) -> None:
    params, optimizer = wide("float32"), method(0.1, **ADAM)
    accumulated = optax.MultiSteps(optimizer, every_k_schedule=2)
    update, update_accumulated = jax.jit(optimizer.update), jax.jit(accumulated.update)
    alone, state = optimizer.init(params), accumulated.init(params)
    for seed in range(2):
        both = [wide("float32", 10 + 2 * seed), wide("float32", 50 + 2 * seed)]
        nothing, state = update_accumulated(both[0], state, params)
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(nothing))
        updates, state = update_accumulated(both[1], state, params)
        expected, alone = update(jax.tree.map(lambda a, b: (a + b) / 2, *both), alone, params)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), updates, expected)


def seven_steps(method: Method, rate: Any, settings: Any, gradients_T: Any, params: Any) -> Any:
    def step(carry: Any, gradients: Any) -> tuple[Any, None]:
        params, state = carry
        updates, state = method(rate, **settings).update(gradients, state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, method(rate, **settings).init(params)), gradients_T)[0][0]


@methods
def test_vmap_over_hyperparameters_is_a_loop_and_a_diverged_run_stays_alone(method: Method) -> None:
    """Seven steps, over a refresh; the last lane's gradients are NaN."""
    with jax.enable_x64(True):
        steps = [wide("float64", 20 + 3 * index) for index in range(7)]
        gradients_T = jax.tree.map(lambda *leaves: jnp.stack(leaves), *steps)
        factors_B = jnp.array([1.0, 1.0, 1.0, jnp.nan])
        gradients_BxT = jax.tree.map(lambda leaf: jnp.stack([leaf * factor for factor in factors_B]), gradients_T)
        rates_B = jnp.array([0.01, 0.1, 0.3, 0.1])
        settings_B = {"b1": jnp.array([0.9, 0.8, 0.0, 0.9]), "b2": jnp.array([0.99, 0.9, 0.95, 0.99]),
                      "eps": jnp.array([1e-8, 1e-4, 1e-2, 1e-8]), "weight_decay": jnp.array([0.0, 0.1, 1.0, 0.0])}
        run = jax.jit(functools.partial(seven_steps, method))
        found = jax.jit(jax.vmap(run, in_axes=(0, 0, 0, None)))(rates_B, settings_B, gradients_BxT, wide("float64"))
        for lane in range(3):
            expected = run(rates_B[lane], {name: values[lane] for name, values in settings_B.items()}, gradients_T,
                           wide("float64"))
            for name, leaf in expected.items():
                np.testing.assert_allclose(found[name][lane], leaf, rtol=1e-9, atol=1e-11)
        assert all(np.all(np.isnan(leaf[3])) for leaf in found.values())


@methods
@dtypes
def test_no_nan_without_gradients_or_parameters_or_rank(method: Method, dtype: str) -> None:
    ones = jax.tree.map(jnp.ones_like, wide(dtype))
    zeros = jax.tree.map(jnp.zeros_like, ones)
    optimizer = method(0.1, **ADAM)
    update = jax.jit(optimizer.update)
    for gradients in (zeros, ones):  # ones have rank 1
        for params in (zeros, wide(dtype)):
            state = optimizer.init(params)
            for _ in range(7):
                updates, state = update(gradients, state, params)
                params = optax.apply_updates(params, updates)
            assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves((params, state)))


@methods
def test_decay_acts_where_the_mask_says(method: Method) -> None:
    """With no gradient p <- (1 - ηλ)p, or nothing; the first call of soap does nothing at all."""
    params = kernels("float32")
    zeros = jax.tree.map(jnp.zeros_like, params)
    optimizer = method(0.1, **ADAM, mask=lambda params: {name: name != "window" for name in params})
    update = jax.jit(optimizer.update)
    _, state = update(zeros, optimizer.init(params), params)
    updates, _ = update(zeros, state, params)
    twice = state.matrices["wide"]._fields[0] == "v_MxN"  # gradnormlorp's parameters are those of both updates
    for name, leaf in params.items():
        factor = 0.0 if name == "window" else 0.99**2 - 1 if twice else -0.01
        np.testing.assert_allclose(updates[name], factor * leaf, rtol=1e-4, atol=1e-6)


@methods
def test_leaves_that_are_no_matrices_are_refused_and_partition_sends_them_elsewhere(method: Method) -> None:
    params = {"kernel": jnp.ones((3, 5)), "bias": jnp.ones(5)}
    optimizer = method(0.1, **ADAM)
    with pytest.raises(ConfigError, match=r"params\['bias'\].shape = \(5,\): expected a matrix or a 4-D.*partition"):
        optimizer.init(params)
    with pytest.raises(ValueError, match="params = None: expected the parameters"):
        optimizer.update({"kernel": jnp.ones((3, 5))}, optimizer.init({"kernel": jnp.ones((3, 5))}))
    parted = optax.partition({"matrix": optimizer, "other": optax.sgd(0.1)}, {"kernel": "matrix", "bias": "other"})
    updates, _ = parted.update(params, parted.init(params), params)
    np.testing.assert_allclose(updates["bias"], -0.1, rtol=1e-6)


@methods
def test_a_convolution_is_its_matrix_of_windows(method: Method) -> None:
    kernel, gradient = normal(0, 2, 2, 2, 3), normal(1, 2, 2, 2, 3)
    found = {}
    for shape in ((2, 2, 2, 3), (8, 3)):
        params, optimizer = {"kernel": jnp.asarray(kernel.reshape(shape), jnp.float32)}, method(0.1, **ADAM)
        update, state = jax.jit(optimizer.update), optimizer.init(params)
        for _ in range(2):
            updates, state = update({"kernel": jnp.asarray(gradient.reshape(shape), jnp.float32)}, state, params)
        found[shape] = np.asarray(updates["kernel"]).reshape(8, 3)
    np.testing.assert_array_equal(found[2, 2, 2, 3], found[8, 3])


def test_a_batch_refreshes_only_when_one_of_its_runs_is_due() -> None:
    """Counted where it is computed; each run keeps its own value, in nested batches too."""
    computed = []

    def refresh(old: Any, new: Any) -> Any:
        jax.debug.callback(lambda: computed.append(1))
        return old + new

    def one(due: Any, old: Any, new: Any) -> Any:
        return refreshed_if(due, refresh, old, new)

    batch = jax.jit(jax.vmap(jax.vmap(one, in_axes=(0, 0, None)), in_axes=(0, 0, None)))
    old = jnp.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(batch(jnp.zeros((2, 3), bool), old, 10.0), old)
    jax.effects_barrier()
    assert not computed
    due = jnp.array([[True, False, False], [False, False, True]])
    np.testing.assert_array_equal(batch(due, old, 10.0), jnp.where(due, old + 10, old))
    jax.effects_barrier()
    assert computed
