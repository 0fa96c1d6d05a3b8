"""What a law recommends is what a run trains: known optima, exact tables, refusals."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from experiments.recommended_schedule import recommended, section
from helpers import small_run, windows_of
from scaling import fitting
from scaling.fields import ConfigError
from scaling.laws.convex_bound import CONVEX_BOUND, bound, with_bound_terms
from scaling.laws.schedule import Schedules, wsd
from scaling.sweeps import grid
from scaling.sweeps.sweep import Stage, Sweep
from scaling.training.tables import learning_rates

STEPS = 200
L0, DISTANCE, GRADIENT = 2.0, 3.0, 0.5  # of the simulated problem
PEAK = DISTANCE / GRADIENT / STEPS**0.5  # the best of a linear decay to 0, as T -> infinity


@pytest.fixture(scope="module")
def fit() -> fitting.Fit:
    """The law fitted to noisy losses of four schedules whose truth it is."""
    schedules = Schedules.of({"linear": wsd(STEPS, PEAK, 0.0, 0, STEPS), "wsd": wsd(STEPS, PEAK / 2, 0.0, 0, 40),
                              "constant": wsd(STEPS, PEAK / 3, PEAK / 3, 0, 0),
                              "hot": wsd(STEPS, 2 * PEAK, 0.0, 0, 100)})
    rows = pd.DataFrame([{"schedule": name, "step": step, "run_id": name}
                         for name in schedules.names for step in range(20, STEPS, 12)])
    table = with_bound_terms(rows, schedules)
    truth_M = L0 + DISTANCE**2 * table.distance + GRADIENT**2 * table.noise
    table["loss"] = truth_M * np.exp(np.random.default_rng(0).normal(scale=1e-3, size=len(table)))
    return fitting.fit(CONVEX_BOUND, table, group="run_id", bootstrap=20)


def trained(values: dict[str, Any], steps: int) -> np.ndarray:
    """The rates that act in a run of a stage with this section."""
    base = small_run(**{"training.duration": {"steps": steps}})
    run, = Sweep(base, (Stage("recommended", grid.product({"schedule": [values]})),)).runs()
    return learning_rates(run, steps, windows_of(run))


def test_the_convex_bound_recommends_a_fall_to_zero_that_beats_linear(fit: fitting.Fit) -> None:
    """At the best peak of a linear decay to 0, the best schedule that never rises is nearly that decay."""
    values, found = recommended(fit, steps=STEPS, peak=PEAK, floor=1e-6 * PEAK, warmup=0)
    assert not found.refusals
    lr_T, linear_T = trained(values, STEPS), wsd(STEPS, PEAK, 0.0, 0, STEPS)
    assert np.abs(lr_T - linear_T).max() < 0.12 * PEAK
    best, linear = (bound(rates_T, DISTANCE, GRADIENT).at(1.0) for rates_T in (lr_T, linear_T))
    assert linear * 0.98 < best < linear
    assert found.loss.value == pytest.approx(L0 + best, rel=0.005)


def test_a_run_trains_exactly_the_rates_of_the_table() -> None:
    lr_T = wsd(60, 3e-3, 1e-5, 12, 30, "1-sqrt")
    np.testing.assert_allclose(trained(section(lr_T), 60), lr_T, rtol=1e-15)


def test_what_the_fit_was_refused_reaches_the_study(fit: fitting.Fit) -> None:
    _, found = recommended(fit, steps=STEPS, peak=PEAK / 100, floor=1e-6 * PEAK, warmup=0)
    assert [refusal.kind for refusal in found.refusals] == ["extrapolated"]


@pytest.mark.parametrize("lr_T", [[], [0.0, 0.0], [1.0, -1.0], [np.nan], [[1.0]]])
def test_rates_that_are_none_are_refused(lr_T: list) -> None:
    with pytest.raises(ConfigError, match=r"lr_T = .*: expected one finite rate >= 0 a step, some positive; give the"):
        section(np.array(lr_T))


def test_the_section_of_another_length_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"schedule\.values = '60 values': expected one for each of the run's 61 ste"):
        trained(section(np.ones(60)), 61)
