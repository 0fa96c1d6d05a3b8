"""Methods of optax through `build`, by their published first steps, and where optax by itself goes astray."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from every_optimizer import optimizer_changes

from helpers import small_run, windows_of
from scaling.config import Run
from scaling.optimizers.build import build, evaluation_params
from scaling.training.tables import Stream, hyperparameters


def toy(name: str, form: str | None, decay: float, **settings: Any) -> Run:
    """No clipping, decay on all; `settings` of the optimizer."""
    return small_run(**{
        **optimizer_changes(name, form), "optimizer.clip_norm": None, "optimizer.decay_on": "all",
        "optimizer.weight_decay": decay, "training.dtype": "float64",
        **{f"optimizer.{key}": value for key, value in settings.items()}})


def arrays(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), tree, is_leaf=lambda node: isinstance(node, list))


def trace(run: Run, start: Any, gradients: Callable[[int, Any], Any], steps: int, rate: float, **extra: Any) -> list:
    """(parameters, optimizer's state) after each update, in float64."""
    with jax.enable_x64(True):
        values = hyperparameters(run, windows_of(run), Stream.start(1), np.dtype("float64")).optimizer
        method = build(run.optimizer, values, jnp.float64(rate), run.model)
        params = arrays(start)
        state, found = method.init(params), []
        for step in range(steps):
            updates, state = method.update(arrays(gradients(step, params)), state, params, **extra)
            params = optax.apply_updates(params, updates)
            found.append(jax.device_get((params, state)))
    return found


def values_of(found: list) -> list:
    return [np.asarray(jax.tree.leaves(params)[0]) for params, _ in found]


def two(step: int, params: Any) -> Any:
    return {"kernel": (0.5, -0.25)[step]}


@pytest.mark.parametrize(("name", "form", "settings", "rate", "decay", "expected"), [
    ("sgd", "heavy_ball", {"momentum": 0.9}, 0.1, 0.0, [0.95, 0.93]),
    ("sgd", "nesterov", {"momentum": 0.9}, 0.1, 0.0, [0.905, 0.912]),
    ("sgd", "heavy_ball", {"momentum": 0.0}, 0.1, 0.2, [0.93, 0.93 * 0.98 + 0.025]),
    ("lion", None, {"b1": 0.9, "b2": 0.99}, 0.01, 0.1, [0.989, 0.998011]),
    ("ademamix", None, {"b2": 0.999, "alpha": 0.0}, 0.1, 0.1, [0.89, 0.8544663]),  # AdamW
    # m̂ = g, √v̂ = |g| and m₃ = 0.1 g at first; then m₃ = 0.9 * 0.05 - 0.1 * 0.25 = 0.02
    ("ademamix", None, {"b2": 0.999, "b3": 0.9, "alpha": 2.0}, 0.1, 0.0,
     [0.88, 0.88 - 0.1 * (0.02 / 0.19 + 2 * 0.02) / np.sqrt((0.999 * 0.25 + 0.0625) / 1.999)]),
    # v = 0.25 after the first gradient, which moves nothing; then g / √v = -0.5, within ±1
    ("adopt", None, {"b1": 0.9, "b2": 0.99}, 0.1, 0.0, [1.0, 1.005]),
])
def test_two_steps_of_a_scalar(name: str, form: str | None, settings: dict, rate: float, decay: float,
                               expected: list[float]) -> None:
    found = trace(toy(name, form, decay, **settings), {"kernel": 1.0}, two, 2, rate)
    np.testing.assert_allclose(values_of(found), expected, atol=1e-7)


def test_lion_moves_by_the_rate_whatever_the_gradients_scale() -> None:
    random = np.random.default_rng(0).normal(size=(4, 3, 2))
    traces = [values_of(trace(toy("lion", None, 0.0), {"kernel": np.ones((3, 2))},
                              lambda step, params, c=scale: {"kernel": c * random[step]}, 4, 0.01))
              for scale in (1.0, 1e-3)]
    np.testing.assert_array_equal(*traces)
    np.testing.assert_allclose(np.abs(np.diff(traces[0], axis=0)), 0.01, rtol=1e-12)


def block(kernel: Any) -> Any:
    return {"block_0": {"kernel": np.asarray(kernel)}}


def test_muon_turns_singular_values_into_nearly_ones() -> None:
    found, = trace(toy("muon", "original", 0.0, momentum=0.95), block(np.ones((2, 2))),
                   lambda step, params: block(np.diag([3.0, 4.0])), 1, 0.02)
    expected = [[1 - 0.0144575, 1.0], [1.0, 1 - 0.0223841]]
    np.testing.assert_allclose(found[0]["block_0"]["kernel"], expected, atol=1e-6)
    gradient = np.random.default_rng(0).normal(size=(4, 16))
    for form, low, high in (("original", 0.68 * 2, 1.14 * 2), ("moonlight", 0.68 * 0.8, 1.14 * 0.8)):
        moved, = trace(toy("muon", form, 0.0), block(np.zeros((4, 16))), lambda step, params: block(gradient), 1, 1.0)
        singular = np.linalg.svd(moved[0]["block_0"]["kernel"], compute_uv=False)
        assert low < singular.min() <= singular.max() < high


@pytest.mark.parametrize(("shape", "original", "moonlight"), [
    ((4, 16), 2.0, 0.8), ((16, 4), 1.0, 0.8), ((2, 2, 1, 16), 2.0, 0.8)])
def test_the_forms_of_muon_differ_by_a_factor_of_the_shape(shape: tuple, original: float, moonlight: float) -> None:
    """Fan out is a Flax kernel's last axis; a convolution is a matrix of all the others by it."""
    gradient = np.random.default_rng(0).normal(size=shape)
    one, other = (
        values_of(trace(toy("muon", form, 0.0), block(np.zeros(shape)), lambda step, _: block(gradient), 1, 1.0))[0]
        for form in ("original", "moonlight"))
    np.testing.assert_allclose(one / original, other / moonlight, rtol=1e-12)


def test_decay_reaches_both_groups_of_muon_and_optax_alone_takes_embeddings_too() -> None:
    params = {**block(np.ones((2, 2))), "embedding": {"embedding": np.ones((2, 2))}}
    zeros = jax.tree.map(np.zeros_like, params)
    found, = trace(toy("muon", "original", 0.5), params, lambda step, params: zeros, 1, 0.1)
    for leaf in jax.tree.leaves(found[0]):
        np.testing.assert_allclose(leaf, 0.95, atol=1e-12)
    theirs = optax.contrib.muon(0.1).init(params).inner_states["muon"].inner_state[0].mu
    assert theirs["embedding"]["embedding"].shape == (2, 2)
    ours = found[1][1].inner_states["0_named"].inner_state[0][0].mu
    assert isinstance(ours["embedding"]["embedding"], optax.MaskedNode)


@pytest.mark.parametrize(("form", "decay", "expected"), [
    ("scaled", 0.0, [[0.947477, 0.851444], [0.888583, 0.947477]]),
    ("unscaled", 0.0, [[0.947477, 0.851444], [0.888583, 0.947477]]),
    ("scaled", 0.5, [[0.897477, 0.801444], [0.838583, 0.897477]]),  # rate times decay times 1
])
def test_adafactor_by_its_first_step(form: str, decay: float, expected: list) -> None:
    run = toy("adafactor", form, decay, memory=0.8)
    found = trace(run, {"kernel": np.ones((2, 2))}, lambda step, params: {"kernel": [[1.0, 2.0], [3.0, 1.0]]}, 1, 0.1)
    np.testing.assert_allclose(values_of(found)[0], expected, atol=1e-6)


def test_adafactor_of_a_gradient_of_rank_one_is_its_sign() -> None:
    gradient = np.outer([1.0, -2.0, 0.5], [1.0, 3.0])
    run = toy("adafactor", "unscaled", 0.0)
    found, = trace(run, {"kernel": np.zeros((3, 2))}, lambda step, params: {"kernel": gradient}, 1, 0.1)
    np.testing.assert_allclose(found[0]["kernel"], -0.1 * np.sign(gradient), rtol=1e-9)
    assert sum(leaf.size for leaf in jax.tree.leaves(found[1])) < gradient.size + 3, "3 + 2 numbers, not 3 * 2"


def test_adafactor_scales_by_the_parameters_where_it_is_scaled() -> None:
    scaled, unscaled = (values_of(trace(toy("adafactor", form, 0.0), {"kernel": np.full((2, 2), 4.0)},
                                        lambda step, params: {"kernel": np.ones((2, 2))}, 1, 0.1))[0]
                        for form in ("scaled", "unscaled"))
    np.testing.assert_allclose(4 - scaled, 4 * (4 - unscaled), rtol=1e-9)


def test_schedule_free_averages_the_steps_of_its_base() -> None:
    """f = ½w² with steps far below ε, so that g / (√v̂ + ε) is g / ε: the published example of its SGD."""
    run = toy("schedule_free", None, 0.0, b1=0.9, eps=1e8)
    found = trace(run, {"kernel": 1.0}, lambda step, params: params, 3, 0.1 * 1e8)
    y = values_of(found)
    z = [float(state[1].z["kernel"]) for _, state in found]
    x = [float(evaluation_params(state, params)["kernel"]) for params, state in found]
    np.testing.assert_allclose(y, [0.9, 0.8505, 0.80298], atol=1e-5)
    np.testing.assert_allclose(z, [0.9, 0.81, 0.72495], atol=1e-6)
    np.testing.assert_allclose(x, [0.9, 0.855, 0.81165], atol=1e-6)
    np.testing.assert_allclose(x, np.cumsum(z) / np.arange(1, 4), rtol=1e-9)


def test_a_warm_up_of_schedule_free_acts_on_step_and_weight_at_once() -> None:
    """At rate 0 nothing moves and nothing is weighed; optax's own takes the weight of the step after."""
    def first(method: optax.GradientTransformation) -> Any:
        params = {"kernel": jnp.ones(())}
        return method.update({"kernel": jnp.ones(())}, method.init(params), params)

    theirs = optax.contrib.schedule_free_adamw(0.1, warmup_steps=10)
    updates, state = first(theirs)
    assert float(updates["kernel"]) == 0
    assert float(state.weight_sum) == pytest.approx(0.01**2, rel=1e-5)
    (params, state), = trace(toy("schedule_free", None, 0.1), {"kernel": 1.0}, lambda step, params: params, 1, 0.0)
    assert (float(params["kernel"]), float(state[1].weight_sum)) == (1.0, 0.0)


def test_schedule_free_is_evaluated_at_x_within_groups_too() -> None:
    groups = (("block_.*", "named"), (".*", "adamw"))
    params = {**block(np.ones((2, 2))), "scale": np.ones(2)}
    run = toy("schedule_free", None, 0.0, b1=0.9, groups=groups)
    found = trace(run, params, lambda step, params: params, 3, 0.1)
    at, state = found[-1]
    x = evaluation_params(state, at)
    z = state[1].inner_states["0_named"].inner_state.z["block_0"]["kernel"]
    np.testing.assert_allclose(x["block_0"]["kernel"], (at["block_0"]["kernel"] - 0.1 * z) / 0.9, rtol=1e-12)
    assert not np.allclose(x["block_0"]["kernel"], at["block_0"]["kernel"])
    np.testing.assert_array_equal(x["scale"], at["scale"])


def test_sophia_signs_first_then_divides_by_the_diagonal() -> None:
    """f = w²: its diagonal, 2, is averaged after the first update and again after the eleventh."""
    def diagonal(params: Any) -> Any:
        return jax.tree.map(lambda leaf: jnp.full_like(leaf, 2.0), params)

    run = toy("sophia", "hutchinson", 0.0, b1=0.965, b2=0.99, scale=0.01, every=10)
    found = trace(run, {"kernel": 1.0}, lambda step, params: jax.tree.map(lambda w: 2 * w, params), 12, 0.1,
                  diagonal=diagonal)
    np.testing.assert_allclose(values_of(found)[:3], [0.9, 0.8, 0.7], atol=1e-9)
    averages = [float(state[1][0].nu["kernel"]) for _, state in found]
    np.testing.assert_allclose(averages, [0.02] * 10 + [0.0398] * 2, rtol=1e-9)


def test_groups_of_sophia_share_one_estimate_at_all_parameters() -> None:
    """A network's diagonal is known at all its parameters alone, and an estimate costs a pass over the batch."""
    seen = []

    def diagonal(params: Any) -> Any:
        seen.append(jax.tree.structure(params))
        return jax.tree.map(lambda leaf: leaf * params["scale"] * params["kernel"], params)

    params = {"kernel": 2.0, "scale": 3.0}
    groups = (("kernel", "named"), ("scale", "named"))
    whole, split = (trace(toy("sophia", "hutchinson", 0.1, b1=0.9, b2=0.9, scale=0.1, every=2, groups=given), params,
                          lambda step, params: params, 3, 0.1, diagonal=diagonal) for given in (None, groups))
    for (plain, _), (grouped, _) in zip(whole, split, strict=True):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), grouped, plain)
    assert set(seen) == {jax.tree.structure(params)}
    assert len(seen) <= 2 * 3, "at most one estimate an update, whatever the groups"


@pytest.mark.parametrize(("name", "settings", "expected"), [
    ("lars", {"scale": 0.001, "momentum": 0.9}, [[2.9997, 3.9996], [2.99913, 3.99884]]),
    ("lamb", {"b1": 0.9, "b2": 0.999, "eps": 1e-6}, [[2.646447, 3.646447], [2.327854, 3.327854]]),
])
def test_steps_by_layer_go_with_the_parameters_norm(name: str, settings: dict, expected: list) -> None:
    found = trace(toy(name, None, 0.0, **settings), {"kernel": [3.0, 4.0]}, lambda step, params: {"kernel": [0.6, 0.8]},
                  2, 0.1)
    np.testing.assert_allclose(values_of(found), expected, atol=1e-5)


def test_decay_of_lars_and_lamb_lies_within_the_trust_ratio() -> None:
    """So that a step is as long whatever the decay."""
    for name, settings, length in (("lars", {"scale": 0.01, "momentum": 0.0}, 0.1 * 0.01 * 5), ("lamb", {}, 0.1 * 5)):
        for decay in (0.0, 10.0):
            found = trace(toy(name, None, decay, **settings), {"kernel": [3.0, 4.0]},
                          lambda step, params: {"kernel": [0.6, -0.8]}, 1, 0.1)
            assert np.linalg.norm(values_of(found)[0] - [3.0, 4.0]) == pytest.approx(length, rel=1e-9)


def test_prodigy_finds_its_rate_and_survives_a_warm_up_from_zero() -> None:
    """f = ½|w - 1|² from w = 0, one unit away: d grows from 10⁻⁶ to the order of the distance and never falls."""
    def gradient(step: int, params: Any) -> Any:
        return jax.tree.map(lambda w: w - 1, params)

    run = toy("prodigy", None, 0.0, b1=0.9, b2=0.99, scale=1e-6)
    resting, = trace(run, {"kernel": 0.0}, gradient, 1, 0.0)
    assert float(resting[0]["kernel"]) == 0
    assert float(resting[1][1].estim_lr) == pytest.approx(1e-6)
    zero, = trace(run, {"kernel": 0.0}, lambda step, params: {"kernel": 0.0}, 1, 1.0)
    assert float(zero[0]["kernel"]) == 0
    assert float(zero[1][1].estim_lr) == pytest.approx(1e-6, abs=1e-6)
    found = trace(run, {"kernel": 0.0}, gradient, 150, 1.0)
    distances = [float(state[1].estim_lr) for _, state in found]
    assert (np.diff(distances) >= 0).all()
    assert 0.01 < distances[-1] < 1.5
    assert abs(values_of(found)[-1] - 1) < 0.5


def test_prodigys_decay_spares_what_does_not_decay() -> None:
    params, zeros = {"kernel": np.ones(2), "scale": np.ones(2)}, {"kernel": [1e-9] * 2, "scale": [1e-9] * 2}
    run = toy("prodigy", None, 0.5, b1=0.9, b2=0.99, scale=0.1, decay_on="matrices", eps=1e3)
    found, = trace(run, params, lambda step, params: zeros, 1, 1.0)
    rate = 0.1 * np.sqrt(1 - 0.99) / (1 - 0.9)
    np.testing.assert_allclose(found[0]["kernel"], 1 - 0.5 * rate, atol=1e-9)
    np.testing.assert_allclose(found[0]["scale"], 1, atol=1e-9)
