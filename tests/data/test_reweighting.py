"""Weights by loss: numbers worked out by hand, a second implementation in numpy, and what a training step relies on."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling.data.reweighting import example_weights
from scaling.fields import ConfigError
from scaling.weighing import REWEIGHTINGS

LOSS = np.array([1.0, 2.0, 3.0, 5.0])
BY_LOSS = [name for name in REWEIGHTINGS if name != "none"]
losses = st.lists(st.floats(0.125, 12.0), min_size=8, max_size=8).map(np.array)


def weights64(name: str, loss: np.ndarray, temperature: float) -> np.ndarray:
    with jax.enable_x64(True):
        return np.asarray(example_weights(name, jnp.asarray(loss, jnp.float64), temperature))


def by_definition(name: str, loss: np.ndarray, temperature: float) -> np.ndarray:
    """The published formulas, term by term; losses that differ."""
    span = loss.max() - loss.min()
    h = 2 * loss / span - (loss.max() + loss.min()) / span
    f = {"lin_upper": np.minimum(h + 1, 1), "quadratic": 1 - h * h, "extremes": abs(h), "upper": 0.5 * h + 0.5}[name]
    raised = np.exp(f / temperature)
    return len(loss) * raised / raised.sum()


@pytest.mark.parametrize(
    ("name", "temperature", "softmax"),
    [
        ("lin_upper", 1.0, (0.123681, 0.203916, 0.336201, 0.336201)),
        ("quadratic", 1.0, (0.146300, 0.309717, 0.397684, 0.146300)),
        ("extremes", 1.0, (0.336201, 0.203916, 0.123681, 0.336201)),
        ("lin_upper", 0.4, (0.034656, 0.120960, 0.422192, 0.422192)),
    ],
)
def test_published_numbers(name: str, temperature: float, softmax: tuple[float, ...]) -> None:
    np.testing.assert_allclose(weights64(name, LOSS, temperature) / 4, softmax, rtol=0, atol=5.1e-7)


def test_losses_are_placed_between_minus_one_and_one() -> None:
    placed = 2 * np.log(weights64("upper", LOSS, 1.0))  # h + a constant
    np.testing.assert_allclose(placed - placed[0] - 1, [-1, -0.5, 0, 1], rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", BY_LOSS)
@settings(deadline=None, max_examples=50)
@given(loss=losses.filter(lambda loss: np.ptp(loss) > 1e-3), temperature=st.floats(0.1, 10))
def test_equals_the_definition(name: str, loss: np.ndarray, temperature: float) -> None:
    weights = weights64(name, loss, temperature)
    np.testing.assert_allclose(weights, by_definition(name, loss, temperature), rtol=1e-9)
    np.testing.assert_allclose(weights.mean(), 1, rtol=1e-12)


@pytest.mark.parametrize("name", REWEIGHTINGS)
@pytest.mark.parametrize("value", [0.0, 2.7182817, 40.0])
def test_equal_losses_have_equal_weights(name: str, value: float) -> None:
    np.testing.assert_array_equal(example_weights(name, jnp.full(7, value), 0.01), np.ones(7, np.float32))


@pytest.mark.parametrize("name", BY_LOSS)
def test_losses_nearer_than_the_guard_are_not_torn_apart(name: str) -> None:
    weights = weights64(name, np.array([3.0, 3.0 + 1e-9, 3.0 + 2e-9]), 1.0)
    np.testing.assert_allclose(weights, 1, rtol=0, atol=3e-3)  # h goes to 2e-3, not to 1


def test_none_weighs_all_alike_whatever_the_losses_and_the_temperature() -> None:
    loss = jnp.array([1.0, np.nan, 49.0])
    np.testing.assert_array_equal(example_weights("none", loss, np.nan), np.ones(3, np.float32))


@pytest.mark.parametrize("name", BY_LOSS)
def test_a_high_temperature_is_uniform(name: str) -> None:
    for temperature in (1e2, 1e4, 1e6):
        assert np.abs(weights64(name, LOSS, temperature) - 1).max() < 2 / temperature
    np.testing.assert_array_equal(weights64(name, LOSS, np.inf), np.ones(4))


@pytest.mark.parametrize("name", BY_LOSS)
def test_settings_vmapped_and_compiled_equal_one_at_a_time(name: str) -> None:
    loss_RxB = jnp.asarray(np.random.default_rng(0).uniform(1, 5, (3, 16)), jnp.float32)
    temperature_R = jnp.array([0.2, 1.0, 5.0])
    together = jax.jit(jax.vmap(functools.partial(example_weights, name)))(loss_RxB, temperature_R)
    alone = [example_weights(name, loss_B, r) for loss_B, r in zip(loss_RxB, [0.2, 1.0, 5.0], strict=True)]
    np.testing.assert_allclose(together, np.stack(alone), rtol=2e-6)


@pytest.mark.parametrize("name", REWEIGHTINGS)
def test_weights_carry_no_gradient(name: str) -> None:
    loss_B = jnp.asarray(LOSS, jnp.float32)

    def weighed(loss_B: jax.Array, temperature: jax.Array) -> jax.Array:
        return jnp.sum(example_weights(name, loss_B, temperature) * loss_B)

    by_loss, by_temperature = jax.grad(weighed, argnums=(0, 1))(loss_B, jnp.float32(0.7))
    np.testing.assert_array_equal(by_loss, example_weights(name, loss_B, 0.7))
    assert by_temperature == 0


@pytest.mark.parametrize("name", BY_LOSS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_loss_that_is_not_finite_shows_in_every_weight(name: str, bad: float) -> None:
    assert np.isnan(example_weights(name, jnp.array([1.0, bad, 2.0]), 1.0)).all()


def test_a_part_of_a_batch_is_weighed_otherwise_than_the_whole() -> None:
    whole, part = (weights64("lin_upper", loss, 1.0) for loss in (LOSS, LOSS[:2]))
    assert np.ptp(whole[:2]) < 0.5 < np.ptp(part)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"reweighting: unknown key 'lin_uper'; did you mean 'lin_upper'\?"):
        example_weights("lin_uper", jnp.ones(2), 1.0)
