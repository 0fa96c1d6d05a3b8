"""Is training best where every layer has turned away from its initialisation, and does Layca make it so?

Paper: Carbonnelle & De Vleeschouwer 2018, arXiv 1806.01603.
Command: python -m experiments.run --config=configs/layer_rotation.py --workdir=runs/layer_rotation
Expected: 120 runs, about 3 minutes on 2 crowded cores, half of it compilation. Over methods and rates loss falls as
rotations come near 1, yet every method is best where its layers have turned by 0.2 to 0.4 in these few steps; Layca's
best rates are the paper's; it equals SGD, and is worse than Adam.
For an accelerator: --config=configs/layer_rotation.py:full, 192 runs of a model of width 256.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import optimizer_effects
from configs.branching import Axes
from scaling.sweeps import grid
from scaling.sweeps.sweep import Stage

SIZES: dict[str, dict[str, Any]] = {
    "small": {**optimizer_effects.SMALL, "steps": 400, "seeds": tuple(range(5)), "adam": tuple(
        1e-3 * 3**k for k in range(6))},
    "full": {**optimizer_effects.FULL, "steps": 8000, "seeds": tuple(range(8)), "adam": tuple(
        1e-4 * 3**k for k in range(6))},
}


def get_config(setting: str = "small") -> ConfigDict:
    size = SIZES[setting]
    c = optimizer_effects.start(size, size["steps"], evaluations=5)
    c.model.tied_head = False  # so that the head is a kernel too
    c.optimizer.b2 = 0.99
    c.schedule.name, c.schedule.floor = "linear", 0.0
    c.schedule.warmup = {"steps": 0}
    c.diagnostics = {"layers": True, "activations": False, "spectra": 0}
    c.study = {
        "name": "layer_rotation",
        "layca": tuple(3.0**k for k in range(-7, -1)),  # rates: tangents of the angle of a step
        "sgd": tuple(0.01 * 3**k for k in range(6)),
        "adam": size["adam"],
        "seeds": size["seeds"],
        "recommended": (3.0**-5, 3.0**-3),  # where the paper found Layca's best rates
        "turned": 0.8,  # a layer whose final rotation is at least this has turned away from its start
        "level": 0.95,
    }
    return c


def get_stages(c: ConfigDict) -> list[Stage]:
    """Every method trains the kernels alone, as the authors' tool does."""
    s = c.study
    kernels = {"optimizer.groups": [((".*kernel", "named"), (".*", "frozen"))]}
    layca: Axes = {"optimizer.name": ["layca"], "optimizer.form": ["sgd", "adam"], "optimizer.momentum": [0.9]}
    seeds = {"training.seed": s.seeds}
    return [
        Stage("adam", grid.product(kernels, {"schedule.peak": s.adam}, seeds)),
        Stage("sgd", grid.product(kernels, optimizer_effects.sgd(0.9), {"schedule.peak": s.sgd}, seeds)),
        Stage("layca", grid.product(layca, {"schedule.peak": s.layca}, seeds)),
    ]
