"""Do averages of models trained on single domains rank mixtures as models trained on those mixtures do?

Paper: modular training and merging as a proxy for data ablations (Na et al. 2024, arXiv 2410.15661).
Command: python -m experiments.run --config=configs/merge_proxy.py --workdir=runs/merge_proxy
Expected: 1295 runs, about 5 minutes on 2 free cores: averages rank mixtures as training on them does, at a tenth of
its cost; averages of models with different starts do not. With --config=configs/merge_proxy.py:full, larger models on
an accelerator.
"""

from __future__ import annotations

import functools
from typing import Any

from ml_collections import ConfigDict

from configs import base
from experiments.merge_proxy import merges
from experiments.mixture_design import lattice
from scaling.sweeps import grid
from scaling.sweeps.sweep import Stage

SIZES: dict[str, dict[str, Any]] = {
    "small": {"model": {"width": 32, "depth": 2, "heads": 2}, "sequence": 64, "batch": 16, "peak": 4e-3,
              "seeds": tuple(range(5)), "trunk_steps": 600, "branch_steps": (75, 300), "windows": 128},
    "full": {"model": {"width": 256, "depth": 8, "heads": 8}, "sequence": 256, "batch": 64, "peak": 1.5e-3,
             "seeds": tuple(range(8)), "trunk_steps": 6000, "branch_steps": (300, 1200, 4800), "windows": 512},
}


def get_config(setting: str = "small") -> ConfigDict:
    size = SIZES[setting]
    c = base.get_config()
    c.model.update(size["model"])
    c.data.sequence, c.data.batch = size["sequence"], size["batch"]
    c.data.mixture = dict.fromkeys(c.data.domains, 1 / len(c.data.domains))  # of the seed checkpoint
    c.training.duration = {"steps": size["trunk_steps"]}
    c.schedule.name, c.schedule.peak, c.schedule.floor = "constant", size["peak"], 1.0
    c.schedule.warmup = {"steps": size["trunk_steps"] // 10}
    c.evaluation.points = 2
    c.evaluation.windows = size["windows"]
    c.study = {
        "name": "merge_proxy",
        "seeds": size["seeds"],
        "branch_steps": size["branch_steps"],  # of modules and of models trained on mixtures
        "divisions": 8,  # of the lattice of mixtures: 42 beside the single domains
        "strong": 0.8,  # rank correlation from which a proxy is called strong
        "margin": 0.01,  # nats/token that a choice of mixture may lose
        "bootstrap": 2000,
        "level": 0.95,
    }
    return c


def get_stages(c: ConfigDict) -> list[Stage]:
    s, domains = c.study, sorted(c.data.domains)
    branch = {"parent.at": [c.training.duration], "parent.optimizer": ["keep"], "schedule.name": ["linear"],
              "schedule.floor": [0.0], "schedule.warmup": [{"steps": 0}],
              "training.duration": [{"steps": steps} for steps in s.branch_steps]}
    return [
        Stage("seed checkpoint", grid.product({"training.seed": s.seeds})),
        Stage("trained", grid.product(branch, {"data.mixture": lattice(domains, s.divisions)}),
              parent="seed checkpoint"),
        Stage("merged", functools.partial(merges, crossed=False), parent="trained"),
        Stage("crossed", functools.partial(merges, crossed=True), parent="trained"),
    ]
