"""Study: whether training is best where layers turn far from their initialisation (Carbonnelle & De Vleeschouwer 2018,
arXiv 1806.01603).

SGD, Adam and Layca in the form of either train the kernels alone, over a range of rates. A layer's rotation is
1 - cos(p_t, p_0): 0 at the start, 1 where it is orthogonal to it, above 1 beyond.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from experiments.claims import Claim, verdict
from experiments.continual import claim, said, seeds_interval
from experiments.correlation import correlation_interval, estimate
from experiments.optimizer_effects import (
    Findings,
    best_rate,
    diagnostic,
    limits,
    methods_table,
    outcomes,
    tuned_claim,
)
from experiments.statistics import Interval
from scaling import fields
from scaling.fields import check, static
from scaling.store import Store

SOURCE = "Carbonnelle & De Vleeschouwer 2018, arXiv 1806.01603"
BASES = {"Layca, SGD": "SGD", "Layca, Adam": "Adam"}
DRAWS = 2000


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the configuration says of the study; `turned`: a rotation that counts as having turned away."""

    name: str = static()
    layca: tuple[float, ...] = static()
    sgd: tuple[float, ...] = static()
    adam: tuple[float, ...] = static()
    seeds: tuple[int, ...] = static()
    recommended: tuple[float, float] = static()
    turned: float = static()
    level: float = static()


def method_of(run: Mapping[Any, Any]) -> str:
    """What a run stands for, by its row in the store."""
    if run["optimizer.name"] == "layca":
        return {"sgd": "Layca, SGD", "adam": "Layca, Adam"}[run["optimizer.form"]]
    return {"sgd": "SGD", "adamw": "Adam"}[run["optimizer.name"]]


def rotations(store: Store) -> pd.DataFrame:
    """Rotation of every kernel at every evaluation: run_id, step, path, value."""
    rows = diagnostic(store, "rotation")
    return rows[rows.path.str.endswith("kernel")]


def turned(store: Store) -> pd.DataFrame:
    """`outcomes` with, of the last step, over kernels: `rotation` their mean, `least` the smallest, `distance` the
    mean of |1 - rotation|; nan for a run that did not reach it.
    """
    table = outcomes(store, {"steps": "steps"}, method_of)
    rows = rotations(store).merge(table[["run_id", "steps"]], on="run_id")
    rows = rows[rows.step == rows.steps].assign(distance=lambda row: (1 - row.value).abs())
    last = rows.groupby("run_id").agg(
        rotation=("value", "mean"), least=("value", "min"), distance=("distance", "mean"))
    return table.join(last, on="run_id")


def analyse(store: Store, study: Mapping[str, Any]) -> Findings:
    """The paper's claims."""
    s: Settings = fields.convert(Settings, study, "study")
    table = turned(store)
    details = {"Methods": methods_table(table), "Final rotation at the best rate": best_rotations(table, s.level),
               "Rank correlation of loss with the distance of rotations from 1": correlations(table)}
    claims = [correlation_claim(table, s), *rotation_claims(table, s), *rate_claims(table, s), *layca_claims(table, s)]
    lost = table.groupby(["method", "peak"]).distance.apply(lambda part: part.isna().any()).sum()
    return Findings(s, headline(table, claims), table, details, claims, limits(s.seeds, [
        f"{lost} settings have a run without final rotations; they are left out of correlations",
        "Losses are of text that was never trained on, after less than one pass: what is called generalisation here is "
        "hardly different from fit, unlike in the paper's many epochs on images",
        "Best rates are known to the factor of 3 of the grid: where every seed has the same, the interval has no width",
        "All but kernels is frozen in every method, as in the authors' tool, the embedding too"]))


def distances(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """distance_SxM and loss_SxM over seeds and settings (method and rate); settings without a value left out."""
    wide = table.pivot(index="seed", columns=["method", "peak"], values=["distance", "loss"]).dropna(axis=1)
    distance, loss = wide["distance"], wide["loss"]
    both = [column for column in distance.columns if column in loss.columns]
    check(len(both) >= 3, "settings with final rotations", len(both), "3 or more", "add lower rates")
    return distance[both].to_numpy(), loss[both].to_numpy()


def correlation(table: pd.DataFrame, level: float) -> Interval:
    """Spearman's of loss with distance over settings, mean over seeds, interval over both."""
    return correlation_interval([distances(table)], True, DRAWS, level)


def correlations(table: pd.DataFrame) -> pd.DataFrame:
    """Spearman's of each method alone and of all, mean over seeds; without intervals, for which one method's settings
    are too few.
    """
    parts = {**dict(iter(table.groupby("method"))), "all": table}
    rows = []
    for name, part in parts.items():
        pair = distances(part)
        rows.append({"method": name, "settings": pair[0].shape[1], "Spearman": f"{estimate([pair], True):+.3f}"})
    return pd.DataFrame(rows)


def correlation_claim(table: pd.DataFrame, s: Settings) -> Claim:
    """Losses fall as rotations come near 1."""
    found, count = correlation(table, s.level), distances(table)[0].shape[1]
    return Claim("Final loss is lower the nearer the layers' rotations are to 1, over methods and rates", SOURCE,
                 f"Spearman of loss with mean |1 - rotation| over {count} settings: {said(found, '')}", *found, count,
                 verdict(found.low, found.high, 0.0))


def at_best(table: pd.DataFrame, method: str, column: str) -> pd.Series:
    """A column of a method's runs at its best rate, by seed."""
    rows = table[(table.method == method) & np.isclose(table.peak, best_rate(table, method))]
    return rows.set_index("seed")[column].dropna()


def best_rotations(table: pd.DataFrame, level: float) -> pd.DataFrame:
    """Mean and least rotation over kernels at every method's best rate."""
    return pd.DataFrame([
        {"method": name, "best rate": f"{best_rate(table, name):.3g}",
         **{title: said(seeds_interval(at_best(table, name, column), level), "")
            for title, column in (("mean over kernels", "rotation"), ("least kernel", "least"))}}
        for name in table.method.unique()])


def rotation_claims(table: pd.DataFrame, s: Settings) -> list[Claim]:
    """At the best rate the layers have turned away."""
    return [claim(f"At its best rate {name} turns layers by at least {s.turned:g}", f"{SOURCE}: near 1 in every layer",
                  f"mean final rotation over kernels less {s.turned:g}", at_best(table, name, "rotation") - s.turned,
                  s.level, unit="") for name in table.method.unique()]


def rate_claims(table: pd.DataFrame, s: Settings) -> list[Claim]:
    """Layca's best rates lie where the paper found them, give or take half a step of our grid."""
    low, high = (math.log(rate, 3) for rate in s.recommended)
    claims = []
    for name in BASES:
        rows = table[table.method == name]
        best = rows.loc[rows.groupby("seed").loss.idxmin()].set_index("seed").peak
        place = np.log(best) / math.log(3) - (low + high) / 2
        claims.append(claim(
            f"{name}: the best rate lies within 3^{low:.0f} to 3^{high:.0f}", SOURCE,
            f"log_3 of each seed's best rate less {(low + high) / 2:.0f}, of a grid a factor 3 apart", place, s.level,
            (high - low) / 2 + 0.5, ""))
    return claims


def layca_claims(table: pd.DataFrame, s: Settings) -> list[Claim]:
    """Layca ends lower than the method whose steps it turns into rotations."""
    return [tuned_claim(table, f"{layca} ends lower than {base}, each at its best rate", SOURCE, base, layca, s.level)
            for layca, base in BASES.items()]


def headline(table: pd.DataFrame, claims: list[Claim]) -> str:
    """The answer in two sentences: how far layers have turned where each method is best, and what moves with that."""
    turns = ", ".join(f"{at_best(table, name, 'rotation').mean():.2f} ({name})" for name in table.method.unique())
    correlated, *_ = claims
    gains = "; ".join(f"{each.measured} ({each.verdict})" for each in claims if "ends lower" in each.statement)
    return (f"At the best rate of each method its kernels have turned by 1 - cos = {turns} on average. "
            f"{correlated.measured} ({correlated.verdict}), which says nothing of where the least is. Gain of Layca: "
            f"{gains}.")
