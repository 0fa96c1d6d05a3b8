"""Which optimizer reaches a tuned baseline's loss first, at equal tuning, on eight small workloads? AlgoPerf's method.

Papers: AlgoPerf (Dahl et al. 2023, arXiv 2306.07179) and its competition (2502.15015); Wen et al. 2025 (2509.02046).
Command: python -m experiments.run --config=configs/optimizer_bench.py --workdir=runs/optimizer_bench
(before it, with the same flags: python -m experiments.optimizer_bench_trials)   (:full for an accelerator)
Expected: on two free cores 4 minutes for 3408 trials of digits, 1 for the times of the language model's programs, 7 for
1136 language models, most of all of it compilation. Muon and SOAP need about half of AdamW's steps on these workloads;
how that holds on others, four bases of workloads leave wide open. No default of the self-tuning ruleset but Prodigy's
reaches a target in so few steps.
"""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from configs import base
from experiments import bench_design
from experiments.bench_runs import best_trials
from scaling.fields import check_key
from scaling.store import Store
from scaling.sweeps.sweep import Stage

ADAM = {"b1": 0.9, "b2": 0.99, "eps": 1e-8}
COMMON = {"weight_decay": 0.01, "decay_convention": "coupled", "decay_on": "matrices", "clip_norm": 1.0, "b1": None,
          "b2": None, "eps": None}
DECAY, MOMENTUM = ("weight_decay", "log", 1e-3, 1e-1), ("momentum", "log_from_1", 0.03, 0.3)
BETAS = ("b1", "log_from_1", 0.03, 0.3), ("b2", "log_from_1", 0.005, 0.1)


def submission(name: str, settings: dict[str, Any], peak: float, *space: tuple[str, str, float, float],
               schedule: str = "linear") -> dict[str, Any]:
    """A submission as the study's settings have it; `peak` is the middle of 1.5 decades where anything is drawn."""
    ranges = [("peak", "log", peak / 10**0.75, peak * 10**0.75), *space] if space else []
    return {"name": name, "optimizer": {**COMMON, **settings}, "schedule": schedule, "peak": peak,
            "space": tuple(dict(zip(("field", "kind", "low", "high"), drawn, strict=True)) for drawn in ranges)}


EXTERNAL = (
    submission("AdamW", {"name": "adamw", **ADAM}, 2e-2, *BETAS, DECAY),
    submission("RAdam", {"name": "radam", **ADAM, "form": "published"}, 2e-2, *BETAS, DECAY),
    submission("heavy ball", {"name": "sgd", "momentum": 0.9, "form": "heavy_ball"}, 3e-1, MOMENTUM, DECAY),
    submission("Nesterov", {"name": "sgd", "momentum": 0.9, "form": "nesterov"}, 3e-1, MOMENTUM, DECAY),
    submission("Lion", {"name": "lion", "b1": 0.9, "b2": 0.99}, 4e-3, *BETAS, ("weight_decay", "log", 1e-2, 1.0)),
    submission("ADOPT", {"name": "adopt", **ADAM, "eps": 1e-6}, 2e-2, *BETAS, DECAY),
    submission("AdEMAMix", {"name": "ademamix", **ADAM, "b3": 0.99, "alpha": 4.0}, 2e-2, *BETAS, DECAY,
               ("b3", "log_from_1", 0.003, 0.03), ("alpha", "log", 1.0, 8.0)),
    submission("AdamP", {"name": "adamp", **ADAM, "delta": 0.1, "decay_ratio": 0.1}, 2e-2, *BETAS, DECAY),
    submission("Schedule-Free", {"name": "schedule_free", **ADAM}, 3e-2, *BETAS, DECAY, schedule="constant"),
    submission("LAMB", {"name": "lamb", **ADAM, "eps": 1e-6}, 3e-2, *BETAS, DECAY),
    submission("Adafactor", {"name": "adafactor", "memory": 0.8, "form": "scaled"}, 5e-2,
               ("memory", "log", 0.5, 1.0), DECAY),
    submission("Muon", {"name": "muon", **ADAM, "momentum": 0.95, "form": "moonlight"}, 2e-2, MOMENTUM, DECAY),
    submission("SOAP", {"name": "soap", **ADAM, "every": 10}, 2e-2, *BETAS, DECAY),
    submission("Conda", {"name": "conda", **ADAM, "scale": 0.25, "every": 20}, 8e-2, *BETAS, DECAY),
)
SELF_TUNING = (
    submission("AdamW, defaults", {"name": "adamw", **ADAM, "b2": 0.999}, 1e-3, schedule="cosine"),
    submission("Schedule-Free, defaults", {"name": "schedule_free", **ADAM, "b2": 0.999, "weight_decay": 0.0}, 2.5e-3,
               schedule="constant"),
    submission("Prodigy", {"name": "prodigy", **ADAM, "b2": 0.999, "scale": 1e-6}, 1.0, schedule="cosine"),
)
LEFT_OUT = {
    "nadamw": "not in scaling/optimizers; RAdam stands for it among the four baselines",
    "sophia": "needs an estimate of curvature that trials of digits do not make",
    "galore, gradnormlorp": "save memory by a low rank; on matrices this small the rank is the matrix's own",
    "lars, sgdp, layca, swats": "variants of SGD for nets with batch normalization, which no workload has",
}


def digit(name: str, model: str, width: int, depth: int, activation: str, norm: str | None, batch: int
          ) -> dict[str, Any]:
    """A workload of digits as the study's settings have it."""
    return {"name": name, "held_out": "_" in name, "workload": {
        "model": model, "width": width, "depth": depth, "activation": activation, "norm": norm, "batch": batch}}


DIGITS = (
    digit("mlp", "mlp", 32, 2, "gelu", None, 32),
    digit("mlp_tanh", "mlp", 24, 3, "tanh", "layernorm", 64),
    digit("convnet", "convnet", 8, 2, "relu", None, 32),
    digit("convnet_rmsnorm", "convnet", 6, 2, "gelu", "rmsnorm", 48),
    digit("autoencoder", "autoencoder", 32, 3, "gelu", None, 32),
    digit("autoencoder_tanh", "autoencoder", 48, 3, "tanh", None, 64),
)
LANGUAGE = (
    {"name": "language", "held_out": False, "domain": "prose"},
    {"name": "language_code", "held_out": True, "domain": "code"},
)
SIZES: dict[str, dict[str, Any]] = {
    "small": {"model": {"width": 16, "depth": 2, "heads": 2}, "sequence": 32, "batch": 8, "windows": 32,
              "study": {"horizon": 180, "every": 10, "tuning_trials": 30, "retrained": 10, "studies": 6}},
    "full": {"model": {"width": 128, "depth": 4, "heads": 4}, "sequence": 128, "batch": 32, "windows": 256,
             "study": {"horizon": 3000, "every": 100, "tuning_trials": 200, "retrained": 20, "studies": 10}},
}


def get_config(setting: str = "small") -> ConfigDict:
    check_key(setting, SIZES, "--config=configs/optimizer_bench.py:SETTING")
    size = SIZES[setting]
    c = base.get_config()
    del c.data.domains
    c.data.domains = {"prose": "wheels:prose", "code": "wheels:code"}
    c.model.update(size["model"])
    c.data.sequence, c.data.batch = size["sequence"], size["batch"]
    c.training.duration = {"steps": size["study"]["horizon"]}
    c.evaluation.points, c.evaluation.steps = None, (size["study"]["every"],)
    c.evaluation.windows = size["windows"]
    c.study = {
        "name": "optimizer_bench",
        "language": LANGUAGE,
        "digits": DIGITS,
        "external": EXTERNAL,
        "self_tuning": SELF_TUNING,
        "baselines": ("AdamW", "RAdam", "heavy ball", "Nesterov"),
        "left_out": tuple(LEFT_OUT.items()),
        "budget": 4 / 3,  # of the steps that the target was set with, as in v0.5
        "self_budget": 1.5,  # of those
        "warmup": 0.05,
        "trials": 5,  # of a study
        "draws": 2000,
        "level": 0.95,
        **size["study"],
    }
    return c


def get_stages(c: ConfigDict) -> list[Stage]:
    s = bench_design.settings_of(c.study)
    return [Stage(language.name, [bench_design.language_point(s, language, at)
                                  for at in (*bench_design.tuning(s), *bench_design.scored(s))])
            for language in s.language]


def best_points(c: ConfigDict, store: Store) -> list[Stage]:
    """The best tuning trial of every language model on fresh seeds."""
    s = bench_design.settings_of(c.study)
    return [Stage(f"{language.name}, retrained", [bench_design.language_point(s, language, at)
                                                  for at in best_trials(store, s, language)])
            for language in s.language]


FOLLOW_UPS = (best_points,)
