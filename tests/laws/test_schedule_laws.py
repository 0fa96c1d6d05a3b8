"""Schedules as tables, the areas under them, the annealing law and the dynamics of continual pre-training."""

import math

import jax
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling import fitting
from scaling.laws.annealing import (
    ANNEALING,
    ANNEALING_SIZE,
    CPT,
    CPT_PUBLISHED,
    CPT_REPLAY_NEW,
    CPT_REPLAY_OLD,
    CPT_SIZE,
    CPT_SIZE_PUBLISHED,
)
from scaling.laws.law import TableError
from scaling.laws.schedule import (
    Schedules,
    areas,
    constant,
    cosine,
    phase_areas,
    with_areas,
    with_phase_areas,
    wsd,
)


def evaluate(law, parameters, **inputs):
    with jax.enable_x64(True):
        return float(law.predict(parameters, {name: np.float64(value) for name, value in inputs.items()}))


def areas_as_written(lr_T, momentum):
    """The double sum, step by step."""
    s2 = 0.0
    for i in range(len(lr_T)):
        s2 += sum((lr_T[k - 1] - lr_T[k]) * momentum ** (i - k) for k in range(1, i + 1))
    return sum(lr_T), s2


@pytest.mark.parametrize(("steps", "wanted"), [(100, 48.87355), (1000, 368.32773), (5000, 801.54288)])
def test_annealing_area_of_a_linear_decay(steps, wanted):
    lr_T = np.concatenate([np.ones(6000), 1 - np.arange(1, steps + 1) / steps])
    assert areas(lr_T, warmup=0)[1][-1] == pytest.approx(wanted, abs=1e-5)
    closed = 1000 * (1 - 0.999 * (1 - 0.999**steps) / (steps * 0.001))
    assert areas(lr_T, warmup=0)[1][-1] == pytest.approx(closed, rel=1e-10)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=25), st.floats(0, 0.99))
def test_areas_equal_the_double_sum_and_are_bounded_where_the_rate_falls(rates, momentum):
    lr_T = np.array([*rates, 0.5])
    s1_T, s2_T = areas(lr_T, warmup=0, momentum=momentum)
    np.testing.assert_allclose((s1_T[-1], s2_T[-1]), areas_as_written(lr_T, momentum), rtol=1e-9, atol=1e-12)
    falling_T = np.sort(lr_T)[::-1]
    bound = (falling_T[0] - falling_T[-1]) / (1 - momentum)
    assert areas(falling_T, warmup=0, momentum=momentum)[1][-1] <= bound * (1 + 1e-12)


def test_warm_up_counts_as_the_peak_and_a_constant_rate_has_no_annealing():
    s1_T, s2_T = areas(constant(50, 0.1, 10), warmup=10)
    np.testing.assert_allclose(s1_T, 0.1 * np.arange(1, 51))
    np.testing.assert_array_equal(s2_T, np.zeros(50))
    assert areas(constant(50, 0.1, 10), warmup=0)[1][-1] < 0
    with pytest.raises(ValueError, match=r"warmup: 50 must lie in \[0, 50\)"):
        areas(constant(50, 0.1, 10), warmup=50)
    with pytest.raises(ValueError, match=r"momentum: 1 must lie in \[0, 1\)"):
        areas(constant(50, 0.1, 10), warmup=0, momentum=1)


def test_shapes():
    np.testing.assert_allclose(wsd(10, 1.0, 0.0, 2, 4), [0, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25])
    np.testing.assert_allclose(wsd(8, 1.0, 0.01, 0, 4, "exponential")[4:], 0.01 ** (np.arange(4) / 4))
    np.testing.assert_allclose(cosine(6, 1.0, 0.2, 2)[2:], 0.2 + 0.4 * (1 + np.cos(np.pi * np.arange(4) / 4)))
    with pytest.raises(ValueError, match="warm-up 5 and decay 6 must be >= 0 and fit into 10 steps"):
        wsd(10, 1.0, 0.0, 5, 6)
    with pytest.raises(ValueError, match="'square' must be one of linear, cosine, 1-sqrt, exponential"):
        wsd(10, 1.0, 0.0, 5, 5, "square")
    with pytest.raises(ValueError, match=r"floor: 0 must lie .* above 0 for an exponential"):
        wsd(10, 1.0, 0.0, 5, 5, "exponential")


def test_schedules_are_compared_by_content_and_come_back_from_json():
    first = Schedules.of({"b": [1, 2], "a": np.array([3.0, 4.0])})
    assert first == Schedules.of({"a": (3, 4), "b": [1.0, 2.0]}) == Schedules.of(first.to_record())
    assert hash(first) == hash(Schedules.of(first.to_record()))
    assert first != Schedules.of({"a": [3, 4], "b": [1, 2.5]})
    assert first.names == ("a", "b")
    np.testing.assert_array_equal(first["b"], [1, 2])
    with pytest.raises(KeyError, match="no schedule 'c'; there are a, b"):
        first["c"]
    table = pd.DataFrame({"schedule": ["b", "a", "b", "a"], "step": [1, 0, 0, 1], "lr": [2, 3, 1, 4]})
    assert Schedules.from_table(table) == first
    with pytest.raises(TableError, match=r"schedule 'b': step 1 is missing or repeated; .* every step"):
        Schedules.from_table(table.assign(step=[2, 0, 0, 1]))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([0.1], r"schedule 's': shape \(1,\) must be one learning rate a step"),
        ([0.1, -0.2], "schedule 's', step 1: -0.2 must be a finite learning rate >= 0"),
        ([0.1, math.nan], "schedule 's', step 1: nan must be"),
        ([0.0, 0.0], "schedule 's': every learning rate is 0"),
    ],
)
def test_bad_schedules_are_named(table, message):
    with pytest.raises(ValueError, match=message):
        Schedules.of({"s": table})


def test_areas_are_read_at_logged_points():
    schedules = {"flat": constant(30, 0.1, 0), "down": wsd(20, 0.1, 0.0, 0, 10)}
    logged = pd.DataFrame({"schedule": ["down", "flat", "down"], "step": [19, 29, 5], "loss": 1.0}, index=[7, 8, 9])
    table = with_areas(logged, schedules, warmup=0)
    s1_T, s2_T = areas(schedules["down"], warmup=0)
    np.testing.assert_allclose(table["S1"], [s1_T[19], 3.0, s1_T[5]])
    np.testing.assert_allclose(table["S2"], [s2_T[19], 0.0, 0.0])
    assert table.index.tolist() == [7, 8, 9]
    with pytest.raises(TableError, match=r"column 'step': 20 of schedule 'down' must be a whole step in \[0, 20\)"):
        with_areas(logged.assign(step=[20, 29, 5]), schedules, warmup=0)
    with pytest.raises(TableError, match="column 'schedule': 'up' is none of down, flat"):
        with_areas(logged.assign(schedule="up"), schedules, warmup=0)


def test_phases_are_recursions_of_their_own():
    before, after = wsd(300, 0.3, 0.1, 20, 100), cosine(200, 0.2, 0.0, 10)
    lr_T = np.concatenate([before, after])
    found = phase_areas(lr_T, 300, warmup=20, rewarmup=10)
    for name, first, second in zip(("S1", "S2"), areas(before, warmup=20), areas(after, warmup=10), strict=True):
        np.testing.assert_allclose(found[f"{name}pt"][:300], first)
        assert (found[f"{name}pt"][300:] == first[-1]).all()
        assert (found[f"{name}cpt"][:300] == 0).all()
        np.testing.assert_allclose(found[f"{name}cpt"][300:], second)
    logged = pd.DataFrame({"schedule": "run", "step": [100, 450]})
    table = with_phase_areas(logged, {"run": lr_T}, {"run": 300}, warmup=20, rewarmup=10)
    np.testing.assert_allclose(table["S2cpt"], found["S2cpt"][[100, 450]])
    with pytest.raises(KeyError, match="no start of continual pre-training for schedule 'run'"):
        with_phase_areas(logged, {"run": lr_T}, {}, warmup=20, rewarmup=10)
    with pytest.raises(ValueError, match=r"start: step 500 must lie in \(0, 500\)"):
        phase_areas(lr_T, 500, warmup=20, rewarmup=10)


def test_annealing_laws_by_hand():
    p = {"L0": 2.5, "A": 0.5, "alpha": 0.5, "C": 0.4}
    assert evaluate(ANNEALING, p, S1=4.0, S2=0.1) == pytest.approx(2.5 + 0.25 - 0.04)
    size = p | {"B": 30.0, "beta": 0.25, "gamma": 0.5}
    wanted = 2.5 + 0.25 + 30 / 100 - 0.4 * 0.1 * 1e4
    assert evaluate(ANNEALING_SIZE, size, S1=4.0, S2=0.1, N=1e8) == pytest.approx(wanted)


@pytest.mark.parametrize("key", CPT_PUBLISHED)
def test_cpt_dynamics_by_hand_and_rising_or_falling_by_the_sign_of_the_shift(key):
    p = CPT_PUBLISHED[key]
    before = {"S1pt": 5.0, "S1cpt": 0.0, "S2pt": 0.1, "S2cpt": 0.0}
    start = p["L0"] + p["A"] * 5 ** -p["alpha"] - p["C1"] * 0.1
    assert evaluate(CPT, p, **before) == pytest.approx(start, rel=1e-12)
    after = before | {"S1cpt": 0.5, "S2cpt": 0.05}
    shift = p["B"] * (1 - (1 + p["E"] * 0.5) ** -p["beta"])
    wanted = p["L0"] + p["A"] * 5.5 ** -p["alpha"] - p["C1"] * 0.1 - p["C2"] * 0.05 + shift
    assert evaluate(CPT, p, **after) == pytest.approx(wanted, rel=1e-12)
    assert (evaluate(CPT, p, **after) > start) == (key[1] == "pt")


def test_cpt_size_constants_are_converted_from_millions():
    x = {"S1pt": 4.0, "S1cpt": 1.0, "S2pt": 0.1, "S2cpt": 0.05}
    millions = 106
    old = 1.829 + 0.504 * 5**-0.537 + 0.278 * (1 - 13**-0.359)
    old += -0.090 * 0.1 * millions**0.235 - 0.103 * 0.05 * millions**0.199 + 3.072 * millions**-0.195
    new = 1.860 + 0.438 * 5**-0.585 - 0.552 * (1 - 188**-0.326)
    new += -0.333 * 0.1 * millions**0.012 - 0.140 * 0.05 * millions**0.145 + 2.718 * millions**-0.189
    for key, wanted in (("pt", old), ("cpt", new)):
        assert evaluate(CPT_SIZE, CPT_SIZE_PUBLISHED[key], N=106e6, **x) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("law", [CPT_REPLAY_OLD, CPT_REPLAY_NEW], ids=lambda law: law.name)
def test_the_shift_of_the_replay_laws_vanishes_without_the_corpus(law):
    p = {"L0": 3.0, "A": 0.48, "alpha": 0.5, "C1": 0.28, "C2": 0.26, "B": 0.3, "E": 99.0, "beta": 0.2}
    p |= {"a1": 0.05, "a2": 3.2}
    x = {"S1pt": 4.0, "S1cpt": 1.0, "S2pt": 0.1, "S2cpt": 0.05}
    share = 1.0 if law is CPT_REPLAY_OLD else 0.0  # whose share the annealing term has
    wanted = 3.0 + 0.48 * 5**-0.5 - 0.028 - 0.26 * 0.05 * math.exp(0.05 * share)
    assert evaluate(law, p, r=0.0, **x) == pytest.approx(wanted, rel=1e-12)
    factor = 1 - math.exp(-3.2 * 0.4) if law is CPT_REPLAY_OLD else math.exp(3.2 * 0.4) - 1
    share = 0.6 if law is CPT_REPLAY_OLD else 0.4
    shift = 0.3 * (1 - 100**-0.2) * factor
    wanted = 3.0 + 0.48 * 5**-0.5 - 0.028 - 0.26 * 0.05 * math.exp(0.05 * share) + shift
    assert evaluate(law, p, r=0.4, **x) == pytest.approx(wanted, rel=1e-12)


def test_cpt_dynamics_come_back_from_runs_that_start_at_three_points():
    truth = CPT_PUBLISHED["Knowledge-Pile", "cpt"]
    schedules, starts = {}, {}
    for start, potential in ((6000, 0.1), (10_000, 1.0), (14_000, 0.3)):
        before = wsd(start, 2e-4, 2e-4 * potential, 500, 3000)
        for name, after in (("flat", constant(4000, 2e-4, 100)), ("falls", wsd(4000, 2e-4, 2e-5, 100, 2500))):
            schedules[f"{start} {name}"], starts[f"{start} {name}"] = np.concatenate([before, after]), start
    steps = {name: np.unique(start + np.geomspace(5, 3999, 40).astype(int)) for name, start in starts.items()}
    logged = pd.DataFrame([(name, step) for name in steps for step in steps[name]], columns=["schedule", "step"])
    table = with_phase_areas(logged, schedules, starts, warmup=500, rewarmup=100)
    with jax.enable_x64(True):
        loss = CPT.predict(truth, {name: table[name].to_numpy() for name in CPT.input_names})
    fit = fitting.fit(CPT, table.assign(loss=np.asarray(loss)), group="schedule", bootstrap=0)
    assert fit.parameters == pytest.approx(truth, rel=1e-3)
    assert fit.agreement > 0.3
    assert "flat" not in [refusal.kind for refusal in fit.refusals]
