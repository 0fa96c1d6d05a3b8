"""Does RAdam do without warm-up what Adam does with it, over a wide range of rates?

Paper: Liu et al. 2020, arXiv 1908.03265: Adam without warm-up lags or fails on transformers; RAdam tracks Adam with it.
Command: python -m experiments.run --config=configs/radam_warmup.py --workdir=runs/radam_warmup
Expected: 240 runs, 51 s of training on 2 cores beside a minute of compilation. What warm-up saves Adam is not decided
with 5 seeds; RAdam ends as low as Adam with warm-up, and with β₂ .999, where it is still rectifying when the run ends,
it takes rates about nine times as high to do so, so that rate by rate it does not track it.
For an accelerator: --config=configs/radam_warmup.py:full, 512 runs of a model of width 256.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import optimizer_effects
from scaling.sweeps import grid
from scaling.sweeps.sweep import Stage

SIZES: dict[str, dict[str, Any]] = {
    "small": {**optimizer_effects.SMALL, "steps": 400, "rates": tuple(1e-3 * 3**k for k in range(6)),
              "memories": (0.98, 0.999), "seeds": tuple(range(5))},
    "full": {**optimizer_effects.FULL, "steps": 8000, "rates": tuple(2.5e-4 * 2**k for k in range(8)),
             "memories": (0.98, 0.999), "seeds": tuple(range(8))},
}


def get_config(setting: str = "small") -> ConfigDict:
    size = SIZES[setting]
    c = optimizer_effects.start(size, size["steps"], evaluations=10)
    c.model.placement = "post"  # as in the paper's transformers, whose warm-up is hard to leave out
    c.model.norm = "layernorm"
    c.schedule.name, c.schedule.floor = "linear", 0.0
    c.schedule.warmup = {"steps": 0}
    c.study = {
        "name": "radam_warmup",
        "rates": size["rates"],
        "memories": size["memories"],  # β₂
        "seeds": size["seeds"],
        "warmup_steps": size["steps"] // 5,  # of Adam with warm-up
        "margin": 0.05,  # nats/token: losses that differ by less are equal
        "level": 0.95,
    }
    return c


def get_stages(c: ConfigDict) -> list[Stage]:
    s = c.study
    warmed = {"schedule.warmup": [{"steps": s.warmup_steps}]}
    forms = {"optimizer.name": ["radam"], "optimizer.form": ["published", "released"]}
    common = {"schedule.peak": s.rates, "optimizer.b2": s.memories, "training.seed": s.seeds}
    return [
        Stage("adam", grid.product(common)),
        Stage("warm-up", grid.product(warmed, common)),
        Stage("radam", grid.product(forms, common)),
    ]
