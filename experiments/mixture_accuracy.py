"""How well mixture laws predict what they did not see: other mixtures, a larger model, from few mixtures.

Letters: M mixtures, K domains, B draws.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar

from experiments.correlation import correlations
from experiments.mixture_methods import ADDITIVE, JOINT, TREES, Method, fit_regression, fit_term
from experiments.mixture_runs import Settings, loss_columns
from experiments.statistics import Interval
from scaling import fitting
from scaling.fitting import Fit
from scaling.fitting.result import tails
from scaling.laws.additive import mixture_additive, mixture_joint
from scaling.laws.mixing import data_mixing

NESTED = "pipeline of sizes"
SAME_SHARES, MEAN, LINE = "same shares, next smaller size", "mean over mixtures, largest size", "line in log N"
GUESSES = (SAME_SHARES, MEAN)  # by a constant: without a law of size, or of shares
_DRAWS = 2000


def resampled(statistic: Callable[[np.ndarray], np.ndarray], count: int, level: float) -> Interval:
    """A statistic of `count` mixtures and its bootstrap percentile interval over them.

    `statistic`: from mixtures' numbers [B, M], a row a resample, to its values [B].
    """
    pick_BxM = np.random.default_rng(0).integers(count, size=(1 + _DRAWS, count))
    pick_BxM[0] = np.arange(count)
    value_B = statistic(pick_BxM)
    low, high = np.quantile(value_B[1:], tails(level)).tolist()
    return Interval(float(value_B[0]), low, high)


def lattice_means(table: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Mean last losses over seeds of each mixture of the lattice at the smallest width, one row a mixture."""
    rows = table[(table.kind == "lattice") & (table.width == min(settings.widths)) & table["last"]]
    return rows.groupby("mixture")[[*settings.domains, *loss_columns(settings)]].mean().reset_index()


def inside(means: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """The rows whose mixture holds every domain. Laws are tested on these: random mixtures hardly reach the edges."""
    return means[(means[settings.domains] > 0).all(axis=1)].reset_index(drop=True)


def unseen_mixtures(means: pd.DataFrame, methods: Mapping[str, Method], settings: Settings) -> pd.DataFrame:
    """Losses of the lattice as every method predicts them from the random mixtures: mixture, domain, measured, and a
    column a method (nan where it has no answer), nats/token.
    """
    return in_rows(means, {name: method.losses(means) for name, method in methods.items()}, settings)


def in_rows(measured: pd.DataFrame, predicted: Mapping[str, pd.DataFrame], settings: Settings) -> pd.DataFrame:
    """Measured and predicted losses, one row a mixture and domain, a column a method."""
    parts = []
    for domain in settings.domains:
        columns = {name: losses[f"loss_{domain}"].to_numpy() for name, losses in predicted.items()}
        parts.append(measured[["mixture"]].assign(domain=domain, measured=measured[f"loss_{domain}"], **columns))
    return pd.concat(parts, ignore_index=True)


def between_seeds(table: pd.DataFrame, settings: Settings) -> float:
    """Rank correlation of the losses inside the lattice between its first two seeds, mean over domains."""
    rows = table[(table.kind == "lattice") & (table[settings.domains] > 0).all(axis=1) & table["last"]]
    first, second = (rows[rows.seed == seed].set_index("mixture")[loss_columns(settings)].sort_index().T.to_numpy()
                     for seed in settings.lattice_seeds[:2])
    return float(rank_correlation(first, second))


def across_sizes(table: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """The random mixtures at the largest size as RegMix's trees predict them that learned from the lattice at the
    smallest: neither the mixtures nor the size were seen. ExtraError without LightGBM.
    """
    trees = fit_regression(TREES, lattice_means(table, settings).assign(last=True), dict(settings.natural),
                           settings.strengths)
    largest = table[(table.kind == "random") & (table.width == max(settings.widths)) & table["last"]]
    return in_rows(largest, {TREES: trees.losses(largest)}, settings)


def predictors(predictions: pd.DataFrame) -> list[str]:
    """The columns that predict."""
    return [str(name) for name in predictions if name not in ("mixture", "domain", "measured")]


def relative_errors(predictions: pd.DataFrame) -> pd.DataFrame:
    """Mean over domains of |predicted/measured - 1|, one row a mixture, a column a method; nan where one is missing."""
    names = predictors(predictions)
    errors = (predictions[names].div(predictions.measured, axis=0) - 1).abs()
    domains = errors.groupby(predictions.mixture).transform("size")
    return errors.div(domains, axis=0).groupby(predictions.mixture).sum(min_count=predictions.domain.nunique())


def by_domain(predictions: pd.DataFrame, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Measured losses and those that `name` predicts, each [K, M], mixtures in one order."""
    wide = predictions.pivot_table(index="domain", columns="mixture", values=["measured", name])
    return wide["measured"].to_numpy(), wide[name].to_numpy()


def rank_correlation(measured_KxM: np.ndarray, predicted_KxM: np.ndarray) -> np.ndarray:
    """Spearman's correlation over the last axis, mean over the first."""
    return correlations(measured_KxM, predicted_KxM, ranks=True).mean(axis=0)


def explained(measured_KxM: np.ndarray, predicted_KxM: np.ndarray, noise_K: np.ndarray, spent: int) -> np.ndarray:
    """Share of the variance over mixtures (last axis) that is explained, mean over domains, noise taken off:
    1 - (S/(M - spent) - noise^2)/(T/(M - 1) - noise^2), S and T the sums of squares about prediction and mean.

    `noise_K`: standard deviation of a measurement; `spent`: parameters fitted to these M. No noise, 1 spent: R^2.
    """
    count, noise_Kx = measured_KxM.shape[-1], noise_K.reshape(-1, *[1] * (measured_KxM.ndim - 2)) ** 2
    left = ((measured_KxM - predicted_KxM) ** 2).sum(axis=-1) / (count - spent) - noise_Kx
    whole = measured_KxM.var(axis=-1, ddof=1) - noise_Kx
    return (1 - left / whole).mean(axis=0)


def learned_from_few(table: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Error inside the lattice of the mixture term learned from few of the random mixtures, at the smallest width:
    count, subset, error (mean relative, over mixtures and domains). The last row has all of them.
    """
    random = table[(table.kind == "random") & (table.width == min(settings.widths)) & table["last"]]
    measured = inside(lattice_means(table, settings), settings)
    rng = np.random.default_rng(settings.design_seed)
    rows = []
    for count in (*settings.counts, len(random)):
        for subset in range(settings.subsets if count < len(random) else 1):
            chosen = random.iloc[np.sort(rng.permutation(len(random))[:count])]
            predicted = fit_term(chosen, settings.domains, bootstrap=0).losses(measured)
            error = relative_errors(in_rows(measured, {"term": predicted}, settings)).term.mean()
            rows.append({"count": count, "subset": subset, "error": error})
    return pd.DataFrame(rows)


@dataclasses.dataclass(frozen=True, eq=False)
class HeldOutSize:
    """The largest size's last losses: mixture, domain, measured and a column each for laws and guesses; the fits of the
    laws to the smaller sizes, by law and domain.
    """

    predictions: pd.DataFrame
    fits: dict[str, Fit]


def held_out_size(table: pd.DataFrame, settings: Settings) -> HeldOutSize:
    """What the laws, fitted to smaller sizes, and guesses say of each random mixture at the largest size."""
    random = table[table.kind == "random"]
    last = random[random["last"]].groupby("seed").filter(lambda part: part.N.nunique() == random.N.nunique())
    by_size = [part.sort_values("seed").reset_index(drop=True) for _, part in last.groupby("N")]
    smaller, largest = random[random.N < random.N.max()], by_size[-1]
    predicted, fits = dict(_guesses(by_size, settings)), {}
    for name, family in ((ADDITIVE, mixture_additive), (JOINT, mixture_joint)):
        columns = {}
        for domain in settings.domains:
            fit = fitting.fit(family(settings.domains), smaller, target=f"loss_{domain}", stratum="N", bootstrap=0)
            columns[f"loss_{domain}"] = fit.predict(largest)
            fits[f"{name}, {domain}, largest size held out"] = fit
        predicted[name] = pd.DataFrame(columns)
    predicted[NESTED] = _nested(by_size, settings)
    return HeldOutSize(in_rows(largest, predicted, settings), fits)


def _guesses(by_size: list[pd.DataFrame], settings: Settings) -> dict[str, pd.DataFrame]:
    """Without a law over mixtures. The mean at the largest size is given: no guess from smaller ones could know it."""
    before, below, largest = (part[loss_columns(settings)] for part in by_size[-3:])
    log_N = [float(np.log(part.N.iloc[0])) for part in by_size[-3:]]
    step = (log_N[2] - log_N[1]) / (log_N[1] - log_N[0])
    mean = pd.DataFrame([largest.mean()] * len(largest), index=largest.index)
    return {SAME_SHARES: below, MEAN: mean, LINE: below + step * (below - before)}


def _nested(by_size: list[pd.DataFrame], settings: Settings) -> pd.DataFrame:
    """Ye et al.'s pipeline without its first stage, as all runs have one length: each mixture's loss at the largest
    size by E + A/N^alpha, alpha shared, then the exponential law through these.
    """
    size_S, largest = np.array([part.N.iloc[0] for part in by_size]), by_size[-1]
    columns = {}
    for domain in settings.domains:
        target = f"loss_{domain}"
        reached_M = next_size(size_S, np.stack([part[target].to_numpy() for part in by_size[:-1]]))
        through = largest.assign(**{target: reached_M})
        law = fitting.fit(data_mixing(settings.domains), through, target=target, bootstrap=0)
        columns[target] = law.predict(largest)
    return pd.DataFrame(columns)


def next_size(size_S: np.ndarray, loss_SxM: np.ndarray) -> np.ndarray:
    """Each mixture's loss at the last of the sizes by E_m + A_m/N^alpha through the others, [M].

    Least squares; for a given alpha E_m and A_m are linear, so that alpha alone is searched, in (0.01, 3). Ye et al.
    take Huber's loss instead.
    """
    def terms(alpha: float) -> np.ndarray:
        return np.stack([np.ones_like(size_S), (size_S / size_S[0]) ** -alpha], axis=1)

    def solved(alpha: float) -> tuple[np.ndarray, float]:
        seen_Sx2 = terms(alpha)[:-1]
        coefficient_2xM = np.linalg.lstsq(seen_Sx2, loss_SxM, rcond=None)[0]
        return coefficient_2xM, float(((loss_SxM - seen_Sx2 @ coefficient_2xM) ** 2).sum())

    alpha = float(minimize_scalar(lambda alpha: solved(alpha)[1], bounds=(0.01, 3.0), method="bounded").x)
    return terms(alpha)[-1] @ solved(alpha)[0]
