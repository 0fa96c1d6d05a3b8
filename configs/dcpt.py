"""What a new domain's share does over sizes and tokens by the D-CPT law, and whether its three recommendations hold.

Paper: Que et al. 2024 (arXiv 2406.01375). Trunks of several sizes are trained on prose and continued at several shares
of code, fewer of C headers. The law decides a ratio under a limit on the prose loss, a ratio under limited code, and a
size under a compute budget; then trunks of fresh seeds are trained at what it recommends, and beside it.
Command: python -m experiments.run --config=configs/dcpt.py --workdir=runs/dcpt   (:full for an accelerator)
Expected: 220 runs and 72 that the law asks for, in about 8 minutes on 2 cores. A size, tokens or a ratio not seen are
predicted within 1%; the recommended share of code, 63%, holds, limited code is best used alone.
"""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from configs import base, branching
from experiments import dcpt
from scaling.fields import check_key
from scaling.store import Store
from scaling.sweeps import grid
from scaling.sweeps.sweep import Stage

SIZES: dict[str, dict[str, Any]] = {
    "small": {
        "model": {},
        "data": {"sequence": 64, "batch": 8},
        "trunk_steps": 1600,
        "study": {
            "widths": (16, 24, 32, 48),
            "seeds": (0, 1, 2, 3, 4),
            "shares": (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0),  # of the target domain
            "third_shares": (0.25, 0.5, 1.0),
            "branch_steps": 640,
            "branch_evaluations": (32, 64, 128, 200, 290, 380, 470, 560, 640),
            "early_step": 64,  # a tenth of a branch: from here the coefficient of a domain is known
            "check_width": 32,  # of the first two applications
            "check_seeds": (100, 101, 102, 103, 104, 105),
            "limited_steps": 240,  # steps' worth of target tokens, of the second application
            "budget": 4e10,  # FLOPs of a branch, of the third: 160 steps of the largest size
            "bootstrap": 100,
        },
    },
    "full": {
        "model": {"width": 256, "depth": 6, "heads": 4},
        "data": {"sequence": 256, "batch": 32},
        "trunk_steps": 4000,
        "study": {
            "widths": (64, 96, 128, 192, 256, 384),
            "seeds": tuple(range(6)),
            "shares": (0.0, 0.1, 0.2, 0.33, 0.5, 0.67, 0.8, 0.9, 1.0),
            "third_shares": (0.2, 0.5, 0.8, 1.0),
            "branch_steps": 1600,
            "branch_evaluations": (40, 80, 160, 320, 480, 640, 800, 960, 1120, 1280, 1440, 1600),
            "early_step": 160,
            "check_width": 192,
            "check_seeds": tuple(range(100, 108)),
            "limited_steps": 600,
            "budget": 2e14,
            "bootstrap": 400,
        },
    },
}


def get_config(setting: str = "small") -> ConfigDict:
    check_key(setting, SIZES, "--config=configs/dcpt.py:SETTING")
    size = SIZES[setting]
    c = base.get_config()
    c.model.positions = "rotary"
    c.model.update(size["model"])
    c.data.update(size["data"])
    c.training.duration = {"steps": size["trunk_steps"]}
    c.schedule.peak = 8e-3
    c.schedule.warmup = {"steps": 60}
    c.evaluation.points = 8
    c.evaluation.windows = 128
    c.study = {
        "name": "dcpt",
        "general": "prose",  # what the trunk knows
        "target": "code",  # what the branches learn
        "third": "headers",  # the domain that the cross-domain law predicts from early measurements
        "rise": 0.03,  # of the general loss that the first application tolerates, as in the paper
        "branch_peak": 1e-3,
        "fit_from": 0.2,  # the laws are fitted to the part of each branch after this share of its tokens
        "held_share": 0.5,  # the ratio held out
        "held_from": 0.6,  # the part of each branch held out, after this share of its tokens
        "allocation_share": 0.5,  # of the target domain, in the third application
        "level": 0.95,
        **size["study"],
    }
    return c


def get_stages(c: ConfigDict) -> list[Stage]:
    study = c.study
    return [
        Stage("trunk", branching.trunks(c, study.widths, study.seeds)),
        *(Stage(domain, grid.product({**branching.branch(c, warmup=0),
                                      **branching.mixtures(study.general, domain, shares)}), parent="trunk")
          for domain, shares in ((study.target, study.shares), (study.third, study.third_shares))),
    ]


def checks(c: ConfigDict, store: Store) -> list[Stage]:
    """What the law recommends and its neighbours, from trunks of fresh seeds."""
    study = c.study
    stages = []
    for width, trials in dcpt.to_check(store, study.to_dict()).items():
        trunk = Stage(f"fresh trunk, width {width}", branching.trunks(c, [width], study.check_seeds))
        points = [{**point, "training.duration": {"steps": trial.steps},
                   "evaluation.steps": (trial.steps // 2, trial.steps)} for trial in trials for point in grid.product(
                       {**branching.branch(c, warmup=0),
                        **branching.mixtures(study.general, study.target, [trial.share])})]
        stages += [trunk, Stage(f"checks, width {width}", points, parent=trunk.name)]
    return stages


FOLLOW_UPS = (checks,)
