"""Strict conversion of nested mappings to frozen dataclasses, and what their field metadata says."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

LONGEST_NAME = 100  # characters of a key that a message shows


class ConfigError(ValueError):
    """A configuration that cannot be trained as written: names the field, its value, what was expected and the cure."""


def shown(value: Any, most: int = 1000) -> str:
    """A value as text for a message: cut where it is long, its type alone where it is too deep or large to write."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):
        return f"<{type(value).__name__} that is too large to show>"
    return text if len(text) <= most else f"{text[:most]}... ({len(text)} characters)"


class _Traced:
    def __repr__(self) -> str:
        return "<traced>"

    def __reduce__(self) -> str:
        return "TRACED"  # one object in every process: programs compare by it


TRACED: Any = _Traced()
_REQUIRED: Any = object()


def _field(vary: str, default: Any, convert: Callable | None, choices: tuple[str, ...] | None) -> Any:
    metadata = {"vary": vary, "convert": convert, "choices": choices}
    if default is _REQUIRED:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def static(default: Any = _REQUIRED, *, convert: Callable | None = None, choices: tuple[str, ...] | None = None) -> Any:
    """A field that belongs to the compiled program. For a nested section: the section's own fields decide."""
    return _field("static", default, convert, choices)


def traced(default: Any = _REQUIRED, *, convert: Callable | None = None, choices: tuple[str, ...] | None = None) -> Any:
    """A field in which the runs of one program may differ."""
    return _field("traced", default, convert, choices)


def check(condition: bool, name: str, value: Any, expected: str, cure: str) -> None:
    """Raise ConfigError unless `condition` holds."""
    if not condition:
        raise ConfigError(f"{name} = {shown(value)}: expected {expected}; {cure}")


def check_key(key: Any, known: Iterable[str], where: str) -> None:
    """Raise ConfigError unless `key` is known, naming the nearest known one."""
    known = list(known)
    if key not in known:
        near = difflib.get_close_matches(str(key)[:LONGEST_NAME], known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(known)}"
        raise ConfigError(f"{where}: unknown key {shown(key, LONGEST_NAME)}; {hint}")


@functools.cache
def names(cls: Any) -> tuple[str, ...]:
    """Field names of a dataclass, in order."""
    return tuple(field.name for field in dataclasses.fields(cls))


@functools.cache
def _required(cls: Any) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(cls) if field.default is dataclasses.MISSING)


@functools.cache
def _types(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


@functools.cache
def _metadata(cls: type) -> dict[str, Mapping[str, Any]]:
    return {field.name: field.metadata for field in dataclasses.fields(cls)}


def is_section(value: Any) -> bool:
    """Whether a value is an instance of a dataclass."""
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def convert(cls: type, values: Any, path: str) -> Any:
    """Build `cls` from a mapping (or return an instance as it is); every field must be there, and no other."""
    if isinstance(values, cls):
        return values
    where = path or "config"
    if not isinstance(values, Mapping) and not hasattr(values, "items"):
        raise ConfigError(f"{where} = {shown(values)}: expected a mapping with the keys {', '.join(names(cls))}")
    given = dict(values.items())
    for key in given:
        check_key(key, names(cls), where)
    missing = [name for name in _required(cls) if name not in given]
    check(not missing, where, sorted(given), f"every key of {', '.join(names(cls))}", f"add {', '.join(missing)}")
    prefix = f"{path}." if path else ""
    converted = {key: convert_field(cls, key, value, prefix + key) for key, value in given.items()}
    try:
        return cls(**converted)
    except ConfigError as error:  # of a section that stands in several places and does not know in which
        if path in str(error):
            raise
        raise ConfigError(f"{path}: {error}") from error


def convert_field(cls: type, key: str, value: Any, path: str) -> Any:
    """Convert and type-check one field's value."""
    metadata, annotation = _metadata(cls)[key], _types(cls)[key]
    if metadata["convert"] is not None:
        value = metadata["convert"](value, path)
    value = _typed(annotation, value, path)
    choices = metadata["choices"]
    if choices is not None and value not in choices:
        near = difflib.get_close_matches(str(value)[:LONGEST_NAME], choices, n=1, cutoff=0.3)
        raise ConfigError(f"{path} = {shown(value)}: expected one of {', '.join(choices)}"
                          + (f"; did you mean {near[0]!r}?" if near else ""))
    return value


def _typed(annotation: Any, value: Any, path: str) -> Any:
    if isinstance(annotation, types.UnionType):
        options = [option for option in annotation.__args__ if option is not type(None)]
        return None if value is None or _is_blank(value) else _typed(options[0], value, path)
    if dataclasses.is_dataclass(annotation):
        return convert(typing.cast(type, annotation), value, path)
    origin = typing.get_origin(annotation)
    if origin is tuple:
        element, *rest = typing.get_args(annotation)
        if not isinstance(value, (tuple, list)):
            raise ConfigError(f"{path} = {shown(value)}: expected a sequence; write a tuple")
        elements = [element] * len(value) if rest == [...] else [element, *rest]
        check(len(value) == len(elements), path, value, f"{len(elements)} values", "add or drop some")
        return tuple(_typed(kind, item, path) for kind, item in zip(elements, value, strict=True))
    if annotation is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        check(isinstance(value, float) or abs(value) <= sys.float_info.max, path, value, "a float", "use a smaller one")
        return float(value) + 0.0  # zero has one sign, numpy's scalars one form: equal runs have equal ids
    if annotation is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, annotation) or (annotation is not bool and isinstance(value, bool)):
        wanted = annotation.__name__
        article = "an" if annotation is int else "a"
        given = type(value).__name__
        raise ConfigError(f"{path} = {shown(value)}: expected {wanted}, not {given}; write {article} {wanted}")
    if annotation is int:
        check(-2**63 <= value < 2**63, path, value, "an int of 64 bits", "use a smaller one")
    if annotation is str:
        check(not any("\ud800" <= letter <= "\udfff" for letter in value), path, value, "text in Unicode, with no half "
              "of a surrogate pair", "correct the encoding of where it comes from")
    return value


def _is_blank(value: Any) -> bool:
    """A mapping with nothing filled in, such as {"steps": None}: the way to leave an optional section open."""
    return hasattr(value, "items") and all(item is None for _, item in value.items())


def pairs(value: Any, path: str) -> tuple:
    """Turn a mapping, or pairs, into pairs sorted by name, so that the section is hashable and key order is nothing."""
    listed = list(value.items()) if hasattr(value, "items") else value
    if not isinstance(listed, (tuple, list)) or not all(_is_pair(item) for item in listed):
        raise ConfigError(f"{path} = {shown(value)}: expected a mapping from domain names; write a dict")
    names = [name for name, _ in listed]
    twice = [name for name in names if names.count(name) > 1]
    check(not twice, path, value, "each name once", f"drop one of {', '.join(map(repr, twice[:1]))}")
    return tuple(sorted((name, item) for name, item in listed))


def nested_pairs(value: Any, path: str) -> tuple | None:
    """As `pairs`, of mappings within a mapping; None stays None."""
    if value is None or _is_blank(value):
        return None
    return tuple((name, pairs(inner, f"{path}.{name}")) for name, inner in pairs(value, path))


def _is_pair(item: Any) -> bool:
    return isinstance(item, (tuple, list)) and len(item) == 2 and isinstance(item[0], str)


def phases(value: Any, path: str) -> tuple:
    """Turn one set of shares, or a sequence of (start fraction, shares), into phases with shares sorted by name."""
    listed = value if isinstance(value, (tuple, list)) else ((0.0, value),)
    try:
        return tuple((start, pairs(shares, path)) for start, shares in listed)
    except (TypeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"{path} = {shown(value)}: expected shares by domain, or phases ((start fraction, shares), ...)"
        ) from error


def optional_tuple(value: Any, path: str) -> tuple | None:
    """A tuple from any sequence; None stays None."""
    if value is not None and not isinstance(value, (tuple, list)):
        raise ConfigError(f"{path} = {shown(value)}: expected a sequence of steps or None; write a tuple")
    return None if value is None else tuple(value)


def without_traced(section: Any) -> Any:
    """A copy of a dataclass with its traced fields replaced by TRACED, nested sections included."""
    cls: Any = type(section)
    copy = object.__new__(cls)
    for name, metadata in _metadata(cls).items():
        value = getattr(section, name)
        if metadata["vary"] == "traced":
            value = TRACED
        elif is_section(value):
            value = _static_part(value)
        object.__setattr__(copy, name, value)
    return copy


_static_part = functools.lru_cache(maxsize=4096)(without_traced)


@functools.lru_cache(maxsize=65536)
def _flat_section(section: Any, prefix: str) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    cls: Any = type(section)
    for name in names(cls):
        value = getattr(section, name)
        if is_section(value):
            columns |= _flat_section(value, f"{prefix}{name}.")
        else:
            columns[f"{prefix}{name}"] = json.dumps(value) if isinstance(value, tuple) else value
    return columns


def flatten(section: Any) -> dict[str, Any]:
    """Every field by dotted name; tuples as JSON text."""
    return dict(_flat_section(section, ""))
