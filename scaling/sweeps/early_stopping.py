"""Predictive early stopping: which runs of a job cannot matter to the question that the sweep is asked.

The question: which configuration, averaged over its seeds, ends with the lowest held-out loss of a domain? At each
evaluation every contender's curve so far is extrapolated to its end (`forecast.py`); one that ends below the
leader with a chance of at most (1 - level) / looks is out, and its runs stop. By the union bound over the looks the
eventual winner is stopped with a chance of at most 1 - level, as far as the forecast's assumptions hold and the leader
does not diverge later.

Contenders are held against those of their own job only: runs that share program, horizon and evaluations. So decisions
follow from the job's own curves, whatever else was trained before or beside it, and a resumed job replays them from the
rows in the store.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from scaling.config import Run
from scaling.fields import check
from scaling.sweeps.forecast import LEAST, Forecast, forecast, used_points
from scaling.training.recorder import Snapshot, held_out

Losses = Mapping[str, tuple[float, float]]  # loss and its standard error by run_id


@dataclasses.dataclass(frozen=True)
class Question:
    """Which configuration ends with the lowest held-out loss of `domain`; `level`: confidence of all stops together."""

    domain: str
    level: float

    def __post_init__(self) -> None:
        check(0.5 <= self.level < 1, "confidence", self.level, "a level from 0.5 to below 1", "use 0.95")


@dataclasses.dataclass(frozen=True, eq=False)
class Contender:
    """Runs that differ in their seeds alone; `rate_T`: the learning rate of every step of each of them."""

    run_ids: tuple[str, ...]
    rate_T: np.ndarray


@dataclasses.dataclass(frozen=True)
class Stop:
    """The step after which a run was trained no further, and why."""

    step: int
    reason: str


class Contest:
    """The contenders of a job, from evaluation to evaluation.

    `needed`: by run_id, the last step from which another run branches; a run is not stopped before it. A contender with
    a run that diverged is judged by its sound runs, and leads nobody. `stops`: what was decided so far.
    """

    def __init__(
        self, question: Question, contenders: Sequence[Contender], evaluations: Iterable[int],
        needed: Mapping[str, int],
    ) -> None:
        self.question, self.contenders, self.needed = question, list(contenders), needed
        self.steps = sorted(step for step in evaluations if step > 0)
        self.looks = [step for step in self.steps[:-1] if any(self._ready(c, step) for c in self.contenders)]
        self.stops: dict[str, Stop] = {}
        self._out: dict[int, str] = {}  # contender to reason
        self._seen: dict[int, Losses] = {}

    def _ready(self, contender: Contender, step: int) -> bool:
        return len(used_points(np.array([s for s in self.steps if s <= step]), contender.rate_T)) >= LEAST

    def see(self, step: int, losses: Losses) -> dict[str, Stop]:
        """Take the losses after a step of the runs that have not diverged; the stops they lead to."""
        self._seen[step] = {run_id: found for run_id, found in losses.items()
                            if run_id not in self.stops and math.isfinite(found[0])}
        if step not in self.looks:
            return {}
        forecasts = {place: self._forecast(contender, step) for place, contender in enumerate(self.contenders)
                     if place not in self._out and self._ready(contender, step) and self._sound(contender, step)}
        leading = [place for place in forecasts if len(self._sound(self.contenders[place], step))
                   == len(self.contenders[place].run_ids)]
        if leading:
            leader = min(leading, key=lambda place: forecasts[place].quantile(0.5))
            for place, found in forecasts.items():
                if place != leader and found.chance_below(forecasts[leader]) <= self._risk:
                    self._out[place] = self._reason(found, forecasts[leader], self.contenders[leader])
        stops = {run_id: Stop(step, reason) for place, reason in self._out.items()
                 for run_id in self._sound(self.contenders[place], step) if self.needed.get(run_id, 0) <= step}
        self.stops |= stops
        return stops

    @property
    def _risk(self) -> float:
        return (1 - self.question.level) / len(self.looks)

    def _sound(self, contender: Contender, step: int) -> list[str]:
        return [run_id for run_id in contender.run_ids if run_id in self._seen[step] and run_id not in self.stops]

    def _forecast(self, contender: Contender, step: int) -> Forecast:
        """Of the mean over the contender's sound runs."""
        run_ids = self._sound(contender, step)
        steps = sorted(s for s in self._seen if 0 < s <= step)
        values_Mx2 = np.array([np.mean([self._seen[s][run_id] for run_id in run_ids], axis=0) for s in steps])
        return forecast(np.array(steps), values_Mx2[:, 0], values_Mx2[:, 1], contender.rate_T)

    def _reason(self, found: Forecast, best: Forecast, leader: Contender) -> str:
        tail = (1 - self.question.level) / 2
        own, other = ([each.quantile(tail), each.quantile(1 - tail)] for each in (found, best))
        return (f"annealing law at level {self.question.level:g}: {self.question.domain} ends at {own[0]:.4f} to "
                f"{own[1]:.4f}, run {leader.run_ids[0]} and its seeds at {other[0]:.4f} to {other[1]:.4f}; chance to "
                f"end lower {found.chance_below(best):.2g}, at most {self._risk:.2g} asked")


def contenders(runs: Sequence[Run], by_id: Mapping[str, Run], rates: Mapping[str, np.ndarray]) -> list[Contender]:
    """Runs grouped by all of their configuration, and their ancestors', but the seed; `rates`: rate_T by run_id."""
    groups: dict[str, list[str]] = {}
    for run in runs:
        groups.setdefault(_seedless(run, by_id), []).append(run.run_id)
    return [Contender(tuple(run_ids), rates[run_ids[0]]) for run_ids in groups.values()]


def _seedless(run: Run, by_id: Mapping[str, Run]) -> str:
    """The run_id that seed 0 would have, after those of its parents so changed."""
    alike = dataclasses.replace(run, training=dataclasses.replace(run.training, seed=0))
    if run.parent is None:
        return alike.run_id
    parents = sorted((_seedless(by_id[run_id], by_id), weight) for run_id, weight in run.parent.weights.items())
    parent = dataclasses.replace(run.parent, run_id=json.dumps(parents), others=None)
    return dataclasses.replace(alike, parent=parent).run_id


def replay(contest: Contest, curves: pd.DataFrame) -> dict[str, Stop]:
    """Show a contest the rows of a store's `curves`, evaluation by evaluation; the stops that follow.

    Rows of a run after its stop are passed over, so that a sweep recorded in full tells what stopping would have done.
    """
    rows = curves[(curves.split == "validation") & (curves.domain == contest.question.domain) & (curves.step > 0)]
    for step in sorted(rows.step.unique().tolist()):
        at = rows[rows.step == step]
        contest.see(step, dict(zip(at.run_id, zip(at.loss, at.loss_se, strict=True), strict=True)))
    return contest.stops


class Referee:
    """Runs the contest of a job in training: on its snapshots and, when it resumes, on its rows in the store."""

    def __init__(
        self, contest: Contest, run_ids: Sequence[str], domain: int, curves: Callable[[], pd.DataFrame],
    ) -> None:
        self.contest, self.run_ids, self.domain, self.curves = contest, list(run_ids), domain, curves

    def stop(self, snapshot: Snapshot) -> list[str]:
        """The runs that end at a snapshot."""
        if snapshot.step == 0:
            return []
        diverged_R = (snapshot.diverged_at_R >= 0) & (snapshot.diverged_at_R <= snapshot.step)
        losses = {run_id: held_out(snapshot.losses_RxKxM[index, self.domain])
                  for index, run_id in enumerate(self.run_ids) if not diverged_R[index]}
        return list(self.contest.see(snapshot.step, losses))

    def stopped(self, step: int) -> list[str]:
        """The runs that had ended by the step of a checkpoint: the decisions once more, from the same numbers."""
        curves = self.curves()
        mine = curves[curves.run_id.isin(self.run_ids) & (curves.step <= step)]
        return list(replay(self.contest, mine))
