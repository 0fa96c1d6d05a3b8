"""What studies of an optimizer's claimed effect share: a small transformer on prose, and one for an accelerator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from configs import base

SMALL = {"width": 16, "depth": 2, "heads": 2, "sequence": 32, "batch": 8, "tokenizer": "bytes"}
FULL = {"width": 256, "depth": 6, "heads": 4, "sequence": 256, "batch": 32, "tokenizer": "bpe:4096"}


def start(size: Mapping[str, Any], steps: int, evaluations: int) -> ConfigDict:
    """configs/base.py at a size, with prose alone and `evaluations` equally far apart; no clipping, no decay, which
    would hide what an optimizer does.
    """
    c = base.get_config()
    c.model.update({name: size[name] for name in ("width", "depth", "heads")})
    del c.data.domains
    c.data.domains = {"prose": "wheels:prose"}
    c.data.update({name: size[name] for name in ("sequence", "batch", "tokenizer")})
    c.optimizer.clip_norm = None
    c.optimizer.weight_decay = 0.0
    c.training.duration = {"steps": steps}
    c.evaluation.points = None
    c.evaluation.steps = tuple(range(steps // evaluations, steps + 1, steps // evaluations))
    c.evaluation.windows = 64
    return c


def sgd(momentum: float) -> dict[str, Sequence[Any]]:
    """Axes of a single point: SGD with heavy-ball momentum in the place of Adam."""
    adam: dict[str, Sequence[Any]] = {f"optimizer.{name}": [None] for name in ("b1", "b2", "eps")}
    return {**adam, "optimizer.name": ["sgd"], "optimizer.form": ["heavy_ball"], "optimizer.momentum": [momentum]}
