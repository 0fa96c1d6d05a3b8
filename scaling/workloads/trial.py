"""A trial: one model of digits trained once under one complete configuration, hashed as a run is."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from typing import Any

import numpy as np

from scaling import fields
from scaling.fields import check, static, traced
from scaling.optimizer import Optimizer
from scaling.optimizers.build import OptimizerValues, optimizer_values
from scaling.optimizers.schedules import multipliers
from scaling.schedule import Schedule

MODELS = ("autoencoder", "convnet", "mlp")
ACTIVATIONS = ("gelu", "relu", "tanh")
NORMS = ("layernorm", "rmsnorm")
TIMELESS = ("constant", "cosine", "linear")  # schedules without lengths beside the warm-up


@dataclasses.dataclass(frozen=True)
class Workload:
    """What is trained on which batches; scaling/workloads/models.py says what `width` and `depth` are of each model."""

    model: str = static(choices=MODELS)
    width: int = static()
    depth: int = static()
    activation: str = static(choices=ACTIVATIONS)
    norm: str | None = static()
    batch: int = static()  # images a step

    def __post_init__(self) -> None:
        for name in ("width", "depth", "batch"):
            value = getattr(self, name)
            check(value >= 1, f"workload.{name}", value, "1 or more", "use a positive number")
        check(self.norm is None or self.norm in NORMS, "workload.norm", self.norm, f"None or one of {', '.join(NORMS)}",
              "correct it")
        check(self.model != "convnet" or self.depth <= 3, "workload.depth", self.depth,
              "at most 3 for a convnet, whose layers halve 8 pixels", "use fewer layers")
        check(self.model != "autoencoder" or self.width >= 2 ** (self.depth - 1), "workload.width", self.width,
              f"at least {2 ** (self.depth - 1)} for an autoencoder of depth {self.depth}, whose layers halve",
              "widen it")


@dataclasses.dataclass(frozen=True)
class Trial:
    """`steps`: length, of which `evaluations` equal parts end with an evaluation. `schedule.warmup` is in steps.

    Trials of one program share all compiled code; a call of it takes `every` steps.
    """

    workload: Workload = static()
    optimizer: Optimizer = static()
    schedule: Schedule = static()
    steps: int = traced()
    evaluations: int = traced()
    seed: int = traced()

    def __post_init__(self) -> None:
        check(self.evaluations >= 1 and self.steps % self.evaluations == 0 and self.steps > 0, "steps, evaluations",
              (self.steps, self.evaluations), "steps that the evaluations divide", "change one of the two")
        check(self.schedule.name in TIMELESS, "schedule.name", self.schedule.name, f"one of {', '.join(TIMELESS)} in a "
              "trial", "use one of these")
        check(0 <= self.seed < 2**31, "seed", self.seed, "from 0 to 2**31 - 1", "use a small whole number")

    @functools.cached_property
    def run_id(self) -> str:
        """Twelve hex digits: SHA-256 of the canonical JSON of every field that is not left at a default of None."""
        given = {name: value for name, value in fields.flatten(self).items() if value is not None}
        return hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()[:12]

    @functools.cached_property
    def program(self) -> Trial:
        """This trial with traced fields replaced by `fields.TRACED`: trials of one program train as one pack."""
        return fields.without_traced(self)

    @property
    def every(self) -> int:
        """Steps from one evaluation to the next."""
        return self.steps // self.evaluations

    def values(self) -> OptimizerValues:
        """What the optimizer takes of this trial."""
        return optimizer_values(self.optimizer, self.schedule.peak, None, np.dtype(np.float32))

    def learning_rates(self) -> np.ndarray:
        """Learning rate at every update, float64[T]."""
        warmup = self.schedule.warmup.in_steps(self.workload.batch)
        return self.schedule.peak * multipliers(self.schedule, warmup, 0, self.steps)


def trial_from(values: Any) -> Trial:
    """Convert a nested mapping to a `Trial`, as strictly as a run's. Raises ConfigError."""
    return fields.convert(Trial, values, path="")
