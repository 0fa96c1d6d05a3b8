"""The settings of the study `dcpt` and the tables that its laws are fitted to.

N is training FLOPs a token over 6: with it 6ND is a run's compute exactly, which parameters are not for small models.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd

from experiments.branches import branches
from scaling.fields import check, static
from scaling.store import Store

ROLES = ("domain", "general")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the configuration says of the study.

    `rise`: share of the general loss that the first application lets it grow by. `fit_from`, `held_from`: shares of a
    branch's tokens. `limited_steps`: tokens of the target that the second application has, in steps. `budget`: FLOPs
    of a branch in the third. `early_step`: at which the coefficient of a new domain is measured.
    """

    name: str = static()
    general: str = static()
    target: str = static()
    third: str = static()
    rise: float = static()
    widths: tuple[int, ...] = static()
    seeds: tuple[int, ...] = static()
    shares: tuple[float, ...] = static()
    third_shares: tuple[float, ...] = static()
    branch_steps: int = static()
    branch_evaluations: tuple[int, ...] = static()
    branch_peak: float = static()
    early_step: int = static()
    fit_from: float = static()
    held_share: float = static()
    held_from: float = static()
    check_width: int = static()
    check_seeds: tuple[int, ...] = static()
    limited_steps: int = static()
    budget: float = static()
    allocation_share: float = static()
    bootstrap: int = static()
    level: float = static()

    def __post_init__(self) -> None:
        both = set(self.seeds) & set(self.check_seeds)
        check(not both, "study.check_seeds", self.check_seeds, f"other seeds than {self.seeds}",
              "what a law is checked on must be new to it")
        check(self.check_width in self.widths, "study.check_width", self.check_width, f"one of {self.widths}",
              "choose among them")
        check(self.held_share in self.shares[1:-1], "study.held_share", self.held_share,
              f"one of the inner shares {self.shares[1:-1]}", "choose among them")
        check(self.early_step in self.branch_evaluations, "study.early_step", self.early_step,
              f"one of the evaluated steps {self.branch_evaluations}", "choose among them")
        for name, shares in (("shares", self.shares), ("third_shares", self.third_shares)):
            check(1.0 in shares, f"study.{name}", shares, "the domain alone, share 1, among them",
                  "its early losses make the coefficient of the domain; add 1.0")
        check(0.0 in self.shares, "study.shares", self.shares, "the general corpus alone, share 0, among them",
              "its early losses make the coefficient of that corpus; add 0.0")


def read(store: Store, target: str, settings: Settings) -> pd.DataFrame:
    """`branches` into a domain, with N as this study counts it, `trunk` (its name) and `fresh` (of a check seed).

    `loss` is on the level of the trunks that are not fresh: what is checked may not move what is decided.
    """
    table = branches(store, target)
    table = table.assign(N=table.flops_per_token / 6, fresh=table.seed.isin(settings.check_seeds),
                         trunk=table.width.astype(str) + "-" + table.seed.astype(str))
    level = starts(table[~table.fresh]).rename("level")
    table = table.join(level, on=["N", "domain"])
    return table.assign(loss=table.level + table.change).drop(columns="level")


def of_role(table: pd.DataFrame, role: str, settings: Settings, target: str | None = None) -> pd.DataFrame:
    """Rows of the domain's or the general loss, with r the token share of the corpus that is measured."""
    domain = settings.general if role == "general" else target or settings.target
    rows = table[table.domain == domain].reset_index(drop=True)
    return rows.assign(r=rows.share if role == "domain" else 1 - rows.share)


def late(table: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """The part of each branch that the laws are fitted to: they know no rise after the start."""
    whole = table.groupby("run_id").D.transform("max")
    return table[table.D >= settings.fit_from * whole].reset_index(drop=True)


def starts(table: pd.DataFrame) -> pd.Series:
    """Mean loss of the trunks, nats/token, by N and domain."""
    return table.groupby(["N", "domain", "seed"]).start.first().groupby(["N", "domain"]).mean()


def log_error(predicted: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """|log predicted - log measured|: a relative error."""
    return np.abs(np.log(predicted) - np.log(loss))
