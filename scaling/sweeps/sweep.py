"""A sweep: a base configuration and stages of axes, expanded to runs; a stage may branch from an earlier one."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from scaling import fields
from scaling.config import Parent, Run
from scaling.fields import ConfigError
from scaling.sweeps.grid import Axis, Point, points


@dataclasses.dataclass(frozen=True)
class Stage:
    """Runs of one kind. Without `parent`: the base configuration at each point. With it: each run of the parent stage
    continued at each point, where the keys parent.at and parent.optimizer say how; other keys change the parent's
    configuration.

    Points may also be a function of the parent stage's runs. Each then says as parent.run_id which of them it
    continues and, where it starts from an average, as parent.others the weights of the rest.
    """

    name: str
    points: Axis | Callable[[Sequence[Run]], Axis]
    parent: str | None = None


@dataclasses.dataclass(frozen=True)
class Sweep:
    """`pinned`: values that the user gave for keys that axes set too; the axes give way."""

    base: Run
    stages: tuple[Stage, ...]
    pinned: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def runs(self) -> list[Run]:
        """Every run once, parents before children.

        Raises ConfigError for an unknown key, an unknown or cyclic parent, a value that its configuration refuses.
        """
        expanded: dict[str, list[Run]] = {}
        for stage in _in_order(self.stages):
            starts = [self.base] if stage.parent is None else expanded[stage.parent]
            expanded[stage.name] = [self._at(stage, start, point) for start, point in _placed(stage, starts)]
        return list({run.run_id: run for runs in expanded.values() for run in runs}.values())

    def _at(self, stage: Stage, start: Run, point: Point) -> Run:
        point = self._pin(stage, point)
        branch = {key: value for key, value in point.items() if key.startswith("parent.")}
        changes = {key: value for key, value in point.items() if key not in branch}
        if stage.parent is not None and "parent" in changes:
            raise ConfigError(f"stage {stage.name!r} sets 'parent' as a whole and has a parent stage; drop one of them")
        if stage.parent is None:
            if branch:
                raise ConfigError(f"stage {stage.name!r} sets {sorted(branch)} but has no parent stage; name one")
            return overlay(start, changes)
        missing = {"parent.at", "parent.optimizer"} - branch.keys()
        if missing:
            raise ConfigError(f"stage {stage.name!r}: a branch needs {sorted(missing)} in each of its points; add them")
        parent = {key.removeprefix("parent."): value for key, value in branch.items()}
        changes["parent"] = fields.convert(Parent, {"run_id": start.run_id, **parent}, "parent")
        return overlay(start, changes)

    def _pin(self, stage: Stage, point: Point) -> Point:
        """The point with the user's values in place of the axes'. A part of an axis's value cannot be pinned."""
        for key in self.pinned:
            whole = [axis for axis in point if key.startswith(f"{axis}.") or axis.startswith(f"{key}.")]
            if whole:
                raise ConfigError(f"override {key!r}: stage {stage.name!r} sets {whole[0]!r} as a whole; override the "
                                  "setting that the stage takes it from, or the axis in the configuration file")
        return {**point, **{key: value for key, value in self.pinned.items() if key in point}}


def _placed(stage: Stage, starts: Sequence[Run]) -> list[tuple[Run, Point]]:
    """The points of a stage, each with the run that it changes or continues."""
    if not callable(stage.points):
        return [(start, point) for start in starts for point in points(stage.points)]
    if stage.parent is None:
        raise ConfigError(f"stage {stage.name!r} takes its points from the runs of a parent stage but has none; name "
                          "one")
    by_id = {run.run_id: run for run in starts}
    listed = points(stage.points(starts))
    for point in listed:
        fields.check_key(point.get("parent.run_id"), by_id, f"stage {stage.name!r}: parent.run_id")
    return [(by_id[point["parent.run_id"]], point) for point in listed]


def _in_order(stages: Sequence[Stage]) -> list[Stage]:
    """Parents before children, otherwise as given."""
    by_name = {stage.name: stage for stage in stages}
    if len(by_name) != len(stages):
        raise ConfigError(f"stages {[stage.name for stage in stages]}: expected different names; rename one")
    ordered: list[Stage] = []
    waiting = list(stages)
    while waiting:
        ready = [s for s in waiting if s.parent is None or s.parent in {done.name for done in ordered}]
        for stage in waiting:
            if stage.parent is not None:
                fields.check_key(stage.parent, by_name, f"stage {stage.name!r}: parent")
        if not ready:
            raise ConfigError(f"stages {[s.name for s in waiting]}: their parents form a cycle; break it")
        ordered += ready
        waiting = [stage for stage in waiting if stage not in ready]
    return ordered


def overlay(run: Run, changes: Mapping[str, Any]) -> Run:
    """`run` with the values at dotted keys replaced; an unknown key is refused with the nearest valid one."""
    by_section: dict[str, dict[str, Any]] = {}
    for key, value in changes.items():
        section, _, rest = key.partition(".")
        fields.check_key(section, fields.names(Run), f"axis {key!r}")
        by_section.setdefault(section, {})[rest] = value
    replaced = {}
    for section, values in by_section.items():
        if "" in values:
            parts = sorted(f"{section}.{key}" for key in values if key)
            if parts:
                raise ConfigError(f"grid: {section!r} is set as a whole and so is its part {parts[0]!r}; keep one")
            replaced[section] = fields.convert_field(Run, section, values[""], section)
        elif getattr(run, section) is None:
            raise ConfigError(f"axis {section + '.' + min(values)!r}: the base configuration has no {section}; set "
                              f"{section!r} as a whole, there or in the axis")
        else:
            frozen = tuple((key, type(value), _frozen(value, f"{section}.{key}"))
                           for key, value in sorted(values.items()))
            replaced[section] = _changed_section(getattr(run, section), section, frozen)
    return dataclasses.replace(run, **replaced)


@functools.lru_cache(maxsize=65536)
def _changed_section(section: Any, name: str, values: tuple[tuple[str, type, Any], ...]) -> Any:
    """A section with fields replaced; cached, since the points of a grid share most of their sections."""
    cls: Any = type(section)
    for key, _, _ in values:
        fields.check_key(key, fields.names(cls), f"axis {name + '.' + key!r}")
    return dataclasses.replace(
        section, **{key: fields.convert_field(cls, key, _thaw(value), f"{name}.{key}") for key, _, value in values})


class _Items(tuple):
    """A mapping's items, hashable."""


def _frozen(value: Any, path: str) -> Any:
    try:
        return _freeze(value)
    except RecursionError as error:
        raise ConfigError(f"{path} = {fields.shown(value)}: expected a value that is not nested so deeply; write it "
                          "flat") from error


def _freeze(value: Any) -> Any:
    if hasattr(value, "items"):
        return _Items((key, _freeze(item)) for key, item in value.items())
    return tuple(_freeze(item) for item in value) if isinstance(value, (list, tuple)) else value


def _thaw(value: Any) -> Any:
    if isinstance(value, _Items):
        return {key: _thaw(item) for key, item in value}
    return tuple(_thaw(item) for item in value) if isinstance(value, tuple) else value
