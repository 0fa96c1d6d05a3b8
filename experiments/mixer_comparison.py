"""Online mixers against static mixtures on fresh seeds: paired differences, corrected for how many are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from experiments.claims import Claim, Verdict, verdict
from experiments.continual import seeds_interval
from experiments.mixers import STATIC, Settings, finals
from experiments.statistics import Interval

STRATIFIED, NATURAL, BEST = "stratified", "natural shares", "best static"
NAMES = {"doremi": "DoReMi", "doge": "DoGE", "skill_it": "Skill-It", "odm": "ODM", "odm_released": "ODM, released code",
         "aioli": "Aioli", "bilevel": "ScaleBiO"}
AIOLI = "Chen et al. 2024, arXiv 2411.05735"
SOURCES = {"doremi": "Xie et al. 2023, arXiv 2305.10429", "doge": "Fan et al. 2023, arXiv 2310.15393",
           "skill_it": "Chen et al. 2023, arXiv 2307.14430", "odm": "Albalak et al. 2023, arXiv 2312.02406",
           "odm_released": "code of Albalak et al. 2023, arXiv 2312.02406", "aioli": AIOLI,
           "bilevel": "Pan et al. 2024, arXiv 2406.19976"}


def compared(
    table: pd.DataFrame, settings: Settings, strengths: Mapping[str, float], rivals: Mapping[str, str]
) -> pd.DataFrame:
    """Rows of `runs_table` of the fresh seeds, one a method and seed: every mixer's final model at its chosen strength
    under the mixer's name, and each rival, a static mixture as `label` writes it, under its own.
    """
    own = finals(table)
    parts = [own[(own.method == name) & (own.strength == strength)] for name, strength in strengths.items()]
    steps = table.steps[table.method != STATIC].iloc[0]
    static = table[(table.method == STATIC) & (table.steps == steps)]
    parts += [static[static.mixture == mixture].assign(method=name) for name, mixture in rivals.items()]
    rows = pd.concat(parts, ignore_index=True)
    return rows[rows.seed.isin(settings.seeds)].reset_index(drop=True)


def corrected(settings: Settings) -> float:
    """Level of each mixer's interval so that all hold together with the study's level (Bonferroni)."""
    return 1 - (1 - settings.level) / len(settings.methods)


def differences(rows: pd.DataFrame, rival: str, domains: Sequence[str], settings: Settings) -> pd.DataFrame:
    """One row a method other than the rival, best first, by paired seeds: `n`, `value`, its interval `low` to `high`
    and `wide_low` to `wide_high`, corrected for the number of mixers; `perplexity`, `ppl_low`, `ppl_high`; and a
    column a domain. All are method less rival: of mean held-out loss in nats/token, of mean perplexity, of losses.
    """
    found = []
    values = ["loss", "perplexity", *(f"loss_{domain}" for domain in domains)]
    wide = rows.pivot(index="seed", columns="method", values=values)
    for method in dict.fromkeys(rows.method):
        if method == rival:
            continue
        gaps = {key: (wide[key][method] - wide[key][rival]).dropna() for key in values}
        loss, ppl = seeds_interval(gaps["loss"], settings.level), seeds_interval(gaps["perplexity"], settings.level)
        outer = seeds_interval(gaps["loss"], corrected(settings))
        found.append({"method": method, "n": len(gaps["loss"]), **loss._asdict(), "wide_low": outer.low,
                      "wide_high": outer.high, "perplexity": ppl.value, "ppl_low": ppl.low, "ppl_high": ppl.high,
                      **{domain: gaps[f"loss_{domain}"].mean() for domain in domains}})
    return pd.DataFrame(found).sort_values("value", ignore_index=True)


def said(interval: Interval) -> str:
    """A difference with its interval in words; losses here differ in the third or fourth digit."""
    return f"{interval.value:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}] nats/token"


def gain_claim(row: pd.Series, rival: str) -> Claim:
    """That one mixer, a row of `differences`, beats a rival: its own interval, of the study's level."""
    name = NAMES.get(row.method, row.method)
    measured = f"{name} less {rival}: {said(Interval(row.value, row.low, row.high))}, perplexity {row.perplexity:+.3f}"
    return Claim(f"{name} ends with a lower mean held-out loss than {rival}", SOURCES.get(row.method, AIOLI), measured,
                 -row.value, -row.high, -row.low, row.n, verdict(-row.high, -row.low, 0.0))


def any_claim(found: pd.DataFrame, rival: str, settings: Settings) -> Claim:
    """That some mixer beats a rival: `reproduced` if one does by its corrected interval, `not reproduced` if all are
    worse by theirs.
    """
    online = found[found.method.isin(NAMES)].sort_values("wide_high")
    verdicts: list[Verdict] = [verdict(-high, -low, 0.0) for low, high in online[["wide_low", "wide_high"]].to_numpy()]
    best = online.iloc[0]
    if "reproduced" in verdicts:
        said_of_all: Verdict = "reproduced"
    else:
        said_of_all = "not reproduced" if set(verdicts) == {"not reproduced"} else "inconclusive"
    measured = (f"of {len(online)}, {NAMES[best.method]} has the lowest upper end: "
                f"{said(Interval(best.value, best.wide_low, best.wide_high))}, corrected for {len(settings.methods)}")
    return Claim(f"Some online mixer beats {rival}", AIOLI, measured, -best.value, -best.wide_high, -best.wide_low,
                 int(best.n), said_of_all)
