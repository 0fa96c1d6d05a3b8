"""From configurations to the arrays that a program takes: horizons in steps, per-step tables, per-run values."""

from __future__ import annotations

import dataclasses
import functools
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from scaling.config import Run
from scaling.data import mixing
from scaling.data.mixers.build import observation_steps
from scaling.data.mixers.mixer import MixerValues
from scaling.duration import LARGEST, Duration
from scaling.fields import ConfigError, check
from scaling.optimizers.build import optimizer_values
from scaling.optimizers.schedules import momenta, multipliers
from scaling.training.mixing import MixingInputs, ObjectiveValues
from scaling.training.state import Hyperparameters, Tables


@dataclasses.dataclass(frozen=True)
class Windows:
    """Training windows that each domain of a corpus holds at one sequence length, by name."""

    by_domain: tuple[tuple[str, int], ...]

    @functools.cached_property
    def array_K(self) -> np.ndarray:
        return np.array([count for _, count in self.by_domain], np.int32)


def window_limits(run: Run, windows: Windows) -> np.ndarray:
    """Windows that a run may draw from each domain, int32[K], its unique-token limits applied.

    Raises ConfigError when a domain that the run draws from holds no window, or fewer tokens than a limit asks for.
    """
    for name, count in windows.by_domain:
        drawn = any(dict(shares).get(name, 0) > 0 for _, shares in run.data.mixture)
        check(count > 0 or not drawn, "data.sequence", run.data.sequence,
              f"at most the training text of domain {name!r}, which is shorter", "shorten it or add text to the domain")
    try:
        return mixing.window_limits(windows.array_K, run.data.unique_tokens, run.data.names, run.data.sequence)
    except ValueError as error:
        raise ConfigError(f"data.{error}") from error


def in_steps(run: Run, duration: Duration, windows: Windows) -> int:
    """A duration of this run in optimizer steps; an epoch is one pass over the only domain that the run draws from."""
    steps_per_epoch = None
    drawn = {name for _, shares in run.data.mixture for name, share in shares if share > 0}
    if duration.epochs is not None and len(drawn) == 1:
        limit = window_limits(run, windows)[run.data.names.index(drawn.pop())]
        steps_per_epoch = Fraction(int(limit), run.data.batch)
    steps = duration.in_steps(run.data.tokens_per_step, steps_per_epoch)
    check(steps <= LARGEST, "training.duration, schedule or parent.at", duration, f"at most {LARGEST} steps",
          "shorten it")
    return steps


def horizon(run: Run, windows: Windows) -> int:
    """Length of a run in steps; at least 1."""
    steps = in_steps(run, run.training.duration, windows)
    check(steps >= 1, "training.duration", run.training.duration, "1 step or more", "lengthen it")
    return steps


def evaluation_steps(run: Run, steps: int) -> tuple[int, ...]:
    """Steps after which a run is evaluated, 0 and the last included; `points` are log-spaced from 1 to the last."""
    if run.evaluation.steps is not None:
        beyond = [step for step in run.evaluation.steps if step > steps]
        check(not beyond, "evaluation.steps", beyond, f"steps up to the last, {steps}", "drop them or train longer")
        return tuple(sorted({0, *run.evaluation.steps, steps}))
    assert run.evaluation.points is not None
    return _log_spaced(steps, run.evaluation.points)


@functools.lru_cache(maxsize=128)
def _log_spaced(steps: int, points: int) -> tuple[int, ...]:
    """Step 0 and about `points` steps from 1 to the last; cached, since the runs of a grid share few horizons."""
    return (0, *sorted(set(np.geomspace(1, steps, points).round().astype(int).tolist())))


def learning_rates(run: Run, steps: int, windows: Windows) -> np.ndarray:
    """Learning rate at every update, float64[T]."""
    schedule = run.schedule
    decay, cooldown, onset = (0 if length is None else in_steps(run, length, windows)
                              for length in (schedule.decay, schedule.cooldown, schedule.onset))
    warmup = in_steps(run, schedule.warmup, windows)
    return schedule.peak * multipliers(schedule, warmup, decay, steps, cooldown, onset)


def momentum_table(run: Run, steps: int, windows: Windows) -> np.ndarray | None:
    """Momentum at every update, float64[T]; None where the optimizer has none that a schedule could move."""
    schedule, field = run.schedule, run.optimizer.momentum_field
    if field is None:
        return None
    warmup, decay = (0 if length is None else in_steps(run, length, windows)
                     for length in (schedule.warmup, schedule.decay))
    return momenta(schedule, getattr(run.optimizer, field), warmup, decay, steps)


class Stream(NamedTuple):
    """Where a stream of data stands: windows that each domain gave, and its target in 1 / mixing.UNITS of a window."""

    drawn_K: tuple[int, ...]
    target_K: tuple[int, ...]

    @classmethod
    def start(cls, domains: int) -> Stream:
        """Nothing given."""
        return cls((0,) * domains, (0,) * domains)


@dataclasses.dataclass(frozen=True)
class RunTables:
    """Everything that acts on one run step by step, whole length, on the host."""

    run: Run
    stream: Stream  # before the first step
    learning_rate_T: np.ndarray  # float64
    drawn_TxK: np.ndarray
    counts_TxK: np.ndarray
    momentum_T: np.ndarray | None  # float64

    def stream_after(self, step: int) -> Stream:
        """Where the stream stands after `step` >= 1 updates; a branch goes on from there."""
        data = self.run.data
        shares_TxK = mixing.shares(data.mixture, len(self.drawn_TxK), data.names)
        return Stream(tuple((self.drawn_TxK[step - 1] + self.counts_TxK[step - 1]).tolist()),
                      mixing.target_after(shares_TxK, data.batch, step, self.stream.target_K))

    def rows(self, start: int, count: int, chunk: int, dtype: np.dtype) -> Tables:
        """Rows start .. start + count, padded to `chunk` by repetition of the last."""
        index_C = np.minimum(np.arange(start, start + chunk), start + count - 1)
        momentum_C = None if self.momentum_T is None else self.momentum_T[index_C].astype(dtype)
        return Tables(self.learning_rate_T[index_C].astype(dtype), self.drawn_TxK[index_C], self.counts_TxK[index_C],
                      momentum_C)

    def following(self, step: int, dtype: np.dtype) -> Tables:
        """Row of the step that follows `step` updates; after the last, one that goes on at the last rate and shares.
        """
        last = len(self.learning_rate_T) - 1
        rows = self.rows(min(step, last), 1, 1, dtype)
        row = Tables(*(None if column is None else column[0] for column in rows))
        return row if step <= last else row._replace(drawn_CxK=row.drawn_CxK + row.counts_CxK)


def run_tables(run: Run, windows: Windows, stream: Stream) -> RunTables:
    """Tables of a run whose data go on from `stream`."""
    steps = horizon(run, windows)
    drawn_TxK, counts_TxK = _allocation(run.data.mixture, run.data.names, steps, run.data.batch, stream)
    return RunTables(run, stream, learning_rates(run, steps, windows), drawn_TxK, counts_TxK,
                     momentum_table(run, steps, windows))


@functools.lru_cache(maxsize=128)
def _allocation(mixture: tuple, names: tuple[str, ...], steps: int, batch: int, stream: Stream) -> tuple:
    """Windows drawn before and at each step; cached, since the runs of a grid share few mixtures."""
    return mixing.allocate(mixing.shares(mixture, steps, names), batch, stream.drawn_K, stream.target_K)


def hyperparameters(run: Run, windows: Windows, stream: Stream, dtype: np.dtype) -> Hyperparameters:
    """Values of one run that hold for its whole length, as numpy scalars of the program's arithmetic."""
    number = dtype.type
    values = optimizer_values(run.optimizer, run.schedule.peak, run.model, dtype)
    return Hyperparameters(np.int32(run.training.seed), values, number(run.training.z_loss),
                           number(run.training.diverged_above), window_limits(run, windows),
                           _mixing_inputs(run, stream, dtype), _objective_values(run, windows, dtype))


def _mixing_inputs(run: Run, stream: Stream, dtype: np.dtype) -> Any:
    if run.mixer is None:
        return ()
    spec, names = run.mixer, run.data.names
    given = (spec.rate, spec.smoothing, spec.memory, spec.own, spec.penalty)
    rate, smoothing, memory, own, penalty = (dtype.type(np.nan if value is None else value) for value in given)
    if spec.graph is None:
        pairs_KxK = 1 - np.eye(len(names))  # doge: each domain's gradient against those of the others
    else:
        graph = {source: dict(effects) for source, effects in spec.graph}
        pairs_KxK = np.array([[graph.get(i, {}).get(j, 0.0) for j in names] for i in names])
    start_K = mixing.shares(run.data.mixture, 1, names)[0].astype(dtype)
    return MixingInputs(MixerValues(start_K, rate, smoothing, memory, own, penalty, pairs_KxK.astype(dtype),
                                    np.int32(run.training.seed)), np.array(stream.drawn_K, np.int32))


def _objective_values(run: Run, windows: Windows, dtype: np.dtype) -> Any:
    if run.objective is None:
        return ()
    spec, weights = run.objective, dict(run.objective.domain_weights)
    uniform_for = 0 if spec.uniform_for is None else in_steps(run, spec.uniform_for, windows)
    return ObjectiveValues(np.array([weights.get(name, 1.0) for name in run.data.names], dtype),
                           dtype.type(np.nan if spec.temperature is None else spec.temperature), np.int32(uniform_for))


def observations(run: Run, steps: int) -> tuple[int, ...]:
    """Steps before which the run's mixer looks at its held-out losses.

    Raises ConfigError where what it does in a round does not fit.
    """
    return () if run.mixer is None else observation_steps(run.mixer, steps, len(run.data.names))
