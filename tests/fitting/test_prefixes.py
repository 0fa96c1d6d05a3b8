"""Fits to growing prefixes: the stopping rule, one fit each, honest stops on simulated curves."""

import numpy as np
import pandas as pd
import pytest

from scaling import fitting
from scaling.fitting.prefixes import prefixes, stopping
from scaling.laws.law import TableError
from scaling.laws.learning_curves import ACCURACY_CURVE
from scaling.laws.size import CHINCHILLA

WORDS = 5e3 * np.arange(1, 41)
AT_A_MILLION = 0.97 - 8 * 1e6**-0.5


def curve(seed, noise=3e-4):
    noise_M = np.random.default_rng(seed).normal(scale=noise, size=WORDS.size)
    return pd.DataFrame({"x": WORDS, "accuracy": 0.97 - 8 * WORDS**-0.5 + noise_M})


def follow(table, **changes):
    settings = {"horizon": 1e6, "threshold": 1e-3, "limits": (0, 1), "target": "accuracy"} | changes
    return prefixes(ACCURACY_CURVE, table, **settings)


def test_rule_by_hand():
    prediction = np.array([0.9, 0.9, 0.9, 0.95, 0.93, 0.925, 0.924, 0.923])
    good = np.ones(8, dtype=bool)
    assert stopping(prediction, good, 0.005) == (0, 2)
    assert stopping(prediction, good & (np.arange(8) != 1), 0.005) == (2, 7)
    assert stopping(prediction[:6], good[:6] & (np.arange(6) != 1), 0.005) == (2, None)
    assert stopping(prediction, np.zeros(8, dtype=bool), 1.0) == (None, None)


def test_each_prefix_is_fitted_as_if_alone_and_sees_no_later_row():
    table = curve(0)
    found = follow(table.sample(frac=1, random_state=0))
    np.testing.assert_array_equal(found.seen_K, WORDS[3:])
    for rows in (12, 40):
        alone = fitting.fit(ACCURACY_CURVE, table.iloc[:rows], target="accuracy", group=None, bootstrap=0)
        np.testing.assert_allclose(found.prediction_K[rows - 4], alone.predict({"x": 1e6}), rtol=1e-6)
    spoilt = table.assign(accuracy=np.where(WORDS > WORDS[found.stop + 3], 0.5, table["accuracy"]))
    assert follow(spoilt).stop == found.stop
    assert follow(spoilt).estimate == pytest.approx(found.estimate, rel=1e-7)


def test_stops_early_and_near_the_truth():
    stops = [follow(curve(seed)) for seed in range(8)]
    assert all(found.stop is not None for found in stops)
    assert np.median([found.seen_K[found.stop] for found in stops]) < WORDS[-1] / 2
    errors = np.array([abs(found.estimate - AT_A_MILLION) for found in stops])
    assert np.median(errors) < 2e-3
    strict = [follow(curve(seed), threshold=2e-4) for seed in range(8)]
    assert all(late.stop is None or late.stop >= early.stop for late, early in zip(strict, stops, strict=True))


def test_a_curve_that_is_not_settled_is_refused():
    found = follow(curve(0).iloc[:8], threshold=1e-6)
    assert found.stop is None
    assert "more than the threshold 1e-06" in str(found)
    with pytest.raises(ValueError, match="no estimate: unstable: the last predictions differ by"):
        _ = found.estimate
    outside = follow(curve(0).iloc[:8], limits=(0, 0.5))
    assert outside.level is None
    assert "the last prefix is not admissible" in str(outside.refusal)
    assert not outside.table()["admissible"].any()


def test_bad_arguments():
    with pytest.raises(ValueError, match="law 'chinchilla' has inputs N, D; a curve law with one is needed"):
        prefixes(CHINCHILLA, curve(0), horizon=1e6, threshold=1e-3)
    with pytest.raises(ValueError, match="threshold: 0 must be > 0"):
        follow(curve(0), threshold=0)
    with pytest.raises(TableError, match="5 rows, at least 6 needed for 3 prefixes of law 'accuracy-curve'"):
        follow(curve(0).iloc[:5])
