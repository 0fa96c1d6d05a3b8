"""What the optimizer bench trains: its settings, quasi-random points, and the seed that tells each trial's place.

AlgoPerf's rules (Dahl et al. 2023, arXiv 2306.07179; v0.6). Every submission draws the same number of points from a
space of its own; a study is a few consecutive points of a Halton sequence, each with a seed of its own. The points of a
submission are the same on every workload, and seeds are the same for all submissions.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.stats import qmc

from scaling import fields
from scaling.fields import check, check_key, static
from scaling.optimizer import Optimizer
from scaling.schedule import Schedule
from scaling.workloads.trial import Trial, Workload

TUNING, RETRAINED, EXTERNAL, SELF = "tuning", "retrained", "external", "self_tuning"
SEEDS = {TUNING: 0, RETRAINED: 10_000, EXTERNAL: 20_000, SELF: 30_000}  # the first of each part of the bench
KINDS = ("log", "log_from_1")


@dataclasses.dataclass(frozen=True)
class Range:
    """Where a field is drawn from: `peak` of the schedule or a number of the optimizer, log-uniform from `low` to
    `high`; of kind log_from_1 it is 1 - field that is drawn.
    """

    field: str = static()
    kind: str = static(choices=KINDS)
    low: float = static()
    high: float = static()

    def __post_init__(self) -> None:
        check(0 < self.low < self.high, f"space of {self.field}", (self.low, self.high), "0 < low < high", "swap them")

    def at(self, share: float) -> float:
        """The value at a share of the range, 0 to 1."""
        drawn = float(self.low ** (1 - share) * self.high**share)
        return drawn if self.kind == "log" else 1 - drawn


@dataclasses.dataclass(frozen=True)
class Submission:
    """An optimizer with its schedule. What `space` draws replaces the value given; empty where nothing is tuned."""

    name: str = static()
    optimizer: Optimizer = static()
    schedule: str = static()
    peak: float = static()
    space: tuple[Range, ...] = static()

    def __post_init__(self) -> None:
        known = ["peak", *(name for name, value in vars(self.optimizer).items() if isinstance(value, float))]
        for drawn in self.space:
            check_key(drawn.field, known, f"space of {self.name}")

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from others among runs of one ruleset: the optimizer's name and form."""
        return self.optimizer.name, self.optimizer.form or ""


@dataclasses.dataclass(frozen=True)
class Language:
    """A language model workload: the domain that it is trained on and judged by."""

    name: str = static()
    held_out: bool = static()
    domain: str = static()

    @property
    def mixture(self) -> dict[str, float]:
        """Shares of the domains."""
        return {self.domain: 1.0}


@dataclasses.dataclass(frozen=True)
class Digit:
    """A workload of digits."""

    name: str = static()
    held_out: bool = static()
    workload: Workload = static()


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the configuration says of the bench.

    `horizon`: steps of a trial that sets targets; a scored one has `budget` times as many, one of self-tuning
    `self_budget` times those. `every`: steps between evaluations. `tuning_trials`: points of each baseline.
    `left_out`: optimizers that are not there, and why.
    """

    name: str = static()
    language: tuple[Language, ...] = static()
    digits: tuple[Digit, ...] = static()
    external: tuple[Submission, ...] = static()
    self_tuning: tuple[Submission, ...] = static()
    baselines: tuple[str, ...] = static()
    left_out: tuple[tuple[str, str], ...] = static(convert=fields.pairs)
    horizon: int = static()
    budget: float = static()
    self_budget: float = static()
    every: int = static()
    warmup: float = static()  # share of a trial
    tuning_trials: int = static()
    retrained: int = static()  # fresh seeds of the best point
    studies: int = static()
    trials: int = static()  # of a study
    draws: int = static()
    level: float = static()

    def __post_init__(self) -> None:
        known = [submission.name for submission in self.external]
        for name in self.baselines:
            check_key(name, known, "study.baselines")
        for ruleset in (self.external, self.self_tuning):
            keys = [submission.key for submission in ruleset]
            check(len(set(keys)) == len(keys), "study submissions", keys, "one of each optimizer and form in a ruleset",
                  "drop one, the store could not tell them apart")
        check(self.studies >= 4 and self.studies % 2 == 0, "study.studies", self.studies,
              "an even number of 4 or more, for halves to compare", "use 6")
        for part in (TUNING, EXTERNAL, SELF):
            steps = self.steps(part)
            check(steps % self.every == 0, f"study: steps of {part}", steps, f"a multiple of every = {self.every}",
                  "change horizon, budget or every")

    def steps(self, part: str) -> int:
        """Length of a trial."""
        scored = round(self.horizon * self.budget)
        return {EXTERNAL: scored, SELF: round(scored * self.self_budget)}.get(part, self.horizon)

    @property
    def workloads(self) -> tuple[Language | Digit, ...]:
        """All of them."""
        return (*self.language, *self.digits)


def settings_of(study: Mapping[str, Any]) -> Settings:
    """The bench's settings, converted as strictly as a run's."""
    return fields.convert(Settings, study, "study")


@dataclasses.dataclass(frozen=True)
class Entry:
    """One trial of the bench, on any workload: its place, and all that it says of optimizer and schedule."""

    part: str
    submission: str
    study: int
    trial: int
    seed: int
    optimizer: Optimizer
    schedule: Schedule


@functools.cache
def points(space: tuple[Range, ...], count: int) -> list[dict[str, float]]:
    """The first `count` points of a scrambled Halton sequence in a space, the same ones whenever it is asked."""
    if not space:
        return [{}] * count
    shares = qmc.Halton(len(space), seed=np.random.default_rng(0)).random(count)
    return [{drawn.field: drawn.at(share) for drawn, share in zip(space, row, strict=True)} for row in shares]


def entry(s: Settings, part: str, submission: Submission, point: Mapping[str, float], study: int, trial: int,
          place: int) -> Entry:
    """A trial of a submission at a point; `place`: its number within the part, which gives its seed."""
    drawn: dict[str, Any] = dict(point)
    peak = drawn.pop("peak", submission.peak)
    falls = submission.schedule != "constant"
    schedule = fields.convert(Schedule, {
        "name": submission.schedule, "peak": peak, "warmup": {"steps": round(s.warmup * s.steps(part))},
        "floor": 0.0 if falls else 1.0, "decay": None}, "schedule")
    return Entry(part, submission.name, study, trial, SEEDS[part] + place,
                 dataclasses.replace(submission.optimizer, **drawn), schedule)


def scored(s: Settings) -> list[Entry]:
    """Every trial of both rulesets, on one workload."""
    external = [entry(s, EXTERNAL, submission, point, place // s.trials, place % s.trials, place)
                for submission in s.external
                for place, point in enumerate(points(submission.space, s.studies * s.trials))]
    return external + [entry(s, SELF, submission, {}, study, 0, study)
                       for submission in s.self_tuning for study in range(s.studies)]


def tuning(s: Settings) -> list[Entry]:
    """The trials of the baselines that decide on the target, on one workload."""
    return [entry(s, TUNING, submission, point, 0, place, place)
            for submission in s.external if submission.name in s.baselines
            for place, point in enumerate(points(submission.space, s.tuning_trials))]


def retrained(s: Settings, best: Entry) -> list[Entry]:
    """The best of the tuning trials on fresh seeds."""
    return [dataclasses.replace(best, part=RETRAINED, study=index, trial=0, seed=SEEDS[RETRAINED] + index)
            for index in range(s.retrained)]


def trial(s: Settings, workload: Workload, at: Entry) -> Trial:
    """An entry on a workload of digits."""
    steps = s.steps(at.part)
    return Trial(workload, at.optimizer, at.schedule, steps, steps // s.every, at.seed)


def language_point(s: Settings, language: Language, at: Entry) -> dict[str, Any]:
    """An entry on a language model: a point of a sweep."""
    steps = s.steps(at.part)
    return {"optimizer": dataclasses.asdict(at.optimizer), "schedule": dataclasses.asdict(at.schedule),
            "training.seed": at.seed, "training.duration": {"steps": steps},
            "evaluation.steps": tuple(range(s.every, steps + 1, s.every)), "data.mixture": language.mixture}
