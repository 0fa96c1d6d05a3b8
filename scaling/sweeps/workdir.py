"""What lies where in a workdir.

`plan.json`: packs, never re-planned. `store/`: tables. `checkpoints/`: packs in training. `states/`: what branches
start from, dropped when no branch needs it any more. `lock`, `locks/`: who is at work. `progress/`: how far they are.
`slurm/`: what SLURM jobs were given, and their logs.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from scaling.files import disk_errors, listed
from scaling.store import Store
from scaling.training import checkpoints
from scaling.training.checkpoints import REMOVED, UNNAMED, PackCheckpoints

PROCESS = "process-"  # begins the locks of processes; others are of jobs and packs
PACK = re.compile(r"\w+")
STATE = re.compile(r"\w+-\d+")
UNFINISHED = re.compile(rf"\w+-\d+({re.escape(UNNAMED)}|{re.escape(REMOVED)}).*")  # half written or half removed


class Workdir:
    """Paths of one sweep's folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = Store(root / "store")

    @property
    def plan(self) -> Path:
        return self.root / "plan.json"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def progress(self) -> Path:
        return self.root / "progress"

    @property
    def slurm(self) -> Path:
        return self.root / "slurm"

    @property
    def states(self) -> Path:
        return self.root / "states"

    def checkpoints_of(self, job_id: str) -> PackCheckpoints:
        """Checkpoints of one job."""
        return PackCheckpoints(self.checkpoints / job_id)

    def state(self, run_id: str, step: int) -> Path:
        """The state of a run after `step`, kept for its branches."""
        return self.states / f"{run_id}-{step}"

    def lock(self, name: str) -> Path:
        """The lock of one job or pack, beside that of the whole workdir."""
        return self.root / "locks" / name

    def keep_jobs(self, job_ids: Collection[str]) -> None:
        """Remove what earlier runners left unfinished of other jobs, checkpoints before rows: a checkpoint never
        outlives the rows that lead up to it.
        """
        for folder in self.checkpoints.glob("*"):
            if folder.name not in job_ids and folder.is_dir():
                checkpoints.remove(folder)
        table = self.store.read("runs")
        if not len(table):
            return
        for job_id in set(table.job_id[table.status == "running"]) - set(job_ids):
            for name in ("curves", "diagnostics"):
                self.store.remove(name, [n for n in self.store.names(name) if n.startswith(f"{job_id}.")])
            self.store.remove("runs", [job_id])

    def whole_packs(self) -> list[str]:
        """Names of the packs and jobs that have checkpoints."""
        return [name for name in _named(self.checkpoints, PACK) if (self.checkpoints / name).is_dir()]

    def whole_states(self) -> list[Path]:
        """Folders of the states, less what is half written, half removed, or not of this program."""
        return [self.states / name for name in _named(self.states, STATE)]

    def keep_states(self, names: Collection[str]) -> None:
        """Remove the whole states of other names; a half written one is another process's to name."""
        for folder in self.whole_states():
            if folder.name not in names:
                checkpoints.remove(folder)

    def drop_unfinished_states(self) -> None:
        """Remove what killed processes left half written or half removed; nobody else may be training."""
        for name in _named(self.states, UNFINISHED):
            with disk_errors(self.states / name):
                shutil.rmtree(self.states / name)


def _named(folder: Path, names: re.Pattern[str]) -> Iterator[str]:
    return filter(names.fullmatch, listed(folder))
