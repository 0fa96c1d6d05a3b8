"""Learning curves: M1 to M4 on translation and language-model curves (Alabdulmohsin et al. 2022, arXiv 2209.06640), the
broken power law on four-digit addition (Caballero et al. 2022, arXiv 2210.14891).
"""

import time
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.special import huber

from experiments.claims import Verdict
from experiments.published.held_out import Scored, ranking, scored
from experiments.published.row import Row, at_most, close, covered
from scaling import fitting
from scaling.figures.axes import set_log
from scaling.figures.style import ACCENT, GREY, INK, SECOND, panels
from scaling.fitting.evaluate import at_each
from scaling.laws.law import Law
from scaling.laws.learning_curves import BNSL_ADDITION_PUBLISHED, M1, M2, M3, M4, bnsl

_M_FORMS, _BROKEN = "Alabdulmohsin et al. 2022", "Caballero et al. 2022"
_LAWS = (M1, M2, M3, M4, bnsl(1))

EXTRAPOLATION = {
    "6 Enc, 6 Dec": (2.6e-1, 3.9e-2, 8.9e-2, 1.0e-2),
    "28 Enc, 6 Dec": (1.7e-1, 5.6e-2, 3.3e-2, 1.3e-2),
    "6 Enc, 28 Dec": (2.3e-1, 5.3e-2, 1.6e-2, 3.0e-2),
    "Dec-only": (2.5e-1, 3.9e-2, 8.9e-2, 1.0e-2),
    "TEnc-LSTM": (1.9e-1, 1.3e-2, 6.2e-2, 1.2e-2),
    "1.68e+07": (1.5e-2, 6.0e-4, 2.5e-3, 3.1e-4),
    "1.34e+08": (1.6e-2, 1.7e-3, 6.6e-4, 1.9e-3),
    "2.62e+08": (2.3e-2, 1.9e-3, 5.2e-3, 1.8e-3),
    "4.53e+08": (1.7e-2, 7.4e-4, 6.6e-4, 7.5e-4),
    "1.07e+09": (1.7e-2, 1.7e-3, 4.5e-3, 1.3e-3),
}
"""Published extrapolation errors (RMSE of log) of M1 to M4, by the table's name of the model, to two digits."""

_SUSPECT = "published row suspect: its M2 to M4 equal those of the decoder-only model"
_INVERTED = {1: 0.9697419571, 10: 0.8784997980, 100: 0.6716558455, 1e3: 0.4349699076, 1e6: 0.1368978535}


def curves(data: Path) -> dict[tuple[str, str], pd.DataFrame]:
    """Every curve by data set and name, with columns x, loss, training."""
    table = pd.read_csv(data / "revisiting_nmt_lm.csv").rename(columns={"seen_examples": "x"})
    labels = {"NMT": "translation", "LM": "language models"}
    found = {}
    for domain, label in labels.items():
        for model, curve in table[table["domain"] == domain].groupby("model", sort=False):
            found[label, str(model)] = curve
    addition = pd.read_csv(data / "bnsl_addition.csv").rename(columns={"train_examples": "x", "loss_nats": "loss"})
    return {**found, ("addition", "four digits"): addition}


@cache
def _scores(data: Path) -> list[Scored]:
    """Every law on every curve by the default fit."""
    return [
        scored(group, name, law, table, (table["training"] == 0).to_numpy())
        for law in _LAWS
        for (group, name), table in curves(data).items()
    ]


def rows(data: Path) -> list[Row]:
    """Published figures against ours."""
    return [*_published_m1(data), *_default_forms(data), *_addition(data), _inverter()]


def _published_m1(data: Path) -> list[Row]:
    """M1 by the paper's own objective, where it has one optimum."""
    result = []
    for (group, name), table in curves(data).items():
        if group == "addition":
            continue
        held_M = (table["training"] == 0).to_numpy()
        score = scored(group, name, M1, table, held_M, objective=fitting.least_squares("log"))
        published = EXTRAPOLATION[name][0]
        unit = 10 ** np.floor(np.log10(published)) / 10
        result.append(
            _error_row(score, published, close(published, score.error_B[0], 0.55 * unit), "paper's objective")
        )
    return result


def _default_forms(data: Path) -> list[Row]:
    result = []
    for score in _scores(data):
        place = [law.name for law in _LAWS].index(score.fit.law.name)
        if score.curve in EXTRAPOLATION and place < 4:
            published = EXTRAPOLATION[score.curve][place]
            verdict = at_most(published, score.error_B[0], _rounding(published) / published)
            note = _SUSPECT if score.curve == "6 Enc, 6 Dec" and place else ""
            result.append(_error_row(score, published, verdict, "default fit", note))
    return result


def _rounding(published: float) -> float:
    """Half a unit of the second digit, to which the errors are printed."""
    return float(10 ** np.floor(np.log10(published)) / 20) * (1 + 1e-9)


def _error_row(score: Scored, published: float, verdict: Verdict, how: str, note: str = "") -> Row:
    low, high = np.quantile(score.error_B[1:], [0.025, 0.975])
    kinds = sorted({refusal.kind for refusal in score.fit.refusals})
    parts = [note, f"refused: {', '.join(kinds)}" if kinds else ""]
    return Row(
        _M_FORMS,
        f"{score.fit.law.name.upper()}, {score.curve}: RMSE of log loss held out, {how}",
        published,
        float(score.error_B[0]),
        float(low),
        float(high),
        len(score.fit.points.fitted),
        str(score.fit.objective),
        verdict,
        score.seconds,
        "; ".join(part for part in parts if part),
    )


def _at(law: Law, parameters: dict[str, float], x_M: np.ndarray) -> np.ndarray:
    vector_1xP = np.array([[parameters[name] for name in law.parameter_names]])
    return at_each(law, vector_1xP, {"x": np.asarray(x_M, dtype=np.float64)})[0]


def _addition(data: Path) -> list[Row]:
    table, law = curves(data)["addition", "four digits"], bnsl(1)
    began = time.perf_counter()
    error_M = np.log(_at(law, BNSL_ADDITION_PUBLISHED, table["x"].to_numpy()) / table["loss"].to_numpy())
    seconds, train_M = time.perf_counter() - began, (table["training"] == 1).to_numpy()
    result = []
    for part, rows_M, published in (("14 fitted", train_M, 5.985e-4), ("3 held-out", ~train_M, 0.010916)):
        ours, quantity = float(np.sqrt(np.mean(error_M[rows_M] ** 2))), f"RMSE of log loss on the {part} points"
        result.append(
            Row(_BROKEN, f"addition, published constants: {quantity}", published, ours, None, None, int(rows_M.sum()),
                "evaluated", close(published, ours, 1e-6), seconds)
        )  # fmt: skip
    score = next(score for score in _scores(data) if score.data == "addition" and score.fit.law is law)
    objective, n = str(score.fit.objective), int(train_M.sum())
    reached, ours = float(huber(1e-3, error_M[train_M]).sum()), float(score.error_B[0])
    low, high = map(float, np.quantile(score.error_B[1:], [0.025, 0.975]))
    result.append(
        Row(_BROKEN, "addition, one break: objective, default fit", reached, score.fit.value, None, None, n, objective,
            at_most(reached, score.fit.value), score.seconds, "published: ours at the published constants")
    )  # fmt: skip
    result.append(
        Row(_BROKEN, "addition, one break: RMSE of log loss held out, default fit", 0.010916, ours, low, high, n,
            objective, covered(0.010916, low, high), score.seconds, "reproduced: inside the bootstrap interval")
    )  # fmt: skip
    return result


def _inverter() -> Row:
    began = time.perf_counter()
    parameters = {"beta": 5.0, "c": 0.35, "e_inf": 0.1, "e_0": 1.0, "alpha": 0.5}
    worst = float(np.abs(_at(M4, parameters, np.array(list(_INVERTED))) - list(_INVERTED.values())).max())
    return Row(_M_FORMS, "M4 solved for y, largest error of five values", 0.0, worst, None, None, len(_INVERTED),
               "Newton steps", close(0.0, worst, 1e-9), time.perf_counter() - began)  # fmt: skip


def contest(data: Path) -> pd.DataFrame:
    """Laws ranked by held-out error: five translation curves, five of language models, addition."""
    return ranking(_scores(data))


def figures(data: Path) -> dict[str, Figure]:
    """Curves with the default fits of M2, M4 and one break; held-out points hollow."""
    drawn = {"translation": "examples", "language models": "tokens", "addition": "examples"}
    return {group.replace(" ", "_"): _draw(data, group, unit) for group, unit in drawn.items()}


def _draw(data: Path, group: str, unit: str) -> Figure:
    tables = {name: table for (g, name), table in curves(data).items() if g == group}
    figure, axes = panels(len(tables), width=2.6, share_y=False)
    for axis, (name, table) in zip(axes, tables.items(), strict=True):
        grid_K = np.geomspace(table["x"].min(), table["x"].max(), 200)
        for score in _scores(data):
            if score.data == group and score.curve == name and score.fit.law.name in _COLOURS:
                colour = _COLOURS[score.fit.law.name]
                axis.plot(grid_K, score.fit.predict({"x": grid_K}), color=colour, linewidth=1.1, label=score.law)
        train = table["training"] == 1
        axis.plot(table["x"][train], table["loss"][train], ".", color=INK, markersize=4, label="fitted")
        axis.plot(table["x"][~train], table["loss"][~train], "o", color=INK, markerfacecolor="white", markersize=4,
                  label="held out")  # fmt: skip
        for side in ("x", "y"):
            set_log(axis, side)
        axis.tick_params(which="both", labelsize=7)
        axis.set_title(name, fontsize=9)
        axis.set_xlabel(unit, fontsize=8)
    axes[0].set_ylabel("loss", fontsize=8)
    axes[0].legend(fontsize=6.5, frameon=False)
    return figure


_COLOURS = {"m2": GREY, "m4": SECOND, "bnsl": ACCENT}
