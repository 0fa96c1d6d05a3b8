"""Size and data: the Chinchilla law (Hoffmann et al. 2022, arXiv 2203.15556) on the points read off its figure
(Besiroglu et al. 2024, arXiv 2404.10102), and the isoFLOP curves among them.

Letters: M points, B draws with the estimate in front, P parameters.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats
from scipy.special import huber

from experiments.published.held_out import Scored, ranking, scored
from experiments.published.row import Row, at_most, close, covered
from scaling import fitting
from scaling.figures.contour import contour
from scaling.figures.style import ACCENT, INK, panels, ramp
from scaling.fitting import Decision, Fit
from scaling.fitting.compute_optimal import compute_optimal
from scaling.fitting.isoflop import Frontier, isoflop_frontier
from scaling.laws.kaplan import KAPLAN_SIZE_DATA
from scaling.laws.repetition import CHINCHILLA_TIED
from scaling.laws.size import CHINCHILLA, CHINCHILLA_GAMMA, CHINCHILLA_PUBLISHED, EPOCH_PUBLISHED

BUDGETS = (6e18, 1e19, 3e19, 6e19, 1e20, 3e20, 6e20, 1e21, 3e21)
GOPHER = 5.76e23  # FLOPs of the budget that Chinchilla was sized for
CHINCHILLA_ROUNDED = {"E": 1.69, "A": 406.4, "B": 410.7, "alpha": 0.34, "beta": 0.28}
EPOCH_NOTEBOOK = {"E": 1.81686, "A": 482.006, "B": 2085.434, "alpha": 0.34781, "beta": 0.36585}
EPOCH_INTERVALS = {
    "E": (1.769, 1.871),
    "A": (285.0, 744.0),
    "B": (1042.0, 5810.0),
    "alpha": (0.317, 0.373),
    "beta": (0.331, 0.415),
}

_HOFFMANN, _EPOCH = "Hoffmann et al. 2022", "Besiroglu et al. 2024"
_WITHIN = 0.12  # of a budget: the points were read off a figure
_HELD = 20  # runs that a contest holds out
_DRAWS = 1000


@dataclass(frozen=True)
class _Refits:
    """The default fit to the 240 points and to all 245, the frontier, and the seconds of each by name."""

    fit: Fit
    every: Fit
    frontier: Frontier
    seconds: dict[str, float]


def points(data: Path) -> pd.DataFrame:
    """All 245 points with columns N, D, C, loss and whether the replication used them."""
    names = {"N_params": "N", "D_tokens": "D", "C_flops": "C", "loss_nats": "loss"}
    return pd.read_csv(data / "chinchilla_epoch.csv").rename(columns=names)


def used(data: Path) -> pd.DataFrame:
    """The 240 points of the replication."""
    table = points(data)
    return table[table["used_in_epoch_fit"] == 1].reset_index(drop=True)


@cache
def _refits(data: Path) -> _Refits:
    began = [time.perf_counter()]
    fit = fitting.fit(CHINCHILLA, used(data), group=None, bootstrap=_DRAWS)
    began.append(time.perf_counter())
    every = fitting.fit(CHINCHILLA, points(data), group=None, bootstrap=_DRAWS)
    began.append(time.perf_counter())
    frontier = isoflop_frontier(used(data), budgets=BUDGETS, within=_WITHIN)
    began.append(time.perf_counter())
    return _Refits(fit, every, frontier, dict(zip(("fit", "every", "frontier"), np.diff(began), strict=True)))


def objective(parameters: Mapping[str, float], table: pd.DataFrame) -> float:
    """Summed Huber(0.001) of log residuals at given constants, in plain numpy."""
    p = parameters
    predicted_M = p["E"] + p["A"] / table["N"] ** p["alpha"] + p["B"] / table["D"] ** p["beta"]
    return float(huber(1e-3, np.log(predicted_M / table["loss"])).sum())


def rows(data: Path) -> list[Row]:
    """Published figures against ours."""
    return [*_objectives(data), *_parameters(data), *_outliers(data), *_optimum(data), *_exponents(data)]


def _objectives(data: Path) -> list[Row]:
    table, found = used(data), _refits(data)
    published = 0.00101827403
    result = [
        Row(_EPOCH, "objective of the parametric fit, 240 points", published, found.fit.value, None, None, len(table),
            str(found.fit.objective), at_most(published, found.fit.value), found.seconds["fit"],
            f"{found.fit.agreement:.0%} of the starts agree")
    ]  # fmt: skip
    for name, constants, value, note in (
        ("the replication's constants, its notebook's digits", EPOCH_NOTEBOOK, 0.0010186, ""),
        ("the replication's constants, as printed", EPOCH_PUBLISHED, 0.0010186, "rounded as printed"),
        ("Hoffmann's constants, all digits", CHINCHILLA_PUBLISHED, 0.00123116, ""),
        ("Hoffmann's constants, rounded", CHINCHILLA_ROUNDED, 0.00412101, "rounded as printed"),
    ):
        began = time.perf_counter()
        ours = objective(constants, table)
        result.append(
            Row(_EPOCH, f"objective at {name}", value, ours, None, None, len(table), "evaluated",
                close(value, ours, 1e-3 * value), time.perf_counter() - began, note)
        )  # fmt: skip
    return result


def _parameters(data: Path) -> list[Row]:
    found = _refits(data)
    fit, n, seconds = found.fit, len(found.fit.points), found.seconds["fit"]
    intervals, said = fit.parameter_interval(), f"{fit.objective}; bootstrap, {_DRAWS} draws"
    result = []
    for source, constants in ((_EPOCH, EPOCH_PUBLISHED), (_HOFFMANN, CHINCHILLA_PUBLISHED)):
        for name, published in constants.items():
            low, high = intervals[name]
            note = "" if source == _EPOCH else "all digits; the original fit stopped early"
            result.append(Row(source, name, published, fit.parameters[name], low, high, n, said,
                              covered(published, low, high), seconds, note))  # fmt: skip
    for name, (low, high) in EPOCH_INTERVALS.items():
        published, ours = high - low, intervals[name][1] - intervals[name][0]
        result.append(Row(_EPOCH, f"width of the 95% interval of {name}", published, ours, None, None, n, said,
                          close(published, ours, 0.25 * published), seconds, "tolerance 25%"))  # fmt: skip
    distance = wald(fit, CHINCHILLA_PUBLISHED)
    p = float(stats.chi2.sf(distance, len(fit.parameters)))
    result.append(Row(_EPOCH, "Wald distance of Hoffmann's constants, chi2 on 5", 238.4, distance, None, None, n, said,
                      close(238.4, distance, 0.25 * 238.4), seconds,
                      f"p = {p:.1g} (published 1.7e-49); in logs of E, A, B; tolerance 25%"))  # fmt: skip
    return result


def wald(fit: Fit, constants: Mapping[str, float]) -> float:
    """(theta - theta0)' S^-1 (theta - theta0), theta with E, A, B in logs, S the draws' covariance."""
    logged_P = np.array([name in ("E", "A", "B") for name in fit.law.parameter_names])

    def to_theta(values: np.ndarray) -> np.ndarray:
        return np.where(logged_P, np.log(values), values)

    there_P = np.array([constants[name] for name in fit.law.parameter_names])
    gap_P = to_theta(there_P) - to_theta(np.array(list(fit.parameters.values())))
    return float(gap_P @ np.linalg.solve(np.cov(to_theta(fit.draws_BxP).T), gap_P))


def _outliers(data: Path) -> list[Row]:
    found = _refits(data)
    every, fit, n = found.every, found.fit, len(found.every.points)
    low, high = every.parameter_interval()["beta"]
    ratio, shift = every.parameters["B"] / fit.parameters["B"], every.parameters["beta"] - fit.parameters["beta"]
    said, seconds = str(every.objective), found.seconds["every"]
    note = f"published: the table's own check. With all: {_values(every)}; beta [{low:.3g}, {high:.3g}]"
    return [
        Row(_EPOCH, "B on all 245 points over B on 240", 6.0, ratio, None, None, n, said, close(6.0, ratio, 0.5),
            seconds, note),
        Row(_EPOCH, "beta on all 245 points less beta on 240", 0.09, shift, None, None, n, said,
            close(0.09, shift, 0.01), seconds, "as above; Huber residuals do not protect from points of high leverage"),
    ]  # fmt: skip


def _values(fit: Fit) -> str:
    return ", ".join(f"{name} = {value:.4g}" for name, value in fit.parameters.items())


def _optimum(data: Path) -> list[Row]:
    found, began = _refits(data), time.perf_counter()
    closed = compute_optimal(replace(found.fit, parameters=dict(EPOCH_PUBLISHED)), GOPHER)
    seconds = time.perf_counter() - began
    result = []
    for name, published, decision in (
        ("parameters", 72.25e9, closed.parameters),
        ("tokens", 1.3287e12, closed.tokens),
        ("loss", 1.97444, closed.loss),
    ):
        result.append(Row(_EPOCH, f"optimal {name} at 5.76e23 FLOPs, the replication's constants", published,
                          decision.value, None, None, 1, "closed form", close(published, decision.value,
                          1e-4 * published), seconds))  # fmt: skip
    ours = compute_optimal(found.fit, GOPHER)
    for source, name, published, decision in (
        (_HOFFMANN, "parameters of Chinchilla for 5.76e23 FLOPs", 70e9, ours.parameters),
        (_HOFFMANN, "tokens of Chinchilla for 5.76e23 FLOPs", 1.4e12, ours.tokens),
        (_EPOCH, "tokens per parameter at 5.76e23 FLOPs", 20.0, ours.tokens_per_parameter),
    ):
        result.append(_decided(source, name, published, decision, found.fit, found.seconds["fit"]))
    return result


def _decided(source: str, quantity: str, published: float, decision: Decision, fit: Fit, seconds: float) -> Row:
    return Row(source, quantity, published, decision.value, decision.low, decision.high, len(fit.points),
               f"{fit.objective}; compute-optimal, interval from {_DRAWS} draws",
               covered(published, decision.low, decision.high), seconds, str(decision.refusal or ""))  # fmt: skip


def _exponents(data: Path) -> list[Row]:
    found = _refits(data)
    law = compute_optimal(found.fit, GOPHER).exponent
    parabolas, budgets = found.frontier.exponent, found.frontier.budgets
    rows_used = int(budgets["rows"][budgets["refused"] == ""].sum())
    said = "least squares of log loss, parabola a budget; log-log line through the vertices"
    note = f"{rows_used} of {rows_used + found.frontier.unused} points lie within {_WITHIN:.0%} of nine budgets"
    size = found.frontier.size(GOPHER, reach=1e3)
    both = f"the parametric fit gives {compute_optimal(found.fit, GOPHER).parameters.value:.3g}"
    return [
        _decided(_EPOCH, "exponent of the optimal size, parametric fit", 0.513, law, found.fit, found.seconds["fit"]),
        _decided(_HOFFMANN, "exponent of the optimal size, approach 3", 0.46, law, found.fit, found.seconds["fit"]),
        Row(_HOFFMANN, "exponent of the optimal size, approach 2", 0.49, parabolas.value, parabolas.low, parabolas.high,
            rows_used, said, covered(0.49, parabolas.low, parabolas.high), found.seconds["frontier"],
            f"{note}; published 80% interval 0.462 to 0.534"),
        Row("ours", "optimal parameters at 5.76e23 FLOPs, approach 2", None, size.value, size.low, size.high,
            rows_used, said, None, found.seconds["frontier"], both),
    ]  # fmt: skip


@cache
def _scores(data: Path) -> list[Scored]:
    table = used(data)
    return [
        scored(f"Chinchilla points, {name}", "all", law, table, _largest(scale))
        for name, scale in {"most compute": table["C"], "largest models": table["N"]}.items()
        for law in (CHINCHILLA, CHINCHILLA_TIED, CHINCHILLA_GAMMA, KAPLAN_SIZE_DATA)
    ]


def _largest(scale_M: pd.Series) -> np.ndarray:
    return (scale_M.rank(ascending=False, method="first") <= _HELD).to_numpy()


def contest(data: Path) -> pd.DataFrame:
    """Laws fitted to all but the 20 runs of most compute, or the 20 largest, ranked by their error on these."""
    return ranking(_scores(data))


def figures(data: Path) -> dict[str, Figure]:
    """Loss over size and tokens with the optimal path; isoFLOP parabolas and the line through their vertices."""
    return {"contours": contour(_refits(data).fit), "isoflop": _draw_parabolas(data)}


def _draw_parabolas(data: Path) -> Figure:
    table, frontier = used(data), _refits(data).frontier
    figure, (left, right) = panels(2, width=4.2, height=3.6, share_y=False)
    budgets = frontier.budgets
    for budget, colour in zip(budgets.to_dict("records"), ramp(budgets["C"].to_numpy()), strict=True):
        near = table[np.abs(np.log(table["C"] / budget["C"])) <= math.log1p(_WITHIN)]
        z_K = np.linspace(math.log(near["N"].min()), math.log(near["N"].max()), 60)
        curve_K = np.exp(budget["c0"] + budget["c1"] * z_K + budget["c2"] * z_K**2)
        left.plot(near["N"], near["loss"], "o", color=colour, markersize=3)
        left.plot(np.exp(z_K), curve_K, color=colour, linewidth=1.1, label=f"{budget['C']:.0e}")
        left.plot(budget["N"], budget["loss"], "x", color=ACCENT, markersize=5)
        spread = [[budget["N"] - budget["N_low"]], [budget["N_high"] - budget["N"]]]
        right.errorbar(budget["C"], budget["N"], yerr=spread, fmt="o", color=INK, markersize=3.5, linewidth=0.9)
    compute_K = np.geomspace(budgets["C"].min(), GOPHER, 60)
    sizes = [frontier.size(c, reach=1e3) for c in compute_K]
    right.plot(compute_K, [size.value for size in sizes], color=ACCENT, linewidth=1.3)
    right.fill_between(compute_K, [s.low for s in sizes], [s.high for s in sizes], color=ACCENT, alpha=0.15)
    left.legend(fontsize=6, frameon=False, title="FLOPs", title_fontsize=7)
    for axis, x, y in ((left, "parameters", "loss, nats/token"), (right, "FLOPs", "optimal parameters, 95%")):
        axis.set_xscale("log")
        axis.set_xlabel(x, fontsize=8)
        axis.set_ylabel(y, fontsize=8)
    right.set_yscale("log")
    exponent = frontier.exponent
    right.set_title(f"a = {exponent.value:.3f} [{exponent.low:.3f}, {exponent.high:.3f}]", fontsize=9)
    return figure
