"""Learning-rate tables: what acts at every step of a run, computed once on the host in float64.

t counts updates from 0, W is the warm-up, T the length of the run, all in steps; t / W is the share while t < W.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from scaling.config import Schedule
from scaling.fields import ConfigError, check

Shape = Callable[[np.ndarray, int, int], np.ndarray]


def _constant(t: np.ndarray, warmup: int, steps: int) -> np.ndarray:
    return np.ones_like(t)


def _linear(t: np.ndarray, warmup: int, steps: int) -> np.ndarray:
    return 1 - (t - warmup) / (steps - warmup)


def _cosine(t: np.ndarray, warmup: int, steps: int) -> np.ndarray:
    return 0.5 * (1 + np.cos(np.pi * (t - warmup) / (steps - warmup)))


SHAPES: dict[str, Shape] = {"constant": _constant, "cosine": _cosine, "linear": _linear}
FALLS: dict[str | None, Callable[[np.ndarray], np.ndarray]] = {  # of a last decay, at its share u from 0 to 1
    None: lambda u: 1 - u,
    "1-sqrt": lambda u: 1 - np.sqrt(u),
    "cosine": lambda u: 0.5 * (1 + np.cos(np.pi * u)),
}


def _last(t: np.ndarray, decay: int, steps: int) -> np.ndarray:
    """Share of the last `decay` steps that has passed; 0 before them, and where there are none."""
    return np.maximum(t - (steps - decay), 0) / max(decay, 1)


def _infinite(t: np.ndarray, schedule: Schedule, warmup: int, cooldown: int, decay: int, steps: int) -> np.ndarray:
    assert schedule.level is not None
    cooled = np.clip((t - warmup) / cooldown, 0, 1) if cooldown else np.ones_like(t)
    held = schedule.level + (1 - schedule.level) * 0.5 * (1 + np.cos(np.pi * cooled))
    return held * (schedule.floor / schedule.level) ** _last(t, decay, steps)


def _power(t: np.ndarray, schedule: Schedule, decay: int, steps: int, onset: int) -> np.ndarray:
    assert schedule.exponent is not None
    exponent = schedule.exponent

    def held(count: np.ndarray) -> np.ndarray:
        return np.maximum((np.maximum(count, onset) / onset) ** exponent, schedule.floor)

    fallen = FALLS[schedule.shape](_last(t, decay, steps))
    return schedule.floor + (held(np.minimum(t, steps - decay)) - schedule.floor) * fallen


def _between(t: np.ndarray, knots: Sequence[tuple[float, float]], shape: str | None = None) -> np.ndarray:
    """Through (t, value) knots, by straight lines or half cosines; of two at one t the later acts from there on."""
    at_K, value_K = np.array(knots, dtype=np.float64).T
    left = np.clip(np.searchsorted(at_K, t, side="right") - 1, 0, len(at_K) - 2)
    passed = (t - at_K[left]) / (at_K[left + 1] - at_K[left])
    return value_K[left + 1] + (value_K[left] - value_K[left + 1]) * FALLS[shape](passed)


def _one_cycle(t: np.ndarray, schedule: Schedule, warmup: int, decay: int, steps: int) -> np.ndarray:
    assert schedule.level is not None
    down = [(steps - decay, schedule.level)] if decay else []
    return _between(t, [(0, schedule.level), (warmup, 1.0), *down, (steps, schedule.floor)], schedule.shape)


def momenta(schedule: Schedule, own: float, warmup: int, decay: int, steps: int) -> np.ndarray:
    """Momentum at updates 0 .. T-1, float64[T]: `own`, but of one_cycle with `low_momentum` m against the rate, through
    (0, own), (W, m), (T-d, own), (T, own), joined as the rate is (Smith 2018, arXiv 1803.09820, has 0.95 and 0.85).

    What corrects an Adam's moments for their start takes the momentum of its step.
    """
    if schedule.low_momentum is None:
        return np.full(steps, own)
    back = [(steps - decay, own)] if decay else []
    knots = [(0, own), (warmup, schedule.low_momentum), *back, (steps, own)]
    return _between(np.arange(steps, dtype=np.float64), knots, schedule.shape)


def _table(t: np.ndarray, schedule: Schedule, steps: int) -> np.ndarray:
    if schedule.points is not None:
        return _between(t, [(fraction * steps, share) for fraction, share in schedule.points])
    assert schedule.values is not None
    check(len(schedule.values) == steps, "schedule.values", f"{len(schedule.values)} values",
          f"one for each of the run's {steps} steps", "make them anew, or use schedule.points, which fit any length")
    return np.array(schedule.values)


def multipliers(
    schedule: Schedule, warmup: int, decay: int, steps: int, cooldown: int = 0, onset: int = 0
) -> np.ndarray:
    """Share of the peak at updates 0 .. T-1, float64[T]. `cooldown`: C steps, of infinite; `onset`: c steps, of power.

    constant: 1; cosine: f + (1-f) ½(1 + cos(π(t-W)/(T-W))); linear: f + (1-f)(1 - (t-W)/(T-W)); wsd: 1 until the last
    `decay` steps, then f + (1-f) s(u), u = (t-T+d)/d, s = 1-u, 1-√u or ½(1 + cos πu) by `shape` (Hägele et al. 2024,
    arXiv 2405.18392); inverse_sqrt: max(f, √(W/t)).
    infinite (Ibrahim et al. 2024, arXiv 2403.08763): l + (1-l) ½(1 + cos(π(t-W)/C)), the level l from W+C on, and
    l (f/l)^((t-T+d)/d) in the last d = `decay` steps; a third party's code divides by more than d there, and so stops
    above f.
    one_cycle (Smith & Topin 2017, arXiv 1708.07120): through (0, l), (W, 1), (T-d, l), (T, f) by straight lines, or
    half cosines by `shape`; without the third for d = 0.
    power (Shen et al. 2024, arXiv 2408.13359): h = max(f, min(1, (t/c)^b)), then f + (h(T-d)-f) s(u); see `onset_of`.
    table: its points at t/T, or its values.
    Raises ConfigError when warm-up, cooldown and decay do not fit into the run, or lack a step that the shape needs.
    """
    _check_lengths(schedule, warmup, decay, steps, cooldown, onset)
    t = np.arange(steps, dtype=np.float64)
    if schedule.name == "table":
        return _table(t, schedule, steps)
    if schedule.name == "one_cycle":
        return _one_cycle(t, schedule, warmup, decay, steps)
    if schedule.name == "inverse_sqrt":
        after = np.maximum(np.sqrt(warmup / np.maximum(t, warmup)), schedule.floor)
    elif schedule.name == "infinite":
        after = _infinite(t, schedule, warmup, cooldown, decay, steps)
    elif schedule.name == "power":
        after = _power(t, schedule, decay, steps, onset)
    elif schedule.name == "wsd":
        after = schedule.floor + (1 - schedule.floor) * FALLS[schedule.shape](_last(t, decay, steps))
    else:
        with np.errstate(invalid="ignore", divide="ignore"):  # T = W: no step comes after the warm-up
            after = schedule.floor + (1 - schedule.floor) * SHAPES[schedule.name](t, warmup, steps)
    return np.where(t < warmup, t / max(warmup, 1), after)


def _check_lengths(schedule: Schedule, warmup: int, decay: int, steps: int, cooldown: int, onset: int) -> None:
    name = schedule.name
    if warmup + cooldown + decay > steps:
        names, lengths = (" + schedule.cooldown", f" + {cooldown}") if name == "infinite" else ("", "")
        raise ConfigError(f"schedule.warmup{names} + schedule.decay = {warmup}{lengths} + {decay} steps: expected at "
                          f"most the run's {steps} steps; shorten them or lengthen training.duration")
    if name == "wsd" and decay < 1:
        raise ConfigError("schedule.decay = 0 steps: expected 1 step or more for wsd; lengthen it, or use 'constant' "
                          "with floor 1.0")
    if name == "inverse_sqrt" and warmup < 1:
        raise ConfigError("schedule.warmup = 0: expected 1 step or more for inverse_sqrt, whose scale it sets; "
                          "give a warm-up")
    if name == "one_cycle" and not 1 <= warmup < steps - decay:
        raise ConfigError(f"schedule.warmup = {warmup} steps: expected from 1 to {steps - decay - 1} for one_cycle, "
                          "which rises and then falls; change it or schedule.decay")
    if name == "power" and onset < max(warmup, 1):
        raise ConfigError(f"schedule.onset = {onset} steps: expected the warm-up's {warmup} or more, and at least 1; "
                          "take the power law's rate at the end of the warm-up as peak, and that step as onset")


def onset_of(peak: float, factor: float, exponent: float, batch: int) -> float:
    """Tokens c after which the power schedule min(peak, β a n^b) falls below its peak: c = (peak / (β a))^(1/b).

    n counts tokens, `batch` β windows, `factor` a; b = `exponent` < 0. With it the schedule is peak · min(1, (n/c)^b).
    Shen et al. 2024, arXiv 2408.13359: a 4, b -0.51, peak 0.02 with muP (from memory of the paper).
    """
    return float((peak / (batch * factor)) ** (1 / exponent))


def rewarmed(schedule: Schedule, warmup: int, decay: int, lengths: Sequence[int]) -> np.ndarray:
    """Share of the peak at every update of cycles of these lengths, each one `schedule`, float64[sum of lengths].

    Every cycle after the first re-warms from the floor in place of 0. As `values` of a table: warm restarts (Loshchilov
    & Hutter 2017, arXiv 1608.03983), or re-warming and re-decaying (Ibrahim et al. 2024, arXiv 2403.08763) in one run.
    Raises ConfigError as `multipliers`.
    """
    cycles = [multipliers(schedule, warmup, decay, length) for length in lengths]
    for cycle_T in cycles[1:]:
        cycle_T[:warmup] = schedule.floor + (1 - schedule.floor) * cycle_T[:warmup]
    return np.concatenate(cycles)
