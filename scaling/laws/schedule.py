"""Learning-rate schedules as tables: the rate of every step, common shapes, and the areas under them.

Index 0 is the first step; a loss logged at step s has seen lr_T[0] .. lr_T[s]. A warm-up of W steps is
linspace(0, peak, W), and the shape runs from step W on (the convention of arXiv 2503.12811).

Letters: T steps.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from scaling.laws.law import TableError, read_column

MOMENTUM = 0.999


@dataclass(frozen=True)
class Schedules:
    """Named schedules, equal and hashed by content; `schedules["cosine"]` is the learning rate of every step.

    Make them with `Schedules.of` or `Schedules.from_table`; `names` are sorted.
    """

    names: tuple[str, ...]
    raw: tuple[bytes, ...] = field(repr=False)

    @classmethod
    def of(cls, tables: "Schedules | Mapping[str, Any]") -> "Schedules":
        """From lr_T by name. ValueError for a table that is not 1-D, finite, >= 0 and somewhere positive."""
        if isinstance(tables, Schedules):
            return tables
        if not tables:
            raise ValueError("schedules: none given; name at least one table of learning rates")
        checked = {str(name): _checked(str(name), lr) for name, lr in tables.items()}
        return cls(tuple(sorted(checked)), tuple(checked[name].tobytes() for name in sorted(checked)))

    @classmethod
    def from_table(
        cls, table: pd.DataFrame, schedule: str = "schedule", step: str = "step", lr: str = "lr"
    ) -> "Schedules":
        """From rows (schedule, step, lr) with every step 0 .. T-1 of each schedule once, in any order.

        TableError names a schedule and a step that is missing or repeated: the laws need the rate of every step, not of
        logged steps only.
        """
        if schedule not in table:
            raise TableError(f"column {schedule!r} is missing: it names the schedule of a row; the table has"
                             f" {', '.join(map(str, table))}")  # fmt: skip
        step_M = read_column(table, step, "the step of a row, from 0")
        lr_M = read_column(table, lr, "the learning rate at that step")
        tables = {}
        for name in table[schedule].astype(str).unique():
            rows_M = (table[schedule].astype(str) == name).to_numpy()
            order = np.argsort(step_M[rows_M], kind="stable")
            steps_T = step_M[rows_M][order]
            if (wrong_T := steps_T != np.arange(len(steps_T))).any():
                raise TableError(
                    f"schedule {name!r}: step {int(np.argmax(wrong_T))} is missing or repeated; give the learning rate"
                    " of every step 0, 1, 2, ... once (build the table from the schedule, not from logged points)"
                )
            tables[name] = lr_M[rows_M][order]
        return cls.of(tables)

    def __getitem__(self, name: str) -> np.ndarray:
        """lr_T, float64, read-only. KeyError names the schedules there are."""
        if name not in self.names:
            raise KeyError(f"no schedule {name!r}; there are {', '.join(self.names)}")
        return np.frombuffer(self.raw[self.names.index(name)])

    def to_record(self) -> dict[str, list[float]]:
        """As JSON; `Schedules.of` reads it."""
        return {name: self[name].tolist() for name in self.names}


def _checked(name: str, lr: Any) -> np.ndarray:
    lr_T = np.asarray(lr, dtype=np.float64)
    if lr_T.ndim != 1 or lr_T.size < 2:
        raise ValueError(f"schedule {name!r}: shape {lr_T.shape} must be one learning rate a step, two steps or more")
    if (bad_T := ~(np.isfinite(lr_T) & (lr_T >= 0))).any():
        step = int(np.argmax(bad_T))
        raise ValueError(f"schedule {name!r}, step {step}: {lr_T[step]:g} must be a finite learning rate >= 0")
    if not (lr_T > 0).any():
        raise ValueError(f"schedule {name!r}: every learning rate is 0; expected a positive one somewhere")
    return lr_T


def _linear(x: np.ndarray) -> np.ndarray:
    return 1 - x


def _cosine(x: np.ndarray) -> np.ndarray:
    return (1 + np.cos(np.pi * x)) / 2


def _sqrt(x: np.ndarray) -> np.ndarray:
    return 1 - np.sqrt(x)


DECAYS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"linear": _linear, "cosine": _cosine, "1-sqrt": _sqrt}


def wsd(steps: int, peak: float, floor: float, warmup: int, decay: int, shape: str = "linear") -> np.ndarray:
    """Warm-up, constant, then a decay over the last `decay` steps, [T].

    The decay is floor + (peak-floor)*f(x), x = (s - (steps-decay))/decay, f = 1-x ("linear"), (1+cos(pi x))/2
    ("cosine"), 1-sqrt(x) ("1-sqrt"), or peak^(1-x) * floor^x ("exponential"). ValueError for lengths that do not fit.
    """
    if shape not in DECAYS and shape != "exponential":
        raise ValueError(f"shape: {shape!r} must be one of {', '.join(DECAYS)}, exponential")
    if not 0 <= warmup <= steps - decay <= steps:
        raise ValueError(f"steps: warm-up {warmup} and decay {decay} must be >= 0 and fit into {steps} steps")
    if not 0 <= floor <= peak or (shape == "exponential" and floor == 0):
        raise ValueError(f"floor: {floor:g} must lie in [0, peak = {peak:g}], and above 0 for an exponential decay")
    x_T = np.clip((np.arange(steps, dtype=np.float64) - (steps - decay)) / max(decay, 1), 0, 1)
    exponential = shape == "exponential"
    lr_T = peak ** (1 - x_T) * floor**x_T if exponential else floor + (peak - floor) * DECAYS[shape](x_T)
    lr_T[:warmup] = np.linspace(0, peak, warmup)
    return lr_T


def constant(steps: int, peak: float, warmup: int) -> np.ndarray:
    """Warm-up, then the peak, [T]."""
    return wsd(steps, peak, peak, warmup, 0)


def cosine(steps: int, peak: float, floor: float, warmup: int) -> np.ndarray:
    """Warm-up, then floor + (peak-floor)*(1+cos(pi*(s-W)/(steps-W)))/2, [T]."""
    return wsd(steps, peak, floor, warmup, steps - warmup, "cosine")


def areas(lr_T: np.ndarray, *, warmup: int, momentum: float = MOMENTUM) -> tuple[np.ndarray, np.ndarray]:
    """Forward and annealing area at every step, [T] each, in O(T) (arXiv 2408.11029).

    S1(s) = sum_{i<=s} eta_i; m_i = momentum*m_(i-1) + (eta_(i-1) - eta_i), m_0 = 0; S2(s) = sum_{i<=s} m_i. The first
    `warmup` steps count as the peak (the schedule's maximum), so that warm-up is no negative annealing. Units: learning
    rate x steps. ValueError for a warm-up longer than the table, or a momentum outside [0, 1).
    """
    from scipy.signal import lfilter  # here, as it would cost every command a second of its start

    if not 0 <= warmup < len(lr_T):
        raise ValueError(f"warmup: {warmup} must lie in [0, {len(lr_T)}), the steps of the schedule")
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum: {momentum} must lie in [0, 1); the paper's is {MOMENTUM}")
    acting_T = np.where(np.arange(len(lr_T)) < warmup, np.max(lr_T), lr_T)
    drop_T = -np.diff(acting_T, prepend=acting_T[0])
    return np.cumsum(acting_T), np.cumsum(lfilter([1.0], [1.0, -momentum], drop_T))


def with_areas(
    table: pd.DataFrame, schedules: Schedules | Mapping[str, Any], *, warmup: int, momentum: float = MOMENTUM
) -> pd.DataFrame:
    """The table of logged points (`schedule`, `step`) with S1 and S2 of each point, the inputs of law "annealing"."""
    schedules = Schedules.of(schedules)

    def read(name: str, step_M: np.ndarray) -> dict[str, np.ndarray]:
        s1_T, s2_T = areas(schedules[name], warmup=warmup, momentum=momentum)
        return {"S1": s1_T[step_M], "S2": s2_T[step_M]}

    return with_columns(table, schedules, read)


def phase_areas(
    lr_T: np.ndarray, start: int, *, warmup: int, rewarmup: int, momentum: float = MOMENTUM
) -> dict[str, np.ndarray]:
    """S1pt, S2pt, S1cpt, S2cpt at every step of pre-training (steps before `start`) and continual pre-training.

    Each phase is its own recursion of `areas`, its first `warmup` (`rewarmup`) steps counted as its peak; the areas of
    pre-training stay what they were at its end, and a jump of the rate between the phases is no annealing. How the
    paper (arXiv 2505.07796) treats re-warm-up and the momentum left at the start is not recorded: this is our reading.
    ValueError for a start outside the table.
    """
    if not 0 < start < len(lr_T):
        raise ValueError(f"start: step {start} must lie in (0, {len(lr_T)}), inside the schedule")
    before = areas(lr_T[:start], warmup=warmup, momentum=momentum)
    after = areas(lr_T[start:], warmup=rewarmup, momentum=momentum)
    later = len(lr_T) - start
    columns = {}
    for name, first_T, second_T in zip(("S1", "S2"), before, after, strict=True):
        columns[f"{name}pt"] = np.concatenate([first_T, np.full(later, first_T[-1])])
        columns[f"{name}cpt"] = np.concatenate([np.zeros(start), second_T])
    return columns


def with_phase_areas(
    table: pd.DataFrame,
    schedules: Schedules | Mapping[str, Any],
    starts: Mapping[str, int],
    *,
    warmup: int,
    rewarmup: int,
    momentum: float = MOMENTUM,
) -> pd.DataFrame:
    """The table of logged points with the areas of both phases, the inputs of the CPT dynamics laws.

    `starts`: the first step of continual pre-training, by schedule; KeyError where one is not given.
    """
    schedules = Schedules.of(schedules)
    if missing := set(schedules.names) - set(starts):
        raise KeyError(f"starts: no start of continual pre-training for schedule {sorted(missing)[0]!r}")

    def read(name: str, step_M: np.ndarray) -> dict[str, np.ndarray]:
        columns = phase_areas(schedules[name], starts[name], warmup=warmup, rewarmup=rewarmup, momentum=momentum)
        return {key: values_T[step_M] for key, values_T in columns.items()}

    return with_columns(table, schedules, read)


def with_columns(
    table: pd.DataFrame, schedules: Schedules, read: Callable[[str, np.ndarray], Mapping[str, np.ndarray]]
) -> pd.DataFrame:
    """The table with columns `read(schedule, steps)` of its rows. TableError for an unknown schedule or step."""
    if "schedule" not in table:
        raise TableError(f"column 'schedule' is missing; the table has {', '.join(map(str, table))}")
    name_M, step_M = table["schedule"].astype(str).to_numpy(), read_column(table, "step", "the step of a logged point")
    columns: dict[str, np.ndarray] = {}
    for name in np.unique(name_M).tolist():
        rows_M = name_M == name
        if name not in schedules.names:
            raise TableError(f"column 'schedule': {name!r} is none of {', '.join(schedules.names)}; give its table too")
        for key, values_R in read(name, _step_index(step_M[rows_M], len(schedules[name]), name)).items():
            columns.setdefault(key, np.empty(len(table)))[rows_M] = values_R
    return table.assign(**columns)


def _step_index(step_M: np.ndarray, steps: int, name: str) -> np.ndarray:
    """Steps as indices of a schedule's table; TableError for one outside it or not whole."""
    if (bad_M := (step_M != np.floor(step_M)) | (step_M < 0) | (step_M >= steps)).any():
        raise TableError(
            f"column 'step': {step_M[np.argmax(bad_M)]:g} of schedule {name!r} must be a whole step in [0, {steps}),"
            " the steps its table has"
        )
    return step_M.astype(int)
