"""Does momentum lengthen scale-invariant weights and so shrink their effective step, and does a projection slow this?

Paper: Heo et al. 2021, arXiv 2006.08217.
Command: python -m experiments.run --config=configs/adamp_effective_step.py --workdir=runs/adamp_effective_step
Expected: 125 runs, about 2 minutes on 2 crowded cores, most of it compilation. Momentum lengthens the weights at equal
rates, not at equal rates over 1 - momentum; SGDP and AdamP take the radial part out of every step on a scale-invariant
kernel, ‖w‖² grows e^0.2 and e^1.1 times less, and the final loss is the same within the noise.
For an accelerator: --config=configs/adamp_effective_step.py:full, 200 runs of a model of width 256.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import optimizer_effects
from scaling.sweeps import grid
from scaling.sweeps.sweep import Stage

SIZES: dict[str, dict[str, Any]] = {
    "small": {**optimizer_effects.SMALL, "steps": 300, "seeds": tuple(range(5))},
    "full": {**optimizer_effects.FULL, "steps": 8000, "seeds": tuple(range(8))},
}
MOMENTUM = 0.9
LOOKS = (0.05, 0.15, 0.35, 0.65)  # of the run: where two evaluations follow each other


def get_config(setting: str = "small") -> ConfigDict:
    size = SIZES[setting]
    c = optimizer_effects.start(size, size["steps"], evaluations=1)
    looks = [round(share * size["steps"]) for share in LOOKS]
    c.evaluation.steps = tuple(sorted({step + more for step in looks for more in (0, 1)} | {size["steps"]}))
    c.model.placement, c.model.norm, c.model.qk_norm = "peri", "rmsnorm", True
    c.model.activation = "relu2"  # homogeneous: with it every kernel of a block is scale-invariant
    c.schedule.name, c.schedule.floor = "constant", 1.0
    c.schedule.warmup = {"steps": 0}
    c.diagnostics = {"layers": True, "activations": False, "spectra": 0}
    c.study = {
        "name": "adamp_effective_step",
        "sgd": tuple(10 ** (k / 2 - 2) for k in range(5)),  # rates with momentum; over 1 - momentum without it
        "adam": tuple(1e-3 * 3**k for k in range(5)),
        "momentum": MOMENTUM,
        "seeds": size["seeds"],
        "projected": 3e-3,  # a step whose cosine to the weights is below this counts as projected
        "level": 0.95,
    }
    return c


def get_stages(c: ConfigDict) -> list[Stage]:
    s = c.study
    delta = {"optimizer.delta": [0.1], "optimizer.decay_ratio": [0.1]}
    rates, adam_rates, seeds = {"schedule.peak": s.sgd}, {"schedule.peak": s.adam}, {"training.seed": s.seeds}
    faster = {"schedule.peak": tuple(rate / (1 - s.momentum) for rate in s.sgd)}
    sgdp = {**optimizer_effects.sgd(s.momentum), "optimizer.name": ["sgdp"], "optimizer.eps": [c.optimizer.eps]}
    return [
        Stage("no momentum", grid.product(optimizer_effects.sgd(0.0), faster, seeds)),
        Stage("momentum", grid.product(optimizer_effects.sgd(s.momentum), rates, seeds)),
        Stage("sgdp", grid.product(sgdp, delta, rates, seeds)),
        Stage("adam", grid.product(adam_rates, seeds)),
        Stage("adamp", grid.product({"optimizer.name": ["adamp"]}, delta, adam_rates, seeds)),
    ]
