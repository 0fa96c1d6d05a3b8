"""Do mixture laws and online mixers find a best mixture that is known before anything is trained?

Papers: data mixing laws (Ye et al. 2024, arXiv 2403.16952), DoReMi (2305.10429), DoGE (2310.15393), Skill-It
(2307.14430), online data mixing (2312.02406), Aioli (2411.05735), ScaleBiO (2406.19976).
Command: python -m experiments.run --config=configs/known_mixture.py --workdir=runs/known_mixture
Expected: 252 runs in about 8 minutes on 2 cores. Two laws find the best mixture; Aioli, DoReMi and Skill-It move toward
it, stratified sampling stays, both ODMs move away.
"""

from __future__ import annotations

import string
from typing import Any

from ml_collections import ConfigDict

from configs import base, mixer_rounds
from configs.mixer_rounds import FOLLOW_UPS  # noqa: F401  read by experiments.run
from experiments.mixture_design import random_mixtures
from scaling.sweeps import grid
from scaling.sweeps.sweep import Stage

SIZES: dict[str, dict[str, Any]] = {
    "small": {"model": {"width": 16, "depth": 1, "heads": 2}, "sequence": 32, "batch": 12, "steps": 500, "peak": 8e-3,
              "rounds": 10, "windows": 256, "documents": 8192, "mixtures": 40, "divisions": 6, "seeds": 8},
    "full": {"model": {"width": 64, "depth": 2, "heads": 4}, "sequence": 64, "batch": 24, "steps": 2000, "peak": 4e-3,
             "rounds": 20, "windows": 512, "documents": 65536, "mixtures": 80, "divisions": 12, "seeds": 16},
}
NOISE = 0.25  # of the documents of a language


def get_config(setting: str = "small") -> ConfigDict:
    size = SIZES[setting]
    c = base.get_config()
    del c.data.domains
    documents = size["documents"]
    c.data.domains = {
        "lower": f"synthetic:language?letters={string.ascii_lowercase}&noise={NOISE}&seed=1&documents={documents}",
        "upper": f"synthetic:language?letters={string.ascii_uppercase}&noise={NOISE}&seed=2&documents={documents}",
        "noise": f"synthetic:noise?seed=3&documents={documents}",
    }
    c.study = {
        "name": "known_mixture",
        "best": {"lower": 0.5, "noise": 0.0, "upper": 0.5},  # by construction
        **mixer_rounds.sized(c, size),
        "mixtures": size["mixtures"],  # random ones, for the laws
        "strengths": (1.0, 10.0),  # of the Dirichlet that draws them
        "design_seed": 0,
        "first_seed": 1000,  # the random mixture k is trained with seed first_seed + k
        "bootstrap": 400,
    }
    return c


def get_stages(c: ConfigDict) -> list[Stage]:
    study = c.study
    drawn = random_mixtures(mixer_rounds.equal(c), study.mixtures, study.strengths, study.design_seed)
    seeds = [study.first_seed + k for k in range(study.mixtures)]
    random = grid.zip_({"data.mixture": drawn, "training.seed": seeds})
    known = mixer_rounds.static([study.best.to_dict()], study.seeds)
    return [*mixer_rounds.opening(c), Stage("known best", known), Stage("random", random)]
