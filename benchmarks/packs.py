"""Packs outside a sweep, for timing: runs of configs/base.py on prose, placed on devices as a sweep places them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from configs.base import get_config
from scaling.config import Run, run_from
from scaling.sweeps.plan import Width
from scaling.sweeps.sweep import overlay
from scaling.sweeps.workbench import Workbench
from scaling.training.loop import PackJob, PackRun
from scaling.training.tables import Stream, evaluation_steps, run_tables


def runs_of(count: int, **changes: Any) -> list[Run]:
    """Runs that differ in their seeds: configs/base.py with the values at dotted keys replaced."""
    base = overlay(run_from(get_config()), changes)
    return [overlay(base, {"training.seed": seed}) for seed in range(count)]


def pack_of(bench: Workbench, runs: Sequence[Run], width: Width) -> PackRun:
    """A pack of these runs, without evaluations kept for branches."""
    windows = bench.windows(runs[0].program)
    tables = [run_tables(run, windows, Stream.start(len(windows.by_domain))) for run in runs]
    steps = evaluation_steps(runs[0], len(tables[0].learning_rate_T))
    job = PackJob(runs, range(len(runs)), tables, windows, steps, {}, None)
    return PackRun(bench.trainer(runs[0].program, width), job)


def trained(pack: PackRun, steps: int) -> Any:
    """The state after so many steps from the start; waits for the devices."""
    state, step = pack.start(), 0
    while step < steps:
        state, step = pack.towards(state, step, steps)
    return jax.block_until_ready(state)


def flat_width(runs: int) -> Width:
    """A width for so many runs on the devices at hand, one at a time on each."""
    devices = len(jax.local_devices())
    return Width(int(np.ceil(runs / devices)) * devices, 1, 1)
