"""What all mixers share: shares of the simplex, fixed state, settings side by side; when they look; where they go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling.data.mixers.build import build, observation_steps
from scaling.data.mixers.mixer import Mixer, MixerValues
from scaling.fields import ConfigError
from scaling.weighing import MIXER_SETTINGS
from scaling.weighing import Mixer as Settings
from simulated_mixing import observation, simulate, values

STATIC = {"every": 20, "interval": 2, "passes": 2, "window": 3, "windows": 4, "graph": {}}
SIGNALS = {"excess": (3,), "losses": (3,), "gradients": (3, 3), "held_out": (3,), "bilevel": (2, 3)}
NAMES = tuple(MIXER_SETTINGS)


def spec(name: str, **given: Any) -> Settings:
    return Settings(name=name, **{key: given.get(key, STATIC.get(key, 0.5)) for key in MIXER_SETTINGS[name]})


def tried(name: str, start: Any = (0.5, 0.3, 0.2), **given: Any) -> tuple[Settings, MixerValues]:
    """A mixer's static settings, and values that leave out what it does not take."""
    usual = {"rate": 0.3, "smoothing": 0.01, "memory": 0.8, "own": 0.7, "penalty": 5.0} | given
    pairs = {"doge": 1 - np.eye(3), "skill_it": np.array([[1, 0.5, 0], [0, 1, 0], [0, 0.2, 1]])}
    taken = {key: usual[key] for key in MIXER_SETTINGS[name] if key in usual}
    return spec(name), values(start, **taken, **({"pairs": pairs[name]} if name in pairs else {}))


def signal(sees: str, numbers: np.ndarray) -> np.ndarray:
    """A signal of the right shape from 9 numbers: inner products are those of three vectors."""
    if sees == "gradients":
        return numbers.reshape(3, 3) @ numbers.reshape(3, 3).T
    return numbers[: 6 if sees == "bilevel" else 3].reshape(SIGNALS[sees])


def observed_from(mixer: Mixer, drawn: list[list[float]]) -> list[Any]:
    """Observations at the steps at which aioli looks, which suit the others as well."""
    steps = observation_steps(spec("aioli"), 40, 3)[: len(drawn)]
    return [observation(signal(mixer.sees, np.array(numbers)), step, learning_rate=0.01)
            for step, numbers in zip(steps, drawn, strict=True)]


@pytest.mark.parametrize("name", NAMES)
def test_only_the_settings_it_takes_reach_a_mixer_and_its_state_keeps_shapes_and_types(name: str) -> None:
    mixer = build(*tried(name))  # NaN stands for all that it does not take
    state = mixer.init()
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), state)
    for seen in observed_from(mixer, np.random.default_rng(0).uniform(0.5, 4, (14, 9)).tolist()):
        state = jax.jit(mixer.update)(state, seen)
        assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == shapes
        weights = mixer.weights(state, seen.step + 1)
        assert weights.dtype == jnp.float32
        assert np.isfinite(weights).all()
    assert all(x.dtype in (jnp.float32, jnp.int32) for x in jax.tree.leaves(state))


drawn_signals = st.lists(st.lists(st.floats(0, 20, width=32), min_size=9, max_size=9), min_size=1, max_size=14)
starts = st.lists(st.integers(0, 100), min_size=3, max_size=3).filter(lambda w: sum(x > 0 for x in w) > 1)


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=40)
@given(drawn=drawn_signals, start=starts, rate=st.floats(0, 5, width=32))
def test_shares_stay_on_the_simplex_and_none_rises_from_zero(
    name: str, drawn: list[list[float]], start: list[int], rate: float
) -> None:
    update, weights, init, sees = COMPILED[name]
    _, given_values = tried(name, np.array(start) / sum(start), rate=rate)
    state = init(given_values)
    for seen in observed_from(sees, drawn):
        state = update(given_values, state, seen)
        at = jnp.int32(19) if name == "aioli" else seen.step + 1  # the last step of a round trains on the mixture
        shares = np.asarray(weights(given_values, state, at))
        assert (shares >= 0).all()
        assert abs(shares.sum() - 1) < 1e-5
        assert (shares[np.array(start) == 0] == 0).all()


def compiled(name: str) -> tuple[Callable, Callable, Callable, Mixer]:
    static, some = tried(name)
    return (jax.jit(lambda given, state, seen: build(static, given).update(state, seen)),
            jax.jit(lambda given, state, step: build(static, given).weights(state, step)),
            jax.jit(lambda given: build(static, given).init()), build(static, some))


COMPILED = {name: compiled(name) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_settings_side_by_side_equal_one_at_a_time(name: str) -> None:
    ways = [((0.5, 0.3, 0.2), dict(rate=0.1, memory=0.5, own=0.6, smoothing=0.0, penalty=1.0)),
            ((0.2, 0.2, 0.6), dict(rate=0.9, memory=0.9, own=0.9, smoothing=0.1, penalty=8.0)),
            ((0.5, 0.5, 0.0), dict(rate=0.4, memory=0.1, own=1.0, smoothing=0.3, penalty=3.0))]
    each = [tried(name, start, **way)[1]._replace(seed=np.int32(seed)) for seed, (start, way) in enumerate(ways)]
    _, _, _, some = COMPILED[name]
    seen = observed_from(some, np.random.default_rng(5).uniform(0.5, 4, (14, 9)).tolist())
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *seen)

    def run(given_values: MixerValues) -> jax.Array:
        mixer = build(spec(name), given_values)

        def one(state: Any, at: Any) -> Any:
            state = mixer.update(state, at)
            return state, mixer.weights(state, at.step)

        return jax.lax.scan(one, mixer.init(), stacked)[1]

    together = jax.jit(jax.vmap(run))(jax.tree.map(lambda *leaves: np.stack(leaves), *each))
    alone = jax.jit(run)
    for index, given_values in enumerate(each):
        np.testing.assert_allclose(together[index], alone(given_values), rtol=2e-6, atol=1e-7)
    assert np.abs(together[0] - together[1]).max() > 1e-3


def test_skill_it_looks_at_the_end_of_every_round_but_the_last() -> None:
    assert observation_steps(spec("skill_it", every=30), 100, 3) == (30, 60, 90)
    assert observation_steps(spec("skill_it", every=50), 100, 3) == (50,)
    assert observation_steps(spec("skill_it", every=100), 100, 3) == ()


def test_aioli_looks_around_each_of_its_probes() -> None:
    once = spec("aioli", every=20, interval=2, passes=1)
    assert observation_steps(once, 40, 3) == (0, 2, 4, 6, 20, 22, 24, 26)
    twice = spec("aioli", every=20, interval=1, passes=2)
    assert observation_steps(twice, 30, 4) == (*range(9), *range(20, 29))


@pytest.mark.parametrize("name", ["doremi", "doge", "odm", "odm_released", "bilevel"])
def test_mixers_that_see_the_batch_do_not_look_at_held_out_windows(name: str) -> None:
    assert observation_steps(spec(name), 100, 3) == ()


@pytest.mark.parametrize(
    ("every", "steps", "length", "start"), [(12, 48, 12, 0), (10, 40, 10, 0), (20, 50, 10, 40), (20, 52, 12, 40)]
)
def test_a_round_that_probes_fill_is_refused(every: int, steps: int, length: int, start: int) -> None:
    message = (rf"mixer\.every = {every}: expected rounds longer than their 2 · 3 · 2 = 12 steps of probes, not "
               rf"{length} at step {start} of {steps}; raise it to a divisor of the steps, or lower mixer\.interval")
    with pytest.raises(ConfigError, match=message):
        observation_steps(spec("aioli", every=every), steps, 3)
    assert observation_steps(spec("aioli", every=13), 13, 3) == tuple(range(0, 13, 2))


# A world in which domain 0 teaches most, domain 1 less, and domain 2, of highest loss, is noise that nothing lowers.
TEACHES = 1e-3 * np.array([[4.0, 1.0, 0.0], [3.0, 2.0, 0.0], [0.0, 0.0, 0.0]])  # row: loss, column: trained upon
BEGIN, REFERENCE = [3.0, 3.0, 5.0], [2.0, 2.6, 5.0]
STEPS = 200
UNIFORM = np.full(3, 1 / 3)
PRODUCTS = 1e-3 * np.array([[4.0, 2.0, 0.0], [2.0, 2.0, 0.0], [0.0, 0.0, 1.0]])  # of gradients: symmetric


def world(name: str, effects: np.ndarray = TEACHES, **given: Any) -> tuple[np.ndarray, np.ndarray]:
    """Losses at the end of a run in the world, and the shares of each step."""
    static = spec(name)
    pairs = {"skill_it": effects.T, "doge": 1 - np.eye(3)}
    mixer = build(static, values(UNIFORM, **given, **({"pairs": pairs[name]} if name in pairs else {})))
    observed = observation_steps(static, STEPS, 3)
    effects, begin = effects.astype(np.float32), np.float32(BEGIN)
    _, losses_K, shares_TxK = jax.jit(lambda: simulate(mixer, effects, begin, STEPS, observed, REFERENCE, 0.1))()
    return np.asarray(losses_K), np.asarray(shares_TxK)


def stratified(effects: np.ndarray = TEACHES) -> np.ndarray:
    return np.array(BEGIN) - STEPS * effects @ UNIFORM


@pytest.mark.parametrize(
    ("name", "given"),
    [("skill_it", {"rate": 60.0}),  # its graph is the world's: the teacher's row is the largest
     ("aioli", {"rate": 1.0, "memory": 1.0, "own": 0.75}),  # finds the teacher's column by its probes
     ("doremi", {"rate": 0.02, "smoothing": 1e-4})],  # the teacher is itself what can still be learnt: excess 1, 0.4, 0
)
def test_mixers_that_see_what_helps_move_to_the_teacher_and_beat_equal_shares(name: str, given: dict) -> None:
    losses, shares = world(name, **given)
    assert shares[-1, 0] > 0.6
    assert losses.mean() < stratified().mean() - 0.05


def test_doge_moves_to_the_domain_whose_gradient_agrees_with_the_others() -> None:
    losses, shares = world("doge", PRODUCTS, rate=5.0)
    assert shares[-1, 2] < 0.05  # noise agrees with no other
    assert (np.diff(shares[:, 2]) <= 1e-7).all()
    np.testing.assert_allclose(shares[-1, 0], shares[-1, 1], rtol=1e-4)  # W excludes i = j: 2 and 2
    assert losses[:2].mean() < stratified(PRODUCTS)[:2].mean() - 0.05


@pytest.mark.parametrize(("name", "memory"), [("odm", 0.9), ("odm_released", 0.9)])
def test_online_data_mixing_follows_the_highest_loss_though_nothing_lowers_it(name: str, memory: float) -> None:
    losses, shares = world(name, memory=memory)
    assert shares[-1].argmax() == 2
    assert shares[-1, 2] > UNIFORM[2] + 0.01
    assert losses.mean() > stratified().mean()  # worse than equal shares: the teacher is starved


def test_doremi_stays_where_the_teacher_has_no_excess_of_its_own() -> None:
    # Domain 0 teaches 1 but is itself learnt: DoReMi reads the diagonal alone and moves to 1.
    only_teaches = 1e-3 * np.array([[0.0, 0, 0], [3.0, 0.1, 0], [0, 0, 0]])
    mixer = build(*tried("doremi", UNIFORM, rate=0.05, smoothing=1e-4))
    _, losses, shares = simulate(mixer, only_teaches.astype(np.float32), np.float32([2, 3, 5]), STEPS,
                                 reference_K=[2.0, 2.6, 5.0])
    assert shares[-1].argmax() == 1
    assert losses.mean() > (np.array([2, 3, 5]) - STEPS * only_teaches @ UNIFORM).mean()
