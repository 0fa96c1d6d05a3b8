"""How much the learning rate matters, with and without qk-norm, z-loss, warm-up, independent decay and outer norms.

Paper: Wortsman et al. 2023, small-scale proxies for large-scale training instabilities (arXiv 2309.14322); Peri-LN
from Kim et al. 2025 (arXiv 2502.02732). Peak rates over three decades; sensitivity is the mean over them of the loss
above the best one, a diverged run counting as untrained.
Command: python -m experiments.run --config=configs/lr_sensitivity.py --workdir=runs/lr_sensitivity   (:full for an
accelerator)
Expected: 315 runs in about 2 minutes on 2 cores. Qk-norm, warm-up and peri lower the sensitivity a little; independent
decay raises it by 0.5 nats/token, since all of the paper's decay falls on few steps.
"""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from configs import base
from experiments.lr_sensitivity import ARMS, Arm
from scaling.fields import check_key
from scaling.laws.learning_rate import SENSITIVITY_RATES
from scaling.sweeps import grid
from scaling.sweeps.grid import Point
from scaling.sweeps.sweep import Stage

PAPER_DECAY = 1e-4 * 1e5  # independent decay a step times steps: what the paper's runs have in all

SIZES: dict[str, dict[str, Any]] = {
    "small": {
        "model": {"width": 24, "depth": 2, "heads": 2},
        "data": {"sequence": 32, "batch": 4},
        "steps": 300,
        "seeds": (0, 1, 2, 3, 4),
    },
    "full": {
        "model": {"width": 256, "depth": 6, "heads": 4},
        "data": {"sequence": 512, "batch": 64, "tokenizer": "bpe:16384"},
        "steps": 10_000,
        "seeds": (0, 1, 2, 3, 4),
    },
}


def get_config(setting: str = "small") -> ConfigDict:
    check_key(setting, SIZES, "--config=configs/lr_sensitivity.py:SETTING")
    size = SIZES[setting]
    c = base.get_config()
    del c.data.domains
    c.data.domains = {"prose": "wheels:prose"}
    c.data.update(size["data"])
    c.model.update(size["model"])
    c.model.positions, c.model.norm, c.model.tied_head = "rotary", "layernorm", False  # the paper's
    c.training.duration = {"steps": size["steps"]}
    c.optimizer.decay_convention = "independent"
    c.optimizer.weight_decay = PAPER_DECAY / size["steps"]
    c.evaluation.points = 2
    c.evaluation.windows = 256
    c.study = {
        "name": "lr_sensitivity",
        "domain": "prose",
        "rates": SENSITIVITY_RATES,
        "floor": 1e-5,  # an absolute rate, as in the paper
        "warmup": 0.05,  # share of the steps, as in the paper
        "z_loss": 1e-4,
        "agreeing_rate": 1e-2,  # at this peak both conventions of decay are one
        "seeds": size["seeds"],
        "loss_margin": 0.01,  # of the best loss: what differs by less is equal
        "level": 0.95,
    }
    return c


def get_stages(c: ConfigDict) -> list[Stage]:
    study = c.study
    rates = [{"schedule.peak": rate, "schedule.floor": study.floor / rate} for rate in study.rates]
    arms = [_point(c, arm) for arm in ARMS.values()]
    return [Stage("runs", grid.product(arms, rates, {"training.seed": study.seeds}))]


def _point(c: ConfigDict, arm: Arm) -> Point:
    decay = c.optimizer.weight_decay
    return {"model.qk_norm": arm.qk_norm, "model.placement": arm.placement,
            "training.z_loss": c.study.z_loss if arm.z_loss else 0.0,
            "schedule.warmup": {"steps": round(c.study.warmup * c.training.duration.steps) if arm.warmup else 0},
            "optimizer.decay_convention": arm.decay,
            "optimizer.weight_decay": decay if arm.decay == "independent" else decay / c.study.agreeing_rate}
