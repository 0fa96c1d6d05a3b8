"""Does SWATS switch from Adam to SGD, when, at which tolerance, and does it end better than either?

Paper: Keskar & Socher 2017, arXiv 1712.07628.
Command: python -m experiments.run --config=configs/swats_switch.py --workdir=runs/swats_switch
Expected: 200 runs, about 2 minutes on 2 crowded cores, half of it compilation. No run switches at the paper's tolerance
of 1e-9, nor at 1e-6; most do at 1e-2, after some 100 of 400 steps, later at higher rates, and end lower than Adam and
SGD at their best rates; at the highest rate the switch may be a failure.
For an accelerator: --config=configs/swats_switch.py:full, 320 runs of a model of width 256.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import optimizer_effects
from scaling.sweeps import grid
from scaling.sweeps.sweep import Stage

SIZES: dict[str, dict[str, Any]] = {
    "small": {**optimizer_effects.SMALL, "steps": 400, "seeds": tuple(range(5)), "adam": tuple(
        1e-3 * 3**k for k in range(5))},
    "full": {**optimizer_effects.FULL, "steps": 8000, "seeds": tuple(range(8)), "adam": tuple(
        1e-4 * 3**k for k in range(5))},
}


def get_config(setting: str = "small") -> ConfigDict:
    size = SIZES[setting]
    c = optimizer_effects.start(size, size["steps"], evaluations=20)  # the resolution of the switch
    c.schedule.name, c.schedule.floor = "linear", 0.0
    c.schedule.warmup = {"steps": size["steps"] // 20}
    c.study = {
        "name": "swats_switch",
        "adam": size["adam"],  # rates, of SWATS too
        "sgd": tuple(0.01 * 3**k for k in range(5)),
        "tolerances": (1e-9, 1e-6, 1e-4, 1e-3, 1e-2, 1e-1),  # the first is the paper's
        "seeds": size["seeds"],
        "early": 0.5,  # a switch before this share of the run is early; the paper's come in the first 20 of 300 epochs
        "level": 0.95,
    }
    return c


def get_stages(c: ConfigDict) -> list[Stage]:
    """Tolerance 0 never switches: Adam, in SWATS's own program, from which a run departs when it switches."""
    s = c.study
    swats = {"optimizer.name": ["swats"], "optimizer.tolerance": (0.0, *s.tolerances)}
    seeds = {"training.seed": s.seeds}
    return [
        Stage("swats", grid.product(swats, {"schedule.peak": s.adam}, seeds)),
        Stage("sgd", grid.product(optimizer_effects.sgd(0.9), {"schedule.peak": s.sgd}, seeds)),
    ]
