"""Both forms of online data mixing against the reference sheet, hand-written traces, and exploration's limits."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import pytest

from scaling.data.mixers.mixer import Mixer, MixerValues
from scaling.data.mixers.odm import odm, odm_released
from simulated_mixing import drive, observation, values

pytestmark = pytest.mark.usefixtures("double")

UNIFORM = np.full(3, 1 / 3)


def exploration(turn: int, domains: int = 3) -> float:
    return min(1 / domains, math.sqrt(math.log(domains) / (domains * turn))) if turn else 1 / domains


def test_the_published_exploration() -> None:
    np.testing.assert_allclose([exploration(t) for t in (1, 10, 100)], [0.3333, 0.191365, 0.060515], atol=5e-5)
    mixer = odm_released(values(UNIFORM, memory=0.9))
    only_first = jnp.array([1.0, 0, 0])  # the others are given ε
    for turn, published in ((10, 0.191365), (100, 0.060515)):
        np.testing.assert_allclose(mixer.weights(only_first, jnp.int32(turn))[1:], published, atol=5e-7)


def test_the_published_example_of_the_released_form() -> None:
    mixer = odm_released(values(UNIFORM, memory=0.9))
    shares = drive(mixer, [observation([3.0, 2, 1], step - 1) for step in (1, 10, 100)])
    expected = [[1 / 3] * 3, [0.474695, 0.295596, 0.229709], [0.604985, 0.260814, 0.134201]]
    np.testing.assert_allclose(shares, expected, atol=5e-7)


def test_the_published_example_of_the_paper_form() -> None:
    mixer = odm(values(UNIFORM, memory=0.9))
    state = mixer.update(mixer.init(), observation([3.0, np.nan, np.nan], 0, counts=(1, 0, 0)))
    at_turn_100 = mixer.weights(state, jnp.int32(99))
    np.testing.assert_allclose(at_turn_100, [0.343378, 0.328311, 0.328311], atol=5e-7)


@pytest.mark.parametrize("form", ["paper", "released"])
def test_five_steps_by_hand_with_absent_domains(form: str) -> None:
    start, memory = [0.5, 0.3, 0.2], 0.8
    rng = np.random.default_rng(2)
    losses, counts = rng.uniform(1, 4, (5, 3)).tolist(), [(2, 1, 1), (4, 0, 0), (0, 2, 2), (1, 0, 3), (2, 2, 0)]
    reward, shares, expected = [0.0] * 3, list(start), []
    for step in range(5):
        for k in range(3):
            if counts[step][k]:
                paid = losses[step][k] / shares[k] if form == "paper" else math.exp(losses[step][k])
                reward[k] = memory * reward[k] + (1 - memory) * paid
        done = step + 1
        if form == "paper":  # its turn t = done + 1 uses the exploration of the turn before
            raised, now = [math.exp(exploration(done) * value) for value in reward], exploration(done + 1)
        else:
            raised, now = reward, exploration(done)
        shares = [(1 - 3 * now) * value / sum(raised) + now for value in raised]
        expected.append(shares)
    mixer = (odm if form == "paper" else odm_released)(values(start, memory=memory))
    np.testing.assert_array_equal(mixer.weights(mixer.init(), jnp.int32(0)), start)
    seen = [observation(losses[step], step, counts[step]) for step in range(5)]
    np.testing.assert_allclose(drive(mixer, seen), expected, rtol=1e-12)


@pytest.mark.parametrize("form", [odm, odm_released])
def test_a_domain_without_a_share_is_neither_explored_nor_counted(form: Callable[[MixerValues], Mixer]) -> None:
    of_three = form(values([0.5, 0.5, 0.0], memory=0.9))
    of_two = form(values([0.5, 0.5], memory=0.9))
    three = drive(of_three, [observation([2.0, 1, np.nan], step, (3, 1, 0)) for step in range(40)])
    two = drive(of_two, [observation([2.0, 1], step, (3, 1)) for step in range(40)])
    assert (three[:, 2] == 0).all()
    np.testing.assert_allclose(three[:, :2], two, rtol=1e-12)


def test_the_reward_is_unbiased_where_a_step_draws_one_domain() -> None:
    # Over the draws k ~ π, E[ℓ_k / π_k] added to domain k is ℓ_k: sum the updates of all draws, each times π_k.
    start, losses = np.array([0.5, 0.3, 0.2]), np.array([2.0, 3, 1])
    mixer = odm(values(start, memory=0.0))
    rewards = [mixer.update(mixer.init(), observation(losses, 0, np.eye(3)[k])) for k in range(3)]
    np.testing.assert_allclose(sum(start[k] * rewards[k] for k in range(3)), losses, rtol=1e-12)
