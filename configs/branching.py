"""What studies of continual pre-training share: trunks of several sizes, and branches into another domain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from scaling.sweeps import grid
from scaling.sweeps.grid import Point

Axes = Mapping[str, Sequence[Any]]


def sizes(widths: Sequence[int], head_width: int) -> list[Point]:
    """A point a width, with heads of `head_width`; one where the model is narrower."""
    return grid.zip_({"model.width": widths, "model.heads": [max(1, width // head_width) for width in widths]})


def head_width(c: ConfigDict) -> int:
    """Width of a head in `c.model`."""
    return c.model.width // c.model.heads


def trunks(c: ConfigDict, widths: Sequence[int], seeds: Sequence[int]) -> list[Point]:
    """Trunks whose rate ends where the constant one of `c.study`'s branches begins."""
    floor = c.study.branch_peak / c.schedule.peak
    return grid.product(sizes(widths, head_width(c)), {"training.seed": seeds, "schedule.floor": [floor]})


def branch(c: ConfigDict, warmup: int) -> Axes:
    """Axes of a branch from the end of a trunk, at the constant rate of `c.study`, after `warmup` steps."""
    study = c.study
    return {
        "parent.at": [c.training.duration],
        "parent.optimizer": ["keep"],
        "training.duration": [{"steps": study.branch_steps}],
        "schedule.name": ["constant"],
        "schedule.peak": [study.branch_peak],
        "schedule.warmup": [{"steps": warmup}],
        "schedule.floor": [1.0],
        "evaluation.points": [None],
        "evaluation.steps": [study.branch_evaluations],
    }


def mixtures(general: str, target: str, shares: Sequence[float]) -> Axes:
    """An axis of mixtures of two domains, by the share of the second."""
    return {"data.mixture": [{general: 1 - share, target: share} for share in shares]}
