"""What studies of schedules share: the schedules that they compare, and stored runs read back by the rates that acted.

Letters: T steps.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from scaling.config import Schedule
from scaling.duration import Duration
from scaling.fields import check
from scaling.optimizers.schedules import multipliers
from scaling.store import Store

Shapes = Mapping[str, np.ndarray]  # share of the peak at every step, [T], by name of the schedule
WITHIN = 1e-3  # of the peak, mean over steps: by more two schedules differ

CONSTANT, COSINE, COSINE_TENTH, LINEAR = "constant", "cosine", "cosine to a tenth", "linear"
WSD, WSD_ROOT, WSD_HALF, ROOT = "wsd", "wsd, 1-sqrt", "wsd, half", "inverse sqrt"


def sections(steps: int, warmup: int, floor: float) -> dict[str, dict[str, Any]]:
    """Sections `schedule` without their peak, by name: to `floor`, a share of the peak, unless the name says otherwise.

    wsd falls over the last fifth, "wsd, half" over the last half of the run.
    """
    common = {"warmup": {"steps": warmup}, "floor": floor, "decay": None}
    fifth = {**common, "name": "wsd", "decay": {"steps": steps // 5}}
    return {
        CONSTANT: {**common, "name": "constant", "floor": 1.0},
        COSINE: {**common, "name": "cosine"},
        COSINE_TENTH: {**common, "name": "cosine", "floor": 0.1},
        LINEAR: {**common, "name": "linear"},
        WSD: fifth,
        WSD_ROOT: {**fifth, "shape": "1-sqrt"},
        WSD_HALF: {**fifth, "decay": {"steps": steps // 2}},
        ROOT: {**common, "name": "inverse_sqrt", "floor": 0.0},
    }


def points_section(*points: tuple[float, float]) -> dict[str, Any]:
    """A section without its peak: straight lines through (share of the run, share of the peak)."""
    return {"name": "table", "warmup": {"steps": 0}, "floor": 0.0, "decay": None, "points": points}


def shape(section: Mapping[str, Any], steps: int) -> np.ndarray:
    """Share of the peak at every step of a run with a section as `sections` and `points_section` make them, [T]."""
    decay = section["decay"] and Duration(**section["decay"])
    schedule = Schedule(**{**section, "peak": 1.0, "warmup": Duration(**section["warmup"]), "decay": decay})
    return _multipliers(schedule, steps)


def rates(run: Mapping[Any, Any]) -> np.ndarray:
    """Learning rate of every step of a run from its row, [T]. ConfigError where its schedule is not in steps."""
    given = {name: run.get(f"schedule.{name}") for name in ("decay.steps", "shape", "points", "values")}
    decay, kind, points, values = (None if pd.isna(value) else value for value in given.values())
    warmup = run["schedule.warmup.steps"]
    check(not pd.isna(warmup), "schedule.warmup", warmup, "a duration in steps", "give the study's durations in steps")
    schedule = Schedule(
        run["schedule.name"], run["schedule.peak"], Duration(steps=int(warmup)), run["schedule.floor"],
        None if decay is None else Duration(steps=int(decay)), shape=kind,
        points=points and tuple(map(tuple, json.loads(points))), values=values and tuple(json.loads(values)))
    return schedule.peak * _multipliers(schedule, int(run["steps"]))


def _multipliers(schedule: Schedule, steps: int) -> np.ndarray:
    decay = 0 if schedule.decay is None else schedule.decay.in_steps(1)
    return multipliers(schedule, schedule.warmup.in_steps(1), decay, steps)


def name_of(shape_T: np.ndarray, known: Shapes) -> str | None:
    """The known schedule that is nearest, None where none is within `WITHIN`."""
    distance = {name: float(np.abs(shape_T - known_T).mean()) for name, known_T in known.items()}
    near = [name for name, value in distance.items() if value <= min(WITHIN, *distance.values())]
    return near[0] if near else None


def curves(store: Store, known: Callable[[Mapping[Any, Any]], Shapes]) -> pd.DataFrame:
    """Logged points of finished runs of known schedules: run_id, seed, schedule, peak, steps, step, loss.

    `known`: the schedules that a run may have, by its row. ConfigError where no run has ended.
    """
    runs, logged = store.read("runs"), store.read("curves")
    done = runs[runs.status == "done"] if len(runs) else runs
    check(len(done) > 0, "store", str(store.root), "finished runs to analyse", "run the sweep to its end")
    facts = []
    for run in done.to_dict("records"):
        lr_T = rates(run)
        peak, steps = float(lr_T.max()), len(lr_T)
        facts.append({"run_id": run["run_id"], "seed": run["training.seed"], "peak": peak, "steps": steps,
                      "schedule": name_of(lr_T / peak, known(run))})
    table = logged.loc[logged.split == "validation", ["run_id", "step", "loss"]].merge(pd.DataFrame(facts), on="run_id")
    return table[table.schedule.notna()].sort_values(["run_id", "step"], ignore_index=True)
