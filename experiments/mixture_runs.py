"""Runs at mixtures as one table: what each seed's runs are for, the shares, the held-out losses."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import pandas as pd

from experiments.mixture_design import Shares
from scaling import fields
from scaling.fields import ConfigError, check, static
from scaling.store import Store

_Pairs = tuple[tuple[str, float], ...]


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the configuration says of the study; `tolerance` in nats/token above the best mixture found."""

    name: str = static()
    natural: _Pairs = static(convert=fields.pairs)
    targets: tuple[tuple[str, _Pairs], ...] = static(convert=fields.nested_pairs)
    widths: tuple[int, ...] = static()
    mixtures: int = static()
    sized: int = static()
    strengths: tuple[float, float] = static()
    design_seed: int = static()
    first_seed: int = static()
    divisions: int = static()
    lattice_seeds: tuple[int, ...] = static()
    repeat_seeds: tuple[int, ...] = static()
    seeds: tuple[int, ...] = static()
    few: int = static()
    counts: tuple[int, ...] = static()
    subsets: int = static()
    known_draws: int = static()
    tolerance: float = static()
    bootstrap: int = static()
    level: float = static()

    def __post_init__(self) -> None:
        check(len(self.widths) >= 4, "study.widths", self.widths, "at least four", "three are fitted, one is held out")
        kinds = len(self.lattice_seeds) + len(self.repeat_seeds) + len(self.seeds) + self.mixtures
        check(len(self.kinds) == kinds, "study.seeds", self.seeds, "seeds that no lattice, repeat or random run has",
              "the seed says what a run is for: choose others")
        check(0 < self.sized <= self.mixtures, "study.sized", self.sized, f"1 to study.mixtures = {self.mixtures}",
              "it counts those of the random mixtures that every width is trained on")
        check(max(self.counts) < self.mixtures, "study.counts", self.counts,
              f"counts below the {self.mixtures} random mixtures", "lower them, or draw more mixtures")
        check(self.few in self.counts, "study.few", self.few, f"one of the counts {', '.join(map(str, self.counts))}",
              "add it to study.counts")
        for target, weights in self.targets:
            check([d for d, _ in weights] == self.domains, f"study.targets.{target}", dict(weights),
                  f"a weight for each of {', '.join(self.domains)}", "add or drop some")

    @property
    def domains(self) -> list[str]:
        """Sorted, as everywhere."""
        return [domain for domain, _ in self.natural]

    def weights(self, target: str) -> dict[str, float]:
        """Weights of the domains' losses in a target."""
        return dict(dict(self.targets)[target])

    @property
    def kinds(self) -> dict[int, str]:
        """What the runs of each seed are for."""
        return {**dict.fromkeys(self.lattice_seeds, "lattice"), **dict.fromkeys(self.repeat_seeds, "repeats"),
                **dict.fromkeys(self.seeds, "compared"),
                **dict.fromkeys(range(self.first_seed, self.first_seed + self.mixtures), "random")}


def settings_of(study: Mapping[str, Any]) -> Settings:
    """The study's settings, converted as strictly as a run's."""
    return fields.convert(Settings, study, "study")


def runs_table(store: Store, settings: Settings) -> pd.DataFrame:
    """One row a finished run and logged step: `kind` (random, lattice, repeats, compared), seed, width, N (parameters
    without embeddings), D tokens, S steps, a share and a "loss_" column (nats/token, held out) a domain, `mixture`,
    `last`.

    Raises ConfigError where the store lacks finished runs of random mixtures or of the lattice.
    """
    runs, curves = store.read("runs"), store.read("curves")
    runs = runs[runs.status == "done"] if len(runs) else pd.DataFrame({"training.seed": []})
    kind = runs["training.seed"].map(settings.kinds)
    for needed in ("random", "lattice"):
        if not (kind == needed).any():
            raise ConfigError(f"store {store.root}: expected finished runs of the {needed} mixtures; run the sweep to "
                              "its end")
    shares = [dict(json.loads(text)[0][1]) for text in runs["data.mixture"]]
    facts = pd.DataFrame({
        "run_id": runs.run_id, "kind": kind, "seed": runs["training.seed"], "width": runs["model.width"],
        "N": runs.params_non_embedding.astype(float), "mixture": [label(one) for one in shares],
        **{domain: [one.get(domain, 0.0) for one in shares] for domain in settings.domains}})
    logged = curves[(curves.split == "validation") & (curves.step > 0)]
    wide = logged.pivot_table(index=["run_id", "step", "tokens"], columns="domain", values="loss").add_prefix("loss_")
    table = wide.reset_index().merge(facts, on="run_id").rename(columns={"step": "S", "tokens": "D"})
    table["last"] = table.S == table.groupby("run_id").S.transform("max")
    table[["S", "D"]] = table[["S", "D"]].astype(float)
    return table.sort_values(["kind", "N", "seed", "mixture", "S"], ignore_index=True)


def label(shares: Mapping[str, float]) -> str:
    """A mixture as text: the same for shares that differ by rounding alone."""
    return ", ".join(f"{domain} {share:.4f}" for domain, share in sorted(shares.items()) if share > 0)


def seed_noise(table: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Standard deviation of the last losses over the seeds of one mixture, nats/token, pooled over mixtures: one row a
    width, a column a domain under its name, and `freedom`, the degrees of freedom.
    """
    last = table[table["last"] & table.kind.isin(["lattice", "repeats", "compared"])]
    losses = last[loss_columns(settings)].set_axis(settings.domains, axis=1)
    groups = losses.groupby([last.width, last.mixture])
    squares = ((losses - groups.transform("mean")) ** 2).groupby(last.width).sum()
    freedom = (1 - 1 / groups[settings.domains[0]].transform("size")).groupby(last.width).sum()
    return (squares.div(freedom, axis=0) ** 0.5).assign(freedom=freedom.round().astype(int)).reset_index()


def loss_columns(settings: Settings) -> list[str]:
    """Columns of the domains' losses."""
    return [f"loss_{domain}" for domain in settings.domains]


def shares_of(row: pd.Series, settings: Settings) -> Shares:
    """The mixture of one row."""
    return {domain: float(row[domain]) for domain in settings.domains}
