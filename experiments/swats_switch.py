"""Study: whether and when SWATS switches from Adam to SGD, and where it ends (Keskar & Socher 2017, arXiv 1712.07628).

A run of tolerance 0 never switches: it is Adam, computed by the same program from the same seed. A run of another
tolerance has its losses up to the switch and departs from them after it, so that the switch is known to within the
steps between evaluations.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from experiments.claims import Claim, verdict
from experiments.optimizer_effects import Findings, limits, methods_table, outcomes, tuned_claim
from experiments.statistics import Interval
from scaling import fields
from scaling.fields import check, static
from scaling.store import Store

SOURCE = "Keskar & Socher 2017, arXiv 1712.07628"
ADAM, SGD = "Adam", "SGD"
SAME = 1e-5  # nats/token: losses of one program from one seed differ by less before a switch, by more after


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the configuration says of the study. `early`: share of the run."""

    name: str = static()
    adam: tuple[float, ...] = static()
    sgd: tuple[float, ...] = static()
    tolerances: tuple[float, ...] = static()
    seeds: tuple[int, ...] = static()
    early: float = static()
    level: float = static()


def swats(tolerance: float) -> str:
    """Name of SWATS at a tolerance."""
    return f"SWATS, {tolerance:g}"


def method_of(run: Mapping[Any, Any]) -> str:
    """What a run stands for, by its row in the store."""
    if run["optimizer.name"] == "sgd":
        return SGD
    return swats(run["optimizer.tolerance"]) if run["optimizer.tolerance"] > 0 else ADAM


def switches(store: Store) -> pd.DataFrame:
    """`outcomes` with `tolerance`, `steps`, `switched`, and `after`: the last evaluated step at which a run of SWATS
    still had the losses of its Adam, nan where it had them to the end. Raises ConfigError for a run without its Adam.
    """
    table = outcomes(store, {"optimizer.tolerance": "tolerance", "steps": "steps"}, method_of)
    curves = store.read("curves")
    loss = curves[curves.split == "validation"].pivot(index="run_id", columns="step", values="loss")
    adam = table[table.method == ADAM].set_index(["seed", "peak"]).run_id
    after = {}
    for run in table[table.tolerance > 0].to_dict("records"):
        key = (run["seed"], run["peak"])
        check(key in adam.index, "runs of tolerance 0", len(adam), f"one of seed {key[0]} and rate {key[1]:g}",
              "train it beside those of SWATS")
        after[run["run_id"]] = departure(loss.loc[run["run_id"]], loss.loc[adam[key]])
    found = table.run_id.map(after)
    table = table.assign(after=found, switched=found.notna())
    return table.sort_values(["tolerance", "peak", "seed"], ignore_index=True)  # SGD, which has none, last


def departure(loss: pd.Series, other: pd.Series) -> float:
    """The last step before two curves first differ, or one of them ends; nan where they never do."""
    apart = ((loss - other).abs() > SAME) | (loss.isna() != other.isna())
    if not apart.any():
        return np.nan
    return float(loss.index[max(int(apart.to_numpy().argmax()) - 1, 0)])


def share(hits: pd.Series, level: float) -> Interval:
    """A share of runs with the exact binomial interval of Clopper and Pearson, as if runs were independent."""
    found = stats.binomtest(int(hits.sum()), len(hits))
    low, high = found.proportion_ci(level, "exact")
    return Interval(float(hits.mean()), float(low), float(high))


def switched_shares(table: pd.DataFrame, s: Settings) -> pd.DataFrame:
    """Share of runs that switched at each tolerance, with interval, and when: median and range of `after`."""
    rows = []
    for tolerance in s.tolerances:
        part = table[np.isclose(table.tolerance, tolerance, rtol=1e-6, atol=0)]
        at = part.after.dropna()
        when = f"{at.median():.0f} [{at.min():.0f}, {at.max():.0f}]" if len(at) else "never"
        rows.append({"tolerance": tolerance, "name": f"tolerance {tolerance:g}", "n": len(part),
                     **share(part.switched, s.level)._asdict(), "when": when})
    return pd.DataFrame(rows)


def working_tolerance(shares: pd.DataFrame) -> float:
    """The smallest tolerance at which most runs switched; the largest where none is."""
    most = shares.tolerance[shares.value > 0.5]
    return float(most.min() if len(most) else shares.tolerance.max())


def analyse(store: Store, study: Mapping[str, Any]) -> Findings:
    """The paper's claims."""
    s: Settings = fields.convert(Settings, study, "study")
    table = switches(store)
    shares = switched_shares(table, s)
    chosen = working_tolerance(shares)
    claims = [*switch_claims(shares, s), early_claim(table, chosen, s), *loss_claims(table, chosen, s)]
    details = {"Methods": methods_table(table), "Switches by tolerance": shown(shares)}
    return Findings(s, headline(shares, chosen, claims), table, details, claims, limits(s.seeds, [
        f"The switch is known to within the {resolution(store)} steps between evaluations",
        "Tolerances are absolute, in units of the rate, as in the paper; released ports have relative ones",
        f"{swats(chosen)} is the smallest tolerance at which most runs switch, chosen by the same runs",
        "Intervals of shares take runs as independent; runs of one seed share their start and data"]))


def resolution(store: Store) -> int:
    """The most steps between evaluations."""
    curves = store.read("curves")
    return int(np.diff(np.sort(curves.step[curves.split == "validation"].unique())).max())


def said_share(row: Mapping[Any, Any]) -> str:
    """A share with its interval in words."""
    return f"{row['value']:.0%} [{row['low']:.0%}, {row['high']:.0%}]"


def shown(shares: pd.DataFrame) -> pd.DataFrame:
    """`switched_shares` for a page."""
    text = [said_share(row) for row in shares.to_dict("records")]
    return pd.DataFrame({"tolerance": shares.tolerance.map("{:g}".format), "runs": shares.n, "switched": text,
                         "last step as Adam, median [range]": shares.when})


def switch_claims(shares: pd.DataFrame, s: Settings) -> list[Claim]:
    """At each tolerance, whether most runs switch."""
    runs = f"of runs, {len(s.adam)} rates x {len(s.seeds)} seeds"
    return [Claim(f"SWATS switches in most runs at tolerance {row['tolerance']:g}", SOURCE, f"{said_share(row)} {runs}",
                  row["value"], row["low"], row["high"], row["n"], verdict(row["low"], row["high"], 0.5))
            for row in shares.to_dict("records")]


def early_claim(table: pd.DataFrame, tolerance: float, s: Settings) -> Claim:
    """Of the runs that switch, most do so early."""
    part = table[(table.method == swats(tolerance)) & table.switched]
    statement = f"The switch comes in the first {s.early:.0%} of the run ({swats(tolerance)})"
    if not len(part):
        return Claim(statement, SOURCE, "no run switched", math.nan, math.nan, math.nan, 0, "inconclusive")
    found = share(part.after < s.early * part.steps, s.level)
    return Claim(statement, SOURCE, f"{said_share(found._asdict())} of the runs that switched",
                 *found, len(part), verdict(found.low, found.high, 0.5))


def loss_claims(table: pd.DataFrame, tolerance: float, s: Settings) -> list[Claim]:
    """SWATS against Adam and SGD, each at its own best rate, and the paper's premise."""
    name = swats(tolerance)
    return [
        tuned_claim(table, "SGD ends lower than Adam, each at its best rate", SOURCE, ADAM, SGD, s.level),
        tuned_claim(table, f"{name} ends lower than Adam, each at its best rate", SOURCE, ADAM, name, s.level),
        tuned_claim(table, f"{name} ends lower than SGD, each at its best rate", SOURCE, SGD, name, s.level),
    ]


def headline(shares: pd.DataFrame, tolerance: float, claims: list[Claim]) -> str:
    """The answer in a sentence."""
    rows = {row["tolerance"]: row for row in shares.to_dict("records")}
    first, chosen = rows[min(rows)], rows[tolerance]
    gain, = (each for each in claims if "lower than Adam" in each.statement and "SWATS" in each.statement)
    return (f"At tolerance {first['tolerance']:g}, {said_share(first)} of runs switch; at {tolerance:g}, "
            f"{said_share(chosen)}, after a median [range] of {chosen['when']} steps; {gain.measured} ({gain.verdict}, "
            f"n = {gain.n} seeds).")
