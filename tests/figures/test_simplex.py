"""The simplex as a triangle, and estimates with intervals: what is drawn where."""

import numpy as np
import pandas as pd
import pytest

from scaling.figures import estimates, simplex


def test_corners_centre_and_edges_of_the_triangle() -> None:
    places = simplex.in_plane(np.array([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0]]))
    np.testing.assert_allclose(places, [[0, 0], [1, 0], [0.5, 3**0.5 / 2], [0.5, 3**0.5 / 6], [0.5, 0]], atol=1e-12)
    distances = np.linalg.norm(places[:3] - places[3], axis=1)
    np.testing.assert_allclose(distances, distances[0])
    with pytest.raises(ValueError, match="shares: of 4 domains, a triangle shows three"):
        simplex.in_plane(np.ones((2, 4)) / 4)


def test_a_panel_a_target_with_each_mark_where_it_belongs() -> None:
    share_Mx3 = np.array([[i, j, 6 - i - j] for i in range(7) for j in range(7 - i)]) / 6
    loss_M = ((share_Mx3 - [0.5, 0.2, 0.3]) ** 2).sum(axis=1)
    mark = simplex.Mark(np.array([0.5, 0.2, 0.3]), np.full((5, 3), 1 / 3))
    figure = simplex.landscape(("a", "b", "c"), share_Mx3, {"x": loss_M, "y": 2 * loss_M},
                               {"x": {"law": mark}, "y": {"law": mark}})
    assert [axis.get_title().split(":")[0] for axis in figure.axes] == ["x", "y"]
    for axis in figure.axes:
        line, = (line for line in axis.lines if line.get_label() == "law")
        np.testing.assert_allclose(line.get_xydata()[0], simplex.in_plane(mark.share_3))
    assert {text.get_text() for text in figure.axes[0].texts} >= {"a", "b", "c"}


def test_estimates_by_name_show_interval_values_and_bound() -> None:
    table = pd.DataFrame([{"name": "law", "value": 0.02, "low": 0.01, "high": 0.04, "values": [0.01, 0.03]},
                          {"name": "trees", "value": 0.5, "low": 0.4, "high": 0.6, "values": [0.45, 0.55]}])
    axis, = estimates.by_name({"target": table}, "regret", bound=0.1).axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["law", "trees"]
    ends = [container.lines[2][0].get_segments()[0][:, 0].tolist() for container in axis.containers]
    np.testing.assert_allclose(ends, [[0.01, 0.04], [0.4, 0.6]])
    assert 0.1 in {float(line.get_xdata()[0]) for line in axis.lines if line.get_linestyle() == "--"}


def test_predictions_out_of_the_frame_are_counted() -> None:
    rows = pd.DataFrame({"domain": ["a", "a", "b", "b"], "measured": [1.0, 2.0, 1.5, 1.7],
                         "law": [1.0, 2.1, 1.4, np.nan], "plane": [1.0, 9.0, -4.0, 1.7]})
    figure = estimates.agreement(rows, ["law", "plane"])
    assert [axis.get_title() for axis in figure.axes] == ["law", "plane (2 beyond)"]


def test_error_by_count_draws_the_mean_of_the_subsets() -> None:
    table = pd.DataFrame({"count": [10, 10, 20], "error": [0.02, 0.04, 0.01]})
    axis, = estimates.error_by_count(table, 0.013, "mixtures").axes
    mean, = (line for line in axis.lines if line.get_label() == "mean")
    np.testing.assert_allclose(mean.get_xydata(), [[10, 0.03], [20, 0.01]])
