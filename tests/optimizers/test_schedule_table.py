"""Shapes of the last decay, 1cycle, power, re-warmed cycles and tables: published values, optax, and refusals."""

import dataclasses
from typing import Any

import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import small_config, small_run, windows_of
from scaling.config import Schedule, run_from
from scaling.duration import Duration
from scaling.fields import ConfigError
from scaling.laws.convex_bound import bound
from scaling.laws.schedule import wsd as law_wsd
from scaling.optimizers.schedules import multipliers, onset_of, rewarmed
from scaling.sweeps.sweep import overlay
from scaling.training.tables import learning_rates

NONE = Duration(steps=0)
ONE_CYCLE: dict[str, Any] = {"decay": Duration(steps=15), "level": 1 / 25}


def schedule(name: str, floor: float = 0.0, **values: Any) -> Schedule:
    values.setdefault("decay", Duration(steps=20) if name in ("power", "wsd") else None)
    return Schedule(name, 1.0, NONE, floor, **values)


# ------------------------------------------------------------------------------------------ shapes of the last decay
@pytest.mark.parametrize(("shape", "values"), [
    (None, {5: 0.5, 50: 1, 80: 1, 85: 0.75, 90: 0.5, 95: 0.25}),
    ("1-sqrt", {5: 0.5, 50: 1, 80: 1, 85: 0.5, 90: 1 - 0.5**0.5, 95: 1 - 0.75**0.5}),  # 0.5, 0.2929, 0.1340
    ("cosine", {80: 1, 85: 0.5 + 0.5**1.5, 90: 0.5, 95: 0.5 - 0.5**1.5}),
])
def test_wsd_falls_in_the_published_shapes(shape: str | None, values: dict[int, float]) -> None:
    table_T = multipliers(schedule("wsd", shape=shape), 10, 20, 100)
    assert {t: table_T[t] for t in values} == pytest.approx(values, abs=1e-12)


@pytest.mark.parametrize("shape", ["1-sqrt", "cosine"])
def test_a_cooldown_is_the_one_that_the_laws_read(shape: str) -> None:
    ours_T = multipliers(schedule("wsd", 0.1, shape=shape), 0, 40, 100)
    np.testing.assert_allclose(ours_T, law_wsd(100, 1.0, 0.1, 0, 40, shape), rtol=1e-14)


def test_the_mean_rate_of_a_cooldown() -> None:
    """1/2 linear, 1/3 for 1-sqrt, as integrals; the sum over d steps is above by half a step and O(d^-3/2)."""
    means = {shape: multipliers(schedule("wsd", shape=shape), 0, 10**6, 10**6).mean() for shape in (None, "1-sqrt")}
    assert means == pytest.approx({None: 1 / 2, "1-sqrt": 1 / 3}, abs=1e-6)


@pytest.mark.parametrize(("made", "decay", "best", "rate"), [
    (schedule("constant", 1.0), 0, 2.7509, 0.018176), (schedule("wsd"), 80, 2.1865, 0.025374),
    (schedule("wsd", shape="1-sqrt"), 80, 2.1458, None), (schedule("cosine", 0.1), 0, 2.0811, None),
    (schedule("cosine"), 0, 2.0677, 0.048242), (schedule("linear"), 0, 2.0126, 0.049563),
])
def test_the_convex_bound_of_our_tables_is_the_published_one(
    made: Schedule, decay: int, best: float, rate: float | None
) -> None:
    found = bound(multipliers(made, 0, decay, 400))
    assert found.best * 20 == pytest.approx(best, abs=5.1e-5)
    assert rate is None or found.best_rate == pytest.approx(rate, abs=5.1e-7)


def test_the_bound_drops_in_the_cooldown_alone() -> None:
    table_T = multipliers(schedule("wsd"), 0, 80, 400)
    along = {t: bound(table_T[:t]).at(bound(table_T).best_rate) for t in (100, 300, 320, 360, 399)}
    assert along == pytest.approx({100: 0.2754, 300: 0.1580, 320: 0.1548, 360: 0.1320, 399: 0.1094}, abs=6e-5)


# ------------------------------------------------------------------------------------------------------------- 1cycle
def test_linear_one_cycle_is_published_and_optax() -> None:
    table_T = multipliers(schedule("one_cycle", 4e-6, **ONE_CYCLE), 30, 15, 100)
    known = {0: 0.04, 15: 0.52, 30: 1.0, 57: 0.04 + 0.96 * 28 / 55, 85: 0.04}  # at 57: 0.528727
    assert {t: table_T[t] for t in known} == pytest.approx(known, abs=1e-12)
    assert 2 * table_T[99] - table_T[98] == pytest.approx(4e-6, abs=1e-12)  # count 100, which no step uses
    theirs = optax.linear_onecycle_schedule(100, 1.0)
    np.testing.assert_allclose(table_T, [float(theirs(t)) for t in range(100)], atol=1e-6)  # theirs: float32


def test_cosine_one_cycle_goes_straight_to_the_floor() -> None:
    made = schedule("one_cycle", 4e-6, shape="cosine", decay=NONE, level=1 / 25)
    table_T = multipliers(made, 30, 0, 100)
    known = {0: 0.04, 15: 0.52, 30: 1.0, 65: 0.5 * (1 + 4e-6)}
    assert {t: table_T[t] for t in known} == pytest.approx(known, abs=1e-12)
    theirs = optax.cosine_onecycle_schedule(100, 1.0)
    np.testing.assert_allclose(table_T, [float(theirs(t)) for t in range(100)], atol=1e-6)


# -------------------------------------------------------------------------------------------------------------- power
def test_the_power_schedule_has_the_published_rates() -> None:
    """Shen et al. 2024 with a 4, b -0.51, 128 sequences a batch: min(0.02, 128 * 4 n^-0.51)."""
    onset = onset_of(0.02, 4.0, -0.51, 128)
    rates = {n: 0.02 * min(1.0, (n / onset) ** -0.51) for n in (1e8, 1e9, 1e10, 1e11)}
    assert rates == pytest.approx({1e8: 0.02, 1e9: 0.01316, 1e10: 0.004067, 1e11: 0.001257}, rel=5e-4)
    assert rates[1e9] == pytest.approx(128 * 4 * 1e9**-0.51, rel=1e-12)
    assert 2**-0.51 == pytest.approx(0.7022, abs=5e-5)
    assert onset_of(0.02, 4.0, -0.51, 256) == pytest.approx(onset * 2 ** (1 / 0.51), rel=1e-12)


def test_power_holds_falls_by_its_exponent_and_cools_down() -> None:
    made = schedule("power", 0.01, onset=Duration(steps=40), exponent=-0.51, shape="1-sqrt")
    table_T = multipliers(made, 10, 20, 400, onset=40)
    np.testing.assert_allclose(table_T[:41], np.minimum(np.arange(41) / 10, 1))
    assert [table_T[80], table_T[160], table_T[320]] == pytest.approx([2**-0.51, 4**-0.51, 8**-0.51], rel=1e-12)
    held = (380 / 40) ** -0.51
    assert [table_T[380], table_T[385]] == pytest.approx([held, 0.01 + (held - 0.01) * 0.5], rel=1e-12)


@given(st.floats(-3, -0.1), st.floats(0, 1), st.integers(0, 20), st.integers(0, 20), st.integers(0, 50))
def test_power_climbs_once_then_never_rises_nor_leaves_floor_and_peak(
    exponent: float, floor: float, warmup: int, decay: int, extra: int
) -> None:
    onset = max(warmup, 1) + extra
    made = schedule("power", floor, onset=Duration(steps=onset), exponent=exponent)
    after_T = multipliers(made, warmup, decay, warmup + decay + extra + 1, onset=onset)[warmup:]
    assert after_T[0] == pytest.approx(1.0)
    assert (np.diff(after_T) <= 1e-12).all()
    assert ((floor - 1e-12 <= after_T) & (after_T <= 1)).all()


# ------------------------------------------------------------------------------------------------- tables and cycles
def test_points_are_joined_by_straight_lines_and_may_jump() -> None:
    made = schedule("table", points=((0.0, 0.0), (0.1, 1.0), (0.5, 0.5), (0.5, 0.9), (1.0, 0.0)))
    table_T = multipliers(made, 0, 0, 100)
    known = {0: 0.0, 5: 0.5, 10: 1.0, 30: 0.75, 49: 0.5125, 50: 0.9, 75: 0.45, 99: 0.018}
    assert {t: table_T[t] for t in known} == pytest.approx(known, abs=1e-12)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_values_act_as_they_are(shares: list[float]) -> None:
    made = schedule("table", values=tuple(shares))
    np.testing.assert_array_equal(multipliers(made, 0, 0, len(shares)), shares)


@pytest.mark.parametrize(("name", "points"), [
    ("wsd", ((0.0, 0.0), (0.1, 1.0), (0.8, 1.0), (1.0, 0.1))), ("linear", ((0.0, 0.0), (0.1, 1.0), (1.0, 0.1)))])
def test_a_table_of_points_is_any_schedule_of_straight_lines(name: str, points: tuple) -> None:
    decay = 20 if name == "wsd" else 0
    np.testing.assert_allclose(multipliers(schedule("table", points=points), 0, 0, 100),
                               multipliers(schedule(name, 0.1), 10, decay, 100), atol=1e-14)


def test_rewarmed_cycles_are_warm_restarts_as_in_optax() -> None:
    cycle = {"peak_value": 1.0, "warmup_steps": 5, "end_value": 0.1}
    theirs = optax.sgdr_schedule([{**cycle, "init_value": 0.0, "decay_steps": 30},
                                  {**cycle, "init_value": 0.1, "decay_steps": 60}])
    table_T = rewarmed(schedule("cosine", 0.1), 5, 0, [30, 60])
    np.testing.assert_allclose(table_T, [float(theirs(t)) for t in range(90)], atol=1e-6)
    run = small_run(**{"schedule.name": "table", "schedule.values": tuple(table_T), "schedule.floor": 0.0,
                       "schedule.warmup": {"steps": 0}, "schedule.peak": 3e-3, "training.duration": {"steps": 90}})
    np.testing.assert_array_equal(learning_rates(run, 90, windows_of(run)), 3e-3 * table_T)


def test_lengths_of_one_cycle_and_power_come_from_the_configuration() -> None:
    run = small_run(**{"schedule.name": "power", "schedule.onset": {"tokens": 40 * 64}, "schedule.exponent": -0.5,
                       "schedule.warmup": {"steps": 10}, "schedule.decay": {"steps": 20}, "schedule.floor": 0.0,
                       "schedule.peak": 2e-3, "training.duration": {"steps": 200}})
    expected_T = 2e-3 * multipliers(schedule("power", onset=NONE, exponent=-0.5), 10, 20, 200, onset=40)
    np.testing.assert_array_equal(learning_rates(run, 200, windows_of(run)), expected_T)


# ------------------------------------------------------------------------------------------------ identity, refusals
def test_runs_without_the_new_fields_keep_their_ids() -> None:
    """An optional field at its default is not part of the id."""
    assert small_run().run_id == "9db79495ca2e"
    assert small_run(**{"schedule.name": "wsd", "schedule.decay": {"steps": 5}}).run_id == "cec3fb9e47b5"


def test_each_new_field_makes_another_run_of_the_same_program() -> None:
    base = small_run(**{"schedule.name": "wsd", "schedule.decay": {"steps": 5}})
    table = {"schedule.name": "table", "schedule.decay": None, "schedule.floor": 0.0, "schedule.warmup": {"steps": 0}}
    power = {"schedule.name": "power", "schedule.onset": {"steps": 9}, "schedule.exponent": -0.5}
    runs = [base, overlay(base, {"schedule.shape": "1-sqrt"}), overlay(base, {"schedule.shape": "cosine"}),
            overlay(base, power), overlay(base, {"schedule.name": "one_cycle", "schedule.level": 0.2}),
            overlay(base, {**table, "schedule.points": ((0, 1), (1, 0))}),
            overlay(base, {**table, "schedule.values": (1.0,) * 20})]
    assert len({run.run_id for run in runs}) == len(runs)
    assert {run.program for run in runs} == {base.program}
    assert all(run_from(run.dump()).run_id == run.run_id for run in runs)


TABLE = {"schedule.name": "table", "schedule.floor": 0.0, "schedule.warmup": {"steps": 0}}
POWER = {"schedule.name": "power", "schedule.decay": {"steps": 0}, "schedule.onset": {"steps": 5},
         "schedule.exponent": -0.5}


@pytest.mark.parametrize(("changes", "message"), [
    ({"schedule.shape": "1-sqrt"}, r"schedule\.shape = '1-sqrt': expected None for cosine; use one of these"),
    ({**POWER, "schedule.shape": "sqrt"}, r"schedule\.shape = 'sqrt': expected None or 1-sqrt or cosine for power; us"),
    ({**POWER, "schedule.exponent": 0.5}, r"schedule\.exponent = 0\.5: expected finite and below 0; use the published"),
    ({**POWER, "schedule.onset": None}, r"schedule\.onset = None: expected a value for power and None .*; set or remo"),
    (TABLE, r"schedule\.points, schedule\.values = \(\): expected exactly one of them for table; set or remove"),
    ({"schedule.values": (1.0,)}, r"schedule\.values = \('values',\): expected neither for cosine; set or remove one"),
    ({**TABLE, "schedule.points": ((0, 1), (1, 0)), "schedule.values": (1.0,)}, r"expected exactly one of them for"),
    ({**TABLE, "schedule.points": ((0, 1), (1, 1.5))}, r"schedule\.points = .*1\.5.*: expected shares of the peak"),
    ({**TABLE, "schedule.values": (1.0, -0.1)}, r"schedule\.values = \(1\.0, -0\.1\): .* from 0 to 1; divide by"),
    ({**TABLE, "schedule.values": ()}, r"schedule\.values = \(\): expected shares of the peak"),
    ({**TABLE, "schedule.values": (float("nan"),)}, r"schedule\.values = \(nan,\): expected shares of the peak"),
    ({**TABLE, "schedule.points": ((0, 1), (0.9, 0))}, r"schedule\.points = \[0\.0, 0\.9\]: .*rise from 0 to 1; sort"),
    ({**TABLE, "schedule.points": ((0, 1), (0.9, 0), (0.5, 0), (1, 0))}, r"fractions of the run that rise from 0"),
    ({**TABLE, "schedule.values": (1.0,), "schedule.floor": 0.1}, r"expected 0 for table, which has its own; write"),
    ({**TABLE, "schedule.values": (1.0,), "schedule.warmup": {"tokens": 9.0}}, r"expected 0 for table, which has its"),
    ({"schedule.name": "one_cycle", "schedule.level": 0.05, "schedule.decay": {"steps": 5}},
     r"schedule\.level = 0\.05: expected from schedule\.floor = 0\.1 to 1; use a level such as 0\.5"),
])
def test_sections_that_are_no_schedule_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run_from(small_config(**changes))


@pytest.mark.parametrize(("made", "lengths", "message"), [
    (schedule("one_cycle", **ONE_CYCLE), (0, 5, 10), r"schedule\.warmup = 0 steps: expected from 1 to 4 for one_cycle"),
    (schedule("one_cycle", **ONE_CYCLE), (5, 5, 10), r"schedule\.warmup = 5 steps: expected from 1 to 4 for one_cycle"),
    (schedule("power", onset=NONE, exponent=-0.5), (5, 0, 10, 0, 4), r"schedule\.onset = 4 steps: expected the warm-up"
     r"'s 5 or more, and at least 1; take the power law's rate at the end of the warm-up as peak"),
    (schedule("table", values=(1.0,) * 9), (0, 0, 10), r"schedule\.values = '9 values': expected one for each of the r"
     r"un's 10 steps; make them anew, or use schedule\.points"),
])
def test_lengths_that_do_not_fit_are_refused(made: Schedule, lengths: tuple[int, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        multipliers(made, *lengths)


def test_a_peak_of_one_cycle_that_is_its_level_is_constant() -> None:
    made = dataclasses.replace(schedule("one_cycle", **ONE_CYCLE), level=1.0, floor=1.0)
    np.testing.assert_array_equal(multipliers(made, 3, 2, 10), np.ones(10))
