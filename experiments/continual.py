"""What studies of continual pre-training share: branches against their own start, pairs by seed, equivalence.

Intervals are over seeds: initial weights and the order of data, trunk and branch alike. They are given the held-out
windows and the pool of training text.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from experiments.claims import Claim, Verdict, verdict
from experiments.statistics import Interval, t_interval
from scaling.fields import ConfigError, check
from scaling.store import Store

MEAN = "mean of domains"


def losses(store: Store, old: str) -> pd.DataFrame:
    """One row a finished run, held-out domain and logged step; the mean of the domains stands as one more domain.

    Columns: run_id, parent_id, parent_optimizer, `seed`, `schedule`, `peak`, `floor`, `steps`, `subset` (unique tokens
    as JSON), `share` of the old domain, `domain`, `step`, `lr`, `loss` in nats/token, `change` from the run's own start
    (nan without a parent), `last`. Raises ConfigError where the store holds no finished branch.
    """
    runs, curves = store.read("runs"), store.read("curves")
    if not len(runs) or not (runs.parent_id.notna() & (runs.status == "done")).any():
        raise ConfigError(f"store {store.root}: expected finished branches to analyse; run the sweep to its end")
    runs = runs[runs.status == "done"]
    facts = runs[["run_id", "parent_id", "parent_optimizer", "steps"]].assign(
        seed=runs["training.seed"], schedule=runs["schedule.name"], peak=runs["schedule.peak"],
        floor=runs["schedule.floor"], subset=runs["data.unique_tokens"],
        share=runs["data.mixture"].map(lambda text: dict(json.loads(text)[-1][1]).get(old, 0.0)))
    table = curves.loc[curves.split == "validation", ["run_id", "step", "domain", "lr", "loss"]]
    mean = table.groupby(["run_id", "step"], as_index=False).agg(lr=("lr", "first"), loss=("loss", "mean"))
    table = pd.concat([table, mean.assign(domain=MEAN)], ignore_index=True).merge(facts, on="run_id")
    keys = ["run_id", "domain"]
    start_M = table[keys].join(table[table.step == 0].set_index(keys).loss, on=keys).loss
    table["change"] = np.where(table.parent_id.notna(), table.loss - start_M, np.nan)
    return table.assign(last=table.step == table.steps).sort_values(["run_id", "domain", "step"], ignore_index=True)


def by_seed(
    table: pd.DataFrame, labels: Mapping[str, Any], domain: str, step: int | None = None, column: str = "loss"
) -> pd.Series:
    """A column of the runs with these labels by seed, after `step` updates or (None) after the last.

    Raises ConfigError for labels that several runs of one seed share.
    """
    chosen = (table.domain == domain) & (table["last"] if step is None else table.step == step)
    for name, value in labels.items():
        chosen &= np.isclose(table[name], value) if isinstance(value, float) else table[name] == value
    found = table[chosen].set_index("seed")[column].sort_index()
    check(found.index.is_unique, "labels", dict(labels), "one run a seed", "name more labels")
    return found


@dataclasses.dataclass(frozen=True)
class Contrast:
    """Loss of the runs `first` less that of `second`, seed by seed, nats/token; `step` None: after the last."""

    name: str
    first: Mapping[str, Any]
    second: Mapping[str, Any]
    domain: str
    step: int | None = None

    def pairs(self, table: pd.DataFrame) -> pd.Series:
        """The difference of each seed whose two runs have ended."""
        first, second = (by_seed(table, labels, self.domain, self.step) for labels in (self.first, self.second))
        return (first - second).dropna()


def seeds_interval(values: pd.Series, level: float) -> Interval:
    """`t_interval` over seeds; nan where there is none."""
    return t_interval(values.to_numpy(), level) if len(values) else Interval(math.nan, math.nan, math.nan)


def equivalent(interval: Interval, margin: float) -> Verdict:
    """`reproduced` if the whole interval lies within ±margin, `not reproduced` if wholly beyond, else `inconclusive`.

    Two one-sided tests, each at half of one less the interval's level (Schuirmann 1987).
    """
    sides = {verdict(interval.low, interval.high, -margin), verdict(-interval.high, -interval.low, -margin)}
    for found in ("not reproduced", "inconclusive"):
        if found in sides:
            return found
    return "reproduced"


def said(interval: Interval, unit: str = "nats/token") -> str:
    """An estimate with its interval in words."""
    return f"{interval.value:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}] {unit}".rstrip()


def claim(
    statement: str, source: str, what: str, values: pd.Series, level: float, margin: float | None = None,
    unit: str = "nats/token",
) -> Claim:
    """A claim about the mean over seeds: above 0, or within ±margin where a margin is given."""
    interval = seeds_interval(values, level)
    found = verdict(interval.low, interval.high, 0.0) if margin is None else equivalent(interval, margin)
    return Claim(statement, source, f"{what}: {said(interval, unit)}", *interval, len(values), found)


def claims_table(claims: Sequence[Claim]) -> pd.DataFrame:
    """Claims for a page."""
    return pd.DataFrame([{"claim": each.statement, "source": each.source, "measured": each.measured, "n": each.n,
                          "verdict": each.verdict} for each in claims])


def claims_text(claims: Sequence[Claim]) -> str:
    """Claims for a terminal."""
    return "\n".join(f"{each.verdict}: {each.statement}; {each.measured}, n = {each.n}" for each in claims)


def plain(value: Any) -> Any:
    """Dataclasses, tables and numbers as JSON values; a number that is not finite as None."""
    if isinstance(value, pd.DataFrame):
        return [plain(row) for row in value.to_dict("records")]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(dataclasses.asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
