"""The critical mixture ratio against tokens and model size: how much of a new domain continued training may hold.

Paper: the CMR laws, Gu et al. 2024 (arXiv 2407.17467). Trunks are trained on prose, then continued at the rate they
ended with, at several shares of code; the general loss rises, turns and falls, later the more code there is.
Command: python -m experiments.run --config=configs/cmr.py --workdir=runs/cmr   (configs/cmr.py:full on an accelerator)
Expected: 24 trunks and 192 branches in about 7 minutes on 2 cores; the critical share of code grows from about 25% at
20,000 tokens to 45% at 80,000, and what stays within the tolerance from 58% of code to 63% with size.
"""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from configs import base, branching
from scaling.fields import check_key
from scaling.sweeps import grid
from scaling.sweeps.sweep import Stage

SIZES: dict[str, dict[str, Any]] = {
    "small": {
        "model": {},
        "data": {"sequence": 64, "batch": 8},
        "trunk_steps": 2000,
        "study": {
            "widths": (16, 24, 32, 48),
            "seeds": (0, 1, 2, 3, 4, 5),
            "shares": (0.0, 0.15, 0.25, 0.35, 0.45, 0.55, 0.75, 1.0),  # of the target domain
            "branch_steps": 800,
            "branch_evaluations": (5, 10, 15, 20, 30, 40, 60, 80, 120, 160, 240, 320, 480, 640, 800),
            "answer_steps": (40, 80, 160),  # at which the critical share is asked
            "bootstrap": 200,
        },
    },
    "full": {
        "model": {"width": 256, "depth": 6, "heads": 4},
        "data": {"sequence": 256, "batch": 32},
        "trunk_steps": 4000,
        "study": {
            "widths": (64, 128, 256, 512),
            "seeds": tuple(range(8)),
            "shares": (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0),
            "branch_steps": 1600,
            "branch_evaluations": (5, 10, 15, 20, 30, 40, 60, 80, 120, 160, 240, 320, 480, 640, 960, 1280, 1600),
            "answer_steps": (80, 160, 320),
            "bootstrap": 400,
        },
    },
}


def get_config(setting: str = "small") -> ConfigDict:
    check_key(setting, SIZES, "--config=configs/cmr.py:SETTING")
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
        "name": "cmr",
        "general": "prose",  # what the trunk knows and should not forget
        "target": "code",  # what the branches learn
        "tolerance": 0.05,  # nats/token of general loss that may be lost, as in the paper
        "branch_peak": 1e-3,
        "level": 0.95,
        **size["study"],
    }
    return c


def get_stages(c: ConfigDict) -> list[Stage]:
    study = c.study
    mixtures = branching.mixtures(study.general, study.target, study.shares)
    return [
        Stage("trunk", branching.trunks(c, study.widths, study.seeds)),
        Stage("branch", grid.product({**branching.branch(c, warmup=0), **mixtures}), parent="trunk"),
    ]
