"""What papers say of mixture laws, held against our runs."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import stats

from experiments import mixture_accuracy as accuracy
from experiments.claims import Claim, verdict
from experiments.mixture_methods import ADDITIVE, EXPONENTIAL, JOINT, LINEAR, LIU, SHUKOR, TREES, YE, Method
from experiments.mixture_runs import Settings
from experiments.statistics import Interval, mean_interval, t_interval

CHEN = "Chen et al. 2024, arXiv 2411.05735"
_FIDELITY = 0.991  # mean R^2 of the log-linear static law, Chen et al.
ERROR = 0.013  # mean relative error of the additive law on language models, Shukor et al. (1.21% to 1.30%)
_RANKS = 0.97  # rank correlation of RegMix, Liu et al. (98.45% at one size, 97.12% from 1M to 1B)
_COVERAGE = 0.8  # least share of tables in which an interval at 95% should hold the truth to be of use


def at_most(statement: str, source: str, words: str, found: Interval, most: float, n: int) -> Claim:
    """A claim that a number lies below a bound."""
    return Claim(statement, source, words, *found, n, verdict(-found.high, -found.low, -most))


def at_least(statement: str, source: str, words: str, found: Interval, least: float, n: int) -> Claim:
    """A claim that a number lies above a bound."""
    return Claim(statement, source, words, *found, n, verdict(found.low, found.high, least))


def regret_claims(compared: pd.DataFrame, sources: Mapping[str, str], settings: Settings) -> list[Claim]:
    """Regret and gain over natural shares of every method, mean over targets, by seed.

    `compared`: target, name, seed, regret, gain; methods and seeds that lack a target are left out.
    """
    claims = []
    for name, rows in compared[compared.name.isin(sources)].groupby("name", sort=False):
        by_seed = rows.groupby("seed")[["regret", "gain"]].agg(["mean", "size"])
        whole = by_seed[by_seed[("regret", "size")] == len(settings.targets)]
        if whole.empty:
            continue
        regret, gain = (t_interval(whole[(column, "mean")].to_numpy(), settings.level) for column in ("regret", "gain"))
        where = f"over {len(settings.targets)} targets, width {min(settings.widths)}"
        claims.append(at_most(
            f"The mixture of the {name} loses less than {settings.tolerance:g} nats/token to the best of the lattice",
            sources[str(name)], f"regret {_signed(regret)} nats/token {where}", regret, settings.tolerance, len(whole)))
        claims.append(at_least(
            f"The mixture of the {name} beats natural shares", sources[str(name)],
            f"gain {_signed(gain)} nats/token {where}", gain, 0.0, len(whole)))
    return claims


def _signed(found: Interval) -> str:
    return f"{found.value:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"


def _percent(found: Interval) -> str:
    return f"{found.value:.2%} [{found.low:.2%}, {found.high:.2%}]"


def _plain(found: Interval) -> str:
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def fidelity(
    table: pd.DataFrame, methods: Mapping[str, Method], unseen: pd.DataFrame, noise: pd.DataFrame, settings: Settings
) -> Claim:
    """Variance that the exponential law explains on the runs it was fitted to, as the paper has it, and on others."""
    rows = table[(table.kind == "random") & (table.width == min(settings.widths)) & table["last"]]
    rows = rows.reset_index(drop=True)
    seen = accuracy.by_domain(
        accuracy.in_rows(rows, {EXPONENTIAL: methods[EXPONENTIAL].losses(rows)}, settings), EXPONENTIAL)
    noise_K = noise.sort_values("width")[settings.domains].iloc[0].to_numpy(dtype=np.float64)
    spent, count = len(settings.domains) + 1, seen[0].shape[1]
    found = accuracy.resampled(
        lambda pick_BxM: accuracy.explained(seen[0][:, pick_BxM], seen[1][:, pick_BxM], noise_K, spent), count,
        settings.level)
    plain = float(accuracy.explained(*seen, np.zeros_like(noise_K), 1))
    of_means = noise_K / len(settings.lattice_seeds) ** 0.5
    beyond = float(accuracy.explained(*accuracy.by_domain(unseen, EXPONENTIAL), of_means, 0))
    words = (f"{_plain(found)} of what the seeds' noise leaves, mean over domains (with the noise, R^2 = {plain:.3f}); "
             f"{beyond:.3f} on {unseen.mixture.nunique()} unseen mixtures")
    return at_least(f"The exponential law explains {_FIDELITY:.1%} of the variance of losses over mixtures", CHEN,
                    words, found, _FIDELITY, count)


def rank_claims(
    unseen: pd.DataFrame, at_largest: pd.DataFrame | None, between_seeds: float, settings: Settings
) -> list[Claim]:
    """RegMix: ranks of mixtures it did not see, at its own size and at the largest, and against least squares.

    `at_largest`: the random mixtures at the largest size as trees predict them that learned from the lattice at the
    smallest; None without LightGBM, as is then every claim here. `between_seeds`: rank correlation of the measured
    losses themselves between two seeds.
    """
    if at_largest is None:
        return []
    count, far_count, level = unseen.mixture.nunique(), at_largest.mixture.nunique(), settings.level

    def ranks(predictions: pd.DataFrame, name: str, pick_BxM: np.ndarray) -> np.ndarray:
        measured_KxM, predicted_KxM = accuracy.by_domain(predictions, name)
        return accuracy.rank_correlation(measured_KxM[:, pick_BxM], predicted_KxM[:, pick_BxM])

    own = accuracy.resampled(functools.partial(ranks, unseen, TREES), count, level)
    far = accuracy.resampled(functools.partial(ranks, at_largest, TREES), far_count, level)
    ahead = accuracy.resampled(
        lambda pick_BxM: ranks(unseen, TREES, pick_BxM) - ranks(unseen, LINEAR, pick_BxM), count, level)
    said = f"RegMix's trees rank unseen mixtures with a correlation of {_RANKS:g} or more"
    return [
        at_least(f"{said}, at the size they learned from", LIU,
                 f"Spearman, mean over domains, {_plain(own)}, from {settings.mixtures} runs; between two seeds of the "
                 f"measurement {between_seeds:.3f}", own, _RANKS, count),
        at_least(f"{said}, at the largest size", LIU,
                 f"Spearman, mean over domains, {_plain(far)}, from {count} mixtures at width {min(settings.widths)} "
                 f"to width {max(settings.widths)}", far, _RANKS, far_count),
        at_least("RegMix's trees rank unseen mixtures better than least squares", LIU,
                 f"Spearman {_plain(own)}, ahead by {_signed(ahead)}, from {settings.mixtures} runs", ahead, 0.0,
                 count),
    ]


def few_claim(few: pd.DataFrame, settings: Settings) -> Claim:
    """Shukor et al.: about 10 mixtures suffice for 3 to 4 domains. Read as: the error is then the published one."""
    chosen, whole = few[few["count"] == settings.few], few[few["count"] == few["count"].max()]
    found = mean_interval(chosen.error.to_numpy(), settings.level)
    words = (f"mean relative error {_percent(found)} over random subsets; {float(whole.error.iloc[0]):.2%} from all "
             f"{int(whole['count'].iloc[0])}")
    return at_most(f"{settings.few} mixtures suffice: the mixture term errs by less than {ERROR:.1%} on unseen ones",
                   SHUKOR, words, found, ERROR, len(chosen))


def size_claims(errors: pd.DataFrame, settings: Settings) -> list[Claim]:
    """Laws against the better of the constant guesses at the largest size, and against the published error.

    `errors`: mean relative error over domains, one row a mixture.
    """
    guess = min(accuracy.GUESSES, key=lambda name: errors[name].mean())
    width, count = max(settings.widths), len(errors)
    claims = []
    for law, source in ((ADDITIVE, SHUKOR), (JOINT, SHUKOR), (accuracy.NESTED, YE)):
        gain = mean_interval((errors[guess] - errors[law]).to_numpy(), settings.level)
        line = mean_interval((errors[accuracy.LINE] - errors[law]).to_numpy(), settings.level)
        words = (f"error {errors[law].mean():.2%} against {errors[guess].mean():.2%} at width {width}, gain "
                 f"{_percent(gain)}; over a line in log N, mixture by mixture ({errors[accuracy.LINE].mean():.2%}), "
                 f"{_percent(line)}")
        claims.append(at_least(f"The {law} predicts the losses of a larger model better than a constant guess "
                               f"({guess})", source, words, gain, 0.0, count))
    additive = mean_interval(errors[ADDITIVE].to_numpy(), settings.level)
    claims.append(at_most(f"The additive law errs by less than {ERROR:.1%} at a larger size", SHUKOR,
                          f"mean relative error {_percent(additive)} at width {width}", additive, ERROR, count))
    return claims


def known_claims(known: pd.DataFrame, settings: Settings) -> list[Claim]:
    """Tables made from a law: how often its own fit holds the known best mixture, Clopper and Pearson's interval."""
    claims = []
    own = known[known.truth == known.law]
    for law, rows in own.groupby("law", sort=False):
        count, hits = len(rows), int(rows.inside.sum())
        exact = stats.binomtest(hits, count).proportion_ci(settings.level, method="exact")
        found = Interval(hits / count, float(exact.low), float(exact.high))
        claims.append(at_least(
            f"Of tables made from the {law}, its interval holds the known best mixture in {_COVERAGE:.0%} or more",
            "our construction", f"{hits} of {count} tables, {_percent(found)}; mean regret {rows.regret.mean():.4f} "
            "nats/token", found, _COVERAGE, count))
    return claims
