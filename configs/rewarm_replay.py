"""Forgetting and adaptation against re-warm peak and replay share; does the simple recipe match training from scratch?

Papers: Ibrahim et al. 2024 (arXiv 2403.08763), Gupta et al. 2023 (arXiv 2308.04014), Guo et al. 2024 (arXiv
2406.14833).
Command: python -m experiments.run --config=configs/rewarm_replay.py --workdir=runs/rewarm_replay
Expected: 155 runs, about 6 minutes on 2 cores: 25% replay removes the forgetting; against training from scratch the
recipe loses about 0.06 nats/token. With --config=configs/rewarm_replay.py:full, larger models on an accelerator.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from configs import base
from scaling.sweeps import grid
from scaling.sweeps.sweep import Stage

SIZES: dict[str, dict[str, Any]] = {
    "small": {"model": {"width": 32, "depth": 2, "heads": 2}, "sequence": 64, "batch": 16, "peak": 8e-3,
              "seeds": tuple(range(5)), "more_seeds": tuple(range(5, 10)), "trunk_steps": 1000, "branch_steps": 600,
              "evaluations": (10, 20, 30, 45, 60, 90, 130, 180, 250, 350, 450, 600),
              "rewarm": (0.25, 0.5, 1.0), "replay": (0.0, 0.05, 0.25, 0.5, 1.0)},
    "full": {"model": {"width": 192, "depth": 6, "heads": 6}, "sequence": 128, "batch": 32, "peak": 2e-3,
             "seeds": tuple(range(8)), "more_seeds": tuple(range(8, 16)), "trunk_steps": 1500, "branch_steps": 1500,
             "evaluations": (10, 20, 30, 45, 60, 90, 130, 180, 250, 350, 500, 750, 1000, 1250, 1500),
             "rewarm": (0.25, 0.5, 1.0, 1.5), "replay": (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0)},
}


def start(size: Mapping[str, Any]) -> ConfigDict:
    """configs/base.py at a size, with prose and code alone."""
    c = base.get_config()
    c.model.update(size["model"])
    del c.data.domains
    c.data.domains = {"prose": "wheels:prose", "code": "wheels:code"}
    c.data.sequence, c.data.batch = size["sequence"], size["batch"]
    c.training.duration = {"steps": size["trunk_steps"]}
    c.schedule.peak = size["peak"]
    c.schedule.warmup = {"steps": 50}
    c.evaluation.windows = 128
    return c


def get_config(setting: str = "small") -> ConfigDict:
    size = SIZES[setting]
    c = start(size)
    c.data.unique_tokens = {"prose": size["trunk_steps"] * size["sequence"] * size["batch"]}  # replay: what was seen
    c.schedule.floor = 0.1
    c.study = {
        "name": "rewarm_replay",
        "old": "prose",
        "new": "code",
        "seeds": size["seeds"],
        "more_seeds": size["more_seeds"],  # of the recipe and of training from scratch, beside those of everything
        "branch_steps": size["branch_steps"],
        "evaluations": size["evaluations"],  # steps after the branch
        "rewarm_steps": 30,  # linear warm-up of a branch
        "dip_step": 60,  # where the rise of the old loss just after re-warming is read
        "rewarm": size["rewarm"],  # peak of a branch, share of the trunk's
        "replay": size["replay"],  # share of old data in a branch; 1: the trunk's own data again
        "recipe_replay": 0.25,  # of the simple recipe, at the trunk's own peak: for a strong shift, as published
        "epochs": 4,  # passes over a subset, against one pass over as many tokens
        "held_level": 0.5,  # of the infinite schedule, share of the peak
        "margin": 0.05,  # nats/token: two ways are equal when their losses differ by less
        "level": 0.95,
    }
    return c


def get_stages(c: ConfigDict) -> list[Stage]:
    s, trunk, branch = c.study, c.training.duration.steps, c.study.branch_steps
    recipe = {"data.mixture": [_mixture(s, s.recipe_replay)]}
    common = {"parent.at": [c.training.duration], "parent.optimizer": ["keep"], "evaluation.points": [None],
              "evaluation.steps": [s.evaluations], "training.duration": [{"steps": branch}]}
    rewarmed = [_rewarmed(c, peak) for peak in s.rewarm]
    held = {"schedule.name": "constant", "schedule.peak": c.schedule.floor * c.schedule.peak, "schedule.floor": 1.0,
            "schedule.warmup": {"steps": 0}}
    mixtures = {"data.mixture": [_mixture(s, share) for share in s.replay]}
    subset = int((1 - s.recipe_replay) * branch * c.data.sequence * c.data.batch / s.epochs)
    few = {"data.unique_tokens": [{**c.data.unique_tokens, s.new: subset}]}
    shares = [trunk / (trunk + branch), (trunk + s.recipe_replay * branch) / (trunk + branch)]  # all data; as recipe
    union = {"training.duration": [{"steps": trunk + branch}], "data.mixture": [_mixture(s, share) for share in shares]}
    seeds, more = {"training.seed": s.seeds}, {"training.seed": s.more_seeds}
    full = [_rewarmed(c, 1.0)]
    return [
        Stage("trunk", grid.product(seeds)),
        Stage("scratch", grid.product(grid.chain(seeds, more), union)),
        Stage("branch", grid.product(common, mixtures, [held, *rewarmed]), parent="trunk"),
        Stage("epochs", grid.product(common, recipe, few, full), parent="trunk"),
        Stage("reset", grid.product({**common, "parent.optimizer": ["reset"]}, recipe, full), parent="trunk"),
        Stage("more trunks", grid.product(more)),
        Stage("recipe", grid.product(common, recipe, full), parent="more trunks"),
        Stage("held trunk", grid.product(seeds, [_infinite(c, 1.0, s.held_level, trunk // 2, 0)])),
        Stage("annealed", grid.product(common, recipe, [_infinite(c, s.held_level, 1.0, 0, branch // 4)]),
              parent="held trunk"),
    ]


def _mixture(study: ConfigDict, old: float) -> dict[str, float]:
    return {study.old: old, study.new: 1 - old}


def _rewarmed(c: ConfigDict, peak: float) -> grid.Point:
    """Warm-up to a share of the trunk's peak, then a cosine to where the trunk ended."""
    return {"schedule.name": "cosine", "schedule.peak": peak * c.schedule.peak,
            "schedule.floor": c.schedule.floor / peak, "schedule.warmup": {"steps": c.study.rewarm_steps}}


def _infinite(c: ConfigDict, peak: float, level: float, cooldown: int, decay: int) -> grid.Point:
    """The infinite schedule in a run of its trunk (no decay yet) or of its branch (already at the level)."""
    return {"schedule.name": "infinite", "schedule.peak": peak * c.schedule.peak,
            "schedule.floor": c.schedule.floor / peak, "schedule.level": level,
            "schedule.cooldown": {"steps": cooldown}, "schedule.decay": {"steps": decay},
            "schedule.warmup": {"steps": 0} if cooldown == 0 else c.schedule.warmup}
