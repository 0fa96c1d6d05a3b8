"""The best schedule of a fitted law: against brute force, published figures, perturbations; intervals and refusals."""

import re
from functools import partial

import jax
import numpy as np
import pytest

from scaling.fitting import Errors, Fit, huber
from scaling.fitting.best_schedule import best_schedule, smooth_optimum
from scaling.fitting.points import Points
from scaling.laws.annealing import ANNEALING
from scaling.laws.convex_bound import CONVEX_BOUND, bound
from scaling.laws.multi_power import MULTI_POWER_PUBLISHED, final_loss, multi_power
from scaling.laws.schedule import areas, cosine, wsd
from scaling.laws.size import CHINCHILLA

PUBLISHED = MULTI_POWER_PUBLISHED[400]
STEPS, PEAK, FLOOR, WARMUP = 3000, 3e-4, 3e-5, 200
FITTED = {"cosine": cosine(STEPS, PEAK, FLOOR, WARMUP), "wsd": wsd(STEPS, PEAK, FLOOR, WARMUP, 600)}


def fit_of(law, parameters, inputs, draws=60):
    """A fit with given parameters, and draws around them that share most of their error."""
    rows = len(next(iter(inputs.values())))
    flat = np.zeros(rows, dtype=np.int64)
    points = Points(inputs, np.full(rows, 3.0), np.ones(rows), np.full(rows, np.nan), flat, flat, flat > 0)
    values_P = np.array([parameters[name] for name in law.parameter_names])
    noise_BxP = np.random.default_rng(0).normal(scale=0.005, size=(draws, len(values_P)))
    return Fit(law, huber(), dict(zip(law.parameter_names, values_P.tolist(), strict=True)), np.eye(len(values_P)),
               values_P * np.exp(noise_BxP), 0.0, 1.0, points, Errors(rows, 0.0, 0.0), None, ())  # fmt: skip


@pytest.fixture(scope="module")
def multi_power_fit():
    step_M = np.arange(200.0, STEPS, 100)
    schedule_M = np.repeat([0.0, 1.0], len(step_M))
    return fit_of(multi_power(FITTED), PUBLISHED, {"schedule": schedule_M, "step": np.tile(step_M, 2)})


def test_the_multi_power_optimum_beats_known_schedules_and_its_neighbours_but_for_one_drop(multi_power_fit):
    found = best_schedule(multi_power_fit, steps=STEPS, peak=PEAK, floor=FLOOR, warmup=WARMUP)
    lr_T = found.lr_T
    assert len(lr_T) == STEPS
    assert lr_T.max() <= PEAK * (1 + 1e-12)
    assert lr_T[WARMUP:].min() >= FLOOR * (1 - 1e-9)
    assert (np.diff(lr_T[WARMUP:]) <= 1e-18).all()
    np.testing.assert_allclose(lr_T[:WARMUP], np.linspace(0, PEAK, WARMUP))
    assert [refusal.kind for refusal in found.refusals] == ["no_interior_minimum"]
    lower, n = re.search(r"ends (\S+) lower under one drop .* about (\d+) steps before", str(found)).groups()
    with jax.enable_x64(True):
        loss = jax.jit(partial(final_loss, PUBLISHED))
        best = float(loss(lr_T))
        held_T = np.where(np.arange(STEPS) < WARMUP, 0.0, PEAK)
        places_J = np.arange(1, STEPS - WARMUP, 3)
        dropped_J = [float(loss(np.where(np.arange(STEPS) < STEPS - at, np.maximum(FITTED["wsd"], held_T), FLOOR)))
                     for at in places_J]
        assert best - min(dropped_J) == pytest.approx(float(lower), rel=0.02)
        assert places_J[np.argmin(dropped_J)] == pytest.approx(int(n), rel=0.05)
        assert found.loss.value == pytest.approx(best, rel=1e-12)
        for name, other_T in FITTED.items():
            assert found.gains[name].value == pytest.approx(float(loss(other_T)) - best, abs=1e-9)
            assert found.gains[name].low > 0
        for decay in range(100, STEPS - WARMUP, 300):
            for shape in ("linear", "1-sqrt", "cosine", "exponential"):
                assert best <= float(loss(wsd(STEPS, PEAK, FLOOR, WARMUP, decay, shape))) + 1e-7
        rng = np.random.default_rng(0)
        for _ in range(20):
            moved_T = lr_T.copy()
            moved_T[WARMUP:] = np.sort(np.clip(moved_T[WARMUP:] * np.exp(rng.normal(scale=0.05)), FLOOR, PEAK))[::-1]
            assert best <= float(loss(moved_T)) + 1e-7
    assert found.loss.low < best < found.loss.high
    assert "gain over cosine" in str(found)


@pytest.mark.parametrize(("size", "steps", "warmup"), [(100, 2000, 100), (100, 3000, 0), (400, 2000, 0)])
def test_a_schedule_that_reaches_the_floor_is_found(size, steps, warmup):
    """A clamp at the floor has no slope, and ended the search of these early."""
    loss = partial(final_loss, MULTI_POWER_PUBLISHED[size])
    lr_T = smooth_optimum(loss, steps, PEAK, FLOOR, warmup)
    assert lr_T[warmup:].min() == pytest.approx(FLOOR, rel=1e-6)
    assert lr_T[warmup:].min() >= FLOOR
    with jax.enable_x64(True):
        best = float(loss(lr_T))
        assert all(best < loss(wsd(steps, PEAK, FLOOR, warmup, decay)) for decay in range(100, steps - warmup, 50))


def test_a_law_without_a_use_for_one_drop_is_not_refused():
    """The convex bound is least under a nearly linear decay."""
    fit = fit_of(
        CONVEX_BOUND, {"L0": 2.0, "D2": 1.0, "G2": 1.0}, {"distance": np.array([0.005, 0.1]), "noise": np.ones(2)}
    )
    found = best_schedule(fit, steps=100, peak=0.2, floor=1e-9, warmup=85)
    assert found.refusals == ()
    assert found.gains["wsd"].value >= 0


def test_the_published_optimum_of_the_400m_law():
    """The published 2.5332 leaves the changes of the warm-up out of the sum; the law as fitted has them in."""
    lr_T = smooth_optimum(partial(final_loss, PUBLISHED), 24_000, 3e-4, 1e-10, 2160)
    area_T = np.cumsum(lr_T)
    k = np.arange(2160, 24_000)
    x = PUBLISHED["C"] * lr_T[k] ** -PUBLISHED["gamma"] * (area_T[-1] - area_T[k - 1])
    bonus = np.sum((lr_T[k - 1] - lr_T[k]) * (1 - (1 + x) ** -PUBLISHED["beta"]))
    loss = PUBLISHED["L0"] + PUBLISHED["A"] * area_T[-1] ** -PUBLISHED["alpha"] - PUBLISHED["B"] * bonus
    assert loss == pytest.approx(2.5332, abs=5e-5)
    with jax.enable_x64(True):
        assert float(final_loss(PUBLISHED, lr_T)) == pytest.approx(2.6891, abs=1e-4)


def test_the_annealing_law_falls_at_once_and_says_that_it_cannot_judge():
    parameters = {"L0": 2.6, "A": 0.6, "alpha": 0.7, "C": 1.5}
    fit = fit_of(ANNEALING, parameters, {"S1": np.array([0.1, 0.9]), "S2": np.array([0.0, 0.2])})
    found = best_schedule(fit, steps=STEPS, peak=PEAK, floor=FLOOR, warmup=WARMUP)
    assert [refusal.kind for refusal in found.refusals] == ["no_interior_minimum"]
    dropped = int((found.lr_T[WARMUP:] < PEAK).sum())
    assert set(np.unique(found.lr_T[WARMUP:])) == {PEAK, FLOOR}
    assert f"at once, {dropped} steps before the end" in str(found)
    assert found.gains["wsd"].refusal is found.refusals[0]

    def loss(lr_T):
        s1_T, s2_T = areas(lr_T, warmup=WARMUP)
        return 2.6 + 0.6 * s1_T[-1] ** -0.7 - 1.5 * s2_T[-1]

    assert found.loss.value == pytest.approx(loss(found.lr_T), rel=1e-12)
    rng = np.random.default_rng(0)
    others = [np.where(np.arange(STEPS) < STEPS - n, PEAK, FLOOR) for n in range(0, STEPS - WARMUP, 7)]
    others += [np.sort(rng.uniform(FLOOR, PEAK, STEPS))[::-1] for _ in range(20)]
    others += [wsd(STEPS, PEAK, FLOOR, WARMUP, decay) for decay in range(100, 2800, 200)]
    assert all(found.loss.value <= loss(lr_T) + 1e-12 for lr_T in others)


def test_the_convex_bound_is_nearly_linear_where_the_peak_is_free():
    fit = fit_of(
        CONVEX_BOUND, {"L0": 2.0, "D2": 1.0, "G2": 1.0}, {"distance": np.array([0.005, 0.1]), "noise": np.ones(2)}
    )
    steps = 200
    found = best_schedule(fit, steps=steps, peak=2 / steps**0.5, floor=1e-9, warmup=0)
    linear = bound(wsd(steps, 1.0, 0.0, 0, steps)).best
    assert linear * 0.98 < found.loss.value - 2.0 < linear
    assert found.refusals == ()


def test_extrapolation_and_bad_requests_are_refused(multi_power_fit):
    far = best_schedule(multi_power_fit, steps=4 * STEPS, peak=PEAK, floor=1e-6, warmup=WARMUP)
    kinds = [refusal.kind for refusal in far.refusals]
    assert kinds == ["extrapolated", "extrapolated"]
    assert "ends at step = 1.2e+04, fitted were 200 to 2900" in str(far)
    assert "has the rate" in str(far)
    with pytest.raises(ValueError, match="of law 'chinchilla'; the best schedule is known for multi-power"):
        best_schedule(
            fit_of(CHINCHILLA, dict.fromkeys(CHINCHILLA.parameter_names, 1.0), {"N": np.ones(2), "D": np.ones(2)}),
            steps=10, peak=1.0, floor=0.1, warmup=0,
        )  # fmt: skip
    with pytest.raises(ValueError, match=r"floor 0 must lie in \(0, peak = 0.0003\)"):
        best_schedule(multi_power_fit, steps=STEPS, peak=PEAK, floor=0.0, warmup=WARMUP)


def test_without_draws_there_is_no_interval(multi_power_fit):
    fit = fit_of(
        ANNEALING, {"L0": 2.6, "A": 0.6, "alpha": 0.7, "C": 0.5}, {"S1": np.ones(2), "S2": np.ones(2)}, draws=0
    )
    found = best_schedule(fit, steps=300, peak=PEAK, floor=FLOOR, warmup=10)
    assert np.isnan([found.loss.low, found.loss.high]).all()
