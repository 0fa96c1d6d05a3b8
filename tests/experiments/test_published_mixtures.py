"""The published study of mixtures: known curves come back, published figures are reached, verdicts follow numbers."""

import builtins
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments.published import mixture_scale, mixtures, regmix
from experiments.reference import AbsentDataError, reference_data
from scaling.fitting.comparison import compare
from scaling.laws.mixing import data_mixing


@pytest.fixture(scope="module")
def data() -> Path:
    try:
        return reference_data()
    except AbsentDataError as error:
        pytest.skip(str(error))


def test_the_authors_procedure_finds_a_known_curve():
    share = np.linspace(0.1, 0.9, 9)
    loss = 2.5 + np.exp(-3.0 * share - 0.5)
    two = mixtures.by_correlation(share, loss)
    assert two.c == pytest.approx(2.5, abs=loss.min() / 999)
    assert two.k == pytest.approx(-3.0, abs=0.05)
    assert two.share_at(2.5 + math.exp(-3.0 * 0.4 - 0.5)) == pytest.approx(0.4, abs=1e-3)


def test_the_critical_share_is_the_published_one(data):
    rows = {row.quantity: row for row in mixtures._critical_share(data)}
    theirs, ours = (rows[f"critical Pile share, CT 70M, {who}"] for who in ("authors' procedure", "ours"))
    assert theirs.ours == pytest.approx(mixtures.CRITICAL_PILE_SHARE, abs=1e-3)
    assert theirs.verdict == "reproduced"
    assert ours.low < mixtures.CRITICAL_PILE_SHARE < ours.high
    assert ours.verdict == "not reproduced"  # its point is 0.003 off, and four runs give no interval to judge by
    assert "measured runs cross at 0.2797" in ours.note
    assert rows["k of the Pile loss, CT 70M"].ours == pytest.approx(-3.7397, abs=2e-3)


def test_the_pairs_of_two_domains_come_back(data):
    rows = mixtures._two_mix(data)
    assert len(rows) == 12
    assert {row.verdict for row in rows} == {"reproduced"}
    for row, (k, _) in zip(rows, mixtures.TWO_MIX.values(), strict=True):
        assert row.ours == pytest.approx(k, abs=2e-3)


def test_the_five_domain_objectives_are_reached(data):
    for row, (published, *_) in zip(mixtures._five_mix(data), mixtures.FIVE_MIX.values(), strict=True):
        assert row.ours <= published * (1 + 1e-6)
        assert row.ours == pytest.approx(published, rel=2e-4)
        assert row.verdict == "reproduced"


def test_the_ratio_laws_of_the_finance_table(data):
    rows = mixtures._cmr()
    shares = [row.ours for row in rows if "critical" in row.quantity]
    np.testing.assert_allclose(shares, [0.2976, 0.3489, 0.4143, 0.4783], atol=1e-4)
    held = [row for row in rows if "25%" in row.quantity]
    assert all(abs(row.ours / row.published - 1) < 1e-4 for row in held)


def test_the_authors_predictions_are_in_the_table(data):
    (row,) = mixture_scale._in_sample(data)
    assert row.ours == pytest.approx(0.0008, abs=5e-5)
    assert "20 of 20 observed losses" in row.note
    observed = mixture_scale._observed(data)
    errors = (observed["said"] - observed["loss_pile_weighted"]).abs()
    np.testing.assert_allclose(errors, [0.063, 0.110], atol=6e-4)


def test_a_prediction_at_1b_is_judged_by_its_error_and_its_order(data):
    observed = mixture_scale._observed(data)["loss_pile_weighted"].to_numpy()
    good, bad = (
        [row.verdict for row in mixture_scale._at_1b(data, "additive", observed + shift, "", 1, 0.0)]
        for shift in (np.array([0.01, 0.01]), np.array([-0.08, 0.02]))
    )
    assert good == ["reproduced"] * 3
    assert bad == ["not reproduced", "reproduced", "not reproduced"]


def test_regmix_without_its_extra_says_so_and_how_to_get_it(data, monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **named):
        if name == "lightgbm":
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        regmix.ExtraError, match=r"lightgbm is absent: install the extra with pip install '.\[regmix\]'"
    ):
        regmix.light_gbm(regmix.split(data), "pile_cc")
    monkeypatch.setattr(regmix, "_methods", lambda _: {"LightGBM": regmix.light_gbm})
    monkeypatch.setattr(regmix, "_best_share", lambda _: None)
    rows = regmix.rows(data)[:-1]
    assert len(rows) == 13
    assert all(row.verdict == "inconclusive" and math.isnan(row.ours) and "not run" in row.note for row in rows)


def test_regmix_by_linear_regression_and_its_split(data):
    parts = regmix.split(data)
    assert len(parts.train) == 512
    assert {size: len(table) for size, table in parts.test.items()} == {"1M": 256, "60M": 256, "1B": 64}
    predicted = regmix.linear(parts, "pile_cc").by_size
    ranks = [regmix._spearman(predicted[size], parts.test[size]["loss_pile_cc"].to_numpy())[0] for size in predicted]
    np.testing.assert_allclose(ranks, [90.2, 89.3, 87.7], atol=0.06)


def test_regmix_by_boosted_trees_has_the_published_rank_correlation(data):
    pytest.importorskip("lightgbm")
    found = regmix.light_gbm(regmix.split(data), "dm_mathematics").by_size["1M"]
    observed = regmix.split(data).test["1M"]["loss_dm_mathematics"].to_numpy()
    assert regmix._spearman(found, observed)[0] == pytest.approx(regmix.SPEARMAN["dm_mathematics"], abs=0.006)


def test_a_comparison_becomes_rows_of_the_contest():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.dirichlet(np.ones(3), size=40), columns=["a", "b", "c"])
    table["loss"] = 2 + np.exp(-3 * table["a"] + 0.3 * table["b"]) + 0.002 * rng.normal(size=40)
    found = compare([data_mixing(["a", "b", "c"])], table, holdout=np.arange(40) >= 30, group=None, bootstrap=20)
    frame = mixture_scale.ranked("three domains", found)
    assert frame["held_out"].tolist() == [10]
    assert frame["data"].tolist() == ["three domains"]
    assert frame["error"].iloc[0] < 0.005
    assert frame["behind"].iloc[0] == 0
