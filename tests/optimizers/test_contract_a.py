"""What every GradientTransformation owes, for AdamP, SGDP, SWATS, Layca and RAdam: a table of methods and demands."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from scaling.fields import ConfigError
from scaling.optimizers.adamp import adamp, sgdp
from scaling.optimizers.layca import layca
from scaling.optimizers.radam import radam
from scaling.optimizers.swats import swats

ADAM = {"b1": 0.9, "b2": 0.99, "eps": 1e-8}
PROJECTION = {"weight_decay": 0.0, "delta": 0.1, "decay_ratio": 0.1}
Values = Mapping[str, Any]


def layca_of_momentum(learning_rate: Any, momentum: Any) -> optax.GradientTransformation:
    return layca(optax.trace(momentum), learning_rate)


def layca_of_adam(learning_rate: Any, b1: Any, b2: Any, eps: Any) -> optax.GradientTransformation:
    return layca(optax.scale_by_adam(b1, b2, eps), learning_rate)


def heavy_ball(**values: Any) -> optax.GradientTransformation:
    return sgdp(nesterov=False, **values)


def nesterov(**values: Any) -> optax.GradientTransformation:
    return sgdp(nesterov=True, **values)


def published(**values: Any) -> optax.GradientTransformation:
    return radam(released=False, **values)


def released(**values: Any) -> optax.GradientTransformation:
    return radam(released=True, **values)


METHODS: dict[str, tuple[Callable[..., optax.GradientTransformation], Values]] = {
    "adamp": (adamp, {"learning_rate": 0.1, **ADAM, **PROJECTION}),
    "sgdp": (heavy_ball, {"learning_rate": 1e-3, "momentum": 0.9, "eps": 1e-8, **PROJECTION}),
    "sgdp nesterov": (nesterov, {"learning_rate": 1e-3, "momentum": 0.9, "eps": 1e-8, **PROJECTION}),
    "swats": (swats, {"learning_rate": 0.1, **ADAM, "tolerance": 1e-6, "weight_decay": 0.0}),
    "radam": (published, {"learning_rate": 5e-3, **ADAM, "weight_decay": 0.0}),
    "radam released": (released, {"learning_rate": 0.1, **ADAM, "weight_decay": 0.0}),
    "layca": (layca_of_momentum, {"learning_rate": 0.01, "momentum": 0.9}),
    "layca adam": (layca_of_adam, {"learning_rate": 0.01, **ADAM}),
}
every_method = pytest.mark.parametrize("name", METHODS)


def method(name: str, values: Values | None = None) -> optax.GradientTransformation:
    build, default = METHODS[name]
    return build(**(default if values is None else values))


def random_tree(seed: int, dtype: Any = "float32", *lead: int) -> dict[str, np.ndarray]:
    random, shapes = np.random.default_rng(seed), {"kernel": (3, 5), "embedding": (4, 2), "bias": (5,)}
    return {name: random.normal(size=(*lead, *shape)).astype(jnp.dtype(dtype)) for name, shape in shapes.items()}


def rosenbrock(p: jax.Array) -> jax.Array:
    return (1 - p[0]) ** 2 + 100 * (p[1] - p[0] ** 2) ** 2


def parabola_to(target: Any) -> Callable[[jax.Array], jax.Array]:
    return lambda p: jnp.sum((p - jnp.array(target, p.dtype)) ** 2)


TARGETS: dict[str, tuple[Callable, Any, Any, Any]] = {  # loss, start, start on the sphere of the minimum, minimum
    "vector": (parabola_to([1, -1, 1]), [-1, 10, 1], [3**0.5, 0, 0], [1, -1, 1]),
    "matrix": (parabola_to([[3, -2], [1, 4]]), [[0, 0], [0, 0]], [[30**0.5, 0], [0, 0]], [[3, -2], [1, 4]]),
    "rosenbrock": (rosenbrock, [0, 0], [2**0.5, 0], [1, 1]),
}


@every_method
@pytest.mark.parametrize("target", TARGETS)
def test_it_finds_the_minimum_at_a_rate_that_falls_to_zero(name: str, target: str) -> None:
    """Layca, which keeps norms, from a start with the norm of the minimum."""
    loss, start, on_sphere, minimum = TARGETS[target]
    build, values = METHODS[name]

    @jax.jit
    def descend(params: Any) -> Any:
        def one(carry: Any, rate: jax.Array) -> Any:
            params, state = carry
            updates, state = build(**{**values, "learning_rate": rate}).update(
                jax.grad(lambda tree: loss(tree["kernel"]))(params), state, params)
            return (optax.apply_updates(params, updates), state), None

        rates_T = values["learning_rate"] * jnp.linspace(1, 0, 10_000)
        return jax.lax.scan(one, (params, method(name).init(params)), rates_T)[0][0]

    found = descend({"kernel": jnp.array(on_sphere if "layca" in name else start, "float32")})["kernel"]
    np.testing.assert_allclose(found, minimum, rtol=3e-3, atol=3e-3)


@every_method
def test_half_precision_is_computed_in_float32_and_only_the_update_is_rounded(name: str) -> None:
    """Bit for bit, operation by operation: a compiler may fuse the two differently."""
    params = random_tree(0, "bfloat16")
    wide = jax.tree.map(lambda x: x.astype("float32"), params)
    state, exact = method(name).init(params), method(name).init(wide)
    for seed in (1, 2):
        gradients = random_tree(seed, "bfloat16")
        updates, state = method(name).update(gradients, state, params)
        expected, exact = method(name).update(jax.tree.map(lambda x: x.astype("float32"), gradients), exact, wide)
        assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype("bfloat16")}
        jax.tree.map(np.testing.assert_array_equal, updates, jax.tree.map(lambda x: x.astype("bfloat16"), expected))
        jax.tree.map(np.testing.assert_array_equal, state, exact)


@every_method
def test_hyperparameters_are_traced_and_compile_once(name: str) -> None:
    traces = 0

    @jax.jit
    def step(values: Values, gradients: Any, state: Any, params: Any) -> Any:
        nonlocal traces
        traces += 1
        return method(name, values).update(gradients, state, params)

    params, values, gradients = random_tree(0), METHODS[name][1], random_tree(1)
    found = set()
    for factor in (1.0, 0.99, 0.95):
        state = method(name).init(params)
        for _ in range(7):  # radam's released start is over
            updates, state = step({key: factor * value for key, value in values.items()}, gradients, state, params)
        found.add(float(updates["kernel"][0, 0]))
    assert traces == 1
    assert len(found) == 3


@every_method
def test_vmap_over_hyperparameters_is_a_loop(name: str) -> None:
    """Three lanes, seven steps; with the tolerance of swats in the last lane, that lane alone switches."""
    @jax.jit
    def descend(values: Values) -> Any:
        chosen = method(name, values)

        def one(carry: Any, gradients: Any) -> Any:
            params, state = carry
            updates, state = chosen.update(gradients, state, params)
            return (optax.apply_updates(params, updates), state), None

        params = jax.tree.map(jnp.asarray, random_tree(0, "float64"))
        return jax.lax.scan(one, (params, chosen.init(params)), random_tree(1, "float64", 7))[0]

    build_values = {**METHODS[name][1], **({"weight_decay": 0.3} if "layca" not in name else {})}
    with jax.enable_x64(True):
        lanes = [{key: jnp.float64(value * factor) for key, value in build_values.items()}
                 for factor in (0.9, 0.99, 1.0)]
        if name == "swats":
            lanes[2]["tolerance"] = jnp.float64(1e3)
        together = jax.vmap(descend)(jax.tree.map(lambda *x: jnp.stack(x), *lanes))
        for lane, values in enumerate(lanes):
            jax.tree.map(lambda a, b, lane=lane: np.testing.assert_allclose(a[lane], b, rtol=1e-12, atol=1e-14),
                         together, descend(values))
    if name == "swats":
        np.testing.assert_array_equal(together[1].switch_step, [0, 0, 2])


@every_method
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_the_state_keeps_its_structure_and_types_with_values_of_a_wider_type(name: str, dtype: str) -> None:
    with jax.enable_x64(True):
        params = random_tree(0, dtype)
        values = {key: jnp.float64(value) for key, value in METHODS[name][1].items()}
        state = method(name, values).init(params)
        updates, new = jax.eval_shape(lambda: method(name, values).update(random_tree(1, dtype), state, params))
        kinds = [jax.tree.map(lambda x: (x.shape, jnp.dtype(x.dtype)), tree) for tree in (params, updates, state, new)]
    assert kinds[0] == kinds[1]
    assert kinds[2] == kinds[3]
    numbers = {leaf.dtype for leaf in jax.tree.leaves(state)}
    assert numbers <= {jnp.dtype("int32"), jnp.promote_types(dtype, "float32")}


@every_method
def test_accumulated_gradients_act_as_their_mean(name: str) -> None:
    params, first, second = (random_tree(seed) for seed in range(3))
    accumulating = optax.MultiSteps(method(name), 2)
    step = jax.jit(accumulating.update)
    nothing, state = step(first, accumulating.init(params), params)
    found, _ = step(second, state, params)
    mean = jax.tree.map(lambda a, b: (a + b) / 2, first, second)
    expected, _ = jax.jit(method(name).update)(mean, method(name).init(params), params)
    assert not any(leaf.any() for leaf in jax.tree.leaves(nothing))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-7), found, expected)


@every_method
def test_zero_gradients_and_zero_parameters_give_no_step_and_no_nan(name: str) -> None:
    step = jax.jit(method(name).update)
    for scale_p, scale_g in ((0, 0), (0, 1), (1, 0)):
        params = jax.tree.map(lambda x, scale=scale_p: np.float32(scale) * x, random_tree(0))
        gradients = jax.tree.map(lambda x, scale=scale_g: np.float32(scale) * x, random_tree(1))
        state = method(name).init(params)
        for _ in range(3):
            updates, state = step(gradients, state, params)
        assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((updates, state)))
        assert scale_g or not any(leaf.any() for leaf in jax.tree.leaves(updates))


@every_method
def test_optax_can_wrap_it(name: str) -> None:
    """Unknown extra arguments, a map over the state, a schedule by inject_hyperparams, and parameters masked out."""
    params, gradients = random_tree(0), random_tree(1)
    chosen, (build, values) = method(name), METHODS[name]
    state = chosen.init(params)
    expected, _ = chosen.update(gradients, state, params, value=1.0)
    jax.tree.map(np.testing.assert_array_equal, optax.tree.map_params(chosen, lambda x: x, state), state)
    named = optax.inject_hyperparams(lambda learning_rate: build(**{**values, "learning_rate": learning_rate}))
    scheduled = named(learning_rate=optax.constant_schedule(values["learning_rate"]))
    found, _ = scheduled.update(gradients, scheduled.init(params), params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), found, expected)
    split = optax.partition({"named": chosen, "frozen": optax.set_to_zero()},
                            {"kernel": "named", "embedding": "frozen", "bias": "named"})
    found, _ = split.update(gradients, split.init(params), params)
    assert not found["embedding"].any()
    np.testing.assert_allclose(found["kernel"], expected["kernel"], rtol=1e-6, atol=1e-7)


@every_method
def test_parameters_are_asked_for(name: str) -> None:
    params = random_tree(0)
    with pytest.raises(ConfigError, match=r"params = None: expected the parameters.*call update\(gradients, state"):
        method(name).update(params, method(name).init(params))
