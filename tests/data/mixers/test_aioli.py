"""Aioli against the reference sheet, a known law recovered from a simulated run, and a round written out by hand."""

from __future__ import annotations

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scaling.data.mixers.aioli import aioli, effects, normalized
from scaling.data.mixers.build import observation_steps
from scaling.weighing import Mixer as Settings
from simulated_mixing import drive, observation, simulate, values

pytestmark = pytest.mark.usefixtures("double")

EFFECTS = np.array([[0.04, 0.01, 0.002], [0.005, 0.03, 0.001], [0.0, 0.012, 0.02]])  # column sums .045, .052, .023


def settings(every: int = 60, interval: int = 3, passes: int = 4) -> Settings:
    return Settings(name="aioli", rate=0.2, memory=1.0, own=0.75, every=every, interval=interval, passes=passes,
                    windows=8)


def test_the_published_normalisation_and_update() -> None:
    raw = np.array([[0.3, 0.1], [-0.05, 0.2]])
    published = np.array([[0.466667, 0.2], [0, 0.333333]])
    np.testing.assert_allclose(normalized(jnp.asarray(raw)), published, atol=5e-7)
    # One pass of one-step probes with own = 1 measures a column of A a probe: drops of raw's columns give the update.
    mixer = aioli(values([0.5, 0.5], rate=0.2, memory=1.0, own=1.0), every=10, interval=1, passes=1)
    _, _, shares_TxK = simulate(mixer, raw, [3.0, 3.0], 3, observed=(0, 1, 2))
    np.testing.assert_allclose(shares_TxK[2], [0.496667, 0.503333], atol=5e-7)


def test_the_published_law_from_its_drops() -> None:
    law = np.array([[0.4, 0.1], [0.05, 0.3]])
    probes = np.array([[0.75, 0.25], [0.25, 0.75]])
    np.testing.assert_allclose(effects(jnp.asarray(probes @ law.T), jnp.asarray(0.75)).T, law, rtol=1e-13)


def test_a_known_law_is_recovered_from_a_run_on_its_own_probes() -> None:
    observed = observation_steps(settings(), 60, 3)

    def run(own: jax.Array, seed: jax.Array) -> tuple[jax.Array, jax.Array]:
        mixer = aioli(values(np.full(3, 1 / 3), rate=0.2, memory=1.0)._replace(own=own, seed=seed), 60, 3, 4)
        state, _, shares_TxK = simulate(mixer, EFFECTS, [3.0, 2.5, 4.0], 60, observed)
        return effects(state.drops_KxK / 4, own).T / 3, shares_TxK  # a probe lasts three steps

    owns, seeds = jnp.array([0.5, 0.75, 1.0, 0.2]), jnp.array([0, 7, 0, 1], jnp.int32)
    measured, shares = jax.jit(jax.vmap(run))(owns, seeds)
    np.testing.assert_allclose(measured, np.broadcast_to(EFFECTS, measured.shape), atol=2e-14)
    raised = np.exp(0.2 * EFFECTS.sum(axis=0) / EFFECTS.sum())
    np.testing.assert_allclose(shares[:, 36:], np.broadcast_to(raised / raised.sum(), (4, 24, 3)), rtol=1e-11)


@pytest.mark.parametrize("memory", [0.0, 0.4, 1.0])
def test_three_rounds_by_hand_with_an_arbitrary_response(memory: float) -> None:
    start, rate, own, every, interval, passes = [0.5, 0.3, 0.2], 0.3, 0.7, 20, 2, 2
    mixer = aioli(values(start, rate=rate, memory=memory, own=own, seed=3), every, interval, passes)
    rng = np.random.default_rng(4)
    update, weights_at = jax.jit(mixer.update), jax.jit(mixer.weights)
    state, losses, shares = mixer.init(), rng.uniform(2, 4, 3), list(start)
    for first in (0, 20, 40):
        total = np.zeros((3, 3))  # drop of loss i while probing j
        state = update(state, observation(losses, first))
        for probe in range(passes * 3):
            step = first + probe * interval
            played = [np.asarray(weights_at(state, jnp.int32(step + done))) for done in range(interval)]
            domain = int(np.argmax(played[0]))
            for weights in played:
                np.testing.assert_allclose(weights, [own if k == domain else (1 - own) / 2 for k in range(3)])
            drop = rng.normal(0.02, 0.02, 3)
            for i in range(3):
                total[i, domain] += drop[i]
            losses = losses - drop
            state = update(state, observation(losses, step + interval))
        probes = np.array([[own if k == domain else (1 - own) / 2 for k in range(3)] for domain in range(3)])
        law = np.array([np.linalg.solve(probes, total[i] / passes) for i in range(3)])
        law = law - min(law.min(), 0)
        law = law / law.sum()
        gain = [math.exp(rate * sum(law[i, j] for i in range(3))) for j in range(3)]
        raised = [share**memory * value for share, value in zip(shares, gain, strict=True)]
        shares = [value / sum(raised) for value in raised]
        for step in (first + 12, first + 19):
            np.testing.assert_allclose(weights_at(state, jnp.int32(step)), shares, rtol=1e-10)


def orders(seeds: list[int], domains: int, rounds: int, passes: int) -> np.ndarray:
    """Domain probed at each step, [seeds, rounds, passes, domains], of probes one step long."""
    every = passes * domains + 1
    given = values(np.full(domains, 1 / domains), rate=0.2, memory=1.0, own=0.9)

    def probed(seed: jax.Array, step: jax.Array) -> jax.Array:
        mixer = aioli(given._replace(seed=seed), every, 1, passes)
        return mixer.weights(mixer.init(), step).argmax()

    steps = (np.arange(rounds)[:, None] * every + np.arange(every - 1)).astype(np.int32).reshape(-1)
    found = jax.jit(jax.vmap(jax.vmap(probed, (None, 0)), (0, None)))(jnp.asarray(seeds, jnp.int32), steps)
    return np.asarray(found).reshape(len(seeds), rounds, passes, domains)


def test_every_sweep_visits_each_domain_once_in_an_order_of_its_own() -> None:
    order, same, other = orders([0, 0, 1], domains=4, rounds=6, passes=3)
    np.testing.assert_array_equal(np.sort(order, axis=-1), np.broadcast_to(np.arange(4), order.shape))
    assert len({tuple(sweep) for sweep in order.reshape(-1, 4)}) > 8  # of 18 sweeps; 24 orders are possible
    np.testing.assert_array_equal(order, same)
    assert not np.array_equal(order, other)


def test_all_orders_are_about_equally_frequent() -> None:
    sweeps = orders([5], domains=3, rounds=200, passes=3).reshape(-1, 3)
    counts = np.array([(sweeps == each).all(axis=1).sum() for each in itertools.permutations(range(3))])
    assert counts.sum() == 600
    assert ((counts - 100) ** 2 / 100).sum() < 20.5  # chi-square of 5 degrees: p = 0.001


def test_drops_without_any_effect_leave_the_mixture() -> None:
    mixer = aioli(values([0.5, 0.3, 0.2], rate=0.2, memory=1.0, own=0.75), 20, 1, 1)
    shares = drive(mixer, [observation([3.0, 2, 1], step) for step in range(4)])
    np.testing.assert_allclose(shares[-1], [0.5, 0.3, 0.2], rtol=1e-12)


def test_a_domain_without_a_share_stays_out_of_the_mixture() -> None:
    observed = observation_steps(settings(), 120, 3)

    def run(memory: jax.Array) -> jax.Array:
        mixer = aioli(values([0.5, 0.5, 0.0], rate=0.2, own=0.75)._replace(memory=memory), 60, 3, 4)
        return simulate(mixer, EFFECTS, [3.0, 2.5, 4.0], 120, observed)[2]

    shares_MxTxK = np.asarray(jax.jit(jax.vmap(run))(jnp.array([0.0, 1.0])))
    for mixed in (shares_MxTxK[:, 36:60], shares_MxTxK[:, 96:]):
        assert (mixed[..., 2] == 0).all()
        np.testing.assert_allclose(mixed.sum(axis=-1), 1, rtol=1e-12)
    assert (shares_MxTxK[:, :36, 2] > 0).all()  # probes visit it
