"""Does the place and the kind of normalization change the loss, the sensitivity to the rate, and what depth gains?

Papers: Pre and Post (Xiong et al. 2020, arXiv 2002.04745), Peri-LN (Kim et al. 2025, 2502.02732), LayerNorm Scaling
(Sun et al. 2025, 2502.05795), RMSNorm (Zhang & Sennrich 2019, 1910.07467), CRMSNorm (Jiang et al. 2023, 2305.14858),
PowerNorm (Shen et al. 2020, 2003.07845), Unified Normalization (Yang et al. 2022, 2208.01313).
Command: python -m experiments.run --config=configs/norms.py --workdir=runs/norms
Expected: 390 runs, 18 minutes on 2 cores that other work shared: at depth 8 Peri ends 0.19 nats/token below Pre and
LayerNorm Scaling 0.04; Post learns little there at any rate; LayerNorm and RMSNorm of a centred stream stay within
1.3e-15. With --config=configs/norms.py:full, larger models on an accelerator.
"""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from configs import base
from experiments import norms
from scaling.fields import check_key
from scaling.store import Store
from scaling.sweeps import grid
from scaling.sweeps.sweep import Stage

SIZES: dict[str, dict[str, Any]] = {
    "small": {"width": 16, "heads": 2, "sequence": 32, "batch": 8, "steps": 250, "windows": 256, "warmup": 25,
              "study": {"depths": (2, 4, 8), "kinds_depth": 2, "rates": (3e-3, 1e-2, 3e-2, 1e-1),
                        "seeds": tuple(range(5)), "exact_steps": 60}},
    "full": {"width": 256, "heads": 4, "sequence": 256, "batch": 64, "steps": 10_000, "windows": 1024, "warmup": 1000,
             "study": {"depths": (6, 12, 24), "kinds_depth": 12, "rates": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
                       "seeds": tuple(range(5)), "exact_steps": 200}},
}


def get_config(setting: str = "small") -> ConfigDict:
    check_key(setting, SIZES, "--config=configs/norms.py:SETTING")
    size = SIZES[setting]
    c = base.get_config()
    del c.data.domains
    c.data.domains = {"prose": "wheels:prose"}
    c.data.sequence, c.data.batch = size["sequence"], size["batch"]
    c.model.update({"width": size["width"], "heads": size["heads"], "tied_head": False, "norm": "rmsnorm"})
    c.model.depth_scaled_init = False  # as in LayerNorm Scaling, whose authors find that the two do not add up
    c.model.placement = "pre"
    c.training.duration = {"steps": size["steps"]}
    c.schedule.warmup = {"steps": size["warmup"]}
    c.evaluation.points = None
    c.evaluation.steps = (size["steps"],)
    c.evaluation.windows = size["windows"]
    c.study = {
        "name": "norms",
        "domain": "prose",
        "placements": ("pre", "post", "peri", "scaled"),
        "warmup": size["warmup"],  # steps, of the rate and of running statistics
        "margin": 0.02,  # nats/token, within which two kinds are equal
        "rounding": 1e-9,  # nats/token, of losses of equal functions in float64
        "level": 0.95,
        **size["study"],
    }
    return c


def get_stages(c: ConfigDict) -> list[Stage]:
    s = c.study
    swept = grid.product({"schedule.peak": s.rates}, {"training.seed": s.seeds})
    kinds = [norms.model_of(kind, s.warmup) for kind in norms.KINDS]
    return [
        Stage("placements", grid.product({"model.depth": s.depths, "model.placement": s.placements}, swept)),
        Stage("without warm-up", grid.product(
            {"model.depth": s.depths[-1:], "model.placement": ("pre", "post"), "schedule.warmup": [{"steps": 0}]},
            swept)),
        Stage("kinds", grid.product({"model.depth": [s.kinds_depth]}, kinds, swept)),
    ]


def equal_functions(c: ConfigDict, store: Store) -> list[Stage]:
    """LayerNorm and RMSNorm of a centred stream in float64, every loss logged, at the rate that suits LayerNorm."""
    s = norms.settings_of(c.study.to_dict())
    rate = norms.best_rate(store, s, norms.Arm(s.kinds_depth, kind=norms.LAYERNORM))
    pair = [norms.model_of(kind, s.warmup) for kind in (norms.LAYERNORM, norms.CENTRED)]
    double = {"training.dtype": "float64", "training.duration": {"steps": s.exact_steps}, "schedule.peak": rate,
              "schedule.warmup": {"steps": s.exact_steps // 10},
              "evaluation.steps": tuple(range(1, s.exact_steps + 1)), "evaluation.windows": 8}
    return [Stage("equal functions", grid.product({"model.depth": [s.kinds_depth]}, pair, [double],
                                                  {"training.seed": s.seeds}))]


FOLLOW_UPS = (equal_functions,)
