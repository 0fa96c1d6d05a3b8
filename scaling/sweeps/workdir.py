"""What lies where in a workdir.

`plan.json`: packs, never re-planned. `store/`: tables. `checkpoints/`: packs in training. `states/`: what branches
start from, dropped when no branch needs it any more. `lock`, `locks/`: who is at work. `progress/`: how far they are.
"""

from __future__ import annotations

from pathlib import Path

from scaling.store import Store
from scaling.training.checkpoints import PackCheckpoints


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
