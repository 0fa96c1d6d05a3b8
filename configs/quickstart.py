"""How much code can a model trained on prose take in before its prose gets worse than you accept?

Papers: the CMR laws (Gu et al. 2024, arXiv 2407.17467) and the D-CPT law (Que et al. 2024, arXiv 2406.01375).
Command: make quickstart, or python -m experiments.run --config=configs/quickstart.py --workdir=results/quickstart
Expected: 8 trunks and 56 branches in about 4 minutes on 2 cores, then results/quickstart/report.html.
"""

from ml_collections import ConfigDict

from configs import base, branching
from scaling.sweeps import grid
from scaling.sweeps.sweep import Stage

HEAD_WIDTH = 16


def get_config() -> ConfigDict:
    c = base.get_config()
    c.data.sequence = 64
    c.data.batch = 16
    c.training.duration = {"steps": 1200}  # of a trunk
    c.schedule.peak = 8e-3
    c.schedule.warmup = {"steps": 60}
    c.schedule.floor = 0.1
    c.evaluation.points = 8
    c.evaluation.windows = 96
    c.study = {
        "name": "critical_ratio",
        "general": "prose",  # what the trunk knows and should not forget
        "target": "code",  # what the branches learn
        "tolerance": 0.05,  # nats/token of general loss that may be lost
        "widths": (16, 24, 32, 48),
        "seeds": (0, 1),
        "shares": (0.0, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0),  # of the target domain
        "branch_steps": 150,
        "branch_evaluations": (5, 15, 30, 50, 75, 110, 150),  # steps
        "branch_peak": 2e-3,
        "fit_from": 0.2,  # the laws are fitted to the part of each branch after this share of its tokens
        "bootstrap": 400,
        "level": 0.95,
    }
    return c


def get_stages(c: ConfigDict) -> list[Stage]:
    study = c.study
    mixtures = branching.mixtures(study.general, study.target, study.shares)
    return [
        Stage("trunk", grid.product(branching.sizes(study.widths, HEAD_WIDTH), {"training.seed": study.seeds})),
        Stage("branch", grid.product({**branching.branch(c, warmup=10), **mixtures}), parent="trunk"),
    ]
