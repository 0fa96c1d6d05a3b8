"""Figures of rates over widths show what they are given."""

import numpy as np
import pandas as pd
import pytest

from scaling.figures.transfer import optima_by_width, rate_curves, spectra_by_width

BEST = pd.DataFrame([{"arm": arm, "width": width, "lr": 1e-2 * (8 / width) ** power,
                      "low": 0.9e-2 * (8 / width) ** power, "high": 1.2e-2 * (8 / width) ** power}
                     for arm, power in (("standard", 1), ("muP", 0)) for width in (8, 16, 32)])


def test_sweeps_have_a_panel_an_arm_a_line_a_width_the_range_of_seeds_and_the_optimum() -> None:
    rates = (2e-3, 8e-3, 3.2e-2)
    losses = pd.DataFrame([
        {"arm": row.arm, "width": row.width, "seed": seed, "lr": rate,
         "loss": 2 + 0.1 * np.log2(rate / row.lr) ** 2 + 0.01 * seed}
        for row in BEST.itertuples() for rate in rates for seed in range(3)])
    figure = rate_curves(losses, BEST)
    assert [axis.get_title() for axis in figure.axes] == ["standard", "muP"]
    standard = figure.axes[0]
    curve, stroke = standard.get_lines()[4:6]  # of width 32
    np.testing.assert_allclose(curve.get_xdata(), rates)
    np.testing.assert_allclose(curve.get_ydata(), 2.01 + 0.1 * np.log2(np.array(rates) / 2.5e-3) ** 2)
    assert stroke.get_xdata()[0] == pytest.approx(2.5e-3)
    edges = standard.collections[2].get_paths()[0].vertices[:, 1]
    assert edges.max() - curve.get_ydata().max() == pytest.approx(0.01)
    low, high = standard.get_ylim()
    assert low < losses.loss.min() < losses.loss.median() < high


def test_optima_stand_at_their_widths_with_their_intervals() -> None:
    axis, = optima_by_width(BEST).axes
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["standard", "muP"]
    for container, arm in zip(axis.containers, ("standard", "muP"), strict=True):
        rows, line, (bars,) = BEST[BEST.arm == arm], container[0], container[2]
        np.testing.assert_allclose(np.asarray(line.get_ydata(), float), rows.lr)
        np.testing.assert_allclose(np.asarray(line.get_xdata(), float), rows.width, rtol=0.05)
        ends = [segment[:, 1].astype(float) for segment in bars.get_segments()]
        assert np.stack(ends) == pytest.approx(rows[["low", "high"]].to_numpy(float))
    assert [label.get_text() for label in axis.get_xticklabels()] == ["8", "16", "32"]


def test_spectra_tell_the_slope_of_their_geometric_mean() -> None:
    rows = [{"arm": arm, "width": width, "seed": seed, "matrix": matrix, "value": start * width**slope * (1 + seed)}
            for arm, slope in (("fixed", 0.25), ("layer-wise", -0.1)) for width in (8, 16, 64) for seed in range(2)
            for matrix, start in (("query", 1.0), ("up", 4.0))]
    fixed, layerwise = spectra_by_width(pd.DataFrame(rows)).axes
    assert (fixed.get_title(), layerwise.get_title()) == ("fixed: slope +0.25", "layer-wise: slope -0.10")
    query, up, mean = fixed.get_lines()
    np.testing.assert_allclose(query.get_ydata(), 1.5 * np.array([8, 16, 64]) ** 0.25)
    np.testing.assert_allclose(up.get_ydata() / query.get_ydata(), 4)
    np.testing.assert_allclose(mean.get_ydata(), np.sqrt(2 * 4) * np.array([8, 16, 64]) ** 0.25)
