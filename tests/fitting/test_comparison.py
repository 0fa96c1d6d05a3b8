"""Comparisons of laws: criteria by hand, who wins, who must not, and how often the interval covers."""

import numpy as np
import pandas as pd
import pytest
from scipy import integrate, stats

from scaling.fitting import fit_points, huber, least_squares
from scaling.fitting.comparison import compare, rank_all
from scaling.fitting.information import _dispersion, _log_normaliser, effective, information
from scaling.laws.law import Input, Law, Parameter, TableError
from scaling.laws.mixture import CMR_RATIO
from scaling.laws.size import CHINCHILLA
from simulated import points_of


def polynomial(name, *powers):
    """A law that is a sum of powers of x, linear in every parameter."""
    letters = "abc"[: len(powers)]
    return Law(
        name,
        name,
        "none",
        (Input("x", "u"),),
        "loss",
        tuple(Parameter(letter, "real", (-5.0, 5.0), linear=True) for letter in letters),
        lambda p, x: sum(p[letter] * x["x"] ** power for letter, power in zip(letters, powers, strict=True)),
        scale="raw",
    )


LINE, PARABOLA, ROOT = polynomial("line", 1, 0), polynomial("parabola", 1, 0, 2), polynomial("root", 0.5, 0)
X = np.linspace(0.5, 4.0, 24)


def table_of(loss, x=X):
    return pd.DataFrame({"x": x, "loss": loss})


def noisy(seed, bend=0.0, x=X):
    return table_of(0.7 * x + 2 + bend * x**2 + np.random.default_rng(seed).normal(scale=0.1, size=len(x)), x)


def test_criteria_of_a_normal_linear_law_by_hand():
    table = noisy(0)
    fit = fit_points(LINE, least_squares(), points_of({"x": X}, table["loss"].to_numpy()), bootstrap=0)
    rss = np.linalg.lstsq(np.stack([X, np.ones(24)], axis=1), table["loss"])[1][0]
    minus_twice_log_likelihood = 24 * np.log(2 * np.pi * rss / 24) + 24
    found = information(fit)
    assert found.dispersion == pytest.approx(rss / 24)
    assert found.independent == 24
    assert found.aic == pytest.approx(minus_twice_log_likelihood + 6)
    assert found.aicc == pytest.approx(minus_twice_log_likelihood + 6 + 2 * 3 * 4 / 20)
    assert found.bic == pytest.approx(minus_twice_log_likelihood + 3 * np.log(24))
    assert found.tic == pytest.approx(found.aic, abs=3)
    assert found.log_likelihood_G.sum() == pytest.approx(-minus_twice_log_likelihood / 2)


@pytest.mark.parametrize(("delta", "phi"), [(0.5, 0.1), (1e-3, 1e-5), (3.0, 0.2), (np.inf, 0.7)])
def test_the_robust_likelihood_is_a_density(delta, phi):
    def density(r):
        loss = r**2 / 2 if r <= delta else delta * (r - delta / 2)
        return np.exp(-loss / phi - _log_normaliser(phi, delta))

    middle = min(delta, 10 * np.sqrt(phi))
    inside, outside = integrate.quad(density, 0, middle)[0], integrate.quad(density, middle, np.inf)[0]
    assert 2 * (inside + outside) == pytest.approx(1, rel=1e-6)


def test_a_small_delta_is_the_laplace_likelihood():
    """exp(-delta |r|/phi): the scale phi/delta is the mean absolute residual."""
    phi = _dispersion(1e-6 * 0.02, delta=1e-6)
    assert phi / 1e-6 == pytest.approx(0.02, rel=1e-3)
    assert _log_normaliser(phi, 1e-6) == pytest.approx(np.log(2 * 0.02), abs=1e-3)


def test_copies_within_a_run_are_not_independent():
    loss = noisy(1)["loss"].to_numpy()
    copies = points_of({"x": np.repeat(X, 4)}, np.repeat(loss, 4), groups=np.repeat(np.arange(24), 4))
    once = fit_points(LINE, least_squares(), points_of({"x": X}, loss), bootstrap=0)
    four = fit_points(LINE, least_squares(), copies, bootstrap=0)
    assert effective(four) == pytest.approx(24)
    assert information(four).bic == pytest.approx(information(once).bic)
    fresh = np.repeat(0.7 * X + 2, 4) + np.random.default_rng(0).normal(scale=0.1, size=96)
    apart = points_of({"x": np.repeat(X, 4)}, fresh, groups=np.repeat(np.arange(24), 4))
    assert effective(fit_points(LINE, least_squares(), apart, bootstrap=0)) > 70


def test_the_law_that_made_the_data_wins_by_either_measure():
    table = noisy(2, bend=1.0)
    for holdout, measure in (("x > 2.5", "held out error"), (None, "AICc")):
        found = compare([LINE, ROOT, PARABOLA], table, holdout=holdout, group=None)
        assert found.measure == measure
        assert found.winner == "parabola"
        assert found.table["law"].iloc[0] == "parabola"
        assert (found.table["low"][1:] > 0).all()
        assert found.summary().startswith(f"parabola wins by {measure} (")
    assert [len(fit.draws_BxP) for fit in found.fits.values()] == [200, 200, 200]


def test_a_redundant_parameter_is_never_declared_better():
    outcomes = []
    for seed in range(12):
        for holdout in ("x > 3", None):
            found = compare([PARABOLA, LINE], noisy(seed), holdout=holdout, group=None, bootstrap=100, seed=seed)
            outcomes.append(found.winner)
            if found.winner is None:
                assert found.summary().startswith("not resolved by")
    assert "parabola" not in outcomes
    assert None in outcomes


def test_the_interval_of_the_difference_covers():
    """Two wrong laws; the truth is the difference at the parameters of endless data."""
    fitted, beyond = np.tile(np.linspace(0.5, 3.0, 10), 3), np.repeat(np.linspace(3.5, 4.5, 4), 3)
    x = np.concatenate([fitted, beyond])

    def curve(x):
        return 2 + x**0.8

    def ideal(power):
        design, target = np.stack([fitted**power, np.ones(30)], axis=1), curve(fitted)
        a, b = np.linalg.lstsq(design, target)[0]
        return np.sqrt(np.mean((a * beyond**power + b - curve(beyond)) ** 2) + 0.1**2)

    truth, covered, runs = ideal(0.5) - ideal(1), 0, 60
    for seed in range(runs):
        loss = curve(x) + np.random.default_rng(seed).normal(scale=0.1, size=len(x))
        found = compare([LINE, ROOT], table_of(loss, x), holdout=x > 3.2, group=None, bootstrap=100, seed=seed)
        row = found.table.iloc[1]
        low, high = sorted((row["low"], row["high"])) if row["law"] == "root" else (-row["high"], -row["low"])
        covered += int(low <= truth <= high)
    assert stats.binom.sf(covered - 1, runs, 0.95) < 0.9999
    assert covered >= 0.85 * runs


def test_laws_of_different_inputs_and_one_held_out_run():
    table = noisy(3).assign(run_id=np.arange(24))
    found = compare([LINE, ROOT], table, holdout=table["run_id"] == 23)
    assert found.winner is None
    assert found.groups == 1
    assert found.table["low"].isna().all()
    alone = compare([LINE], table)
    assert alone.winner is None
    assert alone.summary().startswith("line alone: nothing to compare it with")


def test_every_suitable_law_of_the_catalogue_is_ranked_and_the_others_have_reasons():
    share = np.linspace(0.2, 1.0, 12)
    loss = 1.9 - 0.4 * share**0.2 + 0.004 * np.sin(37 * np.arange(12.0))
    table = pd.DataFrame({"share": share, "loss": loss})
    found = rank_all(table, columns={"R": "share", "N": "params"}, group=None)
    assert found.table["law"].tolist() == ["cmr-ratio"]
    assert found.left_out["chinchilla"] == "no column for N, D"
    assert found.left_out["data-mixing"].startswith("a family; make a member of it (domains)")
    assert "laws, for the reasons in left_out" in found.summary()
    with pytest.raises(TableError, match=r"no law of the catalogue can be fitted\. .*cmr-ratio: no column for R"):
        rank_all(table, group=None)
    few = rank_all(table.assign(T=share), columns={"R": "share"}, group=None)
    assert few.left_out["cmr-critical"].startswith("its target is no loss but: critical token share")
    assert "is fitted on the raw scale, the objective is on log" in few.left_out["cmr-general-change"]


def test_what_cannot_be_compared_is_refused():
    table = noisy(0)
    with pytest.raises(ValueError, match=r"laws: \['line', 'line'\] must be one or more laws of different names"):
        compare([LINE, LINE], table, group=None)
    with pytest.raises(ValueError, match=r"objective: the laws' defaults differ \(Huber.*; pass one"):
        compare([LINE, CMR_RATIO], table, group=None)
    with pytest.raises(TableError, match="column 'N' is missing"):
        compare([CHINCHILLA], table, group=None)
    exact = compare([LINE, ROOT], noisy(0), objective=huber(0.1, "raw"), group=None)
    assert exact.independent == 24
    with pytest.raises(ValueError, match="the law meets every row exactly"):
        _dispersion(0.0, np.inf)
