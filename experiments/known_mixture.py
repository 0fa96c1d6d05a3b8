"""Study: a task whose best mixture is known by construction. Do laws find it, do online mixers move to it?

Two languages that are renamings of each other and share nothing, each a quarter noise, and a domain of that noise
alone (scaling/data/synthetic.py): half of each language and no noise domain is best for the mean loss of the three.
What this rests on is measured on a lattice of static mixtures. Distances between mixtures are total variation, half the
sum of absolute differences.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from experiments import mixers
from experiments.claims import Claim, Verdict
from experiments.continual import claim
from experiments.mixer_comparison import (
    BEST,
    NAMES,
    SOURCES,
    STRATIFIED,
    any_claim,
    compared,
    differences,
    gain_claim,
)
from experiments.mixers import equal_shares
from experiments.mixture_design import Shares, lattice
from experiments.mixture_methods import ByLaw, fit_exponential, fit_term
from experiments.mixture_runs import label
from scaling import fields
from scaling.fields import check, static
from scaling.fitting import Decision
from scaling.store import Store

KNOWN = "known best"
_EDGE = 1e-6  # a share of 0 is met by shares up to here


@dataclasses.dataclass(frozen=True)
class Settings(mixers.Settings):
    """What the configuration says of the study; `best` by domain."""

    best: tuple[tuple[str, float], ...] = static(convert=fields.pairs)
    mixtures: int = static()
    strengths: tuple[float, float] = static()
    design_seed: int = static()
    first_seed: int = static()
    bootstrap: int = static()

    @property
    def domains(self) -> list[str]:
        """Sorted."""
        return [domain for domain, _ in self.best]

    @property
    def languages(self) -> list[str]:
        """The two domains that share the best mixture."""
        return [domain for domain, share in self.best if share > 0]

    @property
    def noise(self) -> str:
        """The domain that it leaves out."""
        return next(domain for domain, share in self.best if share == 0)

    def __post_init__(self) -> None:
        super().__post_init__()
        shares = sorted(share for _, share in self.best)
        check(shares == [0.0, 0.5, 0.5], "study.best", dict(self.best), "two domains at 0.5 and one at 0",
              "this study knows no other construction")


@dataclasses.dataclass(frozen=True, eq=False)
class Findings:
    """All that the study concludes. `lattice`: a row a mixture, means over the tuning seeds; `answers`: a row a mixer
    of the chosen strength and seed, its shares and their `distance` to the best; `laws` by name, with what each calls
    best; `differences` from stratified sampling.
    """

    settings: Settings
    lattice: pd.DataFrame
    strengths: dict[str, float]
    graph: dict[str, dict[str, float]]
    laws: dict[str, ByLaw]
    best: dict[str, dict[str, Decision]]
    answers: pd.DataFrame
    differences: pd.DataFrame
    claims: list[Claim]
    not_identified: list[str]


def settings_of(study: Mapping[str, Any]) -> Settings:
    """The study's settings, converted as strictly as a run's."""
    return fields.convert(Settings, study, "study")


def analyse(store: Store, study: Mapping[str, Any]) -> Findings:
    """Measure the assumptions, ask the laws and the mixers for the best mixture, compare losses."""
    s = settings_of(study)
    table = mixers.runs_table(store, s)
    strengths = mixers.chosen(table, s)
    laws = fit_laws(table, s)
    weights = equal_shares(s.domains)  # of the domains' losses
    best = {name: law.best(weights, s.level) for name, law in laws.items()}
    searched, moved = lattice_table(table, s), answers_table(table, strengths, s)
    found_best = mixers.best_static(table, s, s.domains)
    rivals = {STRATIFIED: label(equal_shares(s.domains)), KNOWN: label(dict(s.best)), BEST: label(found_best)}
    rows = compared(table, s, strengths, rivals)
    gaps = differences(rows, STRATIFIED, s.domains, s)
    claims = [*assumption_claims(rows, searched, s), *(law_claim(name, laws[name], best[name], s) for name in laws),
              *(move_claim(name, moved, s) for name in strengths), any_claim(gaps, STRATIFIED, s),
              *(gain_claim(row, STRATIFIED) for _, row in gaps.iterrows() if row.method in NAMES)]
    graph = mixers.single_domain_graph(table, s, s.domains)
    return Findings(s, searched, strengths, graph, laws, best, moved, gaps, claims,
                    _not_identified(store, laws, found_best, s))


def distance(shares: Mapping[str, float], s: Settings) -> float:
    """Of a mixture from the best: half the sum of absolute differences."""
    return sum(abs(shares[domain] - share) for domain, share in s.best) / 2


def lattice_table(table: pd.DataFrame, s: Settings) -> pd.DataFrame:
    """One row a mixture of the lattice: its shares by domain, loss and loss_DOMAIN, means over the tuning seeds."""
    static_runs = table[(table.method == mixers.STATIC) & table.seed.isin(s.tuning_seeds)]
    means = static_runs.groupby("mixture")[["loss", *(f"loss_{d}" for d in s.domains)]].mean()
    rows = [{**shares, **means.loc[label(shares)]} for shares in lattice(s.domains, s.divisions)
            if label(shares) in means.index]
    check(bool(rows), "mixtures of the lattice", 0, "finished runs of some", "run the sweep to its end")
    return pd.DataFrame(rows)


def fit_laws(table: pd.DataFrame, s: Settings) -> dict[str, ByLaw]:
    """The data mixing law and the additive law's mixture term, on the random mixtures."""
    seeds = range(s.first_seed, s.first_seed + s.mixtures)
    runs = table[(table.method == mixers.STATIC) & table.seed.isin(seeds)]
    check(len(runs) > 0, "random mixtures", 0, "finished runs", "run the sweep to its end")
    shares = pd.DataFrame([mixers.shares_of(text, s.domains) for text in runs.mixture], index=runs.index)
    rows = runs.drop(columns="mixture").join(shares).assign(last=True, N=1.0)
    laws = [fit(rows, s.domains, s.bootstrap) for fit in (fit_exponential, fit_term)]
    return {law.name: law for law in laws}


def answers_table(table: pd.DataFrame, strengths: Mapping[str, float], s: Settings) -> pd.DataFrame:
    """One row a mixer of the chosen strength and fresh seed: the shares that it ends with, their `distance`."""
    answers = mixers.answers_table(table, strengths, s, s.domains)
    gaps = answers[s.domains] - np.array([share for _, share in s.best])
    return answers.assign(distance=gaps.abs().sum(axis=1) / 2)


def assumption_claims(rows: pd.DataFrame, searched: pd.DataFrame, s: Settings) -> list[Claim]:
    """What the construction rests on, measured: on the fresh seeds, and on the lattice."""
    wide = rows.pivot(index="seed", columns="method")
    (first, second), third = s.languages, s.noise
    gain = wide["loss"][STRATIFIED] - wide["loss"][KNOWN]
    of_languages = sum(wide[f"loss_{d}"][STRATIFIED] - wide[f"loss_{d}"][KNOWN] for d in (first, second))
    of_noise = wide[f"loss_{third}"][KNOWN] - wide[f"loss_{third}"][STRATIFIED]
    swapped, bent = swaps(searched, s), bends(searched, s)
    return [
        _claim("The known best mixture beats stratified sampling", "mean loss, stratified less known best", gain, s),
        _claim(f"Leaving the domain {third} out costs its own loss less than the languages gain",
               f"gain of {first} and {second} less cost of {third}", of_languages - of_noise, s),
        _claim("The mean loss is convex between the languages",
               f"second difference over steps of 1/{s.divisions} between {first} and {second} on the lattice", bent, s),
        _claim("The languages are equally hard: their shares can be swapped within half of that gain",
               f"mean loss less that with the shares of {first} and {second} swapped, on the lattice", swapped, s,
               margin=gain.mean() / 2),
    ]


def swaps(searched: pd.DataFrame, s: Settings) -> pd.Series:
    """Mean loss of each mixture of the lattice with more of the first language, less that with the two swapped."""
    loss = _by_counts(searched, s)
    return pd.Series([value - loss[b, a] for (a, b), value in loss.items() if a > b and (b, a) in loss], dtype=float)


def bends(searched: pd.DataFrame, s: Settings) -> pd.Series:
    """Second differences of the mean loss along lines of the lattice that move share from one language to the other."""
    loss = _by_counts(searched, s)
    ends = [((a - 1, b + 1), (a + 1, b - 1), value) for (a, b), value in loss.items()]
    return pd.Series([loss[one] + loss[other] - 2 * value for one, other, value in ends if {one, other} <= set(loss)],
                     dtype=float)


def _by_counts(searched: pd.DataFrame, s: Settings) -> dict[tuple[int, int], float]:
    """Mean loss by the two languages' shares, in steps of the lattice."""
    counts = (searched[s.languages] * s.divisions).round().astype(int)
    return dict(zip(counts.itertuples(index=False, name=None), searched.loss.astype(float), strict=True))


def _claim(statement: str, what: str, values: pd.Series, s: Settings, margin: float | None = None) -> Claim:
    return claim(statement, "our construction", what, values.dropna(), s.level, margin)


def law_claim(name: str, law: ByLaw, best: Mapping[str, Decision], s: Settings) -> Claim:
    """That a law's interval holds the best mixture: `reproduced` if every share's does and one of them is narrow enough
    to leave stratified sampling out, `not reproduced` if one does not, else, and where it is refused, `inconclusive`.
    """
    holds = all(best[d].low - _EDGE <= share <= best[d].high + _EDGE for d, share in s.best)
    tells = any(not best[d].low <= share <= best[d].high for d, share in equal_shares(s.domains).items())
    refused = any(decision.refusal is not None for decision in best.values())
    found: Verdict = "inconclusive" if refused or (holds and not tells) else (
        "reproduced" if holds else "not reproduced")
    measured = ", ".join(f"{d} {one.value:.3f} [{one.low:.3f}, {one.high:.3f}]" for d, one in best.items())
    first = best[s.languages[0]]
    count = len(law.fits[s.domains[0]].points.fitted)
    return Claim(f"The {name} finds the best mixture within its interval", law.source, measured, first.value, first.low,
                 first.high, count, found)


def move_claim(method: str, answers: pd.DataFrame, s: Settings) -> Claim:
    """That a mixer ends nearer to the best mixture than the equal shares it starts from."""
    mine = answers[answers.method == method]
    nearer = distance(equal_shares(s.domains), s) - mine.distance
    ends = ", ".join(f"{domain} {mine[domain].mean():.2f}" for domain in s.domains)
    return claim(f"{NAMES[method]} moves toward the best mixture", SOURCES[method],
                 f"ends at {ends}; distance to the best, equal shares less its own", nearer, s.level, unit="")


def _not_identified(store: Store, laws: Mapping[str, ByLaw], found: Shares, s: Settings) -> list[str]:
    """What the design cannot tell, refusals, runs that have no last loss."""
    ended = store.read("runs").status.value_counts()
    refused = [f"{name}, {domain}: {refusal}" for name, law in laws.items() for domain, fit in law.fits.items()
               for refusal in fit.refusals]
    return [
        *(f"{count} runs ended as {status} and are left out" for status, count in ended.items() if status != "done"),
        *refused,
        f"The lattice's own choice on {len(s.tuning_seeds)} seeds is {label(found)}",
        "Intervals are over seeds of weights and order of data, those of the laws over random mixtures with a seed "
        "each; all are given one drawn text and one set of held-out windows, whose shares of noise differ a little "
        "between the languages and with them the best shares",
        "Strengths were chosen by loss on the tuning seeds, not by distance; differences from stratified sampling are "
        f"at {s.level:.0%} a mixer, only 'some online mixer' is corrected for their number",
    ]


def headline(found: Findings) -> str:
    """The answer in one sentence."""
    s, verdicts = found.settings, {claim.statement: claim.verdict for claim in found.claims}
    moves = {name: verdicts[f"{NAMES[name]} moves toward the best mixture"] for name in found.strengths}
    laws = [name for name in found.laws if verdicts[f"The {name} finds the best mixture within its interval"] ==
            "reproduced"]

    def listed(names: Sequence[str]) -> str:
        return f" ({', '.join(names)})" if names else ""

    toward, away = ([NAMES[name] for name, said in moves.items() if said == wanted]
                    for wanted in ("reproduced", "not reproduced"))
    return (f"Where {label(dict(s.best))} is best by construction, {len(laws)} of {len(found.laws)} laws find it "
            f"within their interval{listed(laws)}, {len(toward)} of {len(moves)} online mixers move toward it"
            f"{listed(toward)}, {len(away)} move away{listed(away)}, and stratified sampling stays "
            f"{distance(equal_shares(s.domains), s):.2f} from it.")
