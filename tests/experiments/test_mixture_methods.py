"""Methods and their accuracy on tables with known answers: planes, laws, ranks and errors computed by hand."""

import builtins

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from experiments import mixture_accuracy as accuracy
from experiments.mixture_design import lattice, random_mixtures
from experiments.mixture_methods import LINEAR, TREES, fit_bimix, fit_exponential, fit_regression, weighted
from experiments.published.regmix import ExtraError

PRIOR = {"code": 0.5, "headers": 0.2, "prose": 0.3}
LATTICE = pd.DataFrame(lattice(list(PRIOR), 10))


def table(losses: dict[str, object], count: int = 60) -> pd.DataFrame:
    """Random mixtures with losses that are functions of the shares."""
    shares = pd.DataFrame(random_mixtures(PRIOR, count, (1.0, 10.0), seed=0))
    return shares.assign(**{f"loss_{d}": of(shares) for d, of in losses.items()}, run_id=range(count), N=1.0, S=100.0,
                         last=True)


PLANES = {"code": lambda t: 3 - t.code, "headers": lambda t: 2 - 0.5 * t.headers + 0.1 * t.code,
          "prose": lambda t: 2.5 - 0.2 * t.prose}


def test_least_squares_finds_a_plane_and_ends_near_its_best_corner() -> None:
    method = fit_regression(LINEAR, table(PLANES), PRIOR, (0.3, 10.0))
    predicted = method.losses(LATTICE)
    for domain, plane in PLANES.items():
        np.testing.assert_allclose(predicted[f"loss_{domain}"], plane(LATTICE), atol=1e-10)
    best = method.best(dict.fromkeys(PRIOR, 1 / 3), 0.95)
    assert best["code"].value > 0.98
    assert np.isnan(best["code"].low)
    assert best["code"].refusal is None


def test_the_regressions_best_is_the_mean_of_the_best_128_of_its_draws() -> None:
    method = fit_regression(LINEAR, table(PLANES), PRIOR, (1.0, 10.0))
    loss_M = weighted(method.losses(method.draws), {"code": 0.0, "headers": 0.0, "prose": 1.0})
    wanted = method.draws.iloc[np.argsort(loss_M)[:128]].mean()
    best = method.best({"code": 0.0, "headers": 0.0, "prose": 1.0}, 0.95)
    assert [best[domain].value for domain in PRIOR] == pytest.approx(wanted[list(PRIOR)].tolist())


def test_trees_find_the_valley_that_a_plane_cannot() -> None:
    pytest.importorskip("lightgbm")
    valley = {d: lambda t: 2 + (t.code - 0.4) ** 2 + (t.headers - 0.3) ** 2 for d in PRIOR}
    method = fit_regression(TREES, table(valley, 200), PRIOR, (1.0, 10.0))
    best = method.best(dict.fromkeys(PRIOR, 1 / 3), 0.95)
    assert best["code"].value == pytest.approx(0.4, abs=0.06)
    assert best["headers"].value == pytest.approx(0.3, abs=0.06)


def test_without_lightgbm_the_trees_say_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: object, **named: object) -> object:
        if name == "lightgbm":
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ExtraError, match=r"lightgbm is absent: install the extra with pip install '.\[regmix\]'"):
        fit_regression(TREES, table(PLANES), PRIOR, (1.0, 10.0))


def test_the_exponential_law_predicts_unseen_mixtures_and_bimix_has_no_answer_at_share_0() -> None:
    losses = {d: lambda t, d=d: 1.5 + np.exp(0.2 - 2.5 * t[d]) for d in PRIOR}
    rows = table(losses, 30)
    predicted = fit_exponential(rows, list(PRIOR), 0).losses(LATTICE)
    for domain, of in losses.items():
        np.testing.assert_allclose(predicted[f"loss_{domain}"], of(LATTICE), rtol=1e-4)
    steps = {d: lambda t, d=d: np.maximum(t[d], 1e-9) ** -0.2 * (10 / t.S**0.5 + 1) for d in PRIOR}
    parts = [rows.assign(S=s, last=s == 400.0) for s in (100.0, 200.0, 400.0)]
    known = pd.concat([part.assign(**{f"loss_{d}": of(part) for d, of in steps.items()}) for part in parts])
    method = fit_bimix(known.reset_index(drop=True), list(PRIOR), 0)
    answer = method.losses(LATTICE)
    assert answer.loss_code.isna().equals(LATTICE.code == 0)
    inside = LATTICE.code > 0
    np.testing.assert_allclose(answer.loss_code[inside], LATTICE.code[inside] ** -0.2 * 1.5, rtol=1e-3)


PREDICTIONS = pd.DataFrame({
    "mixture": list("abcabc"), "domain": ["x"] * 3 + ["y"] * 3, "measured": [1.0, 2.0, 4.0, 2.0, 1.0, 4.0],
    "good": [1.1, 2.0, 4.0, 2.0, 1.1, 4.0], "bad": [4.0, 2.0, 1.0, np.nan, 1.0, 4.0]})


def test_relative_errors_are_means_over_domains_and_missing_where_one_is() -> None:
    errors = accuracy.relative_errors(PREDICTIONS)
    assert errors.good.tolist() == pytest.approx([0.05, 0.05, 0.0])
    assert errors.bad.isna().tolist() == [True, False, False]
    assert errors.bad["c"] == pytest.approx(0.375)


def test_ranks_and_explained_variance_by_hand() -> None:
    assert accuracy.rank_correlation(*accuracy.by_domain(PREDICTIONS, "good")) == pytest.approx(1.0)
    only_x = PREDICTIONS[PREDICTIONS.domain == "x"]
    assert accuracy.rank_correlation(*accuracy.by_domain(only_x, "bad")) == pytest.approx(-1.0)
    none = np.zeros(1)
    assert accuracy.explained(*accuracy.by_domain(only_x, "good"), none, 1) == pytest.approx(1 - 0.01 / (14 / 3))
    assert accuracy.explained(*accuracy.by_domain(only_x, "bad"), none, 1) == pytest.approx(1 - 18 / (14 / 3))


def test_the_explained_share_is_that_of_the_signal_whatever_the_noise() -> None:
    """A signal of which 75% is predicted, measured with as much noise as signal: R^2 alone would say 0.375."""
    rng = np.random.default_rng(0)
    part, rest, noise = rng.normal(size=(3, 2, 40_000)) * np.array([3**0.5, 1.0, 2.0])[:, None, None]
    measured_KxM = part + rest + noise
    assert accuracy.explained(measured_KxM, part, np.full(2, 2.0), 0) == pytest.approx(0.75, abs=0.02)
    assert accuracy.explained(measured_KxM, part, np.zeros(2), 1) == pytest.approx(0.375, abs=0.02)


def test_rank_correlations_of_resamples_are_scipys_with_ties() -> None:
    rng = np.random.default_rng(0)
    measured_KxM, predicted_KxM = rng.normal(size=(2, 3, 12))
    pick_BxM = rng.integers(12, size=(5, 12))
    found_B = accuracy.rank_correlation(measured_KxM[:, pick_BxM], predicted_KxM[:, pick_BxM])
    for pick_M, found in zip(pick_BxM, found_B, strict=True):
        wanted = [stats.spearmanr(a[pick_M], b[pick_M]).statistic
                  for a, b in zip(measured_KxM, predicted_KxM, strict=True)]
        assert found == pytest.approx(np.mean(wanted))


def test_a_bootstrap_of_a_mean_has_the_width_of_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(size=400)
    found = accuracy.resampled(lambda pick_BxM: values[pick_BxM].mean(axis=1), 400, 0.95)
    assert found.value == values.mean()
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.06)


def test_the_next_size_follows_its_law_exactly() -> None:
    size_S = np.array([1e3, 2e3, 5e3, 1.2e4])
    offset_M, factor_M = np.array([1.0, 2.0, 1.5]), np.array([20.0, 30.0, 10.0])
    loss_SxM = offset_M + factor_M * size_S[:, None] ** -0.4
    np.testing.assert_allclose(accuracy.next_size(size_S, loss_SxM[:-1]), loss_SxM[-1], rtol=1e-6)
