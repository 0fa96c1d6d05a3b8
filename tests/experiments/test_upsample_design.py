"""The batches of the study: full gradients exactly, and equal in both ways, through the project's own step."""

import functools
from typing import Any

import jax
import numpy as np
import optax
import pytest

from experiments.upsample_design import PLAIN_EPS, copies, sampled, scalarised, temperature_of
from helpers import small_run
from scaling.config import Run
from scaling.data.batches import Tokens
from scaling.data.temperature import temperature_shares
from scaling.fields import ConfigError
from scaling.optimizers.build import OptimizerValues, build
from scaling.sweeps.sweep import overlay
from scaling.training.state import TrainState, initial_state
from scaling.training.step import draw, train_step
from scaling.training.tables import Stream, Windows, hyperparameters, run_tables

SIZES = {"code": 16, "headers": 1, "prose": 256}
FEW = {"a": 16, "b": 4, "c": 1}
VOCABULARY, SEQUENCE, UNIT = 11, 6, 2
PLAIN = {"optimizer.b1": 0.0, "optimizer.b2": 0.0, "optimizer.eps": PLAIN_EPS, "optimizer.weight_decay": 0.0,
         "schedule.peak": 0.5 * PLAIN_EPS}
STEP = jax.jit(train_step, static_argnums=(0, 1, 2))
DRAW = jax.jit(draw, static_argnums=(0, 1))
START = jax.jit(initial_state, static_argnums=(0, 1))


@functools.cache
def corpus() -> tuple[Tokens, Windows]:
    """FEW domains of random text, UNIT windows the smallest."""
    sizes = [size * UNIT for size in FEW.values()]
    rng = np.random.default_rng(0)
    texts = [rng.integers(VOCABULARY, size=count * SEQUENCE + 1, dtype=np.uint8) for count in sizes]
    start_K = np.cumsum([0, *(len(text) for text in texts[:-1])]).astype(np.int32)
    return Tokens(np.concatenate(texts), start_K), Windows(tuple(zip(FEW, sizes, strict=True)))


class Descent:
    """A run on that corpus, one update at a time."""

    def __init__(self, point: dict[str, Any], batch: int, **changes: Any) -> None:
        base = small_run(**{
            "model.width": 8, "model.heads": 1, "schedule.warmup": {"steps": 0},
            "data.domains": {name: f"folder:{name}" for name in FEW}, "data.mixture": {"a": 1.0},
            "data.sequence": SEQUENCE, "data.batch": batch, "optimizer.clip_norm": None,
            "training.dtype": "float64", "schedule.name": "constant", "schedule.floor": 1.0, **changes})
        self.run: Run = overlay(base, point)
        self.tables = run_tables(self.run, corpus()[1], Stream.start(len(FEW)))
        self.hyper = hyperparameters(self.run, corpus()[1], Stream.start(len(FEW)), np.dtype(np.float64))

    def at(self, step: int) -> Any:
        return jax.tree.map(lambda table: table[0], self.tables.rows(step, 1, 1, np.dtype(np.float64)))

    def shown(self, step: int) -> list[tuple[int, ...]]:
        """The windows of a step's batch, sorted."""
        batch = DRAW(self.run.program, 1, self.hyper, self.at(step), corpus()[0], None)
        return sorted(map(tuple, np.asarray(batch.tokens_BxT).tolist()))

    def states(self, steps: int) -> list[TrainState]:
        """States after each of the first updates."""
        state, seen = START(self.run.program, VOCABULARY, np.int32(3)), []
        for step in range(steps):
            state = STEP(self.run.program, VOCABULARY, 1, self.hyper, self.at(step), corpus()[0], None, state)
            seen.append(jax.device_get(state))
        return seen


def windows_times(times: dict[str, int]) -> list[tuple[int, ...]]:
    """Every window of every domain so often, sorted."""
    tokens, windows = corpus()
    found = []
    for (name, count), start in zip(windows.by_domain, np.asarray(tokens.start_K).tolist(), strict=True):
        text = np.asarray(tokens.tokens_N)[start:start + count * SEQUENCE + 1].tolist()
        found += [tuple(text[i * SEQUENCE:(i + 1) * SEQUENCE + 1]) for i in range(count)] * times[name]
    return sorted(found)


def full(times: dict[str, int]) -> int:
    return sum(UNIT * FEW[name] * count for name, count in times.items())


def largest_difference(one: Any, other: Any) -> float:
    """Over parameters, relative to the largest parameter."""
    pairs = list(zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))
    return max(np.abs(a - b).max() for a, b in pairs) / max(np.abs(a).max() for a, _ in pairs)


@pytest.fixture
def _float64() -> Any:
    with jax.enable_x64(True):
        yield


def test_copies_of_windows_worked_by_hand() -> None:
    assert copies(SIZES, 2) == {"prose": 1, "code": 4, "headers": 16}
    assert copies(SIZES, 4) == {"prose": 1, "code": 8, "headers": 64}
    assert copies(SIZES, 1) == dict.fromkeys(SIZES, 1)
    with pytest.raises(ConfigError, match=r"study\.whole = 3: .* whole copies of every window, not 6\.35 of code's"):
        copies(SIZES, 3)


@pytest.mark.parametrize("tau", [1.0, 2.0, 5.0, 16.0])
def test_a_temperature_is_read_back_from_its_shares(tau: float) -> None:
    assert temperature_of(SIZES, temperature_shares(SIZES, tau)) == tau


def test_batches_hold_every_window_the_same_number_of_times_at_every_step() -> None:
    times = copies(FEW, 2)
    assert times == {"a": 1, "b": 2, "c": 4}
    once = dict.fromkeys(FEW, 1)
    up, weighed = Descent(sampled(FEW, 2), full(times)), Descent(scalarised(FEW, 2), full(once))
    for step in (0, 1, 7):
        assert up.shown(step) == windows_times(times)
        assert weighed.shown(step) == windows_times(once)


@pytest.mark.usefixtures("_float64")
@pytest.mark.parametrize("optimizer", [PLAIN, {}], ids=["plain", "adamw"])
def test_both_ways_descend_alike_over_all_windows(optimizer: dict[str, Any]) -> None:
    up = Descent(sampled(FEW, 2), full(copies(FEW, 2)), **optimizer).states(12)
    weighed = Descent(scalarised(FEW, 2), full(copies(FEW, 1)), **optimizer).states(12)
    for one, other in zip(up, weighed, strict=True):
        assert largest_difference(one.params, other.params) < 1e-12
    assert float(up[0].metrics.gradient_norm) == pytest.approx(float(weighed[0].metrics.gradient_norm), rel=1e-12)
    assert largest_difference(up[0].params, up[-1].params) > 0.01, "they must move for this test to mean anything"


@pytest.mark.usefixtures("_float64")
def test_in_batches_they_part_and_at_another_temperature_the_gradient_differs() -> None:
    up, weighed = (Descent(point, 7, **PLAIN).states(6)[-1] for point in (sampled(FEW, 2), scalarised(FEW, 2)))
    assert largest_difference(up.params, weighed.params) > 1e-3
    other = Descent(scalarised(FEW, 4), full(copies(FEW, 1)), **PLAIN).states(1)[0]
    same = Descent(scalarised(FEW, 2), full(copies(FEW, 1)), **PLAIN).states(1)[0]
    assert largest_difference(other.params, same.params) > 1e-4


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e3])
def test_adamw_without_moments_far_below_its_epsilon_is_plain_descent_to_the_bit(scale: float) -> None:
    rng = np.random.default_rng(1)
    gradient, params = ({"kernel": rng.normal(size=(50, 7)).astype(np.float32)} for _ in range(2))
    gradient = {"kernel": gradient["kernel"] * np.float32(scale)}
    run = small_run(**{**PLAIN, "optimizer.clip_norm": None})
    values = OptimizerValues(*np.array([0.0, 0.0, PLAIN_EPS, 0.0, np.inf], np.float32))
    descent = build(run.optimizer, values, np.float32(run.schedule.peak), run.model)
    state = descent.init(params)
    for _ in range(3):
        update, state = descent.update(gradient, state, params)
    expected, _ = optax.sgd(0.5).update(gradient, optax.sgd(0.5).init(params))
    np.testing.assert_array_equal(update["kernel"], expected["kernel"])
