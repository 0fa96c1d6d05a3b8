"""Which mixture of prose, code and headers is best, and do the mixture laws find it?

Papers: data mixing laws (Ye et al. 2024, arXiv 2403.16952), the additive and joint laws (Shukor et al. 2025, arXiv
2507.09404), BiMix (Ge et al. 2024, arXiv 2405.14908), RegMix (Liu et al. 2024, arXiv 2407.01492), Aioli (Chen et al.
2024, arXiv 2411.05735).
Command: python -m experiments.run --config=configs/mixing_laws.py --workdir=runs/mixing_laws
Expected: 592 runs in about 3 minutes and 3 more of fits on 2 cores. All mixture laws lose nothing to the best of the
lattice; linear regression does; the joint and the additive law predict a larger model better than a constant guess.
"""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from configs import base
from configs.branching import head_width, sizes
from experiments import mixing_laws
from experiments.mixture_design import Shares, lattice, random_mixtures
from scaling.store import Store
from scaling.sweeps import grid
from scaling.sweeps.grid import Point
from scaling.sweeps.sweep import Stage

LATE = (0.35, 0.5, 0.7, 1.0)  # of a run: where it is evaluated, and the laws of tokens are fitted
SIZES: dict[str, dict[str, Any]] = {
    "small": {"widths": (12, 16, 24, 36), "depth": 1, "sequence": 32, "batch": 16, "steps": 600, "peak": 1e-2,
              "windows": 256, "mixtures": 60, "sized": 30, "divisions": 9, "seeds": tuple(range(100, 120)),
              "known_draws": 40},
    "full": {"widths": (64, 96, 128, 192, 256), "depth": 4, "sequence": 256, "batch": 64, "steps": 4000, "peak": 4e-3,
             "windows": 512, "mixtures": 90, "sized": 60, "divisions": 12, "seeds": tuple(range(100, 120)),
             "known_draws": 100},
}


def get_config(setting: str = "small") -> ConfigDict:
    size = SIZES[setting]
    c = base.get_config()
    c.model.depth, c.model.positions, c.model.activation = size["depth"], "rotary", "swiglu"
    c.data.sequence, c.data.batch = size["sequence"], size["batch"]
    c.training.duration = {"steps": size["steps"]}
    c.schedule.name = "inverse_sqrt"  # has no horizon: every checkpoint is the end of a run of its own length
    c.schedule.peak = size["peak"]
    c.schedule.warmup = {"steps": size["steps"] // 10}
    c.schedule.floor = 0.0
    c.evaluation.points = None
    c.evaluation.steps = tuple(round(size["steps"] * part) for part in LATE)
    c.evaluation.windows = size["windows"]
    c.study = {
        "name": "mixing_laws",
        "natural": {"prose": 0.31, "code": 0.48, "headers": 0.21},  # of the corpora's training tokens
        "targets": {  # weights of the domains' validation losses
            "equal": {"prose": 1 / 3, "code": 1 / 3, "headers": 1 / 3},
            "skewed": {"prose": 0.6, "code": 0.3, "headers": 0.1},
        },
        "widths": size["widths"],
        "mixtures": size["mixtures"],  # random ones, at the smallest width
        "sized": size["sized"],  # of these, trained at every width
        "strengths": (1.0, 10.0),  # of the Dirichlet that draws them
        "design_seed": 0,
        "first_seed": 1000,  # the random mixture k is trained with seed first_seed + k
        "divisions": size["divisions"],  # of the lattice searched by brute force, at the smallest width
        "lattice_seeds": (0, 1),
        "repeat_seeds": (10, 11, 12, 13),  # of equal shares at the larger widths, for the noise
        "seeds": size["seeds"],  # of the mixtures that are compared in the end
        "few": 10,  # mixtures that are said to suffice
        "counts": (8, 10, 15, 20, 30),
        "subsets": 20,  # random subsets of each count
        "known_draws": size["known_draws"],  # tables made from each known law
        "tolerance": 0.01,  # nats/token above the best mixture found
        "bootstrap": 300,
        "level": 0.95,
    }
    return c


def get_stages(c: ConfigDict) -> list[Stage]:
    study, natural = c.study, c.study.natural.to_dict()
    drawn = random_mixtures(natural, study.mixtures, study.strengths, study.design_seed)
    searched = lattice(sorted(natural), study.divisions)
    uniform = {domain: 1 / len(natural) for domain in natural}
    own_seeds = {"training.seed": [study.first_seed + k for k in range(study.mixtures)]}
    random = grid.zip_(_mixtures(drawn), own_seeds)
    return [
        Stage("random", grid.product(sizes(study.widths[:1], head_width(c)), random)),
        Stage("sized", grid.product(sizes(study.widths[1:], head_width(c)), random[:study.sized])),
        Stage("lattice", _trained(c, searched, study.lattice_seeds)),
        Stage("repeats", grid.product(sizes(study.widths[1:], head_width(c)), _mixtures([uniform]),
                                      {"training.seed": study.repeat_seeds})),
    ]


def compared(c: ConfigDict, store: Store) -> list[Stage]:
    """The mixtures that the laws call best, the best of the lattice, equal and natural shares, at new seeds."""
    settings = mixing_laws.settings_of(c.study.to_dict())
    return [Stage("compared", _trained(c, mixing_laws.compared_mixtures(store, settings), c.study.seeds))]


FOLLOW_UPS = (compared,)


def _trained(c: ConfigDict, mixtures: list[Shares], seeds: tuple[int, ...]) -> list[Point]:
    """Mixtures at the smallest width."""
    return grid.product(sizes(c.study.widths[:1], head_width(c)), _mixtures(mixtures), {"training.seed": seeds})


def _mixtures(mixtures: list[Shares]) -> list[Point]:
    return grid.points({"data.mixture": mixtures})
