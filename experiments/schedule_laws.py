"""The annealing law and the multi-power law on our own curves: fits to seen schedules, predictions of unseen ones, and
baselines that know no law.

Tables have columns seed, schedule, updates (those that the loss has seen), step (updates - 1, the place of the last of
them in a table of rates), lr, loss.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd

from experiments.recommended_schedule import recommended
from scaling import fitting
from scaling.fitting import Fit
from scaling.fitting.best_schedule import BestSchedule
from scaling.laws.annealing import ANNEALING
from scaling.laws.law import Law
from scaling.laws.multi_power import multi_power
from scaling.laws.schedule import MOMENTUM, Schedules, areas, with_areas

ANNEALED, MULTI = "annealing", "multi-power"
LAWS = (ANNEALED, MULTI)
MEAN, AREA = "mean of seen curves", "constant rate at equal area"
BASELINES = (MEAN, AREA)


@dataclasses.dataclass(frozen=True)
class Family:
    """Schedules at one peak, and which of them the laws are fitted to; `momentum`: of the annealing area."""

    schedules: Schedules
    seen: tuple[str, ...]
    warmup: int
    momentum: float

    def law(self, name: str) -> Law:
        """The law of that name for these schedules."""
        return ANNEALING if name == ANNEALED else multi_power(self.schedules)

    def points(self, table: pd.DataFrame) -> pd.DataFrame:
        """The table with the inputs of both laws."""
        with_step = table.assign(step=table.updates - 1)
        return with_areas(with_step, self.schedules, warmup=self.warmup, momentum=self.momentum)

    def fit(self, name: str, table: pd.DataFrame) -> Fit:
        """A law fitted to the rows of seen schedules; the others are held out."""
        points = self.points(table).reset_index(drop=True)
        held_M = ~points.schedule.isin(self.seen).to_numpy()
        return fitting.fit(self.law(name), points, group="schedule", bootstrap=0, holdout=held_M if any(held_M) else
                           None)

    def best(self, name: str, table: pd.DataFrame, floor: float) -> tuple[Fit, BestSchedule]:
        """The schedule that a law fitted to the mean of the seen curves over seeds recommends, from the same peak to
        `floor`, as long as the others.
        """
        fit = self.fit(name, mean_curves(table[table.schedule.isin(self.seen)]))
        lr_T = self.schedules[self.seen[0]]
        _, found = recommended(fit, steps=len(lr_T), peak=float(lr_T.max()), floor=floor, warmup=self.warmup,
                               momentum=self.momentum)
        return fit, found


def mean_curves(table: pd.DataFrame) -> pd.DataFrame:
    """Mean loss over seeds."""
    return table.groupby(["schedule", "updates"]).loss.mean().reset_index()


def choose_momentum(family: Family, table: pd.DataFrame, momenta: Sequence[float]) -> pd.DataFrame:
    """Objective of the annealing law on the mean of the seen curves at each momentum; `chosen` is the least.

    Never looks at an unseen schedule; the published momentum is among those tried, whether listed or not.
    """
    seen = mean_curves(table[table.schedule.isin(family.seen)])
    rows = [{"momentum": momentum, "objective": dataclasses.replace(family, momentum=momentum)
             .fit(ANNEALED, seen).value} for momentum in sorted({*momenta, MOMENTUM})]
    tried = pd.DataFrame(rows)
    return tried.assign(chosen=tried.index == tried.objective.idxmin())


def predictions(family: Family, table: pd.DataFrame, whole: pd.DataFrame, fits: dict[str, Fit]) -> pd.DataFrame:
    """Rows of the unseen schedules of one seed, with a column for what each law and each baseline makes of them.

    `whole`: the curves of that seed from the first update on. MEAN: of the seen schedules, after as many updates. AREA:
    a run at constant rate when it had the same sum of rates, between its logged points.
    """
    points = family.points(table)
    held = points[~points.schedule.isin(family.seen)].sort_values(["schedule", "updates"])
    guess = points[points.schedule.isin(family.seen)].groupby("updates").loss.mean().rename(MEAN)
    flat = whole[(whole.schedule == "constant") & (whole.updates > 0)].sort_values("updates")
    reached = {name: areas(family.schedules[name], warmup=0)[0] for name in family.schedules.names}
    area_K = reached["constant"][flat.updates.to_numpy() - 1]
    area_M = [reached[name][step] for name, step in zip(held.schedule, held.step, strict=True)]
    laws = {name: fit.predict(held) for name, fit in fits.items()}
    return held.assign(**laws, **{AREA: np.interp(area_M, area_K, flat.loss)}).join(guess, on="updates")
