"""Which parameters are treated how: ordered patterns over their paths, and their roles in a model with a base width."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import jax

from scaling.fields import ConfigError, check
from scaling.model import Model
from scaling.optimizer import MATRIX_METHODS, Optimizer
from scaling.optimizers.roles import WidthFactors, role, role_factors

MATRIX_AXES = (2, 4)  # kernels of dense layers and convolutions
BLOCK_KERNELS = r"block_\d+/.*kernel"
Shape = tuple[int, ...]


class Group(NamedTuple):
    """Parameters treated alike. `place`: in `patterns`; `width`: factors of their role."""

    place: int
    pattern: str
    treatment: str
    width: WidthFactors
    shapes: dict[str, Shape]  # by path


def patterns(spec: Optimizer) -> tuple[tuple[str, str], ...]:
    """Ordered (pattern, treatment): those of the section; else matrices of blocks named and the rest AdamW's for a
    method of matrices, and everything named for any other.
    """
    if spec.groups is not None:
        return spec.groups
    if spec.name in MATRIX_METHODS:
        return (BLOCK_KERNELS, "named"), (".*", "adamw")
    return ((".*", "named"),)


def path_name(path: tuple) -> str:
    """A parameter's path such as block_0/attention/query/kernel."""
    return "/".join(str(key.key) for key in path)


def groups(spec: Optimizer, model: Model | None, params: Any) -> dict[str, Group]:
    """Every parameter in one group, by label; `params` may be shapes. `model` None: another network, without roles.

    The first pattern that a path matches in whole decides. Raises ConfigError for a parameter that no pattern matches,
    a pattern that decides nothing, and a named parameter that is not a matrix where the method takes matrices alone.
    """
    known = patterns(spec)
    found: dict[str, Group] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name, shape = path_name(path), tuple(leaf.shape)
        group, label = _group(spec, model, _deciding(known, name), name, shape)
        found.setdefault(label, group).shapes[name] = shape
    decided = {group.place for group in found.values()}
    for place, (pattern, treatment) in enumerate(known):
        if place not in decided and (spec.groups is not None or treatment == "named"):
            raise ConfigError(f"optimizer.groups = {pattern!r}: expected a pattern that matches a parameter which none "
                              f"before it matches; correct or drop it. Paths are such as {_some(params)}")
    return dict(sorted(found.items()))


def labels(found: dict[str, Group], params: Any) -> Any:
    """The label of each parameter, like the parameters."""
    by_path = {path: label for label, group in found.items() for path in group.shapes}
    return jax.tree_util.tree_map_with_path(lambda path, _: by_path[path_name(path)], params)


def _deciding(known: tuple[tuple[str, str], ...], name: str) -> int:
    for place, (pattern, _) in enumerate(known):
        if re.fullmatch(pattern, name):
            return place
    raise ConfigError(f"optimizer.groups = {[pattern for pattern, _ in known]}: expected a pattern for every parameter"
                      f", none matches {name} in whole; add one, or end with ('.*', 'named')")


def _group(spec: Optimizer, model: Model | None, place: int, name: str, shape: Shape) -> tuple[Group, str]:
    pattern, treatment = patterns(spec)[place]
    check(treatment != "named" or spec.name not in MATRIX_METHODS or len(shape) in MATRIX_AXES, "optimizer.groups",
          (pattern, treatment), f"matrices alone named for {spec.name}, not {name} of shape {shape}",
          "treat it as adamw in a group before")
    label, width = f"{place}_{treatment}", WidthFactors(1.0, 1.0)
    if model is not None and model.width_ratio != 1 and treatment != "frozen":
        label = f"{label}_{role(name, shape)}"
        width = role_factors(model, spec.name if treatment == "named" else "adamw", name, shape)
    return Group(place, pattern, treatment, width, {}), label


def _some(params: Any, most: int = 3) -> str:
    names = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    return ", ".join(names[:most])
