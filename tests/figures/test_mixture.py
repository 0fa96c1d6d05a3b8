"""Figures show what the tables hold."""

import numpy as np
import pandas as pd
import pytest

from scaling import fitting
from scaling.figures import mixture
from scaling.figures.style import png
from scaling.fitting import Decision, Refusal
from scaling.laws.mixture import CMR_RATIO


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """Two sizes, five shares, two runs a share, three logged points."""
    rows = [(size, share, copy, tokens, (0.2 * share**2 - 0.02) * tokens / 300 + 0.001 * copy)
            for size in (1e4, 3e4) for share in (0.1, 0.25, 0.5, 0.75, 1.0) for copy in (0, 1)
            for tokens in (100, 200, 300)]
    made = pd.DataFrame(rows, columns=["N", "share", "seed", "D", "change"])
    return made.assign(domain="prose", last=made.D == 300, run_id=made.N.astype(str) + made.share.astype(str)
                       + made.seed.astype(str))


def test_change_curves_draw_one_line_a_share_with_the_mean_of_its_runs(table: pd.DataFrame) -> None:
    figure = mixture.change_curves(table, "prose")
    assert len(figure.axes) == 2
    lines = [line for line in figure.axes[0].lines if line.get_label().endswith("%")]
    assert [line.get_label() for line in lines] == ["10%", "25%", "50%", "75%", "100%"]
    np.testing.assert_allclose(lines[-1].get_ydata()[-1], 0.18 + 0.0005)


def test_ratio_law_marks_a_decision_and_leaves_out_a_refused_one(table: pd.DataFrame) -> None:
    last = table[table["last"]]
    fits = {size: fitting.fit(CMR_RATIO, last[last.N == size], columns={"R": "share"}, target="change",
                              objective=fitting.least_squares(), bootstrap=20) for size in (1e4, 3e4)}
    known = Decision(0.6, 0.55, 0.65, 0.95)
    refused = Decision(1.0, 1.0, 1.0, 0.95, Refusal("unbounded", "no limit"))
    figure = mixture.ratio_law(table, "prose", fits, {1e4: known, 3e4: refused}, tolerance=0.05)
    marked = [[line for line in axis.lines if line.get_label() == "critical share"] for axis in figure.axes]
    assert [len(lines) for lines in marked] == [1, 0]
    assert list(marked[0][0].get_xdata()) == [0.6, 0.6]


def test_a_figure_gives_the_same_bytes_twice(table: pd.DataFrame) -> None:
    assert png(mixture.change_curves(table, "prose")) == png(mixture.change_curves(table, "prose"))
