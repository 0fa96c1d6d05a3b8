"""Study: does any online mixer beat stratified sampling, or the best static mixture, on real text at equal tokens?

All start from equal shares of the domains and see as many tokens; Aioli's probes are steps of its run. Static mixtures
are searched on a lattice and every mixer's strength among as many values, on tuning seeds; what is chosen is trained on
fresh seeds and compared seed by seed, as are final models on the mixture of a proxy. The central claim is that of Aioli
(Chen et al. 2024, arXiv 2411.05735): stratified sampling is hard to beat, and Aioli beats it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pandas as pd

from experiments import mixers
from experiments.claims import Claim, Verdict, verdict
from experiments.continual import seeds_interval
from experiments.mixer_comparison import (
    AIOLI,
    BEST,
    NAMES,
    NATURAL,
    SOURCES,
    STRATIFIED,
    any_claim,
    compared,
    differences,
    gain_claim,
    said,
)
from experiments.mixers import equal_shares
from experiments.mixture_design import Shares
from experiments.mixture_runs import label
from experiments.statistics import Interval
from scaling import fields
from scaling.fields import check, static
from scaling.store import Store


@dataclasses.dataclass(frozen=True)
class Settings(mixers.Settings):
    """What the configuration says of the study. `natural` shares by domain; `margin`, nats/token, is the least gain
    that counts.
    """

    natural: tuple[tuple[str, float], ...] = static(convert=fields.pairs)
    margin: float = static()

    @property
    def domains(self) -> list[str]:
        """Sorted."""
        return [domain for domain, _ in self.natural]


@dataclasses.dataclass(frozen=True)
class Findings:
    """All that the study concludes. `rows`: final losses by method and fresh seed; `gaps` by rival, as `differences`
    makes them; `same_tokens`: mixers whose other runs are counted, against stratified sampling of as many tokens;
    `answers`: mean weights that each mixer ends with.
    """

    settings: Settings
    best: Shares
    strengths: dict[str, float]
    graph: dict[str, dict[str, float]]
    rows: pd.DataFrame
    gaps: dict[str, pd.DataFrame]
    same_tokens: pd.DataFrame
    answers: pd.DataFrame
    claims: list[Claim]
    not_identified: list[str]


def settings_of(study: Mapping[str, Any]) -> Settings:
    """The study's settings, converted as strictly as a run's."""
    return fields.convert(Settings, study, "study")


def analyse(store: Store, study: Mapping[str, Any]) -> Findings:
    """Differences from stratified sampling and from the best static mixture, and the claims about them."""
    s = settings_of(study)
    table = mixers.runs_table(store, s)
    strengths, best = mixers.chosen(table, s), mixers.best_static(table, s, s.domains)
    rivals = {STRATIFIED: label(equal_shares(s.domains)), NATURAL: label(dict(s.natural)), BEST: label(best)}
    rows = compared(table, s, strengths, rivals)
    gaps = {rival: differences(rows, rival, s.domains, s) for rival in (STRATIFIED, BEST)}
    same = same_tokens(table, rows, s)
    claims = [any_claim(gaps[STRATIFIED], STRATIFIED, s), any_claim(gaps[BEST], BEST, s),
              others_claim(gaps[STRATIFIED], s),
              *(gain_claim(row, STRATIFIED) for _, row in gaps[STRATIFIED].iterrows() if row.method != NATURAL),
              *(same_tokens_claim(row) for _, row in same.iterrows())]
    return Findings(s, best, strengths, mixers.single_domain_graph(table, s, s.domains), rows, gaps, same,
                    answers_table(table, strengths, s), claims, _not_identified(store, best, s))


def same_tokens(table: pd.DataFrame, rows: pd.DataFrame, s: Settings) -> pd.DataFrame:
    """One row a mixer that needs other runs: its final loss less that of stratified sampling for as many tokens as all
    of them together, by seed: method, `runs` in all, n, value, low, high (nats/token).
    """
    base = int(table.steps.min())
    longer = table[(table.method == mixers.STATIC) & (table.mixture == label(equal_shares(s.domains)))]
    found = []
    for method in s.methods:
        runs = 1 + mixers.cost(method.name, len(s.domains))
        if runs == 1:
            continue
        own = rows[rows.method == method.name].set_index("seed").loss
        rival = longer[longer.steps == runs * base].set_index("seed").loss
        check(len(rival) > 0, "stratified runs", 0, f"finished runs of {runs * base} steps", "run the sweep to its end")
        gap = (own - rival).dropna()
        found.append({"method": method.name, "runs": runs, "n": len(gap), **seeds_interval(gap, s.level)._asdict()})
    return pd.DataFrame(found)


def same_tokens_claim(row: pd.Series) -> Claim:
    """That a mixer beats stratified sampling where the tokens of its other runs are given to that as well."""
    name = NAMES[row.method]
    measured = (f"{name} less stratified for {row.runs} times the tokens: "
                f"{said(Interval(row.value, row.low, row.high))}")
    return Claim(f"{name} with the tokens of its other runs counted beats stratified sampling of as many",
                 SOURCES[row.method], measured, -row.value, -row.high, -row.low, row.n,
                 verdict(-row.high, -row.low, 0.0))


def others_claim(gaps: pd.DataFrame, s: Settings) -> Claim:
    """That no mixer but Aioli gains more than the margin on stratified sampling, all corrected intervals together."""
    others = gaps[gaps.method.isin(NAMES) & (gaps.method != "aioli")].sort_values("wide_low")
    best = others.iloc[0]  # the one whose gain may be largest
    gains = [verdict(-high, -low, s.margin) for low, high in others[["wide_low", "wide_high"]].to_numpy()]
    opposite: dict[Verdict, Verdict] = {"reproduced": "not reproduced", "not reproduced": "reproduced"}
    if "reproduced" in gains:
        found: Verdict = "not reproduced"
    else:
        found = opposite["not reproduced"] if set(gains) == {"not reproduced"} else "inconclusive"
    measured = (f"the largest gain that {len(others)} corrected intervals allow is {-best.wide_low:.4f}, of "
                f"{NAMES[best.method]}: {said(Interval(best.value, best.wide_low, best.wide_high))}")
    return Claim(f"No online mixer before Aioli gains more than {s.margin:g} nats/token on stratified sampling", AIOLI,
                 measured, -best.value, -best.wide_high, -best.wide_low, int(best.n), found)


def answers_table(table: pd.DataFrame, strengths: Mapping[str, float], s: Settings) -> pd.DataFrame:
    """One row a mixer: its chosen strength and the mean over the fresh seeds of the shares that it ends with."""
    return mixers.answers_table(table, strengths, s, s.domains).groupby("method", as_index=False)[s.domains].mean()


def _not_identified(store: Store, best: Shares, s: Settings) -> list[str]:
    """What the design cannot tell, and runs that have no last loss."""
    ended = store.read("runs").status.value_counts()
    same = label(best) == label(equal_shares(s.domains))
    return [
        *(f"{count} runs ended as {status} and are left out" for status, count in ended.items() if status != "done"),
        *(["The best mixture of the lattice is stratified sampling itself: the two are the same runs"] if same else []),
        f"Intervals are over {len(s.seeds)} seeds of weights and order of data, given one corpus, one set of held-out "
        f"windows and what was chosen on {len(s.tuning_seeds)} tuning seeds; only 'some online mixer' and 'no online "
        "mixer' are corrected for the number of mixers",
        "One group of domains, one size, one length: Aioli's '6 of 6' is over six groups of domains, which this does "
        "not repeat",
        "Proxies are as large and as long as the final model, as in no paper: a small proxy for a large model costs "
        "less, so the comparison of all tokens is the worst case for them",
        "Tuning costs the mixers the same, but not the lattice: the best static mixture had "
        f"{len(s.tuning_seeds)} runs of each mixture with shares in steps of 1/{s.divisions}",
    ]


def headline(found: Findings) -> str:
    """The answer in one sentence."""
    gaps = found.gaps[STRATIFIED]
    online = gaps[gaps.method.isin(NAMES)]
    better = [NAMES[row["method"]] for row in online.to_dict("records") if row["wide_high"] < 0]
    worse = [NAMES[row["method"]] for row in online.to_dict("records") if row["wide_low"] > 0]
    static = gaps[gaps.method == BEST].iloc[0]
    return (f"On {', '.join(found.settings.domains)} at equal tokens, {len(better)} of {len(online)} online mixers "
            f"beat stratified sampling{_listed(better)} and {len(worse)} are worse{_listed(worse)}, by intervals that "
            f"hold together at {found.settings.level:.0%} (n = {static.n} seeds); the best static mixture of a lattice "
            f"({label(found.best)}) differs by {said(Interval(static.value, static.low, static.high))}.")


def _listed(names: list[str]) -> str:
    return f" ({', '.join(names)})" if names else ""
