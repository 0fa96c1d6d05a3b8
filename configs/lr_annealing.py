"""Do two laws of the learning rate predict schedules that they have not seen, and do those they recommend win?

Papers: Tissue et al. 2024 (arXiv 2408.11029), Luo et al. 2025 (arXiv 2503.12811). The laws are fitted to two schedules
and predict six others at every evaluated step. Then the schedule that each law recommends is trained at every peak;
all contenders meet at the peak that suits each best, on fresh seeds.
Command: python -m experiments.run --config=configs/lr_annealing.py --workdir=runs/lr_annealing
Expected: 140 runs and 98 that the laws ask for, about 8 minutes on 2 busy cores. Both laws miss unseen schedules by 0.5
to 0.6%; the mean of the seen curves misses by 0.4%. The multi-power law's schedule ends 0.076 nats/token below the
tuned cosine, level with WSD; the annealing law's is a constant rate with a drop at the last step.
"""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from configs import base
from experiments import lr_annealing
from scaling.fields import check_key
from scaling.store import Store
from scaling.sweeps import grid
from scaling.sweeps.sweep import Stage

SIZES: dict[str, dict[str, Any]] = {
    "small": {"model": {"width": 16, "depth": 1, "heads": 2}, "sequence": 32, "batch": 8, "peak": 8e-3,
              "warmup": 30, "every": 20,
              "study": {"seeds": (0, 1, 2, 3, 4), "check_seeds": tuple(range(100, 108)), "steps": 800,
                        "fit_from": 80, "momenta": (0.0, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)}},
    "full": {"model": {"width": 256, "depth": 6, "heads": 4}, "sequence": 256, "batch": 32, "peak": 2e-3,
             "warmup": 200, "every": 100,
             "study": {"seeds": tuple(range(6)), "check_seeds": tuple(range(100, 112)), "steps": 6000,
                       "fit_from": 400, "momenta": (0.0, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999)}},
}


def get_config(setting: str = "small") -> ConfigDict:
    check_key(setting, SIZES, "--config=configs/lr_annealing.py:SETTING")
    size = SIZES[setting]
    c = base.get_config()
    c.model.update(size["model"])
    del c.data.domains
    c.data.domains = {"prose": "wheels:prose"}
    c.data.sequence, c.data.batch = size["sequence"], size["batch"]
    steps = size["study"]["steps"]
    c.training.duration = {"steps": steps}
    c.schedule.peak = size["peak"]
    c.schedule.warmup = {"steps": size["warmup"]}
    c.evaluation.points = None
    c.evaluation.steps = tuple(range(size["every"], steps + 1, size["every"]))
    c.evaluation.windows = 128
    c.study = {
        "name": "lr_annealing",
        "peak": size["peak"],  # at which unseen schedules are predicted
        "peaks": tuple(size["peak"] * 2.0**k for k in range(-1, 4)),  # that every contender is tuned over
        "warmup": size["warmup"],
        "floor": 0.02,  # last rate over the peak, of every contender
        "seen": ("constant", "cosine"),  # schedules that the laws are fitted to
        "unseen": ("wsd", "wsd, 1-sqrt", "linear", "cosine to a tenth", "drop to 0.3", "drop to 0.1"),
        "rivals": ("cosine", "wsd", "wsd, 1-sqrt", "linear"),  # of the recommended schedules
        "level": 0.95,
        **size["study"],
    }
    return c


def get_stages(c: ConfigDict) -> list[Stage]:
    s = c.study
    shapes = lr_annealing.named_sections(s.to_dict())
    tuned = dict.fromkeys([*s.seen, *s.rivals])
    points = [{**shapes[name], "peak": peak} for peak in s.peaks for name in shapes
              if name in tuned or (peak == s.peak and name in s.unseen)]
    return [Stage("schedules", _runs(points, s.seeds))]


def recommended(c: ConfigDict, store: Store) -> list[Stage]:
    """What each law recommends at each peak, trained on the seeds that it was fitted to: they choose its peak."""
    return [Stage("recommended", _runs(lr_annealing.to_tune(store, c.study.to_dict()), c.study.seeds))]


def checks(c: ConfigDict, store: Store) -> list[Stage]:
    """Every contender at its best peak, on fresh seeds."""
    return [Stage("checks", _runs(lr_annealing.to_check(store, c.study.to_dict()), c.study.check_seeds))]


def _runs(schedules: list[dict[str, Any]], seeds: tuple[int, ...]) -> list[grid.Point]:
    return grid.product({"training.seed": seeds}, {"schedule": schedules})


FOLLOW_UPS = (recommended, checks)
