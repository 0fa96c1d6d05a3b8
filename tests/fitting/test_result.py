"""What a fit can say and how it is kept."""

import json

import numpy as np
import pandas as pd
import pytest

from scaling import fitting
from scaling.fitting import Fit
from scaling.laws.law import TableError
from scaling.laws.mixture import CMR_RATIO, D_CPT

AT = {"N": 2e6, "D": np.array([[1e7], [1e8]]), "r": np.array([0.0, 0.5, 1.0])}


def test_json_round_trip_predicts_identically(d_cpt_fit):
    text = d_cpt_fit.to_json()
    again = Fit.from_json(text)
    np.testing.assert_array_equal(again.predict(AT), d_cpt_fit.predict(AT))
    np.testing.assert_array_equal(again.interval(AT), d_cpt_fit.interval(AT))
    np.testing.assert_array_equal(again.covariance_PxP, d_cpt_fit.covariance_PxP)
    assert again.law is D_CPT
    assert again.summary() == d_cpt_fit.summary()
    assert again.to_json() == text


def test_json_keeps_what_is_missing_missing():
    table = pd.DataFrame({"R": [0.2, 0.4, 0.7, 1.0], "loss": [0.1, 0.0, -0.1, -0.15], "run_id": "one"})
    fit = fitting.fit(CMR_RATIO, table, objective=fitting.least_squares())
    again = Fit.from_json(fit.to_json())
    assert np.isnan(again.covariance_PxP).all()
    assert np.isnan(again.errors.relative)
    assert again.objective == fit.objective
    assert again.refusals == fit.refusals
    assert again.draws_BxP.shape == (0, 3)
    assert again.held_out is None


def test_a_record_is_not_read_as_another_law(d_cpt_fit):
    with pytest.raises(ValueError, match=r"the record is of 'd-cpt' with parameters E, A, .* not of 'cmr-ratio'"):
        Fit.from_json(d_cpt_fit.to_json(), law=CMR_RATIO)
    record = json.loads(d_cpt_fit.to_json()) | {"law": {"name": "d-ctp"}}
    with pytest.raises(ValueError, match="did you mean 'd-cpt'"):
        Fit.from_json(json.dumps(record))


def test_predictions_broadcast_and_draws_agree_with_the_law(d_cpt_fit):
    assert d_cpt_fit.predict(AT).shape == (2, 3)
    draws = d_cpt_fit.predict_draws(AT)
    assert draws.shape == (200, 2, 3)
    p = dict(zip(d_cpt_fit.parameters, d_cpt_fit.draws_BxP[7], strict=True))
    wanted = p["E"] + p["A"] / 2e6 ** p["alpha"] + p["B"] * 0.5 ** p["eta"] / 1e8 ** p["beta"]
    assert draws[7, 1, 1] == pytest.approx(wanted + p["C"] / (0.5 + p["eps"]) ** p["gamma"], rel=1e-12)
    low, high = d_cpt_fit.interval(AT, level=0.5)
    np.testing.assert_allclose([low, high], np.quantile(draws, [0.25, 0.75], axis=0))


def test_bad_questions_are_refused(d_cpt_fit):
    with pytest.raises(TableError, match="column 'D' is missing"):
        d_cpt_fit.predict({"N": 1e6, "r": 0.5})
    with pytest.raises(TableError, match=r"column 'r', row 0: 2 is outside \[0, 1\]"):
        d_cpt_fit.predict({"N": 1e6, "D": 1e7, "r": 2.0})
    with pytest.raises(ValueError, match=r"level: 95 must lie in \(0, 1\)"):
        d_cpt_fit.interval(AT, level=95)


def test_the_summary_names_law_parameters_errors_and_refusals(d_cpt_fit):
    text = d_cpt_fit.summary()
    for part in (
        D_CPT.formula,
        D_CPT.citation,
        "Huber(0.001) on log target",
        "N^alpha",
        "42 groups, 200 draws",
        "held out: nothing",
    ):
        assert part in text
    low, high = d_cpt_fit.parameter_interval()["beta"]
    assert f"[{low:.5g}, {high:.5g}]" in text
