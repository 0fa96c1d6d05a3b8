"""Study: whether RAdam needs no warm-up where Adam does (Liu et al. 2020, arXiv 1908.03265).

Adam with and without linear warm-up, and both forms of RAdam without, over a range of peak rates, for every β₂: the
rectification lasts about 2 / (1 - β₂) steps, so that β₂ decides whether it is over before the run is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pandas as pd

from experiments.claims import Claim
from experiments.continual import claim
from experiments.optimizer_effects import (
    Findings,
    best_rate,
    by_seed,
    less,
    limits,
    methods_table,
    outcomes,
    tuned_claim,
)
from scaling import fields
from scaling.fields import check, static
from scaling.store import Store

SOURCE = "Liu et al. 2020, arXiv 1908.03265"
WARM, NONE = "Adam, warm-up", "Adam, no warm-up"
FORMS = ("published", "released")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the configuration says of the study; `memories`: β₂; `margin` in nats/token."""

    name: str = static()
    rates: tuple[float, ...] = static()
    memories: tuple[float, ...] = static()
    seeds: tuple[int, ...] = static()
    warmup_steps: int = static()
    margin: float = static()
    level: float = static()


def radam(form: str) -> str:
    """Name of a form of RAdam."""
    return f"RAdam, {form}"


def method_of(run: Mapping[Any, Any]) -> str:
    """What a run stands for, by its row in the store."""
    if run["optimizer.name"] == "radam":
        return radam(run["optimizer.form"])
    return WARM if run["schedule.warmup.steps"] > 0 else NONE


def losses(store: Store) -> pd.DataFrame:
    """`outcomes` with column b2."""
    return outcomes(store, {"optimizer.b2": "b2"}, method_of)


def high_rates(table: pd.DataFrame, rates: tuple[float, ...]) -> list[float]:
    """Rates above the best one of Adam with warm-up. Raises ConfigError where that is the highest."""
    best = best_rate(table, WARM)
    above = [rate for rate in rates if rate > best]
    check(bool(above), "study.rates", rates, f"rates above {best:g}, the best with warm-up", "add higher ones")
    return above


def analyse(store: Store, study: Mapping[str, Any]) -> Findings:
    """The paper's claims, for every β₂."""
    s: Settings = fields.convert(Settings, study, "study")
    table = losses(store)
    parts = {b2: table[table.b2 == b2] for b2 in s.memories}
    found = {b2: claims(part, s, b2) for b2, part in parts.items()}
    details = {f"β₂ = {b2:g}": methods_table(part) for b2, part in parts.items()}
    return Findings(s, headline(found, s), table, details, [each for b2 in s.memories for each in found[b2]], limits(
        s.seeds, ["A failed run counts with its loss before training: how far above it ended plays no part"]))


def claims(table: pd.DataFrame, s: Settings, b2: float) -> list[Claim]:
    """Of one β₂: Adam lags without warm-up; each form of RAdam gains on that, and equals Adam with warm-up."""
    high, at = high_rates(table, s.rates), f"β₂ = {b2:g}"
    where = f"mean over {len(high)} rates from {high[0]:.3g}"
    warm, none = by_seed(table, WARM, high), by_seed(table, NONE, high)
    found = [claim(f"Adam without warm-up lags behind Adam with it at high rates ({at})", SOURCE,
                   f"{where}, without less with", less(none, warm), s.level)]
    for form in FORMS:
        name = radam(form)
        every = less(by_seed(table, name, s.rates), by_seed(table, WARM, s.rates))
        found += [
            claim(f"{name}, loses less at high rates than Adam without warm-up ({at})", SOURCE,
                  f"{where}, Adam without warm-up less RAdam", less(none, by_seed(table, name, high)), s.level),
            claim(f"{name}, without warm-up tracks Adam with it over all rates within {s.margin:g} ({at})", SOURCE,
                  f"mean over {len(s.rates)} rates, RAdam less Adam with warm-up", every, s.level, s.margin),
            tuned_claim(table, f"{name}, ends within {s.margin:g} of Adam with warm-up, each at its best rate ({at})",
                        SOURCE, name, WARM, s.level, s.margin),
        ]
    return found


def headline(found: Mapping[float, list[Claim]], s: Settings) -> str:
    """The answer in a sentence a β₂."""
    return " ".join(
        f"With β₂ = {b2:g}, leaving warm-up out costs Adam {lag.value:+.3f} [{lag.low:+.3f}, {lag.high:+.3f}] "
        f"nats/token at high rates; published RAdam without warm-up differs from Adam with it by {track.value:+.3f} "
        f"[{track.low:+.3f}, {track.high:+.3f}] on average over {len(s.rates)} rates (n = {lag.n} seeds)."
        for b2, (lag, _, track, *_) in found.items())
