"""Figures of proxies for mixtures show what they are given."""

import pandas as pd
import pytest

from scaling.figures import merging


def test_correlations_stand_with_their_intervals_in_the_panel_of_their_length() -> None:
    rows = pd.DataFrame([
        {"steps": steps, "domain": "prose", "predictor": predictor, "spearman": value, "low": value - 0.2,
         "high": value + 0.1}
        for steps, predictor, value in ((75, "merged", 0.5), (75, "other", 0.1), (300, "merged", 0.7),
                                        (300, "other", -0.4))])
    figure = merging.coefficients(rows, strong=0.8)
    shown = {axis.get_title(): [float(bar.lines[0].get_xdata()[0]) for bar in axis.containers] for axis in figure.axes}
    assert shown == {"75 steps": [0.5, 0.1], "300 steps": [0.7, -0.4]}
    assert figure.axes[0].get_xlim() == pytest.approx((-0.65, 1.05))


def test_truth_stands_against_proxy_in_the_panel_of_its_domain() -> None:
    rows = pd.DataFrame({"domain": ["prose", "prose", "all"], "equal": [False, False, True], "share": [0.2, 0.8, 0.5],
                         "proxy": [2.0, 1.0, 3.0], "truth": [2.5, 1.5, 3.5]})
    figure = merging.agreement(rows, ["prose", "all"], "the average")
    shown = {axis.get_title(): axis.collections[0].get_offsets().tolist() for axis in figure.axes if axis.get_title()}
    assert shown == {"prose": [[2.0, 2.5], [1.0, 1.5]], "all": [[3.0, 3.5]]}
    assert {axis.get_ylabel() for axis in figure.axes} >= {"share of prose", "largest share"}
