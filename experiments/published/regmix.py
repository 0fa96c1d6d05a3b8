"""RegMix (Liu et al. 2024, arXiv 2407.01492): its regression from mixture to loss, and laws on the same split.

512 mixtures of 17 Pile domains at 1M parameters are fitted; 256 others at 1M and 60M and 64 at 1B are predicted. The
regressor is LightGBM, of the extra `regmix`; without it, its rows say so.

Letters: M rows, K domains, B draws.
"""

import math
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from experiments.published.mixture_scale import ranked
from experiments.published.row import Row, close, covered
from scaling import fitting
from scaling.figures.style import GREY, INK, panels
from scaling.fitting.comparison import compare
from scaling.fitting.mixture_optimum import best_mixture
from scaling.laws.additive import mixture_term
from scaling.laws.law import Law
from scaling.laws.mixing import data_mixing

_SOURCE = "Liu et al. 2024"
SPEARMAN = {
    "arxiv": 99.6,
    "freelaw": 99.71,
    "pubmed_central": 99.08,
    "wikipedia_en": 99.45,
    "dm_mathematics": 97.2,
    "github": 99.77,
    "stackexchange": 99.73,
    "gutenberg_pg_19": 99.18,
    "pile_cc": 98.92,
    "ubuntu_irc": 96.87,
    "hackernews": 98.51,
    "pubmed_abstracts": 99.19,
    "uspto_backgrounds": 99.12,
}
"""Published rank correlations in percent, LightGBM on the 1M test mixtures, by domain of the loss."""

_TARGET, _SHARE = "pile_cc", "w_pile_cc"
_PILE_CC = {"LightGBM": {"1B": 97.12}, "linear": {"1M": 90.08, "1B": 88.0}}
_OPTIMAL_SHARE = 0.8909
_SIZES = ("1M", "60M", "1B")


class ExtraError(ImportError):
    """A library of an optional extra is absent; the message names the extra."""


class Split(NamedTuple):
    """The mixtures to fit, and those to predict by model size."""

    train: pd.DataFrame
    test: dict[str, pd.DataFrame]
    domains: list[str]


class Predicted(NamedTuple):
    """What a method predicts for each size's test mixtures, and the seconds of its fit."""

    by_size: dict[str, np.ndarray]
    how: str
    seconds: float


@cache
def split(data: Path) -> Split:
    """The published split."""
    table = pd.read_csv(data / "regmix.csv")
    test = table[table["split"] == "test"]
    domains = [str(name) for name in table if str(name).startswith("w_")]
    by_size = {size: test[test["model_size"] == size].reset_index(drop=True) for size in _SIZES}
    return Split(table[table["split"] == "train"].reset_index(drop=True), by_size, domains)


def light_gbm(parts: Split, target: str) -> Predicted:
    """Boosted trees as the authors run them: 1000 rounds at rate 0.01, stopped early on the 1M test mixtures.

    ExtraError without LightGBM.
    """
    try:
        import lightgbm
    except ImportError as error:
        raise ExtraError("lightgbm is absent: install the extra with pip install '.[regmix]'") from error
    began, loss = time.perf_counter(), f"loss_{target}"
    settings = {
        "objective": "regression",
        "metric": ["l1", "l2"],
        "learning_rate": 0.01,
        "seed": 42,
        "verbosity": -1,
        "num_threads": 1,
    }
    train = lightgbm.Dataset(parts.train[parts.domains].to_numpy(), parts.train[loss].to_numpy())
    stop = parts.test["1M"]
    seen = lightgbm.Dataset(stop[parts.domains].to_numpy(), stop[loss].to_numpy(), reference=train)
    early = lightgbm.early_stopping(3, verbose=False)
    model = lightgbm.train(settings, train, 1000, valid_sets=[seen], callbacks=[early])
    by_size = {size: np.asarray(model.predict(table[parts.domains].to_numpy())) for size, table in parts.test.items()}
    return Predicted(by_size, "LightGBM, stopped on the test set", time.perf_counter() - began)


def linear(parts: Split, target: str) -> Predicted:
    """Least squares with a constant."""
    began = time.perf_counter()

    def columns_of(table: pd.DataFrame) -> np.ndarray:
        return np.column_stack([np.ones(len(table)), table[parts.domains].to_numpy()])

    weights = np.linalg.lstsq(columns_of(parts.train), parts.train[f"loss_{target}"].to_numpy(), rcond=None)[0]
    by_size = {size: columns_of(table) @ weights for size, table in parts.test.items()}
    return Predicted(by_size, "least squares", time.perf_counter() - began)


def of_law(law: Law) -> Callable[[Split, str], Predicted]:
    """A law by its default fit."""

    def predicted(parts: Split, target: str) -> Predicted:
        began = time.perf_counter()
        fit = fitting.fit(law, parts.train, target=f"loss_{target}", group=None, bootstrap=0)
        by_size = {size: fit.predict(table) for size, table in parts.test.items()}
        return Predicted(by_size, str(fit.objective), time.perf_counter() - began)

    return predicted


@cache
def _methods(data: Path) -> dict[str, Callable[[Split, str], Predicted]]:
    domains = split(data).domains
    laws = (data_mixing(domains), mixture_term(domains))
    return {"LightGBM": light_gbm, "linear": linear, **{law.name: of_law(law) for law in laws}}


@cache
def _predicted(data: Path, method: str, target: str) -> Predicted:
    return _methods(data)[method](split(data), target)


def rows(data: Path) -> list[Row]:
    """Published figures against ours."""
    result = []
    for method in _methods(data):
        try:
            result += _of_method(data, method)
        except ExtraError as error:
            result += [_not_run(method, target, str(error)) for target in SPEARMAN]
    return [*result, _best_share(data)]


def _not_run(method: str, target: str, why: str) -> Row:
    quantity = _correlation(method, target, "1M")
    return Row(
        _SOURCE, quantity, SPEARMAN[target], math.nan, None, None, 0, "none", "inconclusive", 0.0, f"not run: {why}"
    )


def _correlation(method: str, target: str, size: str) -> str:
    return f"Spearman x 100, {method}, loss on {target}, {size} test"


def _of_method(data: Path, method: str) -> list[Row]:
    """Rank correlation on every domain at 1M; on Pile-CC also at the other sizes, with the errors and the regret."""
    targets = [_TARGET] if method == "linear" else list(SPEARMAN)
    result = [_rank_row(data, method, target, "1M") for target in targets]
    result += [_rank_row(data, method, _TARGET, size) for size in _SIZES[1:]]
    return [*result, *_error_rows(data, method)]


def _rank_row(data: Path, method: str, target: str, size: str) -> Row:
    found, table = _predicted(data, method, target), split(data).test[size]
    ours, low, high = _spearman(found.by_size[size], table[f"loss_{target}"].to_numpy())
    rest = len(table), found.how
    quantity = _correlation(method, target, size)
    rival = SPEARMAN[target] if size == "1M" else _PILE_CC["LightGBM"].get(size)
    published = rival if method == "LightGBM" else _PILE_CC.get(method, {}).get(size)
    if published is None:
        note = f"LightGBM's published figure is {rival}" if rival else ""
        return Row(_SOURCE, quantity, None, ours, low, high, *rest, None, found.seconds, note)
    exact = method == "LightGBM" and size == "1M"
    verdict = close(published, ours, 0.006) if exact else covered(published, low, high)
    return Row(_SOURCE, quantity, published, ours, low, high, *rest, verdict, found.seconds)


def _spearman(predicted_M: np.ndarray, observed_M: np.ndarray) -> tuple[float, float, float]:
    """In percent, with a 95% interval over resampled mixtures."""
    rng, count = np.random.default_rng(0), len(observed_M)
    pick_BxM = rng.integers(count, size=(200, count))
    drawn_B = [stats.spearmanr(predicted_M[pick_M], observed_M[pick_M]).statistic for pick_M in pick_BxM]
    low, high = 100 * np.quantile(drawn_B, [0.025, 0.975])
    return 100 * float(stats.spearmanr(predicted_M, observed_M).statistic), float(low), float(high)


def _error_rows(data: Path, method: str) -> list[Row]:
    """Pile-CC: mean relative error at 1M, and at each size the loss of the mixture chosen less the least loss."""
    found, tests = _predicted(data, method, _TARGET), split(data).test

    def row(quantity: str, ours: float, size: str, note: str) -> Row:
        full, count = f"{quantity}, {method}, loss on {_TARGET}, {size} test", len(tests[size])
        return Row(_SOURCE, full, None, ours, None, None, count, found.how, None, found.seconds, note)

    observed_M = tests["1M"][f"loss_{_TARGET}"].to_numpy()
    relative = float(np.mean(np.abs(found.by_size["1M"] / observed_M - 1)))
    result = [row("mean relative error", relative, "1M", "")]
    for size, table in tests.items():
        loss_M = table[f"loss_{_TARGET}"].to_numpy()
        regret = float(loss_M[np.argmin(found.by_size[size])] - loss_M.min())
        result.append(
            row("regret of the mixture chosen, nats", regret, size, f"spread of the losses {loss_M.std():.3f}")
        )
    return result


def _best_share(data: Path) -> Row:
    """Pile-CC's share in the mixture that is best for the Pile-CC loss, over the whole simplex."""
    began, parts = time.perf_counter(), split(data)
    law = mixture_term(parts.domains)
    fit = fitting.fit(law, parts.train, target=f"loss_{_TARGET}", group=None, bootstrap=64)
    found = best_mixture({_TARGET: fit}, {_TARGET: 1.0}).shares[_SHARE]
    seconds = time.perf_counter() - began
    note = f"{law.name}, whole simplex; theirs averages the best 128 of 100,000 drawn; {found.refusal or 'no refusal'}"
    verdict = covered(_OPTIMAL_SHARE, found.low, found.high)
    quantity = "Pile-CC share of the mixture best for Pile-CC"
    value, low, high, count, how = found.value, found.low, found.high, len(parts.train), str(fit.objective)
    return Row(_SOURCE, quantity, _OPTIMAL_SHARE, value, low, high, count, how, verdict, seconds, note)


def contest(data: Path) -> pd.DataFrame:
    """The parametric laws, and LightGBM where it is there, ranked by their error on the 1M test mixtures."""
    parts = split(data)
    table = pd.concat([parts.train, parts.test["1M"]], ignore_index=True)
    held_M, target = np.arange(len(table)) >= len(parts.train), f"loss_{_TARGET}"
    laws = (data_mixing(parts.domains), mixture_term(parts.domains))
    found = compare(laws, table, holdout=held_M, target=target, group=None, bootstrap=64)
    frame = ranked("RegMix, loss on Pile-CC, 1M test mixtures", found)
    others = [method for method in ("linear", "LightGBM") if method == "linear" or _has_light_gbm()]
    for method in others:
        predicted_M = _predicted(data, method, _TARGET).by_size["1M"]
        error = float(np.sqrt(np.mean(np.log(predicted_M / parts.test["1M"][target]) ** 2)))
        best = {"data": frame["data"][0], "held_out": int(held_M.sum()), "runs": int(held_M.sum())}
        row = {"law": method, "error": error, "behind": error - frame["error"].min(), **best}
        frame = pd.concat([frame, pd.DataFrame([row])], ignore_index=True)
    return frame.sort_values("error")


def _has_light_gbm() -> bool:
    try:
        import lightgbm  # noqa: F401
    except ImportError:
        return False
    return True


def figures(data: Path) -> dict[str, Figure]:
    """Predicted against observed Pile-CC loss at 1M."""
    methods = [method for method in _methods(data) if method != "LightGBM" or _has_light_gbm()]
    figure, axes = panels(len(methods), width=2.5, height=2.6)
    observed_M = split(data).test["1M"][f"loss_{_TARGET}"].to_numpy()
    for axis, method in zip(axes, methods, strict=True):
        span = [observed_M.min(), observed_M.max()]
        axis.plot(span, span, color=GREY, linewidth=1)
        axis.plot(observed_M, _predicted(data, method, _TARGET).by_size["1M"], "o", markersize=2, color=INK)
        axis.set_title(method, fontsize=9)
        axis.set_xlabel("observed, nats/token")
    axes[0].set_ylabel("predicted, nats/token")
    return {"pile_cc": figure}
