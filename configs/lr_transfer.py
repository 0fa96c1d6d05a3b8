"""Does the best learning rate of a narrow model hold for a wide one? Standard, muP, and three rules of its decay.

Papers: Yang et al. 2022 (muP, arXiv 2203.03466), Wortsman et al. 2023 (arXiv 2309.14322), Fan et al. 2025 (decay rule,
arXiv 2510.15262).
Command: python -m experiments.run --config=configs/lr_transfer.py --workdir=runs/lr_transfer
Expected: 450 runs, then at most 50 of the widest model that they decide, in about 4 minutes on 2 cores. The best rate
falls by 0.8 doublings a doubling of width in the standard parametrization, by 0.0 under muP.
With --config=configs/lr_transfer.py:full, wider models and longer runs on an accelerator.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import base
from experiments import lr_transfer
from scaling.store import Store
from scaling.sweeps import grid
from scaling.sweeps.sweep import Stage

SIZES: dict[str, dict[str, Any]] = {
    "small": {"widths": (8, 16, 32), "head_width": 8, "depth": 2, "sequence": 32, "batch": 8, "steps": 300,
              "windows": 256, "rates": tuple(2e-3 * 2**k for k in range(6)), "seeds": tuple(range(5)),
              "fresh_seeds": tuple(range(5, 10)), "decay": 2.0},
    "full": {"widths": (64, 128, 256, 512, 1024), "head_width": 64, "depth": 4, "sequence": 128, "batch": 64,
             "steps": 8000, "windows": 512, "rates": tuple(2.5e-4 * 2**k for k in range(9)), "seeds": tuple(range(5)),
             "fresh_seeds": tuple(range(5, 10)), "decay": 0.5},
}


def get_config(setting: str = "small") -> ConfigDict:
    size = SIZES[setting]
    steps, cooldown = size["steps"], size["steps"] // 5
    c = base.get_config()
    del c.data.domains
    c.data.domains = {"prose": "wheels:prose"}
    c.data.sequence, c.data.batch = size["sequence"], size["batch"]
    c.model.width, c.model.heads = size["widths"][0], size["widths"][0] // size["head_width"]
    c.model.depth = size["depth"]
    c.training.duration = {"steps": steps}
    c.schedule.name, c.schedule.floor = "wsd", 0.0  # a constant part, in which decay and updates may come to balance
    c.schedule.warmup, c.schedule.decay = {"steps": steps // 15}, {"steps": cooldown}
    c.evaluation.points, c.evaluation.steps = None, (steps - cooldown, steps)
    c.evaluation.windows = size["windows"]
    c.diagnostics = {"layers": False, "activations": False, "spectra": 1}
    c.study = {
        "name": "lr_transfer",
        "domain": "prose",
        "widths": size["widths"],  # the first is the base of muP
        "head_width": size["head_width"],
        "rates": size["rates"],  # peaks
        "seeds": size["seeds"],
        "fresh_seeds": size["fresh_seeds"],  # of the widest at the rates that the others chose
        "decay": size["decay"],  # of hidden matrices at the base, in the arms that decay
        "exponents": (0.0, 0.5, 1.0),  # decay x (width / base)^exponent
        "near": 0.04,  # relative excess of the loss at which a run's weight in the quadratic is 1/e; at 0.01 a single
        # seed's sweep is too noisy to have a minimum
        "settled": steps - cooldown,  # step at which singular values are read
        "constants": 3.0,  # time constants until then, from which on a matrix counts as settled
        "level": 0.95,
    }
    return c


def get_stages(c: ConfigDict) -> list[Stage]:
    s = lr_transfer.settings_of(c.study.to_dict())
    return [Stage("sweep", grid.product(lr_transfer.widths_axis(s, s.widths), list(s.arms.values()),
                                        {"schedule.peak": s.rates, "training.seed": s.seeds}))]


def transfer(c: ConfigDict, store: Store) -> list[Stage]:
    """The widest model at the best rates of the narrowest and of its own."""
    return [Stage("transfer", lr_transfer.check_points(store, lr_transfer.settings_of(c.study.to_dict())))]


FOLLOW_UPS = (transfer,)
