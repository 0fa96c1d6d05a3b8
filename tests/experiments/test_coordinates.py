"""The coordinate check: muP flat over five widths, the standard parametrization not; slopes; a published network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from configs.coordinates import get_config
from experiments.coordinates import MUP, STANDARD, changes, check_coordinates, of_width, slopes
from helpers import small_run, write_text
from scaling.config import Run, run_from
from scaling.fields import ConfigError
from scaling.figures.coordinates import coordinates
from scaling.model import Model
from scaling.optimizers.roles import role_factors
from scaling.sweeps.workbench import Workbench

OPTIMIZED = False  # the programs of eight widths run for three steps
WIDTHS = {STANDARD: (16, 64, 256), MUP: (16, 32, 64, 128, 256)}


def transformer(text: str) -> Run:
    c = get_config()
    c.model.depth, c.data.sequence, c.data.batch = 1, 16, 4
    c.data.domains = {"prose": text}
    return run_from(c)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Rows of the transformer of configs/coordinates.py, one layer deep, on random sentences."""
    folder = tmp_path_factory.mktemp("coordinates")
    run, bench = transformer(write_text(folder / "text")), Workbench(folder / "cache")
    return pd.concat([changes(of_width(run, width, kind), range(3), bench).assign(parametrization=kind, width=width)
                      for kind, widths in WIDTHS.items() for width in widths])


def test_our_transformer_is_flat_under_mup_and_not_in_the_standard_parametrization(found: pd.DataFrame) -> None:
    slope = slopes(found, 0.95).set_index(["parametrization", "activation"]).slope
    assert set(slope[MUP].index) == {"block_0", "block_0/attention", "block_0/feedforward", "block_0/attention/scores",
                                     "embedding", "logits"}
    assert slope[MUP].abs().max() < 0.1
    assert slope[STANDARD][["block_0", "block_0/feedforward", "logits"]].min() > 0.3
    assert (slope[STANDARD] > slope[MUP]).drop("embedding").all()


def test_the_standard_run_of_a_width_is_the_one_without_a_base() -> None:
    run = small_run(**{"model.base": {"width": 16, "heads": 2}, "optimizer.width_exponent": 0.5})
    assert of_width(run, 32, MUP).model.heads == 4
    standard = of_width(run, 16, STANDARD)
    assert standard == small_run()


def test_every_step_is_reported_and_the_figure_draws(found: pd.DataFrame) -> None:
    assert sorted(found.step.unique()) == [1, 2, 3]
    figure = coordinates(found[found.width.isin(WIDTHS[STANDARD])], slopes(found, 0.95))
    assert [axis.get_title() for axis in figure.axes] == [STANDARD, MUP]
    assert all(axis.get_xscale() == axis.get_yscale() == "log" for axis in figure.axes)


def test_slopes_recover_a_known_power_and_count_seeds() -> None:
    """change = c_seed width^(½ + e_seed) with e = -0.1, 0, 0.1: mean ½, interval ± t(2) 0.1 / √3."""
    rows = [{"parametrization": MUP, "width": width, "seed": seed, "step": step, "activation": "h",
             "change": (seed + 1.0) * width ** (0.5 + 0.1 * (seed - 1)) if step == 2 else 7.0}
            for width in (16, 64, 256) for seed in range(3) for step in (1, 2)]
    (row,) = slopes(pd.DataFrame(rows), 0.95).to_dict("records")
    half = 4.302652729911275 * 0.1 / np.sqrt(3)
    assert (row["slope"], row["low"], row["high"]) == pytest.approx((0.5, 0.5 - half, 0.5 + half), abs=1e-9)
    assert row["seeds"] == 3


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.base = None: expected the width and heads .*; set it"):
        check_coordinates(small_run(), (16, 32), (0, 1), Workbench(tmp_path))
    with pytest.raises(ConfigError, match=r"widths = 24: expected multiples of a head's width, 16; change it"):
        of_width(run_from(get_config()), 24, MUP)


def moved(width: int, mup: bool, seed: int) -> float:
    """methods.md A17's network, 8 -> w -> w -> 4 with tanh, 3 Adam steps at η 0.01: mean |Δ| of the second
    pre-activation. Base 64, readout zero at the start under muP; data and seeds are ours.
    """
    base = {"width": 64, "heads": 1} if mup else None
    model: Model = small_run(**{"model.width": width, "model.heads": 1, "model.base": base, "optimizer.width_exponent":
                                0.5 if mup else None}).model
    random, m = np.random.default_rng(seed), model.width_ratio
    x_Bx8, y_Bx4 = random.normal(size=(32, 8)), random.normal(size=(32, 4))
    weights = [random.normal(size=shape) / shape[0] ** 0.5 for shape in ((8, width), (width, width), (width, 4))]
    weights[2] = weights[2] * (not mup)
    paths = ("embedding/embedding", "block_0/up/kernel", "head/kernel")
    rates = [0.01 * role_factors(model, "adamw", path, w.shape).rate for path, w in zip(paths, weights, strict=True)]
    moments = [np.zeros((2, *w.shape)) for w in weights]

    def forward() -> tuple[np.ndarray, ...]:
        h_Bxw = np.tanh(x_Bx8 @ weights[0])
        z_Bxw = h_Bxw @ weights[1]
        return h_Bxw, z_Bxw, np.tanh(z_Bxw), np.tanh(z_Bxw) @ weights[2] / m

    start_Bxw = forward()[1]
    for t in range(1, 4):
        h_Bxw, _, a_Bxw, out_Bx4 = forward()
        d_out = 2 * (out_Bx4 - y_Bx4) / out_Bx4.size / m
        d_z = d_out @ weights[2].T * (1 - a_Bxw**2)
        d_h = d_z @ weights[1].T * (1 - h_Bxw**2)
        for i, g in enumerate((x_Bx8.T @ d_h, h_Bxw.T @ d_z, a_Bxw.T @ d_out)):
            moments[i] = moments[i] * [[[0.9]], [[0.999]]] + np.stack([0.1 * g, 0.001 * g**2])
            first, second = moments[i][0] / (1 - 0.9**t), moments[i][1] / (1 - 0.999**t)
            weights[i] = weights[i] - rates[i] * first / (np.sqrt(second) + 1e-12)
    return float(np.abs(forward()[1] - start_Bxw).mean())


@pytest.mark.parametrize(("mup", "published"), [(False, (0.271, 0.400, 3.10)), (True, (0.168, 0.173, 0.163))])
def test_the_published_network_moves_as_published(mup: bool, published: tuple[float, ...]) -> None:
    """Growth from width 64 to 256 and 1024 as in the reference: its data are not known, so the ratios are held."""
    ours = np.array([np.mean([moved(width, mup, seed) for seed in range(2)]) for width in (64, 256, 1024)])
    assert ours[1:] / ours[0] == pytest.approx(np.array(published[1:]) / published[0], rel=0.15)
    assert ours == pytest.approx(np.array(published), rel=0.25)
