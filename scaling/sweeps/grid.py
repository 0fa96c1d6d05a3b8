"""Grids as data: a grid is a list of points, a point a mapping from dotted keys to values."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from scaling.fields import ConfigError, shown

Point = dict[str, Any]
Axis = Mapping[str, Sequence[Any]] | Sequence[Point]


def points(axis: Axis) -> list[Point]:
    """The points of an axis: {key: values} is one point a value; several keys in one mapping form their product."""
    if isinstance(axis, Mapping):
        for key, values in axis.items():
            if isinstance(values, (str, Mapping)) or not hasattr(values, "__len__"):
                raise ConfigError(f"axis {shown(key)} = {shown(values)}: expected a sequence of values; wrap it in a "
                                  "list")
        columns = [[(key, value) for value in values] for key, values in axis.items()]
        listed = [dict(row) for row in itertools.product(*columns)]
    elif (isinstance(axis, str) or not isinstance(axis, Iterable)
          or not all(isinstance(point, Mapping) for point in axis)):
        raise ConfigError(f"axis {shown(axis)}: expected {{key: values}} or a list of points; write {{key: values}}")
    else:
        listed = [dict(point) for point in axis]
    if not listed:
        raise ConfigError(f"axis {shown(axis)}: expected at least one value; give one or drop the axis")
    for key in {key for point in listed for key in point}:
        if not isinstance(key, str):
            raise ConfigError(f"axis key {shown(key)}: expected text, a field's dotted name; write 'section.field'")
    return listed


def _join(parts: Iterable[Point]) -> Point:
    joined: Point = {}
    for part in parts:
        twice = sorted(joined.keys() & part.keys())
        if twice:
            raise ConfigError(f"grid: key {twice[0]!r} is set by two axes; keep one of them")
        joined |= part
    return joined


def product(*axes: Axis) -> list[Point]:
    """Every combination of the axes' points, the last axis fastest."""
    return [_join(parts) for parts in itertools.product(*(points(axis) for axis in axes))]


def zip_(*axes: Axis) -> list[Point]:
    """The axes' points side by side. A mapping of several keys is taken column by column. Lengths must agree."""
    columns = [points({key: values}) for axis in axes if isinstance(axis, Mapping) for key, values in axis.items()]
    columns += [points(axis) for axis in axes if not isinstance(axis, Mapping)]
    lengths = [len(column) for column in columns]
    if len(set(lengths)) != 1:
        raise ConfigError(f"grid: zipped axes have lengths {lengths}; make them equal, or use product")
    return [_join(parts) for parts in zip(*columns, strict=True)]


def chain(*axes: Axis) -> list[Point]:
    """The points of one axis after those of another."""
    return list(itertools.chain.from_iterable(points(axis) for axis in axes))
