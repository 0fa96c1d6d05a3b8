"""The forecast of a curve's end: what it is told, what it assumes, how often it is right."""

import numpy as np
import pytest
from scipy.special import ndtr

from scaling import laws
from scaling.fitting.evaluate import at_each
from scaling.laws import schedule
from scaling.sweeps.forecast import DECAY, EXPONENTS, SCATTER, SLOPE, WANDER, Forecast, forecast, used_points

STEPS = 400
COSINE = schedule.cosine(STEPS, 4e-3, 4e-4, 0)
WSD = schedule.wsd(STEPS, 4e-3, 0.0, 0, 100)
POINTS = np.arange(20, STEPS + 1, 20)
UNKNOWN = np.full(len(POINTS), np.nan)


def law_curve(rate_T: np.ndarray, **parameters: float) -> np.ndarray:
    """The catalogue's annealing law at POINTS, without momentum."""
    law = laws.ANNEALING
    s1_T, s2_T = schedule.areas(rate_T, warmup=0, momentum=0.0)
    row = np.array([[parameters[name] for name in law.parameter_names]])
    return at_each(law, row, {"S1": s1_T[POINTS - 1], "S2": s2_T[POINTS - 1]})[0]


def until(step: int, loss_M: np.ndarray, rate_T: np.ndarray, error_M: np.ndarray = UNKNOWN) -> Forecast:
    seen = step >= POINTS
    return forecast(POINTS[seen], loss_M[seen], error_M[seen], rate_T)


@pytest.mark.parametrize("rate_T", [COSINE, schedule.constant(STEPS, 4e-3, 0)], ids=["cosine", "constant"])
def test_a_curve_that_follows_the_law_is_forecast(rate_T: np.ndarray) -> None:
    loss_M = law_curve(rate_T, L0=2.0, A=0.5, C=20.0, alpha=0.5)
    for step, miss in ((100, 0.02), (200, 0.003), (320, 0.001), (380, 0.0005)):
        found = until(step, loss_M, rate_T)
        assert found.quantile(0.01) < loss_M[-1] < found.quantile(0.99)
        assert abs(found.quantile(0.5) - loss_M[-1]) < miss


def test_a_decay_that_has_not_begun_is_not_foretold() -> None:
    """The curve is the same whatever the decay will bring: the forecast is as wide as the assumption, then narrows."""
    curves = [law_curve(WSD, L0=2.0, A=0.5, C=c, alpha=0.5) for c in (0.0, 60.0)]
    before, late = ([until(step, loss_M, WSD) for loss_M in curves] for step in (300, 380))
    for found, loss_M in zip(before, curves, strict=True):
        span = found.quantile(0.975) - found.quantile(0.025)
        assert span >= 0.95 * 2 * 1.96 * DECAY[1] * loss_M[POINTS == 300][0]
        assert found.quantile(0.025) < loss_M[-1] < found.quantile(0.975)
    assert before[0].quantile(0.5) == pytest.approx(before[1].quantile(0.5), rel=1e-6)
    assert late[0].quantile(0.025) > late[1].quantile(0.975)


def test_the_forecast_scales_with_the_loss_and_not_with_the_rate() -> None:
    loss_M = law_curve(COSINE, L0=2.0, A=0.5, C=20.0, alpha=0.5)
    found, scaled = until(200, loss_M, COSINE), until(200, 7 * loss_M, COSINE / 3)
    assert [scaled.quantile(p) for p in (0.01, 0.5, 0.99)] == pytest.approx(
        [7 * found.quantile(p) for p in (0.01, 0.5, 0.99)])


def test_forecasts_of_curves_drawn_from_the_assumptions_cover_them() -> None:
    """The place of the truth in its forecast is uniform: 400 draws, 90% intervals, within three standard errors."""
    random = np.random.default_rng(0)
    inside = []
    for _ in range(400):
        seen = random.choice([140, 200, 300]) >= POINTS
        loss_M = drawn(random, seen)
        found = forecast(POINTS[seen], loss_M[seen], UNKNOWN[seen], COSINE)
        place = float(found.weight_G @ ndtr((loss_M[-1] - found.mean_G) / found.deviation_G))
        inside.append(0.05 < place < 0.95)
    assert abs(np.mean(inside) - 0.9) < 3 * np.sqrt(0.9 * 0.1 / 400)


def drawn(random: np.random.Generator, seen: np.ndarray) -> np.ndarray:
    """A curve from the assumptions, which are of its loss at the last point seen (1 up to noise)."""
    area_T, height_T = np.cumsum(COSINE), COSINE / COSINE.max()
    last = POINTS[seen][-1]
    log_area_M = np.log(area_T[POINTS - 1] / area_T[last - 1])
    alpha = random.choice(EXPONENTS)
    law_M = 1 + random.normal(0, SLOPE) * np.expm1(-alpha * log_area_M) / alpha
    law_M += random.normal(*DECAY) * (height_T[POINTS - 1] - height_T[last - 1])
    share = random.choice(WANDER)
    near = np.exp(-np.abs(log_area_M[:, None] - log_area_M))
    noise = share * near + (1 - share) * np.eye(len(POINTS))
    return law_M + random.choice(SCATTER[:7]) * np.linalg.cholesky(noise) @ random.normal(size=len(POINTS))


def test_points_with_larger_errors_count_less() -> None:
    loss_M = law_curve(COSINE, L0=2.0, A=0.5, C=20.0, alpha=0.5)
    spoiled_M, error_M = loss_M.copy(), np.full(len(POINTS), 1e-3)
    spoiled_M[POINTS == 140] += 0.2
    trusting = until(200, spoiled_M, COSINE, error_M)
    error_M[POINTS == 140] = 0.2
    warned = until(200, spoiled_M, COSINE, error_M)
    assert abs(warned.quantile(0.5) - loss_M[-1]) < abs(trusting.quantile(0.5) - loss_M[-1])


def test_the_chance_to_end_below_another_is_its_complement() -> None:
    low, high = (until(200, law_curve(COSINE, L0=e, A=0.5, C=20.0, alpha=0.5), COSINE) for e in (2.0, 2.1))
    assert low.chance_below(high) + high.chance_below(low) == pytest.approx(1, abs=1e-4)
    assert low.chance_below(high) > 0.9
    assert low.chance_below(low) == pytest.approx(0.5, abs=1e-4)


def test_points_of_the_warm_up_and_of_long_ago_are_not_used() -> None:
    rate_T = schedule.cosine(STEPS, 4e-3, 4e-4, 50)
    steps = np.arange(1, 301)
    used = steps[used_points(steps, rate_T)]
    assert used.min() >= 60
    assert used.max() == 300
    assert len(used) <= 20
    assert len(used_points(np.array([], int), rate_T)) == 0


def test_too_few_points_are_refused() -> None:
    with pytest.raises(ValueError, match="3 points to forecast from, at least 4 needed after the warm-up"):
        until(60, law_curve(COSINE, L0=2.0, A=0.5, C=20.0, alpha=0.5), COSINE)
