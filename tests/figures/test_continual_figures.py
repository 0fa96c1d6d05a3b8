"""What the figures of continual pre-training draw, read back from their axes."""

import numpy as np
import pandas as pd
import pytest

from scaling.figures import continual, dynamics


def cells() -> pd.DataFrame:
    rows = [(kind, rewarm, replay, domain, 2.0 - replay, 0.4 - replay, 0.3 - replay, 0.6 - replay)
            for kind, rewarm in (("held", 0.1), ("rewarmed", 0.5), ("rewarmed", 1.0))
            for replay in (0.0, 0.25, 1.0) for domain in ("prose", "code")]
    rows += [("scratch", np.nan, share, domain, loss, np.nan, np.nan, np.nan)
             for share, loss in ((0.6, 1.5), (0.7, 1.4)) for domain in ("prose", "code")]
    return pd.DataFrame(rows, columns=["kind", "rewarm", "replay", "domain", "loss", "change", "low", "high"])


def test_the_rate_that_is_held_stands_before_the_re_warm_peaks() -> None:
    axis, _ = continual.by_peak(cells(), ("prose", "code")).axes
    assert [text.get_text() for text in axis.get_xticklabels()] == ["rate held", "0.5", "1"]
    drawn = [bars.lines[0] for bars in axis.containers]
    assert [round(float(line.get_ydata()[0]), 9) for line in drawn] == [0.4, 0.15, -0.6]
    assert all(np.array_equal(np.round(line.get_xdata()), [0, 1, 2]) for line in drawn)


def test_runs_without_a_trunk_are_traded_by_their_last_loss() -> None:
    axis, = continual.trade(cells(), "prose", "code", {"from scratch": "scratch"}).axes
    marks = next(line for line in axis.lines if line.get_label() == "from scratch")
    assert sorted(marks.get_ydata()) == [1.4, 1.5]
    assert {"60% prose", "70% prose"} <= {text.get_text() for text in axis.texts}
    lines = [line for line in axis.lines if line is not marks]
    assert [len(line.get_xdata()) for line in lines] == [2, 2, 2]  # 100% replay is no trade


def test_curves_are_means_over_seeds_with_step_0_at_the_left_end() -> None:
    rows = pd.DataFrame({"domain": "prose", "step": [0, 0, 8, 8], "seed": [0, 1, 0, 1], "loss": [2.0, 3.0, 1.0, 2.0]})
    axis, = continual.curves({"a": rows}, ["prose"], "loss", "loss").axes
    assert axis.lines[0].get_xdata().tolist() == [1, 8]
    assert axis.lines[0].get_ydata().tolist() == [2.5, 1.5]


def test_differences_stand_beside_the_margin() -> None:
    rows = pd.DataFrame({"contrast": ["a", "a", "b"], "domain": ["prose", "code", "prose"], "value": [0.1, -0.1, 0.0],
                         "low": [0.05, -0.2, -0.01], "high": [0.15, 0.0, 0.01]})
    axis, = continual.differences(rows, 0.05).axes
    assert axis.patches[0].get_x() == pytest.approx(-0.05)
    assert axis.patches[0].get_width() == pytest.approx(0.1)
    assert [text.get_text() for text in axis.get_yticklabels()] == ["a", "b"]


def test_potentials_are_drawn_against_the_lowest_of_the_same_seed() -> None:
    rows = pd.DataFrame({"domain": "code", "schedule": "cosine", "seed": [0, 0, 1, 1], "potential": [0.0, 1.0] * 2,
                         "loss": [2.0, 1.9, 3.0, 2.7]})
    axis, = dynamics.potentials(rows, ["code"]).axes
    assert axis.containers[0].lines[0].get_ydata() == pytest.approx([0.0, -0.2])


def test_predictions_are_drawn_through_the_points_that_they_are_of() -> None:
    rows = pd.DataFrame({"domain": "code", "schedule": "wsd", "potential": 1.0, "step": [9, 1], "loss": [1.0, 2.0],
                         "predicted": [1.1, 2.1], "mean": [1.2, 2.2]})
    axis, = dynamics.predicted(rows, ["code"]).axes
    points, law, mean = axis.lines[:3]
    assert [line.get_ydata().tolist() for line in (points, law, mean)] == [[2.0, 1.0], [2.1, 1.1], [2.2, 1.2]]
    assert axis.get_title() == "wsd, not seen by the fit"


def test_shifts_are_means_over_seeds_by_transfer_point() -> None:
    rows = pd.DataFrame({"domain": "code", "start": 500, "potential": 1.0, "step": [1, 5, 1, 5], "seed": [0, 0, 1, 1],
                         "shift": [-0.1, -0.3, -0.2, -0.4]})
    axis, = dynamics.shifts(rows, ["code"]).axes
    assert axis.lines[0].get_ydata() == pytest.approx([-0.15, -0.35])
    assert axis.lines[0].get_label() == "from step 500, potential 1"
