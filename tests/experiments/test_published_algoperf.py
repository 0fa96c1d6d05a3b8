"""AlgoPerf's score: small tables by hand, properties, and the published leaderboards."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.algoperf import integrated, performance_profile, relative, score_draws, scores, study_times
from experiments.published.algoperf import figures, rows
from experiments.reference import AbsentDataError, reference_data

INF = np.inf


@pytest.fixture(scope="module")
def data() -> Path:
    try:
        return reference_data()
    except AbsentDataError as error:
        pytest.skip(str(error))


def trials_of(*lines):
    """Trials as (submission, workload, role, study, trial, evaluation at the target or None, seconds)."""
    names = ["submission", "workload", "role", "study", "trial", "eval_index_at_target", "time_to_target_s"]
    table = pd.DataFrame(lines, columns=names)
    reached = table["eval_index_at_target"].notna()
    return table.assign(reached=reached.astype(int), eval_index_at_target=table["eval_index_at_target"].fillna(-1))


def test_ratios_and_scores_by_hand():
    ratio = relative(np.array([[100.0, 50.0], [150.0, 40.0], [INF, 41.0]]))
    np.testing.assert_allclose(ratio, [[1, 1.25], [1.5, 1], [INF, 1.025]])
    np.testing.assert_allclose(
        performance_profile(ratio, np.array([1.0, 1.3, 4.0])), [[0.5, 1, 1], [0.5, 0.5, 1], [0, 0.5, 0.5]]
    )
    np.testing.assert_allclose(integrated(ratio), [0.957071, 0.916667, 0.497475], atol=1e-6)
    np.testing.assert_allclose(relative(np.array([[1.0, INF], [4.1, INF]])), [[1, INF], [INF, INF]])


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(st.lists(st.floats(1, 100), min_size=3, max_size=3), min_size=1, max_size=5))
def test_the_score_is_the_mean_of_what_is_left_of_the_factor(seconds):
    """The trapezoid rule's limit, (4 - ratio)/3, within half of a step a workload; one fastest always scores."""
    ratio = relative(np.array(seconds))
    left = np.mean(np.where(np.isfinite(ratio), (4 - np.minimum(ratio, 4)) / 3, 0), axis=1)
    np.testing.assert_allclose(integrated(ratio), left, atol=0.51 / 99)
    assert integrated(ratio).max() >= 1 / 3 - 1e-9


def test_the_first_evaluation_counts_not_the_smallest_time_and_the_median_over_studies():
    times = study_times(
        trials_of(
            ("a", "w", "base", 0, 1, 7, 90.0),
            ("a", "w", "base", 0, 2, 5, 100.0),
            ("a", "w", "base", 1, 1, 4, 300.0),
            ("a", "w", "base", 2, 1, None, INF),
            ("b", "w", "base", 0, 1, 5, 200.0),
            ("b", "w", "other", 0, 1, 1, 1.0),
        )
    )
    np.testing.assert_array_equal(times.seconds_SxWxK, [[[100, 300, INF]], [[200, np.nan, np.nan]]])
    assert scores(times)[0] == pytest.approx((4 - 1.5) / 3, abs=0.01)
    assert scores(times)[1] == pytest.approx(1)
    most_fail = study_times(
        trials_of(*[("a", "w", "base", s, 1, *x) for s, x in enumerate([(None, INF)] * 2 + [(1, 5.0)])])
    )
    assert scores(most_fail)[0] == 0


def test_a_failed_variant_voids_its_base_alone():
    fine = [("a", w, "base", 0, 1, 1, 10.0) for w in ("w", "w_x", "v")]
    failed = study_times(trials_of(*fine, ("a", "w_x_tanh", "held_out", 0, 1, None, INF)))
    assert scores(failed)[0] == pytest.approx(2 / 3)
    slow = [("a", "w_x_tanh", "held_out", 0, 1, 1, 50.0), ("b", "w_x_tanh", "held_out", 0, 1, 1, 10.0)]
    rival = [("b", w, "base", 0, 1, 1, 10.0) for w in ("w", "w_x", "v")]
    np.testing.assert_allclose(scores(study_times(trials_of(*fine, *rival, *slow))), [2 / 3, 1])


def test_draws_resample_the_studies_that_were_run():
    lines = [("a", "w", "base", s, 1, 1, 10.0) for s in range(3)] + [("b", "w", "base", 0, 1, 1, 20.0)]
    alike = score_draws(study_times(trials_of(*lines)), 50, seed=0)
    np.testing.assert_allclose(alike, np.tile(scores(study_times(trials_of(*lines))), (50, 1)))
    mixed = study_times(trials_of(*lines[:2], ("a", "w", "base", 2, 1, None, INF), lines[3]))
    draws = score_draws(mixed, 400, seed=0)[:, 0]
    assert np.mean(draws == 0) == pytest.approx(7 / 27, abs=0.07)  # two or three of three draws are the failed study
    assert set(np.round(draws, 6)) == {0.0, 1.0}


def test_trials_that_cannot_be_scored_are_refused():
    with pytest.raises(ValueError, match="trials: column 'role' is missing"):
        study_times(trials_of(("a", "w", "base", 0, 1, 1, 1.0)).drop(columns="role"))
    with pytest.raises(ValueError, match="no row of role 'base' or 'held_out'"):
        study_times(trials_of(("a", "w", "other", 0, 1, 1, 1.0)))
    with pytest.raises(ValueError, match="workload 'v_x': no base workload begins its name; the bases are w"):
        study_times(trials_of(("a", "w", "base", 0, 1, 1, 1.0), ("a", "v_x", "held_out", 0, 1, 1, 1.0)))


def test_the_published_leaderboards_come_back(data):
    found = rows(data)
    missed = [row for row in found if row.verdict != "reproduced"]
    assert len(found) == 19
    assert [(row.source, row.quantity) for row in missed] == [("AlgoPerf 0.6, external tuning", "score of baseline")]
    assert missed[0].ours == pytest.approx(0.4716, abs=5e-5)
    assert "unexplained" in missed[0].note
    assert all(row.low <= row.ours <= row.high for row in found)
    assert len(figures(data)["profiles"].axes) == 3
