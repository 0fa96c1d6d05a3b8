"""One run's configuration: frozen dataclasses, converted strictly, validated once, hashed.

A field's metadata says whether it may differ between runs of one compiled program (`traced`) or belongs to the program
(`static`); nothing else in the code base decides that. Fields have no defaults: a configuration is complete as written.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import math
from collections.abc import Mapping
from typing import Any

from scaling import fields
from scaling.diagnostics import Diagnostics
from scaling.duration import LARGEST, Duration
from scaling.fields import check, static, traced
from scaling.model import Model, check_norm_beside
from scaling.optimizer import Optimizer
from scaling.packed import Packing, check_packing
from scaling.parametrization import check_parametrization
from scaling.schedule import Schedule
from scaling.weighing import Mixer, Objective, check_weighing

DTYPES = ("bfloat16", "float32", "float64")
MIXTURE_TOLERANCE = 1e-9
MOST_POINTS = 10_000  # evaluations of a run


@dataclasses.dataclass(frozen=True)
class Data:
    """What is read. `domains`: name to source. `mixture`: shares by domain, or phases ((start, shares), ...)."""

    domains: tuple[tuple[str, str], ...] = static(convert=fields.pairs)
    tokenizer: str = static()
    sequence: int = static()  # tokens predicted a window
    batch: int = static()  # windows a step
    mixture: tuple[tuple[float, tuple[tuple[str, float], ...]], ...] = traced(convert=fields.phases)
    unique_tokens: tuple[tuple[str, int], ...] = traced(convert=fields.pairs)  # domain to limit; {} for no limit

    def __post_init__(self) -> None:
        names = [name for name, _ in self.domains]
        check(bool(names), "data.domains", {}, "at least one domain", "name a domain and its source")
        for name in ("sequence", "batch"):
            value = getattr(self, name)
            check(value >= 1, f"data.{name}", value, "1 or more", "use a positive number")
            check(value <= LARGEST, f"data.{name}", value, f"at most {LARGEST}", "use a smaller number")
        starts = [start for start, _ in self.mixture]
        rising = all(early < late for early, late in itertools.pairwise(starts))
        ordered = bool(starts) and starts[0] == 0 and rising and starts[-1] < 1
        check(ordered, "data.mixture", starts, "phase starts that rise from 0 and stay below 1", "sort the phases")
        for _, shares in self.mixture:
            self._check_shares(dict(shares), names)
        for name, limit in self.unique_tokens:
            fields.check_key(name, names, "data.unique_tokens")
            check(limit >= self.sequence, f"data.unique_tokens.{name}", limit,
                  f"at least one window of data.sequence = {self.sequence} tokens", "raise the limit")

    @staticmethod
    def _check_shares(shares: Mapping[str, float], names: list[str]) -> None:
        for name, share in shares.items():
            fields.check_key(name, names, "data.mixture")
            check(0 <= share <= 1, f"data.mixture.{name}", share, "a share from 0 to 1", "correct the share")
        total = sum(shares.values())
        check(abs(total - 1) <= MIXTURE_TOLERANCE, "data.mixture", dict(shares),
              f"shares that sum to 1, not {total:.6g}", "scale the shares")

    @property
    def names(self) -> tuple[str, ...]:
        """Domain names, sorted: the order of every per-domain array."""
        return tuple(name for name, _ in self.domains)

    @property
    def tokens_per_step(self) -> int:
        return self.batch * self.sequence


@dataclasses.dataclass(frozen=True)
class Training:
    """Length, seed and arithmetic of a run. `diverged_above`: training loss, nats/token, that counts as divergence."""

    duration: Duration = traced()
    seed: int = traced()
    dtype: str = static(choices=DTYPES)
    accumulation: int = static()  # microbatches a step
    z_loss: float = traced()
    diverged_above: float = traced()

    def __post_init__(self) -> None:
        check(0 <= self.seed < 2**31, "training.seed", self.seed, "from 0 to 2**31 - 1", "use a small whole number")
        check(self.accumulation >= 1, "training.accumulation", self.accumulation, "1 or more", "use 1 for none")
        check(0 <= self.z_loss < math.inf, "training.z_loss", self.z_loss, "finite and not negative",
              "use 0 for none, or 1e-4")
        check(self.diverged_above > 0, "training.diverged_above", self.diverged_above, "positive", "use 20 nats")


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """When and on how much: `points` log-spaced steps or the listed `steps`; `windows` held-out windows a domain.

    Step 0 (before any update) and the last step are always evaluated.
    """

    points: int | None = traced()
    steps: tuple[int, ...] | None = traced(convert=fields.optional_tuple)
    windows: int = static()

    def __post_init__(self) -> None:
        given = {"points": self.points, "steps": self.steps}
        check((self.points is None) != (self.steps is None), "evaluation", given, "exactly one of points and steps",
              "set the other to None")
        check(self.points is None or self.points >= 2, "evaluation.points", self.points, "2 or more",
              "use 2 for the first and the last step")
        check(self.points is None or self.points <= MOST_POINTS, "evaluation.points", self.points,
              f"at most {MOST_POINTS}", "use fewer, each costs a pass over the held-out windows")
        rising = self.steps is None or (all(s >= 0 for s in self.steps) and list(self.steps) == sorted(set(self.steps)))
        check(rising, "evaluation.steps", self.steps, "rising steps, none negative", "sort them, drop repeats")
        check(self.windows >= 1, "evaluation.windows", self.windows, "1 or more", "use 64")


def _weights(value: Any, path: str) -> tuple | None:
    """Weights by run_id as pairs sorted by run_id; None where there are none."""
    is_mapping = hasattr(value, "items")
    check(value is None or is_mapping or isinstance(value, (tuple, list)), path, value, "weights by run_id",
          "write a dict")
    return None if value is None or (is_mapping and not value) else fields.pairs(value, path)


@dataclasses.dataclass(frozen=True)
class Parent:
    """A branch starts after step `at` of run `run_id`, optimizer state kept or reset; the stream of data goes on.

    The stream is a position in an order of the windows that `training.seed` decides. A branch of another seed than its
    parent's goes on at its parent's position in another order: some windows are seen twice in the epoch, some never.

    With `others`, weights by run_id, it starts from the weighted average of several runs' parameters after that step,
    θ = Σ w_i θ_i, where `run_id` has the weight 1 - Σ others; the stream is that of `run_id`. The average as it is
    stands at step 0 of the branch, which is always evaluated: one step at `schedule.peak` 0 does for that. Merging of
    modules: Na et al. 2024, arXiv 2410.15661.
    """

    run_id: str = traced()
    at: Duration = traced()
    optimizer: str = traced(choices=("keep", "reset"))
    others: tuple[tuple[str, float], ...] | None = traced(None, convert=_weights)

    def __post_init__(self) -> None:
        if self.others is None:
            return
        check(self.optimizer == "reset", "parent.optimizer", self.optimizer, "'reset' with parent.others, since the "
              "moments of several optimizers belong to no average", "use 'reset', or a single parent")
        for run_id, weight in self.others:
            check(run_id != self.run_id, "parent.others", run_id, "runs other than parent.run_id, whose weight is the "
                  "rest", "leave it out")
            check(0 < weight < 1, f"parent.others.{run_id}", weight, "a weight between 0 and 1",
                  "leave the run out, or lower the weight")
        rest = 1 - sum(weight for _, weight in self.others)
        check(rest > MIXTURE_TOLERANCE, "parent.others", dict(self.others), "weights that sum to less than 1, as "
              "parent.run_id has the rest", "lower them, or leave one run out")

    @property
    def weights(self) -> dict[str, float]:
        """Weight of every parent by run_id, the first parent first; they sum to 1."""
        others = dict(self.others or ())
        return {self.run_id: 1 - sum(others.values()), **others}


@dataclasses.dataclass(frozen=True)
class Run:
    """One model trained once under one complete configuration."""

    model: Model = static()
    data: Data = static()
    optimizer: Optimizer = static()
    schedule: Schedule = static()
    training: Training = static()
    evaluation: Evaluation = static()
    parent: Parent | None = traced()
    mixer: Mixer | None = static(None)
    objective: Objective | None = static(None)
    packing: Packing | None = static(None)
    diagnostics: Diagnostics | None = static(None)

    def __post_init__(self) -> None:
        check(self.data.batch % self.training.accumulation == 0, "training.accumulation", self.training.accumulation,
              f"a divisor of data.batch = {self.data.batch}", "change one of the two")
        divides = self.optimizer.decay_convention == "independent"
        check(self.schedule.peak > 0 or not divides, "schedule.peak", self.schedule.peak,
              "a positive peak with optimizer.decay_convention = 'independent', which divides by it",
              "raise the peak or use 'coupled'")
        field, low = self.optimizer.momentum_field, self.schedule.low_momentum
        own = None if field is None else getattr(self.optimizer, field)
        check(low is None or (own is not None and low <= own), "schedule.low_momentum", low,
              f"None with {self.optimizer.name}" if own is None else f"at most optimizer.{field} = {own}",
              "leave it out, or lower it")
        check_weighing(self.mixer, self.objective, self.data.names, self.training.accumulation)
        check_packing(self.packing, self.mixer, self.objective, self.data.names, self.data.sequence)
        check_parametrization(self.model.base, self.optimizer)
        check_norm_beside(self.model.norm, self.optimizer.name, {
            name: getattr(self, name) for name in ("mixer", "objective", "packing", "diagnostics")})
        if self.mixer is not None:
            self._check_mixer(self.mixer)

    def _check_mixer(self, mixer: Mixer) -> None:
        """What a mixer asks of the data and the parent."""
        check(len(self.data.mixture) == 1, "data.mixture", self.data.mixture, "one phase with a mixer, to start from",
              "drop the others")
        if mixer.name == "doremi":
            check(self.parent is not None and self.parent.optimizer == "reset", "parent", self.parent,
                  "the reference run of doremi, with optimizer 'reset' (the run itself starts fresh)", "name one")
        shares, names = dict(self.data.mixture[0][1]), self.data.names
        if mixer.name == "aioli":
            check(min(shares.get(name, 0) for name in names) > 0, "data.mixture", shares,
                  "a share for every domain with aioli, which probes them all", "leave the others out of data.domains")
        if mixer.name == "doge":
            equal = len(shares) == len(names) and max(shares.values()) - min(shares.values()) < MIXTURE_TOLERANCE
            check(equal and self.data.batch % len(names) == 0, "data.mixture, data.batch", (shares, self.data.batch),
                  f"equal shares and a batch that {len(names)} domains divide, with doge", "change them")

    @functools.cached_property
    def run_id(self) -> str:
        """Twelve hex digits: SHA-256 of the canonical JSON of every field, durations in steps where units allow."""
        given = {name: getattr(self, name) for name in fields.names(Run) if name != "parent"}
        canonical = {name: _canonical_section(section, self.data.tokens_per_step)
                     for name, section in given.items() if section is not None}
        if self.parent is not None:  # its step counts in the parent's batches, not ours
            canonical["parent"] = {**vars(self.parent), "at": vars(self.parent.at)}
            if self.parent.others is None:  # so that runs of one parent keep their ids
                del canonical["parent"]["others"]
        text = json.dumps(canonical, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def parent_ids(self) -> tuple[str, ...]:
        """The runs that this one starts from, that whose stream of data goes on first; none of a trunk."""
        return () if self.parent is None else tuple(self.parent.weights)

    @functools.cached_property
    def program(self) -> Run:
        """This configuration with traced fields replaced by `fields.TRACED`: the key under which code is compiled."""
        return fields.without_traced(self)

    def flat(self) -> dict[str, Any]:
        """Every field by dotted name, nested values as JSON text: one row's worth of columns."""
        return fields.flatten(self)

    def dump(self) -> dict[str, Any]:
        """The whole configuration as plain JSON values, accepted back by `run_from`."""
        return json.loads(json.dumps(dataclasses.asdict(self)))


def _canonical_section(section: Any, tokens_per_step: int) -> Any:
    """Not cached: to a cache 1, 1.0 and True are one, and an id would depend on the runs before it."""
    if isinstance(section, Duration):
        if section.epochs is not None:
            return {"epochs": section.epochs}
        return {"steps": section.in_steps(tokens_per_step)}
    if fields.is_section(section):
        given = {field.name: getattr(section, field.name) for field in dataclasses.fields(section)
                 if getattr(section, field.name) != field.default}  # a new optional field leaves old ids alone
        return {name: _canonical_section(value, tokens_per_step) for name, value in given.items()}
    return section


def run_from(values: Mapping[str, Any]) -> Run:
    """Convert a nested mapping (an `ml_collections.ConfigDict` too) to a `Run`.

    Raises ConfigError for a missing or unknown key (with the nearest valid one), a wrong type or an impossible value.
    """
    return fields.convert(Run, values, path="")
