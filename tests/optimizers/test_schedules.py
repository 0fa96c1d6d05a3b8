"""Learning-rate tables against published values, optax's own schedules, and what a schedule must be."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import small_run, windows_of
from scaling.config import Schedule
from scaling.fields import ConfigError
from scaling.optimizers.schedules import multipliers
from scaling.schedule import SCHEDULES
from scaling.training.tables import learning_rates

OWN_FILE = ("one_cycle", "power", "table")  # tested in test_schedule_table.py


def schedule(name: str, floor: float, decay: int = 0, level: float = 0.5) -> Schedule:
    values: dict[str, Any] = {"name": name, "floor": floor, "decay": None}
    if name in ("infinite", "wsd"):
        values["decay"] = {"steps": decay}
    if name == "infinite":
        values |= {"level": level, "cooldown": {"steps": 30}}
    return small_run(**{f"schedule.{key}": value for key, value in values.items()}).schedule


# A run of 100 steps with 10 of warm-up, at the counts where published values are known.
KNOWN: list[tuple[str, float, int, dict[int, float]]] = [
    ("cosine", 0.1, 0, {0: 0, 5: 0.5, 10: 1, 55: 0.55, 99: 0.1 + 0.45 * (1 + math.cos(math.pi * 89 / 90))}),
    ("wsd", 0.0, 20, {0: 0, 5: 0.5, 10: 1, 50: 1, 80: 1, 85: 0.75, 90: 0.5, 95: 0.25, 99: 0.05}),
    ("linear", 0.0, 0, {0: 0, 5: 0.5, 10: 1, 55: 0.5, 99: 1 / 90}),
    ("inverse_sqrt", 0.0, 0, {0: 0, 5: 0.5, 10: 1, 40: 0.5, 90: 1 / 3}),
    ("constant", 1.0, 0, {0: 0, 5: 0.5, 10: 1, 99: 1}),
    ("linear", 0.2, 0, {5: 0.5, 10: 1, 55: 0.6, 99: 0.2 + 0.8 / 90}),
    ("wsd", 0.5, 20, {79: 1, 90: 0.75, 99: 0.525}),
    ("inverse_sqrt", 0.4, 0, {40: 0.5, 90: 0.4}),
]


@pytest.mark.parametrize(("name", "floor", "decay", "values"), KNOWN)
def test_published_values(name: str, floor: float, decay: int, values: dict[int, float]) -> None:
    table_T = multipliers(schedule(name, floor, decay), 10, decay, 100)
    assert table_T.shape == (100,)
    assert table_T.dtype == np.float64
    assert {t: table_T[t] for t in values} == pytest.approx(values, abs=1e-12)


def test_the_last_cosine_value_used_is_above_the_floor() -> None:
    assert multipliers(schedule("cosine", 0.1), 10, 0, 100)[99] == pytest.approx(0.100274, abs=1e-6)


@pytest.mark.parametrize(("name", "theirs"), [
    ("cosine", lambda peak: optax.warmup_cosine_decay_schedule(0.0, peak, 10, 100, 0.1 * peak)),
    ("linear", lambda peak: optax.join_schedules(
        [optax.linear_schedule(0.0, peak, 10), optax.linear_schedule(peak, 0.1 * peak, 90)], [10])),
])
def test_the_rate_that_acts_is_what_optax_would_use(name: str, theirs: Callable[[float], Callable]) -> None:
    run = small_run(**{"schedule.name": name, "schedule.floor": 0.1, "schedule.peak": 3e-3,
                       "schedule.warmup": {"steps": 10}, "training.duration": {"steps": 100}})
    expected_T = [float(theirs(3e-3)(count)) for count in range(100)]
    np.testing.assert_allclose(learning_rates(run, 100, windows_of(run)), expected_T, rtol=1e-5, atol=1e-9)


INFINITE = {0: 0, 5: 0.5, 10: 1, 25: 0.75, 40: 0.5, 60: 0.5, 80: 0.5, 90: 0.158114, 99: 0.5 * 0.1 ** (19 / 20)}


def test_infinite_warms_up_cools_down_holds_and_anneals_as_published() -> None:
    table_T = multipliers(schedule("infinite", 0.05, 20), 10, 20, 100, 30)
    assert {t: table_T[t] for t in INFINITE} == pytest.approx(INFINITE, abs=1e-6)
    ratio = table_T[99] / table_T[98]
    assert table_T[99] * ratio == pytest.approx(0.05, rel=1e-12)  # count 100, which no step of the run uses
    assert np.abs(np.diff(table_T))[10:].max() < 0.06  # no jump where the phases meet


def test_an_infinite_run_that_is_not_annealed_yet_is_the_start_of_any_longer_one() -> None:
    short_T = multipliers(schedule("infinite", 0.05, 0), 10, 0, 60, 30)
    long_T = multipliers(schedule("infinite", 0.05, 20), 10, 20, 200, 30)
    np.testing.assert_array_equal(short_T, long_T[:60])
    np.testing.assert_array_equal(short_T[40:], 0.5)


def test_a_branch_at_the_level_anneals_as_the_single_infinite_run() -> None:
    """The level is the branch's own peak, its floor counts from there, and it has no cooldown."""
    single_T = 0.01 * multipliers(schedule("infinite", 0.05, 20), 10, 20, 100, 30)
    trunk_T = 0.01 * multipliers(schedule("infinite", 0.05, 0), 10, 0, 50, 30)
    branch_T = 0.005 * multipliers(schedule("infinite", 0.1, 20, level=1.0), 0, 20, 50, 0)
    np.testing.assert_allclose(np.concatenate([trunk_T, branch_T]), single_T, rtol=1e-14)


def test_the_rate_of_an_infinite_run_comes_from_its_configuration() -> None:
    run = small_run(**{"schedule.name": "infinite", "schedule.floor": 0.05, "schedule.peak": 2e-3,
                       "schedule.warmup": {"steps": 10}, "schedule.cooldown": {"tokens": 30 * 64},
                       "schedule.level": 0.5, "schedule.decay": {"steps": 20}, "training.duration": {"steps": 100}})
    expected_T = 2e-3 * multipliers(schedule("infinite", 0.05, 20), 10, 20, 100, 30)
    np.testing.assert_array_equal(learning_rates(run, 100, windows_of(run)), expected_T)


@pytest.mark.parametrize(("changes", "message"), [
    ({"schedule.level": None}, r"schedule\.level = None: expected a value for infinite and one_cycle .*; set or"),
    ({"schedule.cooldown": None}, r"schedule\.cooldown = None: expected a value for infinite .*; set or remove"),
    ({"schedule.decay": None}, r"schedule\.decay = None: expected a duration for wsd and infinite .*; set or remove"),
    ({"schedule.name": "cosine", "schedule.decay": None}, r"schedule\.level = 0\.5: .* None for every other schedule"),
    ({"schedule.floor": 0.0}, r"schedule\.floor = 0\.0: expected above 0 for infinite, whose decay is exponential"),
    ({"schedule.floor": 0.6}, r"schedule\.level = 0\.5: expected from schedule\.floor = 0\.6 to 1; use a level such"),
])
def test_an_infinite_schedule_that_is_not_one_is_refused(changes: dict[str, Any], message: str) -> None:
    given = {"schedule.name": "infinite", "schedule.floor": 0.05, "schedule.level": 0.5,
             "schedule.cooldown": {"steps": 5}, "schedule.decay": {"steps": 5}}
    with pytest.raises(ConfigError, match=message):
        small_run(**{**given, **changes})


@pytest.mark.parametrize("name", ["constant", "cosine", "linear", "wsd"])
def test_without_warmup_the_first_update_is_at_the_peak(name: str) -> None:
    """optax.linear_schedule(0, 1, 0) would stay at 0 for ever."""
    floor = 1.0 if name == "constant" else 0.0
    assert multipliers(schedule(name, floor, 5), 0, 5 if name == "wsd" else 0, 20)[0] == 1


def test_a_cooldown_branch_meets_its_trunk_and_is_the_tail_of_the_single_run() -> None:
    """wsd of 100 steps = 80 at constant rate, then a linear branch of 20 without warm-up, from the same floor."""
    single_T = multipliers(schedule("wsd", 0.1, 20), 10, 20, 100)
    trunk_T = multipliers(schedule("constant", 1.0), 10, 0, 80)
    branch_T = multipliers(schedule("linear", 0.1), 0, 0, 20)
    np.testing.assert_array_equal(np.concatenate([trunk_T, branch_T]), single_T)


@st.composite
def lengths(draw: st.DrawFn) -> tuple[int, int, int]:
    """(warm-up, decay, steps) that fit."""
    warmup, decay = draw(st.integers(1, 50)), draw(st.integers(1, 50))
    return warmup, decay, warmup + decay + draw(st.integers(0, 100))


@given(st.sampled_from([name for name in SCHEDULES if name not in OWN_FILE]), st.floats(0, 1), lengths())
def test_a_schedule_climbs_once_then_falls_no_lower_than_its_floor(
    name: str, floor: float, given: tuple[int, int, int]
) -> None:
    warmup, decay, steps = given
    infinite = name == "infinite"
    floor = 1.0 if name == "constant" else max(0.4 * floor, 1e-3) if infinite else floor
    decay, cooldown = (decay if name in ("infinite", "wsd") else 0), (steps - warmup - decay if infinite else 0)
    table_T = multipliers(schedule(name, floor, decay), warmup, decay, steps, cooldown)
    assert np.isfinite(table_T).all()
    np.testing.assert_allclose(table_T[:warmup], np.arange(warmup) / warmup)
    after_T = table_T[warmup:]
    assert (np.diff(after_T) <= 1e-12).all()
    assert ((floor - 1e-12 <= after_T) & (after_T <= 1 + 1e-12)).all()
    if after_T.size and not (infinite and cooldown == 0):
        assert after_T[0] == pytest.approx(1.0)


@given(st.integers(0, 30), st.sampled_from(["cosine", "linear", "constant"]))
def test_a_run_of_warmup_alone_stays_finite(steps: int, name: str) -> None:
    table_T = multipliers(schedule(name, 1.0 if name == "constant" else 0.0), steps, 0, steps)
    np.testing.assert_allclose(table_T, np.arange(steps) / max(steps, 1))


@pytest.mark.parametrize(("name", "given", "message"), [
    ("linear", (11, 0, 10), r"schedule\.warmup \+ schedule\.decay = 11 \+ 0 steps: expected at most the run's 10 step"),
    ("wsd", (6, 5, 10), r"= 6 \+ 5 steps: expected at most the run's 10 steps; shorten them or lengthen"),
    ("wsd", (0, 0, 10), r"schedule\.decay = 0 steps: expected 1 step or more for wsd; lengthen it"),
    ("infinite", (3, 4, 10, 4), r"schedule\.warmup \+ schedule\.cooldown \+ schedule\.decay = 3 \+ 4 \+ 4 steps: exp"),
    ("inverse_sqrt", (0, 0, 10), r"schedule\.warmup = 0: expected 1 step or more for inverse_sqrt"),
])
def test_lengths_that_make_no_schedule_are_refused(name: str, given: tuple[int, int, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        multipliers(schedule(name, 0.05, 5), *given)


def test_durations_of_a_schedule_may_be_tokens_or_epochs() -> None:
    def table(changes: dict[str, Any]) -> np.ndarray:
        run = small_run(**{"schedule.name": "wsd", "schedule.floor": 0.0, **changes})
        return learning_rates(run, 20, windows_of(run, 40))  # an epoch: 40 windows, 4 a step

    steps_T = table({"schedule.warmup": {"steps": 5}, "schedule.decay": {"steps": 10}})
    tokens_T = table({"schedule.warmup": {"tokens": 5 * 64}, "schedule.decay": {"tokens": 10 * 64}})
    epochs_T = table({"schedule.warmup": {"epochs": 0.5}, "schedule.decay": {"epochs": 1.0}})
    np.testing.assert_array_equal(tokens_T, steps_T)
    np.testing.assert_array_equal(epochs_T, steps_T)
