"""What a sweep costs, group by group, from speeds measured on the devices at hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scaling.config import Run
from scaling.models.counts import count
from scaling.store import Store
from scaling.sweeps.plan import groups, largest_groups
from scaling.sweeps.rows import FINAL
from scaling.sweeps.tuning import Tuner
from scaling.sweeps.workbench import Workbench


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Cost of the runs that share a program, a horizon and their evaluation steps."""

    model: str
    runs: int
    runs_left: int
    packs: int
    steps: int
    parameters: int
    tokens: float
    flops: float
    lanes: int
    vmap: int
    bytes_per_device: int
    seconds_left: float
    compile_seconds: float  # 0 for the second group of a program

    def described(self) -> dict[str, Any]:
        """Columns for a person."""
        return {
            "model": self.model, "runs": self.runs, "to train": self.runs_left, "packs": self.packs,
            "steps": self.steps, "parameters": f"{self.parameters:,}", "tokens": f"{self.tokens:.3g}",
            "FLOPs": f"{self.flops:.3g}", "lanes": self.lanes, "vmap": self.vmap,
            "MiB/device": f"{self.bytes_per_device / 2**20:.0f}", "seconds": f"{self.seconds_left:.0f}",
        }


def estimate(runs: Sequence[Run], bench: Workbench, workdir: Path | None) -> list[Estimate]:
    """One row a group; `seconds_left` counts only runs without an outcome in the workdir, evaluations included."""
    table = Store(workdir / "store").read("runs") if workdir is not None else None
    ended = set(table.run_id[table.status.isin(FINAL)]) if table is not None and len(table) else set()
    grouped = groups(runs, {program: bench.windows(program) for program in {run.program for run in runs}})
    largest = largest_groups(grouped)
    seen: set[Run] = set()
    rows = []
    for group, members in grouped.items():
        program, first = group.program, members[0]
        speed = Tuner(bench).shared_speed(members, largest[program])
        vocabulary = bench.corpus(program).vocabulary
        counts = count(first.model, vocabulary, first.data.sequence)
        tokens = float(group.steps * first.data.tokens_per_step * len(members))
        left = sum(run.run_id not in ended for run in members)
        held_out = len(program.data.domains) * program.evaluation.windows * program.data.sequence
        forward_steps = len(group.evaluations) * held_out / first.data.tokens_per_step / 3  # forward: a third of a step
        rows.append(Estimate(
            f"{first.model.width} x {first.model.depth}" + (", branch" if first.parent else ""), len(members), left,
            -(-len(members) // speed.width.lanes), group.steps, counts.total, tokens, tokens * counts.flops_exact,
            speed.width.lanes, speed.width.vmap, speed.bytes_per_device,
            left * (group.steps + forward_steps) * speed.seconds_per_step,
            0.0 if program in seen or not left else speed.compile_seconds))
        seen.add(program)
    return rows
