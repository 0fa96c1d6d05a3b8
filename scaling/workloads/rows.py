"""Rows of trials of digits in a store's tables, beside those of runs and in their columns where these fit.

Tokens are images. A row of `runs` has the columns workload.* in place of model.*; `domain` of a curve is the model.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from scaling import fields
from scaling.sweeps.rows import code_version, device_name
from scaling.workloads.models import flops_per_image
from scaling.workloads.trial import Trial

DOMAINS = json.dumps([["digits", "scikit-learn:digits"]])


def trial_row(trial: Trial, pack_id: str, checksum: str, diverged_at: int, wall_seconds: float) -> dict[str, Any]:
    """The row of a trial in `runs`; `diverged_at` -1: it is sound."""
    flat = fields.flatten(trial)
    seed, steps, _ = flat.pop("seed"), flat.pop("steps"), flat.pop("evaluations")
    batch = trial.workload.batch
    trained = steps if diverged_at < 0 else diverged_at - 1
    flops = flops_per_image(trial.workload)
    return {
        "run_id": trial.run_id, "parent_id": None, "pack_id": pack_id, "job_id": pack_id, **flat,
        "training.seed": seed, "data.batch": batch, "data.domains": DOMAINS, "data.tokenizer": "none",
        "corpus_checksum": checksum, "flops_per_token": flops, "steps": steps, "steps_trained": trained,
        "tokens": trained * batch, "flops": trained * batch * flops,
        "status": "done" if diverged_at < 0 else "diverged",
        "diverged_at": diverged_at, "reason": "", "wall_seconds": wall_seconds, "device": device_name(),
        "code_version": code_version(),
    }


def trial_curve(trial: Trial, losses_E: Sequence[float], diverged_at: int) -> pd.DataFrame:
    """Rows of `curves`: validation loss at step 0 and after every part of a trial; none after it diverged."""
    step_E = np.arange(len(losses_E)) * trial.every
    sound = (step_E < diverged_at) | (diverged_at < 0)
    rates = np.concatenate([[np.nan], trial.learning_rates()])[step_E]
    table = pd.DataFrame({
        "run_id": trial.run_id, "step": step_E, "tokens": step_E * trial.workload.batch,
        "flops": step_E * trial.workload.batch * flops_per_image(trial.workload), "lr": rates, "split": "validation",
        "domain": trial.workload.model, "loss": np.asarray(losses_E, np.float64), "loss_se": np.nan,
        "bits_per_byte": np.nan})
    return table[sound]
