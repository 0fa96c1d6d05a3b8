"""Schedules against hand-written tables; allocation against its bounds for any shares, and against brute force."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling.data import mixing
from scaling.data.mixing import allocate, shares, window_limits

NAMES = ("prose", "code", "headers")


def test_one_set_of_shares_holds_for_all_steps() -> None:
    table = shares({"code": 0.25, "prose": 0.75}, 4, NAMES)
    np.testing.assert_array_equal(table, np.tile([0.75, 0.25, 0.0], (4, 1)))
    assert table.dtype == np.float64


def test_phases_begin_at_the_rounded_fraction_of_the_run() -> None:
    phases = ((0.0, {"prose": 1.0}), (0.5, {"code": 1.0}), (0.875, {"prose": 0.5, "headers": 0.5}))
    table = shares(phases, 8, NAMES)
    np.testing.assert_array_equal(table[:4], np.tile([1.0, 0, 0], (4, 1)))
    np.testing.assert_array_equal(table[4:7], np.tile([0, 1.0, 0], (3, 1)))
    np.testing.assert_array_equal(table[7], [0.5, 0, 0.5])


def test_phases_may_hold_pairs_instead_of_mappings() -> None:
    pairs = ((0.0, (("prose", 0.5), ("code", 0.5))),)
    np.testing.assert_array_equal(shares(pairs, 3, NAMES), shares({"prose": 0.5, "code": 0.5}, 3, NAMES))


@pytest.mark.parametrize(
    ("mixture", "message"),
    [
        ({"prosa": 1.0}, r"mixture: unknown domain 'prosa'; did you mean 'prose'\?"),
        ({"xyzzy": 1.0}, r"mixture: unknown domain 'xyzzy'; use one of prose, code, headers"),
        ({"prose": 1.5, "code": -0.5}, r"mixture\.prose = 1\.5: expected a share from 0 to 1"),
        ({"prose": 0.5, "code": -0.5}, r"mixture\.code = -0\.5: expected a share from 0 to 1"),
        ({"prose": float("nan")}, r"mixture\.prose = nan: expected a share from 0 to 1"),
        ({"prose": 0.6, "code": 0.5}, r"shares sum to 1\.1, expected 1; divide each by 1\.1"),
        ({}, r"shares sum to 0\.0, expected 1"),
        ((), r"phases start at \[\], expected fractions rising from 0"),
        (((0.1, {"prose": 1.0}),), r"phases start at \[0\.1\]"),
        (((0.0, {"prose": 1.0}), (1.0, {"code": 1.0})), r"phases start at \[0\.0, 1\.0\]"),
        (((0.0, {"prose": 1.0}), (0.5, {"code": 1.0}), (0.5, {"code": 1.0})), r"\[0\.0, 0\.5, 0\.5\]"),
    ],
)
def test_impossible_mixtures_are_refused(mixture: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        shares(mixture, 10, NAMES)  # type: ignore[arg-type]


def test_shares_that_divide_the_batch_are_given_exactly() -> None:
    drawn, counts = allocate(shares({"prose": 0.5, "code": 0.25, "headers": 0.25}, 5, NAMES), 8)
    np.testing.assert_array_equal(counts, np.tile([4, 2, 2], (5, 1)))
    np.testing.assert_array_equal(drawn, np.arange(5)[:, None] * [4, 2, 2])
    assert drawn.dtype == counts.dtype == np.int32


def test_a_batch_of_one_goes_round_by_deadline() -> None:
    _, counts = allocate(shares({"prose": 0.5, "code": 0.25, "headers": 0.25}, 8, NAMES), 1)
    # Step 3: prose at 1.5 of target has 1, headers at 0.75 has 0; both fall due at step 4, headers lags more.
    np.testing.assert_array_equal(counts.argmax(axis=1), [0, 1, 2, 0, 0, 1, 2, 0])


tables = st.integers(1, 8).flatmap(
    lambda domains: st.lists(
        st.lists(st.integers(0, 1000), min_size=domains, max_size=domains).filter(any), min_size=1, max_size=40
    )
)


def normalized(weights: list[list[int]]) -> np.ndarray:
    table = np.array(weights, float)
    return table / table.sum(axis=1, keepdims=True)


def check_bounds(table: np.ndarray, batch: int, drawn: np.ndarray, counts: np.ndarray) -> None:
    target = np.cumsum(table, axis=0) * batch
    assert (counts >= 0).all()
    assert (counts.sum(axis=1) == batch).all()
    np.testing.assert_array_equal(drawn, np.cumsum(counts, axis=0) - counts)
    rounding = batch * len(table) * table.shape[1] / mixing.UNITS
    assert np.abs(drawn + counts - target).max() < 1 + rounding
    assert (counts[:, (table == 0).all(axis=0)] == 0).all()


@settings(deadline=None, max_examples=200)
@given(weights=tables, batch=st.integers(1, 50))
def test_schedules_stay_within_one_window_of_their_target(weights: list[list[int]], batch: int) -> None:
    table = normalized(weights)
    check_bounds(table, batch, *allocate(table, batch))


@settings(deadline=None, max_examples=100)
@given(weights=tables, batch=st.integers(1, 50), steps=st.integers(1, 300))
def test_constant_shares_stay_within_one_window_and_do_not_depend_on_length(
    weights: list[list[int]], batch: int, steps: int
) -> None:
    table = np.tile(normalized(weights[:1]), (steps, 1))
    drawn, counts = allocate(table, batch)
    check_bounds(table, batch, drawn, counts)
    _, longer = allocate(np.tile(table, (2, 1)), batch)
    np.testing.assert_array_equal(longer[:steps], counts)


def scheduled_slowly(table: np.ndarray, batch: int) -> np.ndarray:
    """The same rule window by window: of the domains below their target, the one whose next window falls due first."""
    units = mixing._units(table)
    target = [[int(value) for value in row] for row in np.cumsum(units, axis=0) * batch]
    last = [int(value) * batch for value in units[-1]]

    def due(domain: int, given: int) -> float:
        wanted = (given + 1) * mixing.UNITS
        for step, row in enumerate(target):
            if row[domain] >= wanted:
                return step
        short = wanted - target[-1][domain]
        return len(target) - 1 - (-short // last[domain]) if last[domain] else float("inf")

    given, counts = [0] * table.shape[1], []
    for row in target:
        before = list(given)
        for _ in range(batch):
            below = [domain for domain, value in enumerate(row) if given[domain] * mixing.UNITS < value]
            lag = {domain: row[domain] - given[domain] * mixing.UNITS for domain in below}
            chosen = min(below, key=lambda domain: (due(domain, given[domain]), -lag[domain], domain))
            given[chosen] += 1
        counts.append([now - then for now, then in zip(given, before, strict=True)])
    return np.array(counts)


@settings(deadline=None, max_examples=60)
@given(weights=tables, batch=st.integers(1, 9))
def test_equals_the_schedule_made_window_by_window(weights: list[list[int]], batch: int) -> None:
    table = normalized(weights)
    target = np.cumsum(mixing._units(table), axis=0) * batch / mixing.UNITS
    slow = np.cumsum(scheduled_slowly(table, batch), axis=0)
    assert np.abs(slow - target).max() < 1  # the rule itself keeps the bound
    fast = np.cumsum(allocate(table, batch)[1], axis=0)
    np.testing.assert_array_equal(fast, slow)


def test_a_child_continues_where_its_parent_stopped() -> None:
    table = shares({"prose": 0.7, "code": 0.2, "headers": 0.1}, 10, NAMES)
    fresh, counts = allocate(table, 7)
    continued, same = allocate(table, 7, np.array([100, 20, 3]))
    np.testing.assert_array_equal(same, counts)
    np.testing.assert_array_equal(continued, fresh + np.array([[100, 20, 3]]))


@settings(max_examples=60, deadline=None)
@given(weights=st.lists(st.integers(1, 99), min_size=2, max_size=5), batch=st.integers(1, 8), at=st.integers(1, 39))
def test_a_child_with_its_parents_shares_draws_what_the_parent_would_have(
    weights: list[int], batch: int, at: int
) -> None:
    shares_TxK = np.tile(np.array(weights) / sum(weights), (40, 1))
    drawn, counts = allocate(shares_TxK, batch)
    target_K = mixing.target_after(shares_TxK, batch, at, (0,) * len(weights))
    child_drawn, child_counts = allocate(shares_TxK[at:], batch, drawn[at - 1] + counts[at - 1], target_K)
    np.testing.assert_array_equal(child_drawn, drawn[at:])
    np.testing.assert_array_equal(child_counts, counts[at:])


def test_more_windows_than_an_int32_counts_are_refused() -> None:
    table = shares({"prose": 1.0}, 4, NAMES)
    allocate(table, 2**29 - 1)
    with pytest.raises(ValueError, match=r"steps \* batch = 2147483648 windows in all, expected at most 2147483647"):
        allocate(table, 2**29)
    with pytest.raises(ValueError, match=r"= 2147483648 windows in all"):
        allocate(table, 2**29 - 1, np.array([4, 0, 0]))


def test_twenty_domains_over_many_steps_keep_the_bound() -> None:
    weights = np.random.default_rng(0).dirichlet(np.full(20, 0.3))
    table = np.tile(weights, (30_000, 1))
    drawn, counts = allocate(table, 16)
    check_bounds(table, 16, drawn, counts)


def test_window_limits_round_down_to_whole_windows() -> None:
    held = np.array([100, 50, 10], np.int32)
    limits = window_limits(held, {"code": 1023, "headers": 640}, NAMES, 64)
    np.testing.assert_array_equal(limits, [100, 15, 10])
    assert limits.dtype == np.int32
    np.testing.assert_array_equal(window_limits(held, {}, NAMES, 64), held)
    np.testing.assert_array_equal(held, [100, 50, 10])


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"kode": 640}, r"unique_tokens: unknown domain 'kode'; did you mean 'code'\?"),
        ({"code": 63}, r"unique_tokens\.code = 63: expected 64 \(one window\) to 3200"),
        ({"code": 0}, r"unique_tokens\.code = 0: expected 64"),
        ({"code": 3201}, r"unique_tokens\.code = 3201: expected 64 \(one window\) to 3200 \(all its windows\)"),
    ],
)
def test_impossible_limits_are_refused(limits: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        window_limits(np.array([100, 50, 10], np.int32), limits, NAMES, 64)


def test_limits_apply_to_every_combination() -> None:
    held = np.array([4, 5, 6], np.int32)
    for chosen in itertools.product([None, 1, 4], repeat=3):
        limits = {name: 8 * value for name, value in zip(NAMES, chosen, strict=True) if value}
        expected = [value or full for value, full in zip(chosen, held, strict=True)]
        assert window_limits(held, limits, NAMES, 8).tolist() == expected
