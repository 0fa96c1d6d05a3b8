"""Study: which mixture of domains is best, and whether mixture laws find it from runs at random mixtures.

Random mixtures are trained at every size, a lattice of the simplex at the smallest. The laws and RegMix's regressions
see the random ones alone; each names a best mixture, which is trained at new seeds beside the best of the lattice
(trained again: its own low losses chose it), equal shares and the corpora's natural shares.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from experiments import mixture_accuracy as accuracy
from experiments import mixture_claims as claims
from experiments.claims import Claim
from experiments.mixture_design import Shares, random_mixtures, rounded
from experiments.mixture_methods import (
    ADDITIVE,
    JOINT,
    LINEAR,
    TREES,
    Method,
    fit_bimix,
    fit_exponential,
    fit_regression,
    fit_sized,
    weighted,
)
from experiments.mixture_runs import Settings, label, runs_table, seed_noise, settings_of, shares_of
from experiments.published.regmix import ExtraError
from experiments.simulated_mixtures import OWN, WRONG, find_known
from experiments.statistics import Interval, paired_interval
from scaling.fields import ConfigError
from scaling.fitting import Decision
from scaling.store import Store

PERCENT = 100  # best mixtures are trained to the nearest percent
_SAME = 0.02  # a mixture that was trained stands for one whose shares differ by no more
BEST_FOUND, EQUAL, NATURAL = "best of the lattice", "equal shares", "natural shares"


@dataclasses.dataclass(frozen=True, eq=False)
class Compared:
    """A mixture trained in the end for one target. `regret`: its loss less that of the best of the lattice; `gain`: the
    loss at natural shares less its own. Both by seed and, with an interval over seeds, on average, nats/token.

    `best` holds the shares as a method gives them, None for a mixture that no method named; `shares` those trained.
    """

    target: str
    name: str
    best: dict[str, Decision] | None
    shares: Shares
    loss: float
    by_seed: pd.DataFrame  # seed, regret, gain
    regret: Interval
    gain: Interval


@dataclasses.dataclass(frozen=True, eq=False)
class Findings:
    """All that the study concludes."""

    settings: Settings
    table: pd.DataFrame
    methods: dict[str, Method]
    compared: list[Compared]
    unseen: pd.DataFrame  # mixtures of the lattice that hold every domain
    everywhere: pd.DataFrame  # all mixtures of the lattice
    few: pd.DataFrame
    sizes: accuracy.HeldOutSize
    known: pd.DataFrame
    noise: pd.DataFrame
    claims: list[Claim]
    not_identified: list[str]


def fit_methods(table: pd.DataFrame, settings: Settings) -> tuple[dict[str, Method], list[str]]:
    """Every method, learned from the random mixtures alone, and why one is left out."""
    random = table[table.kind == "random"]
    smallest, domains = random[random.width == min(settings.widths)], settings.domains
    methods: list[Method] = [
        fit_exponential(smallest, domains, settings.bootstrap),
        *(fit_sized(name, random, domains, settings.bootstrap) for name in (ADDITIVE, JOINT)),
        fit_bimix(smallest, domains, settings.bootstrap)]
    absent = []
    for name in (LINEAR, TREES):
        try:
            methods.append(fit_regression(name, smallest, dict(settings.natural), settings.strengths))
        except ExtraError as error:
            absent.append(f"{name}: not run, {error}")
    return {method.name: method for method in methods}, absent


def fixed_mixtures(table: pd.DataFrame, settings: Settings, target: str) -> dict[str, Shares]:
    """The mixtures that no method names: the lattice's lowest mean loss over its seeds, equal, natural shares."""
    losses, domains = accuracy.lattice_means(table, settings), settings.domains
    best = losses.iloc[int(np.argmin(weighted(losses, settings.weights(target))))]
    equal = {domain: 1 / len(domains) for domain in domains}
    return {BEST_FOUND: shares_of(best, settings), EQUAL: equal, NATURAL: dict(settings.natural)}


def named_mixtures(methods: Mapping[str, Method], settings: Settings, target: str) -> dict[str, dict[str, Decision]]:
    """The best mixture for a target by each method that has one."""
    found = {name: method.best(settings.weights(target), settings.level) for name, method in methods.items()}
    return {name: best for name, best in found.items() if np.isfinite([d.value for d in best.values()]).all()}


def compared_mixtures(store: Store, settings: Settings) -> list[Shares]:
    """What is to be trained in the end: for each target the fixed mixtures, and every method's best one."""
    table = runs_table(store, settings)
    methods, _ = fit_methods(table, settings)
    wanted: list[Shares] = []
    for target, _ in settings.targets:
        wanted += fixed_mixtures(table, settings, target).values()
        wanted += [rounded(_values(best), PERCENT) for best in named_mixtures(methods, settings, target).values()]
    return list({label(shares): shares for shares in wanted}.values())


def _values(best: Mapping[str, Decision]) -> Shares:
    return {domain: decision.value for domain, decision in best.items()}


def compare_mixtures(
    table: pd.DataFrame, methods: Mapping[str, Method], settings: Settings
) -> tuple[list[Compared], list[str]]:
    """Every mixture of `compared_mixtures`, target by target, and notes on those without runs.

    ConfigError where the best of the lattice or natural shares lack runs.
    """
    rows = table[(table.kind == "compared") & table["last"]]
    found, notes = [], []
    for target, _ in settings.targets:
        losses = rows.assign(loss=weighted(rows, settings.weights(target))).pivot_table(
            index="seed", columns="mixture", values="loss")
        fixed, named = fixed_mixtures(table, settings, target), named_mixtures(methods, settings, target)
        trained = {name: _nearest(rows, shares, settings)
                   for name, shares in {**fixed, **{name: _values(best) for name, best in named.items()}}.items()}
        best, natural = trained[BEST_FOUND], trained[NATURAL]
        if best is None or natural is None:
            raise ConfigError(f"store: expected runs of the best of the lattice and of natural shares with the seeds "
                              f"{settings.seeds}; run the sweep to its end, its last round included")
        for name, shares in trained.items():
            if shares is None:
                notes.append(f"{name}, target {target}: its mixture was not trained; run the sweep again")
                continue
            found.append(_compared(target, name, named.get(name), shares, losses[label(shares)], losses[label(best)],
                                   losses[label(natural)], settings.level))
    return found, notes


def _compared(
    target: str, name: str, best: dict[str, Decision] | None, shares: Shares, own: pd.Series, least: pd.Series,
    natural: pd.Series, level: float,
) -> Compared:
    by_seed = pd.DataFrame({"own": own, "least": least, "natural": natural}).dropna()
    return Compared(
        target, name, best, shares, float(by_seed.own.mean()),
        pd.DataFrame({"regret": by_seed.own - by_seed.least, "gain": by_seed.natural - by_seed.own}).reset_index(),
        paired_interval(by_seed.own.to_numpy(), by_seed.least.to_numpy(), level),
        paired_interval(by_seed.natural.to_numpy(), by_seed.own.to_numpy(), level))


def _nearest(rows: pd.DataFrame, shares: Shares, settings: Settings) -> Shares | None:
    """The trained mixture nearest to one that is asked for; None where even that is another one."""
    if not len(rows):
        return None
    wanted_K = np.array([shares[domain] for domain in settings.domains])
    distance_M = np.abs(rows[settings.domains].to_numpy() - wanted_K).max(axis=1)
    nearest = int(np.argmin(distance_M))
    return shares_of(rows.iloc[nearest], settings) if distance_M[nearest] <= _SAME else None


def analyse(store: Store, study: Mapping[str, Any]) -> Findings:
    """Fit every method, compare their mixtures, test the papers' claims."""
    settings = settings_of(study)
    table = runs_table(store, settings)
    methods, absent = fit_methods(table, settings)
    compared, untrained = compare_mixtures(table, methods, settings)
    means = accuracy.lattice_means(table, settings)
    unseen, everywhere = (accuracy.unseen_mixtures(rows, methods, settings)
                          for rows in (accuracy.inside(means, settings), means))
    few = accuracy.learned_from_few(table, settings)
    sizes, noise = accuracy.held_out_size(table, settings), seed_noise(table, settings)
    drawn = random_mixtures(dict(settings.natural), settings.mixtures, settings.strengths, settings.design_seed)
    spread = _relative_noise(noise, unseen)
    known = pd.concat([find_known(pairs, drawn, spread, draws, settings.bootstrap, settings.level)
                       for pairs, draws in ((OWN, settings.known_draws), (WRONG, max(1, settings.known_draws // 4)))])
    at_largest = accuracy.across_sizes(table, settings) if TREES in methods else None
    by_seed = pd.concat([one.by_seed.assign(target=one.target, name=one.name) for one in compared])
    tested = [
        *claims.regret_claims(by_seed, {method.name: method.source for method in methods.values()}, settings),
        claims.fidelity(table, methods, unseen, noise, settings),
        *claims.rank_claims(unseen, at_largest, accuracy.between_seeds(table, settings), settings),
        claims.few_claim(few, settings),
        *claims.size_claims(accuracy.relative_errors(sizes.predictions), settings),
        *claims.known_claims(known, settings)]
    return Findings(settings, table, methods, compared, unseen, everywhere, few, sizes, known, noise, tested,
                    [*absent, *untrained, *_not_identified(methods, compared, sizes, settings)])


def _relative_noise(noise: pd.DataFrame, unseen: pd.DataFrame) -> float:
    """Noise of a run at the smallest width over the mean loss, mean over domains."""
    mean = unseen.groupby("domain").measured.mean()
    return float((noise.sort_values("width")[mean.index].iloc[0] / mean).mean())


def _not_identified(
    methods: Mapping[str, Method], compared: list[Compared], sizes: accuracy.HeldOutSize, settings: Settings
) -> list[str]:
    """Every refusal in words, and what the design itself cannot tell."""
    fits = {f"{method.name}, {domain}": fit for method in methods.values() for domain, fit in method.fits.items()}
    notes = [f"{name}: {refusal}" for name, fit in {**fits, **sizes.fits}.items() for refusal in fit.refusals]
    for one in compared:
        refusals = {str(decision.refusal) for decision in (one.best or {}).values() if decision.refusal}
        notes += [f"{one.name}, target {one.target}, best mixture: {refusal}" for refusal in sorted(refusals)]
    return [
        *notes,
        f"The lattice has steps of 1/{settings.divisions} and {len(settings.lattice_seeds)} seeds a point: the best "
        "mixture of all may lie between its points, and a regret may be negative.",
        "Regret is measured at the smallest width alone; nothing here says that the best mixture stays at larger ones.",
        "Intervals over seeds count initial weights and the order of the data, those over mixtures the choice of "
        "mixtures; none counts the held-out windows, which all runs share.",
    ]
