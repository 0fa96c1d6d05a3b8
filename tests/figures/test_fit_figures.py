"""Figures of fits show the numbers of the fit and its points, with units, counts and levels."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest

from scaling import fitting
from scaling.figures import contour as contour_figure
from scaling.figures import fit as figures
from scaling.figures.isoflop import isoflops
from scaling.figures.profiles import profiles
from scaling.figures.style import png
from scaling.fitting import Errors, Fit, Points, Refusal
from scaling.fitting.compute_optimal import compute_optimal
from scaling.fitting.isoflop import isoflop_frontier
from scaling.fitting.profile import Profile
from scaling.laws.catalogue import law_named

TRUTH = {"E": 1.8, "A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37}
DOMAINS = ("p_web", "p_code", "p_math")


def loss(n, d, p=TRUTH):
    return p["E"] + p["A"] / n ** p["alpha"] + p["B"] / d ** p["beta"]


def made(law, parameters, inputs, target_M, held_M, group_M=None, draws=40):
    """A fit with known parameters, and draws that scatter by 1% about them."""
    rows = len(target_M)
    scatter_BxP = np.exp(np.random.default_rng(1).normal(0, 0.01, (draws, len(parameters))))
    points = Points(
        inputs,
        target_M,
        np.ones(rows),
        np.full(rows, np.nan),
        np.arange(rows) if group_M is None else group_M,
        np.zeros(rows, dtype=np.int64),
        held_M,
    )
    return Fit(
        law=law,
        objective=fitting.huber(scale=law.scale),
        parameters=parameters,
        covariance_PxP=np.eye(len(parameters)),
        draws_BxP=np.array(list(parameters.values())) * scatter_BxP,
        value=0.1,
        agreement=1.0,
        points=points,
        errors=Errors(int((~held_M).sum()), 0.01, 0.004),
        held_out=Errors(int(held_M.sum()), 0.02, 0.008) if held_M.any() else None,
        refusals=(),
    )


@pytest.fixture(scope="module")
def size_fit():
    """Six sizes by five token counts, two logged points a run; the largest size held out."""
    n_M, d_M = (x.ravel() for x in np.meshgrid(np.geomspace(1e7, 3e9, 6), np.geomspace(1e9, 1e11, 10), indexing="ij"))
    target_M = loss(n_M, d_M) * np.exp(np.random.default_rng(0).normal(0, 0.01, n_M.size))
    inputs = {"N": n_M, "D": d_M}
    return made(law_named("chinchilla"), TRUTH, inputs, target_M, n_M > 2e9, group_M=np.arange(n_M.size) // 2)


@pytest.fixture(scope="module")
def mixture_fit():
    """Twenty mixtures of three domains."""
    share_Mx3 = np.random.default_rng(2).dirichlet(np.ones(3), 20)
    inputs = dict(zip(DOMAINS, share_Mx3.T, strict=True))
    parameters = {"c": 2.0, "t[p_web]": 0.3, "t[p_code]": -1.5, "t[p_math]": -0.4}
    target_M = 2.0 + np.exp(share_Mx3 @ [0.3, -1.5, -0.4])
    return made(law_named("data-mixing", domains=DOMAINS), parameters, inputs, target_M, np.zeros(20, dtype=bool))


def lines_of(axis, label):
    return [line for line in axis.lines if line.get_label() == label]


def offsets_of(axis, label):
    (found,) = [c for c in axis.collections if c.get_label().startswith(label)]
    return np.ma.getdata(found.get_offsets()), found


def test_curves_are_the_law_and_points_the_data_where_every_input_is_shown(size_fit):
    axis = figures.curves(size_fit, "D", "N").axes[0]
    names = [line.get_label() for line in axis.lines]
    assert names == ["N = 1e+07", "N = 3.13e+07", "N = 9.79e+07", "N = 3.06e+08", "N = 9.59e+08", "N = 3e+09"]
    line = axis.lines[0]
    np.testing.assert_allclose(line.get_ydata(), loss(1e7, line.get_xdata()), rtol=1e-12)
    points = size_fit.points
    at, fitted = offsets_of(axis, "fitted, n = 50")
    np.testing.assert_allclose(at, np.stack([points.inputs["D"], points.target_M], axis=1)[~points.held_M])
    at, held = offsets_of(axis, "held out, n = 10")
    np.testing.assert_allclose(at[:, 1], points.target_M[points.held_M])
    assert len(held.get_facecolors()) == 0
    assert len(fitted.get_facecolors()) == 50
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("D, tokens", "loss, nats/token")
    assert (axis.get_xscale(), axis.get_yscale()) == ("log", "log")


def test_the_band_is_the_interval_of_the_mean_curve_and_the_title_says_so(size_fit):
    figure = figures.curves(size_fit, "D", "N", level=0.8)
    band = figure.axes[0].collections[0].get_paths()[0].vertices
    draws_B = [loss(1e7, 1e9, dict(zip(TRUTH, row, strict=True))) for row in size_fit.draws_BxP]
    start_K = band[np.isclose(band[:, 0], 1e9)][:, 1]
    np.testing.assert_allclose([start_K.min(), start_K.max()], np.quantile(draws_B, [0.1, 0.9]), rtol=1e-9)
    title = figure.get_suptitle().replace("\n", " ")
    assert "n = 50 in 25 groups, 10 held out; band: 80% of the mean curve, 40 draws" in title
    bare = dataclasses.replace(size_fit, draws_BxP=np.zeros((0, 5)))
    assert "no band: the fit has no bootstrap draws" in figures.curves(bare, "D").get_suptitle().replace("\n", " ")


def test_points_are_moved_along_the_law_to_where_the_other_input_stands(size_fit):
    figure = figures.curves(size_fit, "D")
    assert "points moved along the law to N = 9.79e+07" in figure.get_suptitle().replace("\n", " ")
    middle = 1e7 * 300 ** (2 / 5)
    n_M, d_M = size_fit.points.inputs.values()
    moved_M = size_fit.points.target_M * loss(middle, d_M) / loss(n_M, d_M)
    at, _ = offsets_of(figure.axes[0], "fitted")
    np.testing.assert_allclose(at[:, 1], moved_M[~size_fit.points.held_M], rtol=1e-9)


def test_a_floor_is_taken_off_and_points_below_it_are_counted(size_fit):
    low_M = size_fit.points.target_M.copy()
    low_M[:3] = 1.7
    below = dataclasses.replace(size_fit, points=dataclasses.replace(size_fit.points, target_M=low_M))
    figure = figures.curves(below, "D", "N", floor="E")
    line = figure.axes[0].lines[0]
    np.testing.assert_allclose(line.get_ydata(), loss(1e7, line.get_xdata()) - 1.8, rtol=1e-9)
    assert figure.axes[0].get_ylabel() == "loss, nats/token, less E = 1.8"
    assert "3 points lie below E and are not drawn" in figure.get_suptitle().replace("\n", " ")


def test_share_curves_keep_the_other_domains_in_proportion(mixture_fit):
    figure = figures.shares(mixture_fit)
    assert [axis.get_xlabel() for axis in figure.axes] == [f"share of {domain}" for domain in DOMAINS]
    line = figure.axes[1].lines[0]
    share_G = line.get_xdata()
    web, math_ = (mixture_fit.points.inputs[name].mean() for name in ("p_web", "p_math"))
    rest_G = (1 - share_G) / (web + math_)
    np.testing.assert_allclose(
        line.get_ydata(), 2 + np.exp(0.3 * rest_G * web - 1.5 * share_G - 0.4 * rest_G * math_), rtol=1e-9
    )
    assert "other shares in their mean proportions" in figure.get_suptitle().replace("\n", " ")


def test_what_cannot_be_drawn_is_refused_by_name(size_fit, mixture_fit):
    with pytest.raises(ValueError, match="law 'chinchilla' has no input 'S'; its inputs are N, D"):
        figures.curves(size_fit, "S")
    with pytest.raises(ValueError, match="floor: law 'chinchilla' has no parameter 'c'; it has E, A, B"):
        figures.curves(size_fit, "D", floor="c")
    with pytest.raises(ValueError, match="p_web and p_code are shares of one mixture"):
        figures.curves(mixture_fit, "p_web", "p_code")
    with pytest.raises(ValueError, match="law 'chinchilla' has no shares of a mixture"):
        figures.shares(size_fit)
    with pytest.raises(ValueError, match="no profile to draw"):
        profiles(size_fit, [])


def test_colouring_takes_the_widest_other_input_and_no_second_share(size_fit, mixture_fit):
    assert (figures.colouring(size_fit, "D"), figures.colouring(size_fit, "N")) == ("N", "D")
    assert figures.colouring(mixture_fit, "p_web") is None


def test_residuals_are_drawn_against_prediction_and_every_input_and_joined_by_group(size_fit):
    figure = figures.residuals(size_fit)
    assert [axis.get_xlabel() for axis in figure.axes] == ["predicted\nloss, nats/token", "N, parameters", "D, tokens"]
    n_M, d_M = size_fit.points.inputs.values()
    residual_M = np.log(size_fit.points.target_M / loss(n_M, d_M))
    at, _ = offsets_of(figure.axes[2], "fitted")
    np.testing.assert_allclose(at[:, 1], residual_M[~size_fit.points.held_M], rtol=1e-7)
    joined = np.asarray(figure.axes[2].lines[0].get_ydata())
    assert np.isnan(joined).sum() == 29  # between 30 groups of two points
    assert "held out: rmse 0.02" in figure.get_suptitle().replace("\n", " ")


def test_predicted_against_observed_marks_what_was_held_out(size_fit):
    axis = figures.predicted(size_fit).axes[0]
    n_M, d_M = size_fit.points.inputs.values()
    held_M = size_fit.points.held_M
    at, _ = offsets_of(axis, "held out, n = 10")
    np.testing.assert_allclose(at, np.stack([size_fit.points.target_M, loss(n_M, d_M)], axis=1)[held_M], rtol=1e-9)
    (bars,) = axis.containers
    low_K, high_K = size_fit.interval({"N": n_M[held_M], "D": d_M[held_M]})
    ends = np.array([segment[:, 1] for segment in bars.lines[2][0].get_segments()])
    np.testing.assert_allclose(ends, np.stack([low_K, high_K], axis=1), rtol=1e-9)


def test_a_profile_shows_threshold_interval_and_open_end(size_fit):
    grid_K = np.geomspace(0.2, 0.6, 21)
    values_K = 0.1 + np.log(grid_K / 0.35) ** 2
    bounded = Profile(
        "alpha",
        tuple(TRUTH),
        0.35,
        0.1,
        0.14,
        0.95,
        0.35 * math.exp(-0.2),
        0.35 * math.exp(0.2),
        grid_K,
        values_K,
        np.zeros((21, 5)),
    )
    flat = Refusal("flat", "beta is not bounded above", ("beta",))
    unbounded = dataclasses.replace(bounded, quantity="beta", high=math.inf, refusals=(flat,))
    figure = profiles(size_fit, [bounded, unbounded])
    first, second = figure.axes
    np.testing.assert_allclose(first.lines[0].get_ydata(), values_K - 0.1)
    assert first.lines[2].get_ydata()[0] == pytest.approx(0.04)
    assert first.get_title() == "0.35, [0.2866, 0.4275]"
    assert second.get_title() == "0.35, [0.2866, open above]"
    assert second.patches[0].get_corners()[:, 0].max() == pytest.approx(0.6)
    assert "95% profile interval" in figure.get_suptitle()


@pytest.fixture(scope="module")
def budgets():
    """Five budgets of seven sizes around the optimum, and two sizes of a sixth."""
    rows = [(c, size * 0.06 * c**0.5) for c in (1e18, 3e18, 1e19, 3e19, 1e20) for size in np.geomspace(0.25, 4, 7)]
    rows += [(6e20, 1e9), (6e20, 2e9)]
    table = pd.DataFrame(rows, columns=["C", "N"])
    noise = np.exp(np.random.default_rng(0).normal(0, 0.003, len(table)))
    return table.assign(loss=loss(table.N, table.C / 6 / table.N) * noise)


def test_isoflop_parabolas_pass_through_their_minima_and_refused_budgets_have_none(budgets):
    frontier = isoflop_frontier(budgets, bootstrap=100)
    figure = isoflops(budgets, frontier)
    left, right = figure.axes
    minima = [line for line in left.lines if line.get_marker() == "D"]
    parabolas = [line for line in left.lines if len(line.get_xdata()) == 60]
    assert (len(minima), len(parabolas)) == (5, 5)
    for minimum, parabola in zip(minima, parabolas, strict=True):
        assert minimum.get_ydata()[0] == pytest.approx(min(parabola.get_ydata()), rel=1e-3)
    np.testing.assert_allclose(right.lines[0].get_ydata(orig=False), frontier.budgets["N"][:5])
    assert "n = 37 rows, 5 of 6 budgets used, 0 rows unused" in figure.get_suptitle()
    assert f"N* ~ C^{frontier.exponent.value:.3f}, 95% interval" in figure.get_suptitle()
    with pytest.raises(ValueError, match="no budget is left to draw"):
        isoflops(budgets, dataclasses.replace(frontier, budgets=frontier.budgets.assign(refused="why")))


def test_the_contour_has_the_compute_optimal_path_and_isoflop_lines(size_fit):
    figure = contour_figure.contour(size_fit)
    axis = figure.axes[0]
    n_K, d_K = (np.asarray(data) for data in lines_of(axis, axis.lines[-3].get_label())[0].get_data())
    compute_M = 6 * size_fit.points.inputs["N"] * size_fit.points.inputs["D"]
    np.testing.assert_allclose(6 * n_K * d_K, np.geomspace(compute_M.min(), compute_M.max(), 9), rtol=1e-9)
    g = (0.35 * 480 / (0.37 * 2100)) ** (1 / 0.72)
    np.testing.assert_allclose(n_K, g * (n_K * d_K) ** (0.37 / 0.72), rtol=1e-6)
    middle = compute_optimal(size_fit, 6 * n_K[4] * d_K[4]).parameters
    assert axis.lines[-2].get_xdata()[4] == pytest.approx(middle.low)
    dotted = [line for line in axis.lines if line.get_linestyle() == ":"]
    assert len(dotted) == 9
    assert np.ptp(dotted[0].get_xdata() * dotted[0].get_ydata()) < 1e-3 * 1e17
    assert "solid: compute-optimal, dashed: its 95% interval" in figure.get_suptitle().replace("\n", " ")


@pytest.mark.parametrize(
    "draw",
    [
        lambda f: figures.curves(f, "D", "N"),
        figures.residuals,
        figures.predicted,
        contour_figure.contour,
    ],
)
def test_a_figure_gives_the_same_bytes_twice(size_fit, draw):
    assert png(draw(size_fit)) == png(draw(size_fit))
