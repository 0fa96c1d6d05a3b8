"""What the figures of swept rates draw, read back from their axes."""

import numpy as np
import pandas as pd
import pytest

from scaling import fitting
from scaling.figures.sensitivity import losses_by_rate
from scaling.figures.step_law import best_rates, excess_maps
from scaling.laws.learning_rate import STEP_LAW, STEP_LAW_BATCH


def test_losses_by_rate_shows_means_of_capped_losses_and_crosses_where_runs_diverged() -> None:
    losses = pd.DataFrame([(arm, lr, seed, 5.0, np.inf if lr > 0.05 and seed else 2.0 + seed + lr)
                           for arm in ("plain", "other") for lr in (0.001, 0.01, 0.1) for seed in (0, 1)],
                          columns=["arm", "lr", "seed", "initial", "loss"])
    losses["capped"] = losses[["loss", "initial"]].min(axis=1)
    first, second = losses_by_rate(losses, {"one": ("plain",), "two": ("plain", "other")}).axes
    assert first.get_title() == "one"
    assert [text.get_text() for text in second.get_legend().get_texts()] == ["plain", "other"]
    mean, seeds, crosses, untrained = first.get_lines()
    np.testing.assert_allclose(mean.get_ydata(), [2.501, 2.51, (2.1 + 5.0) / 2])
    assert len(seeds.get_xdata()) == 5
    assert (crosses.get_xdata().tolist(), crosses.get_ydata().tolist()) == ([0.1], [5.0])
    assert untrained.get_ydata()[0] == 5.0
    assert first.get_xscale() == "log"


def test_excess_maps_show_each_cell_in_percent_of_its_settings_best() -> None:
    cells = pd.DataFrame([(setting, lr, batch, base * (1 + 0.01 * place)) for setting, base in (("a", 2.0), ("b", 3.0))
                          for place, (lr, batch) in enumerate([(1e-3, 32), (1e-3, 64), (2e-3, 32), (2e-3, 64)])],
                         columns=["setting", "lr", "batch", "loss"])
    cells.loc[cells.setting.eq("b") & cells.lr.eq(2e-3) & cells.batch.eq(64), "loss"] = np.inf
    points = pd.DataFrame([("a", "best cell", 1e-3, 32.0), ("b", "best cell", 1e-3, 32.0), ("a", "law", 1.5e-3, 40.0)],
                          columns=["setting", "name", "lr", "batch"])
    first, second, *_ = excess_maps(cells, points).axes
    np.testing.assert_allclose(first.collections[0].get_array(), [0, 1, 2, 3], atol=1e-9)
    np.testing.assert_allclose(second.collections[0].get_array(), [0, 1, 2], atol=1e-9)
    _, best, law = first.get_lines()
    assert (best.get_xdata()[0], law.get_ydata()[0]) == (1e-3, 40.0)
    lost, *_ = second.get_lines()
    assert (lost.get_xdata().tolist(), lost.get_ydata().tolist()) == ([2e-3], [64])
    assert len(second.get_lines()[2].get_xdata()) == 0


def test_best_rates_draws_the_laws_through_the_cells_that_they_were_fitted_to() -> None:
    n, d = (values.ravel() for values in np.meshgrid([1e3, 4e3, 1.6e4], [1e5, 4e5]))
    chosen = pd.DataFrame({"N": n, "D": d, "lr": 2 * n**-0.7 * d**0.3, "batch": 0.5 * d**0.5})
    objective = fitting.least_squares("log")
    rate, batch = (fitting.fit(law, chosen, target=target, group=None, objective=objective, bootstrap=0)
                   for law, target in ((STEP_LAW, "lr"), (STEP_LAW_BATCH, "batch")))
    left, right = best_rates(chosen, rate, batch).axes
    _, low, _, high = left.get_lines()
    assert (low.get_label(), high.get_label()) == ("100,000 tokens", "400,000 tokens")
    np.testing.assert_allclose(high.get_ydata(), 2 * np.geomspace(1e3, 1.6e4, 50) ** -0.7 * 4e5**0.3, rtol=1e-4)
    *cells, law = right.get_lines()
    assert law.get_ydata()[-1] == pytest.approx(0.5 * 4e5**0.5, rel=1e-4)
    assert sum(len(line.get_xdata()) for line in cells) == len(chosen)
