"""From a fitted law and a horizon to the section `schedule` of a run that trains what the law recommends."""

from __future__ import annotations

from typing import Any

import numpy as np

from scaling.fields import check
from scaling.fitting import Fit
from scaling.fitting.best_schedule import BestSchedule, best_schedule
from scaling.laws.schedule import MOMENTUM


def section(lr_T: np.ndarray) -> dict[str, Any]:
    """The schedule that acts as lr_T, a learning rate a step, as a table of T values times its highest rate.

    A stage trains it: Stage("recommended", grid.product({"schedule": [section(lr_T)]}, ...)), in a run of T steps.
    Raises ConfigError for rates that are not finite, negative, or all 0.
    """
    lr_T = np.asarray(lr_T, dtype=np.float64)
    good = lr_T.ndim == 1 and lr_T.size > 0 and bool(np.isfinite(lr_T).all()) and lr_T.min() >= 0 and lr_T.max() > 0
    check(good, "lr_T", lr_T.tolist(), "one finite rate >= 0 a step, some positive", "give the table of a schedule")
    peak = float(lr_T.max())
    return {"name": "table", "peak": peak, "warmup": {"steps": 0}, "floor": 0.0, "decay": None,
            "values": tuple((lr_T / peak).tolist())}


def recommended(
    fit: Fit, *, steps: int, peak: float, floor: float, warmup: int, momentum: float = MOMENTUM
) -> tuple[dict[str, Any], BestSchedule]:
    """The section that trains the best schedule of a fit over `steps`, and what the fit promises of it.

    See `scaling.fitting.best_schedule`, whose warm-up linspace(0, peak, W) acts as it is. Its refusals stand in what is
    returned: whether to train a schedule that the law was refused for is the study's to say. `floor` > 0.
    """
    found = best_schedule(fit, steps=steps, peak=peak, floor=floor, warmup=warmup, momentum=momentum)
    return section(found.lr_T), found
