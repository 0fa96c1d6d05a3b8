"""Sweeps small enough to train in a test, and their tables in a form that compares."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from helpers import never, small_run, write_text
from scaling.config import Run
from scaling.store import Store
from scaling.sweeps.executor import run_sweep
from scaling.sweeps.grid import product
from scaling.sweeps.jobs import Settings
from scaling.sweeps.rows import VOLATILE
from scaling.sweeps.sweep import Stage, Sweep
from scaling.sweeps.workbench import Workbench
from scaling.training.loop import PackRun

KEYS = {"runs": ["run_id"], "curves": ["run_id", "step", "split", "domain"], "diagnostics": ["run_id", "step", "name"]}
COOLDOWN = {
    "parent.optimizer": "keep", "schedule.name": "linear", "schedule.floor": 0.0, "schedule.warmup": {"steps": 0},
    "training.duration": {"steps": 30}, "evaluation.points": None, "evaluation.steps": (5, 20)}


class PowerCutError(RuntimeError):
    """Ends a sweep at a moment of a test's choice."""


@contextlib.contextmanager
def power_cut(after: int) -> Iterator[None]:
    """A block that a power cut ends once a pack reads a snapshot of a step beyond `after`."""
    read_snapshot = PackRun.read

    def die(self: PackRun, step: int, measured: Any) -> Any:
        if step > after:
            raise PowerCutError
        return read_snapshot(self, step, measured)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PackRun, "read", die)
        with pytest.raises(PowerCutError):
            yield


class KeptBench(Workbench):
    """A workbench that keeps its trainers from sweep to sweep, since compiling costs."""

    def forget(self, program: Run) -> None:
        pass


def base_run(folder: Path, **changes: Any) -> Run:
    """A constant-rate run on two folders of random sentences, written if they are not there."""
    for seed, domain in enumerate("ab"):
        if not (folder / domain).exists():
            write_text(folder / domain, seed)
    return small_run(**{
        "data.domains": {name: f"folder:{folder / name}" for name in "ab"}, "data.mixture": {"a": 0.5, "b": 0.5},
        "schedule.name": "constant", "schedule.floor": 1.0, "training.duration": {"steps": 20},
        "evaluation.points": None, "evaluation.steps": (5, 10), **changes})


def branching(base: Run, seeds: Sequence[int] = (0, 1)) -> list[Run]:
    """Trunks by seed, and a cooldown from each at steps 10 and 20."""
    return Sweep(base, (
        Stage("trunk", product({"training.seed": seeds})),
        Stage("cooldown", product({"parent.at": [{"steps": 10}, {"steps": 20}]}, [COOLDOWN]), parent="trunk"),
    )).runs()


def sweep(runs: Sequence[Run], workdir: Path, bench: Workbench) -> pd.DataFrame:
    """Run a sweep that writes a checkpoint whenever it may."""
    return run_sweep(runs, workdir, bench, Settings(checkpoint_seconds=0.0), never)


def tables(workdir: Path, packing: bool = True) -> dict[str, pd.DataFrame]:
    """The workdir's tables in a fixed order, less what says nothing of the results."""
    dropped = [*VOLATILE] if packing else [*VOLATILE, "pack_id", "job_id"]
    read = {name: Store(workdir / "store").read(name) for name in KEYS}
    return {name: table.drop(columns=dropped, errors="ignore").sort_values(KEYS[name]).reset_index(drop=True)
            for name, table in read.items()}


def assert_same(found: dict[str, pd.DataFrame], wanted: dict[str, pd.DataFrame]) -> None:
    """Bit for bit, and no row twice."""
    for name, table in wanted.items():
        assert not table.duplicated(KEYS[name]).any()
        pd.testing.assert_frame_equal(found[name], table, check_exact=True)


def files(workdir: Path) -> dict[str, bytes]:
    """Every file of the tables."""
    return {str(path.relative_to(workdir)): path.read_bytes() for path in (workdir / "store").rglob("*.parquet")}
