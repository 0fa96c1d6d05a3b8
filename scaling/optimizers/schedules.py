"""Learning-rate tables: what acts at every step of a run, computed once on the host in float64.

t counts updates from 0, W is the warm-up, T the length of the run, all in steps; t / W is the share while t < W.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from scaling.config import Schedule
from scaling.fields import ConfigError

Shape = Callable[[np.ndarray, int, int, int], np.ndarray]


def _constant(t: np.ndarray, warmup: int, decay: int, steps: int) -> np.ndarray:
    return np.ones_like(t)


def _linear(t: np.ndarray, warmup: int, decay: int, steps: int) -> np.ndarray:
    return 1 - (t - warmup) / (steps - warmup)


def _cosine(t: np.ndarray, warmup: int, decay: int, steps: int) -> np.ndarray:
    return 0.5 * (1 + np.cos(np.pi * (t - warmup) / (steps - warmup)))


def _wsd(t: np.ndarray, warmup: int, decay: int, steps: int) -> np.ndarray:
    return 1 - np.maximum(t - (steps - decay), 0) / decay


SHAPES: dict[str, Shape] = {"constant": _constant, "cosine": _cosine, "linear": _linear, "wsd": _wsd}


def _infinite(t: np.ndarray, schedule: Schedule, warmup: int, cooldown: int, decay: int, steps: int) -> np.ndarray:
    assert schedule.level is not None
    cooled = np.clip((t - warmup) / cooldown, 0, 1) if cooldown else np.ones_like(t)
    held = schedule.level + (1 - schedule.level) * 0.5 * (1 + np.cos(np.pi * cooled))
    annealed = np.maximum(t - (steps - decay), 0) / max(decay, 1)
    return held * (schedule.floor / schedule.level) ** annealed


def multipliers(schedule: Schedule, warmup: int, decay: int, steps: int, cooldown: int = 0) -> np.ndarray:
    """Share of the peak at updates 0 .. T-1, float64[T]. `cooldown`: C steps, of infinite alone.

    constant: 1; cosine: f + (1-f) ½(1 + cos(π(t-W)/(T-W))); linear: f + (1-f)(1 - (t-W)/(T-W)); wsd: 1 until the last
    `decay` steps, then linear to f (Hägele et al. 2024, arXiv 2405.18392); inverse_sqrt: max(f, √(W/t)).
    infinite (Ibrahim et al. 2024, arXiv 2403.08763): l + (1-l) ½(1 + cos(π(t-W)/C)), the level l from W+C on, and
    l (f/l)^((t-T+d)/d) in the last d = `decay` steps; a third party's code divides by more than d there, and so stops
    above f.
    Raises ConfigError when warm-up, cooldown and decay do not fit into the run, or lack a step that the shape needs.
    """
    infinite = schedule.name == "infinite"
    if warmup + cooldown + decay > steps:
        names, lengths = (" + schedule.cooldown", f" + {cooldown}") if infinite else ("", "")
        raise ConfigError(f"schedule.warmup{names} + schedule.decay = {warmup}{lengths} + {decay} steps: expected at "
                          f"most the run's {steps} steps; shorten them or lengthen training.duration")
    t = np.arange(steps, dtype=np.float64)
    if schedule.name == "wsd" and decay < 1:
        raise ConfigError("schedule.decay = 0 steps: expected 1 step or more for wsd; lengthen it, or use 'constant' "
                          "with floor 1.0")
    if schedule.name == "inverse_sqrt":
        if warmup < 1:
            raise ConfigError("schedule.warmup = 0: expected 1 step or more for inverse_sqrt, whose scale it sets; "
                              "give a warm-up")
        after = np.maximum(np.sqrt(warmup / np.maximum(t, warmup)), schedule.floor)
    elif infinite:
        after = _infinite(t, schedule, warmup, cooldown, decay, steps)
    else:
        with np.errstate(invalid="ignore", divide="ignore"):  # T = W: no step comes after the warm-up
            shape = SHAPES[schedule.name](t, warmup, decay, steps)
        after = schedule.floor + (1 - schedule.floor) * shape
    return np.where(t < warmup, t / max(warmup, 1), after)
