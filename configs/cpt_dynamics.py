"""Whole loss curves of continual pre-training under several schedules, peaks, replay shares and loss potentials.

Paper: Wang et al. 2025, learning dynamics in continual pre-training (arXiv 2505.07796).
Command: python -m experiments.run --config=configs/cpt_dynamics.py --workdir=runs/cpt_dynamics
Expected: 270 runs, about 7 minutes on 2 cores; fitted to constant and cosine rates, the law misses linear and WSD ones
by 0.9% on prose and 0.5% on code. With --config=configs/cpt_dynamics.py:full, a larger model on an accelerator.
"""

from typing import Any

from ml_collections import ConfigDict

from configs.rewarm_replay import start
from scaling.sweeps import grid
from scaling.sweeps.sweep import Stage

SIZES: dict[str, dict[str, Any]] = {
    "small": {"model": {"width": 32, "depth": 2, "heads": 2}, "sequence": 64, "batch": 16, "peak": 8e-3,
              "seeds": tuple(range(5)), "early": 300, "trunk_steps": 800, "anneal": 200, "branch_steps": 400,
              "evaluations": (1, 2, 4, 8, 15, 25, 40, 65, 100, 150, 200, 250, 300, 350, 375, 400),
              "momenta": (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.997, 0.999)},
    "full": {"model": {"width": 192, "depth": 6, "heads": 6}, "sequence": 128, "batch": 32, "peak": 2e-3,
             "seeds": tuple(range(8)), "early": 600, "trunk_steps": 1600, "anneal": 400, "branch_steps": 1500,
             "evaluations": (1, 2, 4, 8, 15, 30, 60, 100, 160, 250, 400, 600, 800, 1000, 1200, 1300, 1400, 1500),
             "momenta": (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.997, 0.999)},
}


def get_config(setting: str = "small") -> ConfigDict:
    size = SIZES[setting]
    c = start(size)
    c.schedule.name = "constant"
    c.schedule.floor = 1.0
    c.study = {
        "name": "cpt_dynamics",
        "old": "prose",
        "new": "code",
        "seeds": size["seeds"],
        "early": size["early"],  # steps of the trunk at which the shorter pre-training leaves it
        "anneal": size["anneal"],  # steps from there down to the potential, and then the new domain
        "potentials": (0.0, 1.0),  # rate at the end of pre-training over its peak
        "between": 0.3,  # one more potential
        "branch_steps": size["branch_steps"],
        "evaluations": size["evaluations"],  # steps after the branch
        "rewarm_steps": 10,
        "low_peak": 0.5,  # of a branch, share of the trunk's; all others have the trunk's
        "shares": (0.25, 0.6),  # of the new domain, beside all of it
        "seen": ("constant", "cosine"),  # schedules of branches that the laws are fitted to
        "unseen": ("linear", "wsd"),  # schedules whose curves they predict
        "momenta": size["momenta"],  # a step, of the annealing area; the one that fits the seen curves best is taken
        "shift_margin": 0.1,  # of the shift: from two transfer points it is the same when it differs by less
        "level": 0.95,
    }
    return c


def get_stages(c: ConfigDict) -> list[Stage]:
    s = c.study
    rates: dict[str, grid.Point] = {name: _rate(c, name) for name in (*s.seen, *s.unseen)}
    corpus = grid.product(_mixture(s, 1.0), list(rates.values()))
    without = grid.product(_mixture(s, 0.0), [rates["constant"]])
    low = [{**point, "schedule.peak": s.low_peak * c.schedule.peak} for point in corpus]
    replay = grid.product(_mixture(s, *s.shares), list(rates.values()))
    end: grid.Axis = {"parent.at": [{"steps": s.anneal}], "parent.optimizer": ["keep"], "evaluation.points": [None],
                      "evaluation.steps": [s.evaluations], "training.duration": [{"steps": s.branch_steps}]}
    late = c.training.duration.steps
    return [
        Stage("trunk", grid.product({"training.seed": s.seeds})),
        Stage("late", _annealed(s, late, s.potentials), parent="trunk"),
        Stage("between", _annealed(s, late, [s.between]), parent="trunk"),
        Stage("early", _annealed(s, s.early, s.potentials), parent="trunk"),
        Stage("from late", grid.product(end, grid.chain(corpus, low, replay, without)), parent="late"),
        Stage("from between", grid.product(end, corpus), parent="between"),
        Stage("from early", grid.product(end, grid.chain(corpus, without)), parent="early"),
    ]


def _mixture(study: ConfigDict, *new: float) -> dict[str, list[dict[str, float]]]:
    return {"data.mixture": [{study.old: 1 - share, study.new: share} for share in new]}


def _annealed(study: ConfigDict, at: int, potentials: Any) -> list[grid.Point]:
    """The trunk from step `at` on, linear to each potential; at potential 1 the rate stays."""
    return grid.product({"parent.at": [{"steps": at}], "parent.optimizer": ["keep"], "schedule.name": ["linear"],
                         "schedule.warmup": [{"steps": 0}], "schedule.floor": potentials,
                         "training.duration": [{"steps": study.anneal}]})


def _rate(c: ConfigDict, name: str) -> grid.Point:
    """The rate of a branch by name of its schedule, re-warmed to the trunk's peak."""
    floors = {"constant": 1.0, "cosine": 0.1, "linear": 0.0, "wsd": 0.1}
    decay = {"steps": c.study.branch_steps * 3 // 10} if name == "wsd" else None
    return {"schedule.name": name, "schedule.floor": floors[name], "schedule.decay": decay,
            "schedule.peak": c.schedule.peak, "schedule.warmup": {"steps": c.study.rewarm_steps}}
