"""The row of a run in the table `runs`: its whole configuration, its size and cost, how it ended."""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import json
import subprocess
from pathlib import Path
from typing import Any

import jax

from scaling.config import Run
from scaling.models.counts import count

FINAL = ("done", "diverged", "failed")  # and "running", while its pack is in training
STOPPED = "stopped"  # an outcome where early stopping is on, otherwise work that is left
VOLATILE = ("wall_seconds", "device", "code_version")  # columns that say nothing of the result


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended: status, the step it diverged at (-1: never), why it failed or was stopped, its share of the
    time; of a stopped run, the last step that counts.
    """

    status: str
    diverged_at: int = -1
    reason: str = ""
    wall_seconds: float = 0.0
    stopped_at: int | None = None


@functools.cache
def code_version() -> str:
    """Version of this package and, in a checkout, the commit, with '+' when files differ from it."""
    version = importlib.metadata.version("scaling")
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        described = subprocess.run(git, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # no git on this machine: the version alone
        return version
    return f"{version} {described.stdout.strip()}".strip()


def device_name() -> str:
    """Kind and number of the devices at hand, and the version of jax."""
    devices = jax.local_devices()
    return f"{len(devices)} x {devices[0].device_kind}, jax {jax.__version__}"


def run_row(run: Run, steps: int, parent_step: int | None, vocabulary: int, corpus_checksum: str, pack_id: str,
            outcome: Outcome) -> dict[str, Any]:
    """Columns: run_id, parent (id, step, optimizer, others: JSON of the weights of those averaged with it), every
    configuration field by dotted name, size, cost, outcome.
    """
    counts = count(run.model, vocabulary, run.data.sequence)
    ended = dataclasses.asdict(outcome)
    stopped_at = ended.pop("stopped_at")
    trained = steps if outcome.status == "done" else stopped_at or max(outcome.diverged_at - 1, 0)
    tokens = trained * run.data.tokens_per_step
    return {
        "run_id": run.run_id, "parent_id": run.parent.run_id if run.parent else None, "parent_step": parent_step,
        "parent_optimizer": run.parent.optimizer if run.parent else None,
        "parent_others": json.dumps(dict(run.parent.others)) if run.parent and run.parent.others else None,
        "pack_id": pack_id,
        **{key: value for key, value in run.flat().items() if not key.startswith("parent")},
        **{f"params_{name}": getattr(counts, name) for name in ("total", "non_embedding")},
        "flops_per_token": counts.flops_exact, "steps": steps, "steps_trained": trained, "tokens": tokens,
        "flops": tokens * counts.flops_exact, "vocabulary": vocabulary, "corpus_checksum": corpus_checksum,
        **ended, "device": device_name(), "code_version": code_version(),
    }
