"""Does any online mixer beat stratified sampling, or the best static mixture, of prose, code and headers?

Papers: Aioli (Chen et al. 2024, arXiv 2411.05735), DoReMi (2305.10429), DoGE (2310.15393), Skill-It (2307.14430),
online data mixing (2312.02406), ScaleBiO (2406.19976).
Command: python -m experiments.run --config=configs/online_mixing.py --workdir=runs/online_mixing
Expected: 244 runs in about 14 minutes on 2 cores (beside other work). No online mixer beats stratified sampling or is
worse, each within 0.02 nats/token at 8 seeds; the best static mixture of two tuning seeds is no better either.
"""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from configs import base, mixer_rounds
from configs.mixer_rounds import FOLLOW_UPS  # noqa: F401  read by experiments.run
from experiments import mixers
from scaling.sweeps import grid
from scaling.sweeps.sweep import Stage

SIZES: dict[str, dict[str, Any]] = {
    "small": {"model": {"width": 24, "depth": 2, "heads": 2}, "sequence": 64, "batch": 12, "steps": 600, "peak": 8e-3,
              "rounds": 10, "windows": 128, "divisions": 6, "seeds": 8},
    "full": {"model": {"width": 128, "depth": 4, "heads": 4}, "sequence": 128, "batch": 24, "steps": 4000,
             "peak": 4e-3, "rounds": 20, "windows": 256, "divisions": 9, "seeds": 16},
}


def get_config(setting: str = "small") -> ConfigDict:
    size = SIZES[setting]
    c = base.get_config()
    c.study = {
        "name": "online_mixing",
        "natural": {"prose": 0.31, "code": 0.48, "headers": 0.21},  # of the corpora's training tokens
        **mixer_rounds.sized(c, size),
        "margin": 0.01,  # nats/token: a gain below it is none
    }
    return c


def get_stages(c: ConfigDict) -> list[Stage]:
    settings, steps = mixer_rounds.settings_of(c), c.training.duration.steps
    costs = {mixers.cost(method.name, len(c.data.domains)) for method in settings.methods}
    longer = [{"steps": (1 + cost) * steps} for cost in sorted(costs) if cost]
    return [
        *mixer_rounds.opening(c),
        Stage("natural", mixer_rounds.static([c.study.natural.to_dict()], settings.seeds)),
        Stage("longer", grid.product({"training.duration": longer},
                                     mixer_rounds.static([mixer_rounds.equal(c)], settings.seeds))),
    ]
