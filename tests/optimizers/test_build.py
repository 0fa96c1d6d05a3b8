"""AdamW by its published two-step values, conventions of decay, its mask, clipping, and a plain second version."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from helpers import small_run, windows_of
from scaling.config import Optimizer, Run
from scaling.models.transformer import Transformer
from scaling.optimizers.build import OptimizerValues, build, decay_mask
from scaling.training.tables import Stream, hyperparameters, learning_rates


def toy_run(**changes: Any) -> Run:
    """A constant rate of 0.1 without warm-up, b2 0.999, no clipping, decay on all."""
    return small_run(**{
        "schedule.name": "constant", "schedule.floor": 1.0, "schedule.peak": 0.1, "schedule.warmup": {"steps": 0},
        "optimizer.b2": 0.999, "optimizer.clip_norm": None, "optimizer.decay_on": "all", "training.dtype": "float64",
        **changes})


def trajectory(run: Run, params: Any, gradients: list[Any]) -> list[Any]:
    """Parameters after each update, built as the train step builds it: from traced values and the table's rate."""
    windows = windows_of(run)
    values = hyperparameters(run, windows, Stream.start(1), np.dtype("float64")).optimizer
    rates_T = learning_rates(run, 20, windows)

    @jax.jit
    def update(values: OptimizerValues, rate: Any, gradient: Any, state: Any, params: Any) -> Any:
        updates, state = build(run.optimizer, values, rate, run.model).update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    with jax.enable_x64(True):
        state, found = build(run.optimizer, values, rates_T[0], run.model).init(params), []
        for rate, gradient in zip(rates_T, gradients, strict=False):
            params, state = update(values, rate, gradient, state, params)
            found.append(jax.tree.map(np.asarray, params))
    return found


SCALAR = {"kernel": np.array(1.0)}
TWO = [{"kernel": np.array(0.5)}, {"kernel": np.array(-0.25)}]


@pytest.mark.parametrize(("decay", "convention", "expected"), [
    (0.1, "coupled", [0.89, 0.8544663]), (0.0, "coupled", [0.9, 0.8733663]), (0.0, "independent", [0.9, 0.8733663]),
    (0.1, "independent", [0.8, 0.6933663]),
])
def test_two_steps_of_the_toy(decay: float, convention: str, expected: list[float]) -> None:
    run = toy_run(**{"optimizer.weight_decay": decay, "optimizer.decay_convention": convention})
    assert [float(params["kernel"]) for params in trajectory(run, SCALAR, TWO)] == pytest.approx(expected, abs=1e-7)


def test_independent_decay_follows_the_shape_of_the_schedule_and_not_its_height() -> None:
    """With no gradient only decay acts: p_t = p_0 Π(1 - multiplier λ), whatever the peak."""
    for peak in (1e-3, 0.5):
        run = toy_run(**{"schedule.peak": peak, "schedule.name": "linear", "schedule.floor": 0.0,
                         "optimizer.decay_convention": "independent"})
        found = trajectory(run, SCALAR, [{"kernel": np.array(0.0)}] * 20)
        expected = np.cumprod(1 - 0.1 * (1 - np.arange(20) / 20))
        np.testing.assert_allclose([params["kernel"] for params in found], expected, rtol=1e-12)


def second_version(run: Run, params: np.ndarray, gradients: list[np.ndarray], decays: bool) -> np.ndarray:
    """AdamW in numpy after the paper, one tensor alone."""
    spec, clip = run.optimizer, run.optimizer.clip_norm
    m = v = np.zeros_like(params)
    for t, (rate, g) in enumerate(zip(learning_rates(run, 20, windows_of(run)), gradients, strict=False), start=1):
        if clip is not None:
            g = g * min(1.0, clip / np.sqrt((g**2).sum()))
        m, v = spec.b1 * m + (1 - spec.b1) * g, spec.b2 * v + (1 - spec.b2) * g**2
        u = m / (1 - spec.b1**t) / (np.sqrt(v / (1 - spec.b2**t)) + spec.eps)
        params = params - rate * u - rate * spec.weight_decay * params * decays
    return params


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize(("name", "decay_on", "decays"), [
    ("kernel", "matrices", True), ("kernel", "all", True), ("scale", "matrices", False), ("embedding", "all", True),
])
def test_equals_a_plain_numpy_version(clip: float | None, name: str, decay_on: str, decays: bool) -> None:
    run = toy_run(**{"optimizer.clip_norm": clip, "optimizer.decay_on": decay_on, "optimizer.weight_decay": 0.3,
                     "schedule.name": "cosine", "schedule.floor": 0.1, "schedule.warmup": {"steps": 4}})
    random = np.random.default_rng(0)
    params, gradients = random.normal(size=(3, 2)), list(random.normal(scale=2.0, size=(20, 3, 2)))
    found = trajectory(run, {name: params}, [{name: gradient} for gradient in gradients])[-1][name]
    np.testing.assert_allclose(found, second_version(run, params, gradients, decays), rtol=1e-10)


def test_a_peak_of_zero_moves_nothing() -> None:
    assert float(trajectory(toy_run(**{"schedule.peak": 0.0}), SCALAR, TWO)[-1]["kernel"]) == 1.0


def test_the_mask_holds_kernels_of_dense_layers_alone() -> None:
    model = small_run(**{"model.tied_head": False, "model.qk_norm": True, "model.norm": "layernorm"}).model
    module = Transformer(dataclasses.replace(model, activation="swiglu"), 32, jnp.dtype("float32"))
    params = jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 8), jnp.int32))["params"]
    decayed = {"/".join(str(key.key) for key in path)
               for path, decays in jax.tree_util.tree_leaves_with_path(decay_mask("matrices", params)) if decays}
    attention = {f"block_0/attention/{name}/kernel" for name in ("query", "key", "value", "output")}
    feedforward = {f"block_0/feedforward/{name}/kernel" for name in ("up", "gate", "down")}
    assert decayed == attention | feedforward | {"head/kernel"}
    assert all(jax.tree.leaves(decay_mask("all", params)))


def test_the_state_is_two_moments_and_a_count_whatever_the_values() -> None:
    params = {"a": {"kernel": jnp.zeros((2, 3))}, "b": {"scale": jnp.zeros(3)}}
    spec: Optimizer = toy_run().optimizer
    state = build(spec, OptimizerValues(0.9, 0.99, 1e-8, 0.1, np.inf), jnp.float32(0.1), None).init(params)
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) == 2 * 9 + 1
