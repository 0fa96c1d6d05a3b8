"""Does a bound from convex optimisation order schedules, give their best rates, and say how to extend a run?

Paper: Schaipp et al. 2025 (arXiv 2501.18965). Every schedule is swept over peak rates, two of them at three lengths;
then wsd at its best rate is extended, at that rate and at lower ones, on fresh seeds.
Command: python -m experiments.run --config=configs/schedule_theory.py --workdir=runs/schedule_theory
Expected: 400 runs and 48 extensions, about 4 minutes on 2 busy cores. Best rates rank as the bound's do (0.94; wsd over
cosine 0.55, the bound's 0.54); tuned losses do not: over so few steps wsd beats linear. Extended runs end lower at the
rate kept.
"""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from configs import base
from experiments import schedule_theory
from scaling.fields import check_key
from scaling.store import Store
from scaling.sweeps import grid
from scaling.sweeps.sweep import Stage

SIZES: dict[str, dict[str, Any]] = {
    "small": {"model": {"width": 16, "depth": 1, "heads": 2}, "sequence": 32, "batch": 8,
              "study": {"steps": 400, "horizons": (200, 400, 800), "seeds": (0, 1, 2, 3, 4),
                        "peaks": tuple(2e-3 * 2**k for k in range(8)), "check_seeds": tuple(range(100, 106))}},
    "full": {"model": {"width": 256, "depth": 6, "heads": 4}, "sequence": 256, "batch": 32,
             "study": {"steps": 4000, "horizons": (1000, 2000, 4000, 8000), "seeds": tuple(range(6)),
                       "peaks": tuple(2.5e-4 * 2**k for k in range(9)), "check_seeds": tuple(range(100, 108))}},
}


def get_config(setting: str = "small") -> ConfigDict:
    check_key(setting, SIZES, "--config=configs/schedule_theory.py:SETTING")
    size = SIZES[setting]
    c = base.get_config()
    c.model.update(size["model"])
    del c.data.domains
    c.data.domains = {"prose": "wheels:prose"}
    c.data.sequence, c.data.batch = size["sequence"], size["batch"]
    c.training.duration = {"steps": size["study"]["steps"]}
    c.evaluation.points = None
    c.evaluation.steps = ()  # the start and the end alone
    c.evaluation.windows = 256
    c.study = {
        "name": "schedule_theory",
        "schedules": ("constant", "inverse sqrt", "wsd", "wsd, 1-sqrt", "cosine", "linear"),
        "over_horizons": ("wsd", "cosine"),  # swept at every length
        "warmup": 0.05,  # share of a run
        "extensions": (2, 4),  # lengths of extended runs over that of the tuned one
        "ratio_margin": 1.25,  # a factor: a ratio of rates is the bound's when it differs by less
        "exponent_margin": 0.15,  # an exponent is -1/2 when it differs by less
        "level": 0.95,
        **size["study"],
    }
    return c


def get_stages(c: ConfigDict) -> list[Stage]:
    s = schedule_theory.settings_of(c.study.to_dict())
    return [Stage(f"{steps} steps", _runs(steps, [{**section, "peak": peak} for peak in s.peaks
                                                  for section in schedule_theory.swept_sections(s, steps).values()],
                                          s.seeds)) for steps in s.horizons]


def extensions(c: ConfigDict, store: Store) -> list[Stage]:
    """The tuned wsd run, extended in every way, on fresh seeds."""
    asked = schedule_theory.to_extend(store, c.study.to_dict())
    return [Stage(f"extended to {steps}", _runs(steps, schedules, c.study.check_seeds))
            for steps, schedules in asked.items()]


def _runs(steps: int, schedules: list[dict[str, Any]], seeds: tuple[int, ...]) -> list[grid.Point]:
    length = {"training.duration": [{"steps": steps}]}
    return grid.product(length, {"training.seed": seeds}, {"schedule": schedules})


FOLLOW_UPS = (extensions,)
