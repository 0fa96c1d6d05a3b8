"""Step Law: the best learning rate and batch from two grids of runs (Li et al. 2025, arXiv 2503.04715).

Letters: G settings (N, D), each a grid of rates and batches; R resamples of settings.
"""

import time
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.claims import Verdict
from experiments.published.held_out import ranking
from experiments.published.row import Row, close, covered
from experiments.published.schedules import by_group
from scaling import fitting
from scaling.figures.axes import set_log
from scaling.figures.style import ACCENT, GREY, INK, panels
from scaling.fitting import Fit
from scaling.laws.law import Law
from scaling.laws.learning_rate import DEEPSEEK_LR, STEP_LAW, STEP_LAW_BATCH, STEP_LAW_PUBLISHED

_LI = "Li et al. 2025"
WITHIN = 0.0025  # of the lowest smoothed loss of a setting: the paper's selection
_DIGIT = {"c": 0.01, "a": 0.001, "b": 0.001}


@cache
def dense(data: Path) -> pd.DataFrame:
    """The dense runs: N, D, C = 6*N*D, lr, batch (tokens), loss, setting."""
    table = pd.read_csv(data / "steplaw_dense.csv").rename(columns={"N_params": "N"})
    return _named(table, table["N"].map("{:.3g}".format) + " x " + table["D_tokens"].map("{:.3g}".format))


@cache
def experts(data: Path, counted: str) -> pd.DataFrame:
    """The mixture-of-experts runs, with N the column `counted`, "N_total_params" or "N_active_params"."""
    table = pd.read_csv(data / "steplaw_moe.csv").rename(columns={counted: "N"})
    return _named(table, table["moe_name"] + " x " + table["D_tokens"].map("{:.3g}".format))


def _named(table: pd.DataFrame, setting: pd.Series) -> pd.DataFrame:
    names = {"D_tokens": "D", "bs_tokens": "batch", "loss_smooth": "loss"}
    table = table.rename(columns=names).assign(setting=setting)
    return table.assign(C=6.0 * table["N"] * table["D"])


def selected(table: pd.DataFrame, within: float = WITHIN) -> pd.DataFrame:
    """Runs whose smoothed loss is within a share of the lowest of their setting."""
    best = table.groupby("setting")["loss"].transform("min")
    return table[table["loss"] <= best * (1 + within)]


def step_law_fit(law: Law, table: pd.DataFrame, target: str, **settings: object) -> Fit:
    """The paper's procedure: least squares of the log target over the selected runs; settings (N, D) resampled.

    The law is a power in each input, so this is ordinary least squares in logs. The paper does not say what its
    bootstrap resamples.
    """
    objective = fitting.least_squares("log")
    return fitting.fit(
        law, selected(table), target=target, group="setting", objective=objective, **settings  # type: ignore[arg-type]
    )  # fmt: skip


def regret(table: pd.DataFrame, rate_M: np.ndarray, batch_M: np.ndarray) -> pd.Series:
    """By setting: excess loss of the grid point nearest a law in (log lr, log batch) over the best, a share."""
    away_M = np.log(table["lr"] / rate_M) ** 2 + np.log(table["batch"] / batch_M) ** 2
    nearest = table.loc[away_M.groupby(table["setting"]).idxmin()].set_index("setting")["loss"]
    return nearest / table.groupby("setting")["loss"].min() - 1


def published_regret(table: pd.DataFrame) -> pd.Series:
    """Regret of the published law."""
    rate, batch = STEP_LAW_PUBLISHED["step-law"], STEP_LAW_PUBLISHED["step-law-batch"]
    return regret(
        table,
        (rate["c"] * table["N"] ** -rate["a"] * table["D"] ** rate["b"]).to_numpy(),
        (batch["c"] * table["D"] ** batch["b"]).to_numpy(),
    )


def _interval(value_G: np.ndarray) -> tuple[float, float]:
    """95% percentile interval of a mean over settings, the settings resampled."""
    pick_RxG = np.random.default_rng(0).integers(len(value_G), size=(2000, len(value_G)))
    low, high = np.quantile(np.asarray(value_G)[pick_RxG].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


@cache
def _fits(data: Path) -> dict[str, tuple[Fit, float]]:
    found = {}
    for law, target in ((STEP_LAW, "lr"), (STEP_LAW_BATCH, "batch")):
        began = time.perf_counter()
        fit = step_law_fit(law, dense(data), target)
        found[law.name] = fit, time.perf_counter() - began
    return found


def rows(data: Path) -> list[Row]:
    """Published figures against ours."""
    return [*_released(data), *_refitted(data), *_regrets(data)]


def _released(data: Path) -> list[Row]:
    """The released bootstrap coefficients, means and percentiles."""
    began = time.perf_counter()
    draws = pd.read_csv(data / "steplaw_fit.csv")
    columns = {
        "step-law": {"c": np.exp(draws["lr_intercept"]), "a": -draws["lr_coefN"], "b": draws["lr_coefD"]},
        "step-law-batch": {"c": np.exp(draws["bs_intercept"]), "b": draws["bs_coefD"]},
    }
    result = []
    for law, parameters in columns.items():
        for name, value_B in parameters.items():
            published = STEP_LAW_PUBLISHED[law][name]
            ours = float(np.exp(np.log(value_B).mean()) if name == "c" else value_B.mean())
            low, high = np.quantile(value_B, [0.025, 0.975])
            result.append(Row(_LI, f"{law}: {name}, mean of the released bootstrap", published, ours, float(low),
                              float(high), len(draws), "mean (of the log for c)",
                              close(published, ours, _DIGIT[name]), time.perf_counter() - began))  # fmt: skip
    return result


def _refitted(data: Path) -> list[Row]:
    result = []
    for law, (fit, seconds) in _fits(data).items():
        for name, (low, high) in fit.parameter_interval().items():
            published = STEP_LAW_PUBLISHED[law][name]
            result.append(Row(_LI, f"{law}: {name}, refitted to runs within 0.25% of the best", published,
                              fit.parameters[name], low, high, len(fit.points), str(fit.objective),
                              covered(published, low, high), seconds, _kinds(fit)))  # fmt: skip
    return result


def _kinds(fit: Fit) -> str:
    kinds = sorted({refusal.kind for refusal in fit.refusals})
    return f"refused: {', '.join(kinds)}" if kinds else ""


def _regrets(data: Path) -> list[Row]:
    """Regret in percent: of the published law on dense and MoE runs, and of our refit."""
    began = time.perf_counter()
    table = dense(data)
    cases = {"published law, dense": published_regret(table)}
    for counted in ("total", "active"):
        moe = experts(data, f"N_{counted}_params")
        cases[f"published law, mixtures of experts, N {counted}"] = published_regret(moe)
    rate, batch = (fit.predict(table) for fit, _ in _fits(data).values())
    cases["refitted law, dense"] = regret(table, rate, batch)
    result = []
    for name, regret_G in cases.items():
        percent_G = 100 * regret_G.to_numpy()
        low, high = _interval(percent_G)
        published = 0.09 if name == "published law, dense" else None
        mean = float(percent_G.mean())
        verdict = close(published, mean, 0.01) if published else _negligible(low, high)
        note = f"largest {percent_G.max():.2f}%"
        note += "" if published else "; reproduced: the interval lies below 0.25%, what the paper calls optimal"
        result.append(Row(_LI, f"{name}: mean regret, %", published, mean, low, high, len(percent_G),
                          "nearest grid point", verdict, time.perf_counter() - began, note))  # fmt: skip
    return result


def _negligible(low: float, high: float) -> Verdict:
    if high < 100 * WITHIN:
        return "reproduced"
    return "not reproduced" if low > 100 * WITHIN else "inconclusive"


def contest(data: Path) -> pd.DataFrame:
    """Laws of the best rate ranked by RMSE of its logarithm at the largest size, which no fit saw."""
    scores = []
    for law in (STEP_LAW, DEEPSEEK_LR):
        began = time.perf_counter()
        fit = step_law_fit(law, dense(data), "lr", bootstrap=0, holdout=fitting.largest("N"))
        scores += by_group("best rate, largest N", law.name, fit, time.perf_counter() - began)
    return ranking(scores)


def figures(data: Path) -> dict[str, Figure]:
    """Regret of the published law by setting; rates of the selected runs against it."""
    return {"regret": _regret_figure(data), "best_rates": _rates_figure(data)}


def _regret_figure(data: Path) -> Figure:
    cases = {"dense": dense(data), "mixtures of experts, N total": experts(data, "N_total_params")}
    figure, axes = panels(len(cases), width=4.4, share_y=False)
    for axis, (name, table) in zip(axes, cases.items(), strict=True):
        percent = (100 * published_regret(table)).sort_values()
        axis.barh(range(len(percent)), percent, color=ACCENT)
        axis.set_yticks(range(len(percent)), percent.index, fontsize=6)
        axis.axvline(100 * WITHIN, color=GREY, linewidth=0.8)
        axis.set_xlabel("regret of the published law, %", fontsize=8)
        axis.set_title(name, fontsize=9)
    return figure


def _rates_figure(data: Path) -> Figure:
    best = selected(dense(data))
    figure, axes = panels(1, width=4.0)
    law = STEP_LAW_PUBLISHED["step-law"]
    axes[0].plot(law["c"] * best["N"] ** -law["a"] * best["D"] ** law["b"], best["lr"], ".", color=INK, markersize=4)
    ends = np.array([best["lr"].min(), best["lr"].max()])
    axes[0].plot(ends, ends, color=GREY, linewidth=0.8)
    for side in ("x", "y"):
        set_log(axes[0], side)
    axes[0].set_xlabel("published law", fontsize=8)
    axes[0].set_ylabel("rates of runs within 0.25% of the best", fontsize=8)
    return figure
