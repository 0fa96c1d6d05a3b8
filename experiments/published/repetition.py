"""Repeated data: the data-constrained law on its published runs (Muennighoff et al. 2023, arXiv 2305.16264)."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.optimize import minimize_scalar
from scipy.special import huber

from experiments.published.held_out import Scored, ranking, scored
from experiments.published.row import Row, at_most, close, covered
from scaling import fitting
from scaling.figures.style import ACCENT, GREY, INK, SECOND, panels
from scaling.fitting import Fit
from scaling.fitting.evaluate import at_each
from scaling.fitting.profile import Profile, profile
from scaling.laws.derived import with_fixed
from scaling.laws.law import Law
from scaling.laws.repetition import CHINCHILLA_TIED, DATA_CONSTRAINED
from scaling.laws.repetition import DATA_CONSTRAINED_PUBLISHED as PUBLISHED
from scaling.laws.size import CHINCHILLA

_SOURCE = "Muennighoff et al. 2023"
_BASE = ("E", "A", "B", "alpha")
_DECAY = ("Q_D", "Q_N")
_HELD = 20  # runs that a contest holds out


@dataclass(frozen=True)
class _Refits:
    """Fits and profiles, and the seconds of each by name."""

    decay: Fit
    everything: Fit
    base: Fit
    profiles: dict[str, Profile]
    seconds: dict[str, float]


def runs(data: Path) -> pd.DataFrame:
    """Runs of the C4 table with columns N, D, U, loss, epochs and which were in the published fit."""
    names = {"N_params": "N", "D_tokens": "D", "U_unique_tokens": "U", "val_loss_c4": "loss"}
    return pd.read_csv(data / "datablations_c4.csv").rename(columns=names)


def _published_runs(data: Path) -> pd.DataFrame:
    table = runs(data)
    return table[table["in_published_fit"] == 1].reset_index(drop=True)


@cache
def _refits(data: Path) -> _Refits:
    table = runs(data)
    repeated, single = _published_runs(data), table[table["epochs"] == 1]
    held = with_fixed(DATA_CONSTRAINED, {name: PUBLISHED[name] for name in _BASE})
    fits, seconds = {}, {}
    for name, law, rows_ in (
        ("decay", held, repeated),
        ("everything", DATA_CONSTRAINED, repeated),
        ("base", CHINCHILLA_TIED, single),
    ):
        began = time.perf_counter()
        fits[name] = fitting.fit(law, rows_, group=None)
        seconds[name] = time.perf_counter() - began
    profiles = {}
    for name in _DECAY:
        began = time.perf_counter()
        profiles[name] = profile(fits["decay"], name)
        seconds[name] = time.perf_counter() - began
    return _Refits(fits["decay"], fits["everything"], fits["base"], profiles, seconds)


def _at(law: Law, parameters: Mapping[str, float], inputs: Mapping[str, np.ndarray] | pd.DataFrame) -> np.ndarray:
    vector_1xP = np.array([[parameters[name] for name in law.parameter_names]])
    return at_each(law, vector_1xP, law.read_inputs(inputs))[0]


def _explained(prediction_M: np.ndarray, loss_M: np.ndarray) -> float:
    return 1 - float(np.sum((prediction_M - loss_M) ** 2) / np.sum((loss_M - loss_M.mean()) ** 2))


def rows(data: Path) -> list[Row]:
    """Published figures of the law against ours."""
    return [*_at_published_constants(data), *_optimum(), *_refitted(data), *_base(data)]


def _at_published_constants(data: Path) -> list[Row]:
    table, began = _published_runs(data), time.perf_counter()
    loss_M = table["loss"].to_numpy()
    decayed_M, fresh_M = _at(DATA_CONSTRAINED, PUBLISHED, table), _at(CHINCHILLA_TIED, PUBLISHED, table)
    figures = [
        ("objective at the published constants", 0.0158259, float(huber(1e-3, np.log(decayed_M / loss_M)).sum()), 5e-8),
        ("R2 at the published constants", 0.7722, _explained(decayed_M, loss_M), 5e-5),
        ("R2 where every token counts as new", 0.4452, _explained(fresh_M, loss_M), 5e-5),
    ]
    for n, d, published in ((6.34e9, 242e9, 2.2256440889984477), (8.67e9, 178e9, 2.2269634075087867)):
        point = {"N": np.array([n]), "D": np.array([d]), "U": np.array([25e9])}
        ours = float(_at(DATA_CONSTRAINED, PUBLISHED, point)[0])
        figures.append((f"loss at {n / 1e9:g}B parameters, {d / 1e9:g}B tokens, 25B unique", published, ours, 1e-12))
    seconds = time.perf_counter() - began
    return [
        Row(_SOURCE, quantity, published, ours, None, None, len(table) if "loss at" not in quantity else 1,
            "evaluated; objective: Huber(0.001) on log loss, summed", close(published, ours, tolerance), seconds)
        for quantity, published, ours, tolerance in figures
    ]  # fmt: skip


def _optimum() -> list[Row]:
    compute, unique, began = 1e22, 25e9, time.perf_counter()

    def loss(log_tokens: float) -> float:
        tokens = np.exp([log_tokens])
        point = {"N": compute / 6 / tokens, "D": tokens, "U": np.array([unique])}
        return float(_at(DATA_CONSTRAINED, PUBLISHED, point)[0])

    best = minimize_scalar(loss, bounds=(math.log(1e10), math.log(1e13)), options={"xatol": 1e-9})
    tokens, seconds = math.exp(best.x), time.perf_counter() - began
    figures = (
        ("tokens", 237.3e9, tokens, 0.15e9),
        ("epochs", 9.49, tokens / unique, 0.006),
        ("parameters", 7.02e9, compute / 6 / tokens, 0.0075e9),
    )
    note = "the minimum is flat: tolerance one and a half units of the last printed digit"
    return [
        Row(_SOURCE, f"optimal {name} for 1e22 FLOPs and 25B unique tokens", published, ours, None, None, 1,
            "least loss at C = 6*N*D", close(published, ours, tolerance), seconds, note)
        for name, published, ours, tolerance in figures
    ]  # fmt: skip


def _refitted(data: Path) -> list[Row]:
    found = _refits(data)
    n = len(found.decay.points)
    objective = str(found.decay.objective)
    result = [
        Row(_SOURCE, "objective, Q_D and Q_N fitted", 0.0158259, found.decay.value, None, None, n, objective,
            at_most(0.0158259, found.decay.value), found.seconds["decay"],
            "the published point is a local optimum; ours " + _values(found.decay)),
        Row(_SOURCE, "objective, all six parameters fitted", 0.0158259, found.everything.value, None, None, n,
            objective, at_most(0.0158259, found.everything.value), found.seconds["everything"],
            "the single-epoch constants held in the paper's second stage do not suit these runs: "
            + _values(found.everything)),
    ]  # fmt: skip
    for name in _DECAY:
        curve, published = found.profiles[name], PUBLISHED[name]
        verdict = covered(published, curve.low, curve.high, widest=published)
        result.append(
            Row(_SOURCE, f"{name} (written R*)", published, curve.estimate, curve.low, curve.high, n,
                f"{objective}; 95% profile interval", verdict, found.seconds[name], _in_words(curve))
        )  # fmt: skip
    return result


def _values(fit: Fit) -> str:
    return ", ".join(f"{name} = {value:.4g}" for name, value in fit.parameters.items())


def _in_words(curve: Profile) -> str:
    if math.isinf(curve.high):
        inside = curve.values_K[(curve.grid_K >= 12) & (curve.grid_K <= 1000)]
        rise = np.nanmax(inside) / curve.value - 1
        return (
            f"not identified from above: from 12 to 1000 repeats the objective rises by at most {rise:.2%} over its"
            " minimum"
        )
    return (
        f"between {curve.low:.3g} and {curve.high:.3g} repeats: known within a factor of {curve.high / curve.low:.0f}"
    )


def _base(data: Path) -> list[Row]:
    fit, seconds = _refits(data).base, _refits(data).seconds["base"]
    intervals = fit.parameter_interval()
    note = f"published from 54 single-epoch runs; the table has {len(fit.points)} that it marks as such"
    return [
        Row(_SOURCE, f"{name} of the single-epoch runs, one exponent", PUBLISHED[name], fit.parameters[name],
            *intervals[name], len(fit.points), f"{fit.objective}; bootstrap by run",
            covered(PUBLISHED[name], *intervals[name]), seconds, note)
        for name in _BASE
    ]  # fmt: skip


@cache
def _scores(data: Path) -> list[Scored]:
    table = _published_runs(data)
    scales = {"most compute": table["N"] * table["D"], "most epochs": table["epochs"]}
    return [
        scored(f"repeated C4, {name}", "all", law, table, _largest(scale))
        for name, scale in scales.items()
        for law in (DATA_CONSTRAINED, CHINCHILLA_TIED, CHINCHILLA)
    ]


def _largest(scale_M: pd.Series) -> np.ndarray:
    return (scale_M.rank(ascending=False, method="first") <= _HELD).to_numpy()


def contest(data: Path) -> pd.DataFrame:
    """Laws fitted to all but the 20 runs of most compute, or of most epochs, ranked by their error on these."""
    return ranking(_scores(data))


def figures(data: Path) -> dict[str, Figure]:
    """Profiles of both scales of repetition; loss against epochs with the law."""
    return {"profiles": _draw_profiles(data), "epochs": _draw_epochs(data)}


def _draw_profiles(data: Path) -> Figure:
    found = _refits(data)
    figure, axes = panels(2, width=3.6)
    for axis, name in zip(axes, _DECAY, strict=True):
        curve = found.profiles[name]
        near = curve.values_K <= curve.value + 3 * (curve.threshold - curve.value)
        axis.plot(curve.grid_K[near], 1e3 * curve.values_K[near], color=SECOND, linewidth=1.3)
        axis.axhline(1e3 * curve.threshold, color=GREY, linestyle="--", linewidth=0.9, label="95% threshold")
        axis.axvline(PUBLISHED[name], color=ACCENT, linewidth=1.0, label="published")
        axis.plot(curve.estimate, 1e3 * curve.value, "o", color=INK, markersize=4, label="optimum")
        axis.set_xscale("log")
        axis.set_xlabel(f"{name}, repeats", fontsize=8)
    axes[0].set_ylabel("objective / 0.001", fontsize=8)
    axes[0].legend(fontsize=7, frameon=False)
    return figure


def _draw_epochs(data: Path) -> Figure:
    table, everything = _published_runs(data), _refits(data).everything
    largest = table.groupby(["N", "U"])["epochs"].agg(["size", "max"]).sort_values(["size", "max"]).index[-3:]
    figure, axes = panels(len(largest))
    for axis, (n, u) in zip(axes, largest, strict=True):
        rows_ = table[(table["N"] == n) & (table["U"] == u)].sort_values("epochs")
        grid_K = np.geomspace(rows_["epochs"].min(), rows_["epochs"].max(), 100)
        path = {"N": np.full(100, n), "D": grid_K * u, "U": np.full(100, u)}
        axis.plot(rows_["epochs"], rows_["loss"], "o", color=INK, markersize=3.5, label="runs")
        axis.plot(grid_K, _at(DATA_CONSTRAINED, PUBLISHED, path), color=ACCENT, linewidth=1.2, label="published")
        axis.plot(grid_K, everything.predict(path), color=SECOND, linewidth=1.2, label="all six refitted")
        axis.set_xscale("log")
        axis.set_title(f"{n / 1e6:,.0f}M parameters, {u / 1e9:.3g}B unique", fontsize=9)
        axis.set_xlabel("epochs", fontsize=8)
    axes[0].set_ylabel("loss, nats/token", fontsize=8)
    axes[0].legend(fontsize=7, frameon=False)
    return figure
