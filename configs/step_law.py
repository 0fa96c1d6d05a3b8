"""The best learning rate and batch of a small transformer on prose over sizes and tokens, and what a law misses by.

Paper: Li et al. 2025, the Step Law (arXiv 2503.04715). A grid of rates and batches at every size and number of tokens,
cosine to one absolute floor; laws of the best rate and batch; then, at the largest size, runs of fresh seeds at what
the laws of the smaller sizes recommend, beside the best of that size's own grid.
Command: python -m experiments.run --config=configs/step_law.py --workdir=runs/step_law   (:full for an accelerator)
Expected: 720 runs and at most 72 that the laws ask for, in about 6 minutes on 2 cores. The best rate falls with size,
N^-0.6; at the size it never saw the law's choice costs 0.6% of the loss, more than reusing the smaller size's best.
"""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from configs import base
from experiments import step_law
from scaling.fields import check, check_key
from scaling.store import Store
from scaling.sweeps import grid
from scaling.sweeps.grid import Point
from scaling.sweeps.sweep import Stage

SIZES: dict[str, dict[str, Any]] = {
    "small": {
        "model": {"depth": 1},
        "head_width": 4,
        "sequence": 16,
        "tokenizer": "bytes",
        "study": {
            "widths": (8, 12, 16, 24),
            "tokens": (2**14, 2**15, 2**16),
            "batches": (1, 2, 4, 8),  # windows
            "rates": tuple(2e-3 * 2**k for k in range(5)),
            "floor": 1e-4,  # about 1/100 of the best rates, as the paper's 1e-5 is of its own
            "seeds": (0, 1, 2),
            "fresh_seeds": (100, 101, 102, 103, 104, 105),
            "bootstrap": 200,
        },
    },
    "full": {
        "model": {"depth": 6},
        "head_width": 64,
        "sequence": 512,
        "tokenizer": "bpe:16384",
        "study": {
            "widths": (128, 192, 256, 384, 512),
            "tokens": (2**26, 2**27, 2**28, 2**29),
            "batches": (32, 64, 128, 256, 512),
            "rates": tuple(2.5e-4 * 2**k for k in range(7)),
            "floor": 1e-5,
            "seeds": (0, 1, 2),
            "fresh_seeds": (100, 101, 102, 103, 104),
            "bootstrap": 400,
        },
    },
}


def get_config(setting: str = "small") -> ConfigDict:
    check_key(setting, SIZES, "--config=configs/step_law.py:SETTING")
    size = SIZES[setting]
    c = base.get_config()
    del c.data.domains
    c.data.domains = {"prose": "wheels:prose"}
    c.data.tokenizer = size["tokenizer"]
    c.data.sequence = size["sequence"]
    c.model.positions = "rotary"
    c.model.update(size["model"])
    c.model.width, c.model.heads = size["head_width"], 1  # of a head: every size has its own number of these
    c.evaluation.points = 2
    c.evaluation.windows = 512
    c.study = {
        "name": "step_law",
        "domain": "prose",
        "warmup": 0.1,  # share of the steps; the paper's is 2000 steps at every setting
        "batch_margin": 0.3,  # of the exponent: within it ten times the size moves the best batch by less than double
        "level": 0.95,
        **size["study"],
    }
    return c


def get_stages(c: ConfigDict) -> list[Stage]:
    study = c.study
    points = [_point(c, width, tokens, batch, rate) for width in study.widths for tokens in study.tokens
              for batch in study.batches for rate in study.rates]
    return [Stage("grid", grid.product(points, {"training.seed": study.seeds}))]


def transfer(c: ConfigDict, store: Store) -> list[Stage]:
    """What each way recommends at the largest size, and the best of its grid, from fresh seeds."""
    points = [_point(c, trial.width, trial.tokens, trial.batch, trial.rate)
              for trial in step_law.to_check(store, c.study.to_dict())]
    return [Stage("transfer", grid.product(points, {"training.seed": c.study.fresh_seeds}))]


def _point(c: ConfigDict, width: int, tokens: int, batch: int, rate: float) -> Point:
    per_step = batch * c.data.sequence
    check(tokens % per_step == 0, "study.tokens", tokens, f"a multiple of {per_step}, those of a step", "change it")
    check(rate > c.study.floor, "study.floor", c.study.floor, f"below every rate, such as {rate:g}", "lower it")
    steps = tokens // per_step
    return {"model.width": width, "model.heads": max(1, width // c.model.width), "data.batch": batch,
            "schedule.peak": rate, "schedule.floor": c.study.floor / rate, "training.duration": {"steps": steps},
            "schedule.warmup": {"steps": round(c.study.warmup * steps)}}


FOLLOW_UPS = (transfer,)
