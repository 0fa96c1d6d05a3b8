"""From runs to packs: what trains together, in which order, and what each pack must keep for its branches."""

from __future__ import annotations

import dataclasses
import graphlib
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from scaling.config import Run
from scaling.fields import ConfigError, check
from scaling.files import CorruptFileError
from scaling.seal import read_json, write_json
from scaling.training.tables import (
    Windows,
    evaluation_steps,
    horizon,
    in_steps,
    learning_rates,
    observations,
    window_limits,
)

PLAN_CURE = ("restore it from a copy, or move it away: finished runs stay, and those still to train are planned anew, "
             "which may move their results within float reassociation")


@dataclasses.dataclass(frozen=True)
class Width:
    """How many runs a pack holds at most, how many are vmapped at a time, over how many devices one run is split."""

    lanes: int
    vmap: int
    data: int

    def narrower(self) -> Width:
        """As many lanes, at most half as many of them vmapped at a time; of vmap 1 there is none."""
        fitting = [vmap for vmap in range(1, self.vmap // 2 + 1) if self.vmap % vmap == 0]
        return dataclasses.replace(self, vmap=max(fitting))


@dataclasses.dataclass(frozen=True)
class Pack:
    """Runs of one program, horizon and evaluation steps, trained together. Once planned in a workdir, a pack stays."""

    pack_id: str
    run_ids: tuple[str, ...]
    width: Width

    @property
    def is_sound(self) -> bool:
        """Whether it can be a pack at all: one or more names of runs, in a width of whole numbers."""
        numbers = [type(number) is int and number >= 1 for number in dataclasses.astuple(self.width)]
        names = [isinstance(name, str) for name in (self.pack_id, *self.run_ids)]
        return bool(self.run_ids) and all(names) and all(numbers)


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs that may share packs: one program, generation, horizon and list of evaluation steps."""

    program: Run
    generation: int
    steps: int
    evaluations: tuple[int, ...]


def generations(runs: Sequence[Run]) -> dict[str, int]:
    """Generation of each run by run_id: 0 for a trunk, one more than its parents' latest for a branch.

    Raises ConfigError for a parent that is not in the sweep and for parents that form a cycle.
    """
    parents = {run.run_id: run.parent_ids for run in runs}
    for run in runs:
        for run_id in parents[run.run_id]:
            if run_id not in parents:
                raise ConfigError(f"{_field_of(run, run_id)} = {run_id!r}: expected a run of this sweep (run "
                                  f"{run.run_id} branches from it); add the parent to the sweep")
    found: dict[str, int] = {}
    try:
        for run_id in graphlib.TopologicalSorter(parents).static_order():
            found[run_id] = 1 + max((found[parent] for parent in parents[run_id]), default=-1)
    except graphlib.CycleError as error:
        cycle = set(error.args[1])
        run = next(run for run in runs if run.run_id in cycle)
        run_id = next(run_id for run_id in parents[run.run_id] if run_id in cycle)
        raise ConfigError(f"{_field_of(run, run_id)} = {run_id!r}: the parents of run {run.run_id} form a cycle; "
                          "break it") from error
    return found


def _field_of(run: Run, parent_id: str) -> str:
    """The field that names a parent."""
    assert run.parent is not None
    return "parent.run_id" if parent_id == run.parent.run_id else "parent.others"


def check_run(run: Run, parents: Sequence[Run], windows: Windows) -> None:
    """Refuse before any compute what only the corpus or the parents can tell: windows, horizons, branch steps."""
    check(run.training.dtype != "float64" or jax.config.read("jax_enable_x64"), "training.dtype", run.training.dtype,
          "float32 or bfloat16, since JAX computes in 32 bits unless told otherwise", "set JAX_ENABLE_X64=1")
    window_limits(run, windows)
    learning_rates(run, horizon(run, windows), windows)
    observations(run, horizon(run, windows))
    if run.parent is None:
        return
    first, *others = parents
    if first.mixer is not None:
        raise ConfigError(f"parent.run_id = {first.run_id!r}: expected a parent without a mixer, since where its "
                          "stream of data stands is not known beforehand; give the branch's work to the run itself")
    for parent in parents:
        _check_parent(run, parent, windows)
    if run.parent.optimizer == "keep":
        _check_kept(run, first)
    at = in_steps(first, run.parent.at, windows)
    for other in others:
        found = in_steps(other, run.parent.at, windows)
        check(found == at, "parent.at", found, f"step {at} of {other.run_id} as of {first.run_id}, since the states of "
              "one step are averaged", "give it in steps, or average runs of one data.batch")


def _check_parent(run: Run, parent: Run, windows: Windows) -> None:
    """Refuse a parent that has no state which this branch can start from."""
    assert run.parent is not None
    field = _field_of(run, parent.run_id)
    at, steps = in_steps(parent, run.parent.at, windows), horizon(parent, windows)
    if not 1 <= at <= steps:
        raise ConfigError(f"parent.at = {at} steps: expected 1 to {steps}, the length of parent {parent.run_id}; "
                          "branch earlier or train the parent longer")
    if parent.model != run.model or parent.data.tokenizer != run.data.tokenizer:
        raise ConfigError(f"{field} = {parent.run_id!r}: expected a parent with the model and tokenizer of run "
                          f"{run.run_id}; a branch may change data, schedule and training only")
    ours, theirs = ((part.data.names, part.data.sequence, part.packing) for part in (run, parent))
    if ours != theirs:
        raise ConfigError(f"{field} = {parent.run_id!r}: expected the same data.domains, data.sequence and packing as "
                          f"run {run.run_id}, whose stream of data goes on from it; name all domains in the parent too")


def _check_kept(run: Run, parent: Run) -> None:
    """Refuse an optimizer that the parent's state would not fit, or to which it would mean something else."""
    shaping = ["name", "form", "rank", "groups"]
    if run.optimizer.name == "schedule_free":
        shaping.append("b1")  # what was trained stands for its average by the b1 of the parent alone
    fields = {f"optimizer.{name}": (getattr(run.optimizer, name), getattr(parent.optimizer, name)) for name in shaping}
    fields["training.dtype"] = run.training.dtype, parent.training.dtype
    for field, (ours, theirs) in fields.items():
        check(ours == theirs, field, ours, f"{theirs!r} as in parent {parent.run_id}, whose optimizer state goes on "
              "with parent.optimizer = 'keep'", "use the same, or parent.optimizer = 'reset'")


def groups(runs: Sequence[Run], windows: Mapping[Run, Windows]) -> dict[Group, list[Run]]:
    """Runs by what they can share a pack in, parents' generations first, otherwise in the sweep's order."""
    by_id = {run.run_id: run for run in runs}
    generation = generations(runs)
    checked: set[Any] = set()
    found: dict[Group, list[Run]] = {}
    for run in sorted(runs, key=lambda run: generation[run.run_id]):
        corpus_windows = windows[run.program]
        facts = (run.program, run.data, run.optimizer, run.schedule, run.training.duration, run.parent)
        if facts not in checked:
            check_run(run, [by_id[run_id] for run_id in run.parent_ids], corpus_windows)
            checked.add(facts)
        steps = horizon(run, corpus_windows)
        group = Group(run.program, generation[run.run_id], steps, evaluation_steps(run, steps))
        found.setdefault(group, []).append(run)
    return found


def largest_groups(grouped: Mapping[Group, Sequence[Run]]) -> dict[Run, Sequence[Run]]:
    """The runs of the largest group of each program."""
    largest: dict[Run, Sequence[Run]] = {}
    for group, members in grouped.items():
        largest[group.program] = max(largest.get(group.program, ()), members, key=len)
    return largest


def packs_of(runs: Iterable[Run], width: Width) -> list[Pack]:
    """Cut one group's runs into packs of at most `width.lanes`."""
    ids = [run.run_id for run in runs]
    parts = [tuple(ids[start:start + width.lanes]) for start in range(0, len(ids), width.lanes)]
    return [Pack(hashlib.sha256(json.dumps(part).encode()).hexdigest()[:12], part, width) for part in parts]


class Manifest:
    """The packs of a workdir, in order of planning, in one sealed JSON file. A resumed or widened sweep only adds.

    Raises CorruptFileError for a damaged file: which runs were trained beside which is then for the user to restore.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            listed = read_json(path) if path.exists() else []
        except CorruptFileError as error:
            raise CorruptFileError(path, error.why, PLAN_CURE) from error
        try:
            self.packs = [Pack(p["pack_id"], tuple(p["run_ids"]), Width(**p["width"])) for p in listed]
            strange = [pack for pack in self.packs if not pack.is_sound]
        except (KeyError, TypeError) as error:
            raise CorruptFileError(path, f"no plan ({type(error).__name__}: {error})", PLAN_CURE) from error
        if strange:
            raise CorruptFileError(path, f"no plan: {strange[0]!r:.200}", PLAN_CURE)

    def extend(self, grouped: Mapping[Group, Sequence[Run]], width_of: Callable[[Group, int], Width]) -> None:
        """Plan packs for the runs that have none; `width_of(group, number of runs)` decides how wide."""
        planned = {run_id for pack in self.packs for run_id in pack.run_ids}
        before = len(self.packs)
        for group, runs in grouped.items():
            missing = [run for run in runs if run.run_id not in planned]
            if missing:
                self.packs += packs_of(missing, width_of(group, len(missing)))
        if len(self.packs) > before:
            write_json(self.path, [dataclasses.asdict(pack) for pack in self.packs])


def branch_step(run: Run, by_id: Mapping[str, Run], windows: Mapping[Run, Windows]) -> int:
    """The step of its parents that a branch starts from."""
    assert run.parent is not None
    parent = by_id[run.parent.run_id]
    return in_steps(parent, run.parent.at, windows[parent.program])


def branch_points(runs: Iterable[Run], by_id: Mapping[str, Run], windows: Mapping[Run, Windows]) -> dict[str, set[int]]:
    """Steps of each parent, by run_id, at which these runs branch."""
    points: dict[str, set[int]] = {}
    for run in runs:
        for run_id in run.parent_ids:
            points.setdefault(run_id, set()).add(branch_step(run, by_id, windows))
    return points
