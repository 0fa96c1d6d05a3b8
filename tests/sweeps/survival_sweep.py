"""A small sweep with branches, killed again and again: python survival_sweep.py FOLDER KILLS; see test_survival.py.

The sweep runs in forked children, so that only the first pays for the imports. A child is killed (SIGKILL) at its n-th
moment, before or after something durable happens or while a pack trains, and a few milliseconds later at that.
"""

import json
import os
import random
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.runtime import set_up_jax
from helpers import never, small_run, write_text
from scaling.config import Run
from scaling.sweeps.executor import run_sweep
from scaling.sweeps.grid import product
from scaling.sweeps.jobs import Settings
from scaling.sweeps.sweep import Stage, Sweep
from scaling.sweeps.workbench import Workbench, cache_folder
from scaling.training import checkpoints
from scaling.training.loop import PackRun

BRANCH = {"parent.optimizer": "keep", "schedule.name": "linear", "schedule.floor": 0.0, "schedule.warmup": {"steps": 0}}


def sweep(folder: Path) -> list[Run]:
    """2 trunks, of which one diverges, 4 cooldowns, 4 branches of the cooldowns; some diverge or fail with it."""
    base = small_run(**{
        "data.domains": {"a": f"folder:{folder / 'a'}", "b": f"folder:{folder / 'b'}"},
        "data.mixture": {"a": 0.4, "b": 0.6}, "schedule.name": "constant", "schedule.floor": 1.0,
        "training.duration": {"steps": 120}, "evaluation.points": 9})
    return Sweep(base, (
        Stage("trunk", [{"training.seed": 0}, {"training.seed": 1, "schedule.peak": 30.0}]),
        Stage("cooldown", product({"parent.at": [{"steps": 2}, {"steps": 90}]}, [{
            **BRANCH, "schedule.peak": 2e-3, "training.duration": {"steps": 40}}]), parent="trunk"),
        Stage("late", [{**BRANCH, "parent.at": {"steps": 20}, "parent.optimizer": "reset", "data.mixture": {"b": 1.0},
                        "training.duration": {"steps": 30}}], parent="cooldown"),
    )).runs()


class Moments:
    """Counts the moments of a life and ends it `delay` seconds after moment `last`, by number or by name."""

    def __init__(self, last: int | str | None, delay: float) -> None:
        self.last, self.delay, self.names = last, delay, []

    def pass_(self, name: str) -> None:
        self.names.append(name)
        if self.last in (len(self.names), name):
            if self.delay:
                threading.Timer(self.delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
            else:
                os.kill(os.getpid(), signal.SIGKILL)

    def watch(self, owner: Any, name: str, label: Callable[..., str]) -> None:
        function = getattr(owner, name)

        def watched(*arguments: Any, **named: Any) -> Any:
            self.pass_(f"before {label(*arguments)}")
            result = function(*arguments, **named)
            self.pass_(f"after {label(*arguments)}")
            return result

        setattr(owner, name, watched)


def live(folder: Path, workdir: Path, last: int | str | None, delay: float) -> None:
    """One run of the sweep, from process start to end."""
    moments = Moments(last, delay)
    moments.watch(os, "replace", lambda source, target: f"write {Path(target).parent.name}")
    moments.watch(checkpoints, "save", lambda target, *_: f"save {target.parent.parent.name}/{target.parent.name}"
                  if target.parent.name != "states" else "save state")
    moments.watch(checkpoints, "remove", lambda target: f"remove {target.parent.name}")
    moments.watch(PackRun, "advance", lambda *_: "chunk")
    set_up_jax()
    run_sweep(sweep(folder), workdir, Workbench(cache_folder()), Settings(checkpoint_seconds=0), never)
    (folder / "moments.json").write_text(json.dumps(moments.names))


def attempt(folder: Path, workdir: Path, last: int | str | None = None, delay: float = 0.0) -> bool:
    """Whether the sweep came to its end; raises RuntimeError if it failed instead of being killed."""
    pid = os.fork()
    if pid == 0:
        try:
            live(folder, workdir, last, delay)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return False
    if os.waitstatus_to_exitcode(status) != 0:
        raise RuntimeError(f"the sweep ended with status {status}")
    return True


def main(folder: Path, kills: int) -> None:
    warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)  # no device is in use before the fork
    for seed, domain in enumerate("ab"):
        write_text(folder / domain, seed)
    if not attempt(folder, folder / "whole"):
        raise RuntimeError("the undisturbed sweep was killed")
    moments = len(json.loads((folder / "moments.json").read_text()))
    rng = random.Random(0)
    ends: list[int | str] = [rng.randint(1, moments // 6) for _ in range(kills)]
    ends[kills // 4], ends[kills // 2] = "after save state", "before write runs"
    killed = [end for end in ends if not attempt(folder, folder / "killed", end, rng.choice((0.0, rng.random() / 30)))]
    attempt(folder, folder / "killed")
    print(json.dumps({"moments": moments, "killed": killed}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
