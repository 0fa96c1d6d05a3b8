"""Show a small domain more often, or weigh its loss up? The same full gradient, not the same training.

Paper: Li et al. 2024, Upsample or upweight? (arXiv 2410.04579).
Command: python -m experiments.run --config=configs/upsample_upweight.py --workdir=runs/upsample_upweight
Expected: 260 runs in about 13 minutes on 2 cores. Equal under full gradients to 1e-14; sampling has the lower variance,
converges faster, and Cooldown ends lower than the temperature it starts at. With :full, a larger model.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import base
from experiments.upsample_design import PLAIN_EPS, Settings, full_batch, sampled, scalarised
from scaling import fields
from scaling.data.temperature import cooldown
from scaling.sweeps import grid
from scaling.sweeps.sweep import Stage

SIZES: dict[str, dict[str, Any]] = {
    "small": {"model": {"width": 32, "depth": 2, "heads": 2}, "sequence": 64, "batch": 16, "peak": 8e-3,
              "steps": 819, "early_step": 120, "seeds": tuple(range(5)), "unit": 16,
              "evaluations": (20, 40, 60, 90, 120, 160, 205, 250, 300, 350, 410, 470, 530, 590, 650, 710, 770, 819)},
    "full": {"model": {"width": 192, "depth": 6, "heads": 6}, "sequence": 128, "batch": 32, "peak": 2e-3,
             "steps": 2184, "early_step": 240, "seeds": tuple(range(8)), "unit": 128,
             "evaluations": (40, 80, 120, 180, 240, 320, 420, 540, 680, 840, 1020, 1200, 1400, 1600, 1800, 2000, 2184)},
}


def get_config(setting: str = "small") -> ConfigDict:
    size = SIZES[setting]
    c = base.get_config()
    c.model.update(size["model"])
    c.data.sequence, c.data.batch = size["sequence"], size["batch"]
    c.optimizer.clip_norm = None  # it would cut the rare batches with windows that are weighed up
    c.training.duration = {"steps": size["steps"]}
    c.schedule.peak = size["peak"]
    c.schedule.warmup = {"steps": 50}
    c.evaluation.points, c.evaluation.steps = None, size["evaluations"]
    c.evaluation.windows = 128
    c.objective = {"domain_weights": {}, "reweighting": "none", "temperature": None, "uniform_for": None}
    c.study = {
        "name": "upsample_upweight",
        "sizes": {"prose": 256.0, "code": 16.0, "headers": 1.0},  # windows, over those of the smallest
        "low": "headers",  # the smallest
        "temperatures": (1.0, 2.0, 4.0, 16.0),
        "high": 16.0,  # of Cooldown, which ends at 1
        "slower": (0.5, 0.25),  # rates of scalarization at that temperature, beside the sweep's: shares of its peak
        "switches": (0.125, 0.25, 0.5, 0.75),  # share of the run after which Cooldown is at temperature 1
        "switch": 0.25,  # of the Cooldown that claims are about
        "early_step": size["early_step"],  # where speed is read
        "seeds": size["seeds"],
        "unit": size["unit"],  # windows of the smallest domain
        "pool_unit": 2,  # the same, in the pool that full gradients are taken over
        "pool_batch": 42,  # windows of a stochastic batch from the pool
        "pool_passes": 20,  # over the pool, before the state that counts as trained
        "frozen_passes": 8,  # over the pool at a fixed state: the variance of a batch's gradient
        "whole": (2.0, 4.0),  # temperatures at which whole copies of the pool's windows give the shares exactly
        "descent_steps": 16,
        "descent_rate": 0.05,  # where plain descent does not swing, which would let rounding grow step by step
        "tolerance": 1e-6,  # nats/token: losses that differ by less are equal
        "factor_margin": 0.25,  # the ratio of variances is the second moment's when it differs by less
        "level": 0.95,
    }
    return c


def get_stages(c: ConfigDict) -> list[Stage]:
    s: Settings = fields.convert(Settings, c.study, "study")
    sizes = s.by_name
    seeds: grid.Axis = {"training.seed": s.seeds}
    subset: grid.Axis = {"data.unique_tokens": [s.subset(s.unit, c.data.sequence)]}
    pool: grid.Axis = {"data.unique_tokens": [s.subset(s.pool_unit, c.data.sequence)], "evaluation.windows": [2]}
    cooled = [{**sampled(sizes, s.high), "data.mixture": cooldown(sizes, s.high, 1.0, switch)} for switch in s.switches]
    constant = [sampled(sizes, tau) for tau in s.temperatures] + [scalarised(sizes, tau) for tau in s.upsampled]
    slower = [{**scalarised(sizes, s.high), "schedule.peak": rate * c.schedule.peak} for rate in s.slower]
    trained = [{**sampled(sizes, 1.0), **_steps(s.steps(s.pool_passes, s.pool_batch), 2), "data.batch": s.pool_batch}]
    descent = [{**point, **_plain(s), **_steps(s.descent_steps, s.descent_steps)} for tau in s.whole
               for point in _both(s, tau)]
    frozen = _frozen(s)
    branch: grid.Axis = {"parent.at": [{"steps": s.steps(s.pool_passes, s.pool_batch)}], "parent.optimizer": ["keep"]}
    return [
        Stage("sweep", grid.product(seeds, subset, grid.chain(constant, slower, cooled))),
        Stage("descent", grid.product(seeds, pool, descent)),
        Stage("initial", grid.product(seeds, pool, frozen)),
        Stage("pool", grid.product(seeds, pool, trained)),
        Stage("trained", grid.product(branch, frozen), parent="pool"),
    ]


def _steps(steps: int, evaluations: int) -> grid.Point:
    """Length, and evaluations spread evenly over it."""
    return {"training.duration": {"steps": steps},
            "evaluation.steps": tuple(steps * i // evaluations for i in range(1, evaluations + 1))}


def _plain(s: Settings) -> grid.Point:
    """Plain descent: AdamW without moments, its ε far above the gradient; float64, in which sums of windows in other
    orders agree.
    """
    return {"training.dtype": "float64", "optimizer.b1": 0.0, "optimizer.b2": 0.0, "optimizer.eps": PLAIN_EPS,
            "optimizer.weight_decay": 0.0, **_constant(s.descent_rate * PLAIN_EPS)}


def _constant(peak: float) -> grid.Point:
    return {"schedule.name": "constant", "schedule.peak": peak, "schedule.floor": 1.0,
            "schedule.warmup": {"steps": 0}}


def _both(s: Settings, tau: float) -> list[grid.Point]:
    """Sampling and scalarization, each with a batch that is the full gradient and with a stochastic one."""
    way, other = sampled(s.by_name, tau), scalarised(s.by_name, tau)
    return [{**way, "data.batch": full_batch(s, tau)}, {**other, "data.batch": s.pool_windows},
            {**way, "data.batch": s.pool_batch}, {**other, "data.batch": s.pool_batch}]


def _frozen(s: Settings) -> list[grid.Point]:
    """Gradients at a state that stays: the rate is 0. Over all windows at once, window by window, in batches."""
    points = []
    for tau in s.upsampled:
        way, other = sampled(s.by_name, tau), scalarised(s.by_name, tau)
        points.append({**other, **_steps(1, 1), "data.batch": s.pool_windows})
        for batch, passes in s.frozen_batches.items():
            steps = s.steps(passes, batch)
            points += [{**point, **_steps(steps, steps), "data.batch": batch} for point in (way, other)]
    return [{**point, **_constant(0.0)} for point in points]
