"""Averages of parameters: of equals the same, of others what numpy says, in float64 and back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import packs
from scaling.training.averaging import average
from scaling.training.state import TrainState


def state(seed: int) -> TrainState:
    return packs.random_state(packs.pack_run().program, seed)


def with_params(params: object) -> TrainState:
    return state(0)._replace(params=params)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float32, np.float64])
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), parts=st.lists(st.integers(1, 99), min_size=1, max_size=5))
def test_the_average_of_equals_is_the_identity(dtype: type, seed: int, parts: list[int]) -> None:
    values = (np.random.default_rng(seed).normal(size=64) * 10.0 ** np.arange(-32, 32)).astype(dtype)
    weights = [part / sum(parts) for part in parts]
    found = average([with_params({"w": values.copy()}) for _ in parts], weights).params["w"]
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(found, values)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), parts=st.lists(st.integers(1, 99), min_size=2, max_size=4))
def test_an_average_is_numpys(seed: int, parts: list[int]) -> None:
    leaves = np.random.default_rng(seed).normal(size=(len(parts), 50)).astype(np.float32)
    weights = [part / sum(parts) for part in parts]
    found = average([with_params([leaf]) for leaf in leaves], weights).params[0]
    np.testing.assert_allclose(found, np.average(leaves.astype(np.float64), axis=0, weights=parts), rtol=2**-23,
                               atol=2**-24)


def test_an_average_by_hand() -> None:
    one, two = np.float32([1.0, -4.0]), np.float32([1 + 2**-22, 2.0])
    found = average([with_params(one), with_params(two), with_params(two)], [0.625, 0.125, 0.25]).params
    assert found.tolist() == [1 + 2**-23, -4.0 + 0.375 * 6.0], "1 + 1.5 * 2^-24 rounds up"


def test_everything_but_the_parameters_is_the_first_states() -> None:
    first, second = jax.tree.map(np.asarray, state(1)), jax.tree.map(np.asarray, state(2))
    found = average([first, second], [0.5, 0.5])
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, found._replace(params=()), first._replace(params=()))))
    changed = jax.tree.map(lambda x, y: not np.array_equal(x, y), found.params, first.params)
    assert any(jax.tree.leaves(changed))
    assert average([first], [1.0]) is first
