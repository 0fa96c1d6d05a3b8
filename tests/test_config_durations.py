"""Durations in steps against exact rational arithmetic: what divides is never a step too long."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import small_run, windows_of
from scaling.duration import Duration
from scaling.training.tables import horizon

THOUSANDTHS = st.integers(0, 10**6)


def rounded_up(exact: Fraction) -> int:
    return -(-exact.numerator // exact.denominator)


@given(THOUSANDTHS, st.integers(1, 10**6), st.integers(1, 4096))
def test_epochs_are_the_decimals_that_they_are_written_as(thousandths: int, limit: int, batch: int) -> None:
    steps = Duration(epochs=thousandths / 1000).in_steps(1, Fraction(limit, batch))
    assert steps == rounded_up(Fraction(thousandths * limit, 1000 * batch))


@given(THOUSANDTHS, st.sampled_from([1, 10**3, 10**6, 10**9]), st.integers(1, 2**24))
def test_tokens_are_the_decimals_that_they_are_written_as(thousandths: int, unit: int, tokens_per_step: int) -> None:
    steps = Duration(tokens=thousandths * unit / 1000).in_steps(tokens_per_step)
    assert steps == rounded_up(Fraction(thousandths * unit, 1000 * tokens_per_step))


@given(st.integers(0, 2**53))
def test_steps_are_themselves(steps: int) -> None:
    assert Duration(steps=steps).in_steps(7) == steps


@pytest.mark.parametrize(("windows", "batch", "epochs", "steps"), [
    (29, 7, 7, 29), (50, 1, 1.1, 55), (200, 4, 1.1, 55), (29, 7, 1, 5), (1000, 4, 0.001, 1)])
def test_a_run_of_epochs_has_no_batch_too_many(windows: int, batch: int, epochs: float, steps: int) -> None:
    run = small_run(**{"data.mixture": {"prose": 1.0}, "data.batch": batch, "training.duration": {"epochs": epochs},
                       "schedule.warmup": {"steps": 0}})
    assert horizon(run, windows_of(run, windows)) == steps
