"""Small sweeps with branches, killed again and again: python survival_sweep.py FOLDER KILLS TIMED.

A sweep runs in forked children, so that only the first pays for the imports. KILLS - TIMED of the children are killed
(SIGKILL) at their n-th moment, before or after something durable happens or while a pack trains, or a few milliseconds
later; TIMED of them at a random time of their lives. After each kill, what had ended is still there, unchanged; when a
sweep comes to its end, its tables are those of the sweep left alone, and the next sweep begins in another folder.
Prints a line a kill and ends with one JSON line.
"""

import collections
import hashlib
import json
import mmap
import os
import random
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.runtime import set_up_jax
from helpers import never, small_run, write_text
from scaling.config import Run
from scaling.store import TABLES, Store
from scaling.sweeps.executor import run_sweep
from scaling.sweeps.grid import product
from scaling.sweeps.jobs import Settings
from scaling.sweeps.rows import FINAL
from scaling.sweeps.sweep import Stage, Sweep
from scaling.sweeps.workbench import Workbench, cache_folder
from scaling.training import checkpoints
from scaling.training.loop import PackRun
from small_sweeps import assert_same, tables

BRANCH = {"parent.optimizer": "keep", "schedule.name": "linear", "schedule.floor": 0.0, "schedule.warmup": {"steps": 0}}
AIMED = ("after save state", "before end of runs", "after end of runs")  # moments that every torture must hit
LAST = mmap.mmap(-1, 64)  # the last moment of a life, shared with the children


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
        self.last, self.delay, self.count = last, delay, 0

    def pass_(self, name: str) -> None:
        self.count += 1
        LAST[:] = name.encode().ljust(len(LAST), b"\0")
        if self.last in (self.count, name):
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
    moments.pass_("start")
    moments.watch(os, "replace", lambda source, target: f"write {Path(target).parent.name}")
    moments.watch(checkpoints, "save",
                  lambda target, *_: "save state" if target.parent.name == "states" else "save checkpoint")
    moments.watch(checkpoints, "remove", lambda target: f"remove from {target.parent.parent.name}")
    moments.watch(Store, "write", lambda store, table, name, rows:
                  "end of runs" if table == "runs" and set(rows.status) <= set(FINAL) else f"rows of {table}")
    moments.watch(Store, "remove", lambda store, table, names: f"remove {table}")
    moments.watch(PackRun, "advance", lambda *_: "chunk")
    set_up_jax()
    run_sweep(sweep(folder), workdir, Workbench(cache_folder()), Settings(checkpoint_seconds=0), never)
    (folder / "moments").write_text(str(moments.count))


def child(function: Callable[..., object], *arguments: Any, seconds: float | None = None) -> bool:
    """Whether a function came to its end in a process of its own, which is killed after `seconds`.

    Raises RuntimeError if it failed instead of being killed.
    """
    pid = os.fork()
    if pid == 0:
        try:
            function(*arguments)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)  # not yet waited for, so the id is still the child's
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return False
    if os.waitstatus_to_exitcode(status) != 0:
        raise RuntimeError(f"{function.__name__} ended with status {status}")
    return True


def check_what_ended(workdir: Path) -> None:
    """Every run that had ended at the last look is there with the same row and curves; nothing counts as damaged."""
    record = workdir / "ended.json"
    before = json.loads(record.read_text()) if record.exists() else {}
    read = {name: Store(workdir / "store").read(name) for name in TABLES}
    runs = read["runs"]
    ended = [] if runs.empty else list(runs.run_id[runs.status.isin(FINAL)])
    now = {}
    for run_id in ended:
        rows = [read[name][read[name].run_id == run_id].dropna(axis=1, how="all") for name in TABLES if len(read[name])]
        now[run_id] = hashlib.sha256("".join(table.to_csv(index=False) for table in rows).encode()).hexdigest()
    lost = [run_id for run_id, digest in before.items() if now.get(run_id) != digest]
    if lost or (workdir / "corrupt").exists():
        raise RuntimeError(f"{workdir}: lost or changed {lost}, or set something aside")
    record.parent.mkdir(exist_ok=True)  # a very early kill left none
    record.write_text(json.dumps(now))


def check_tables(workdir: Path, whole: Path) -> None:
    """The tables of two sweeps are the same, bit for bit, and nothing is left beside them."""
    assert_same(tables(workdir), tables(whole))
    left = [path for name in ("states", "checkpoints") for path in (workdir / name).iterdir()]
    left += (workdir / "store").rglob(".*")
    if left:
        raise RuntimeError(f"left behind: {left}")


def undisturbed(folder: Path) -> tuple[int, float]:
    """The sweep left alone, in FOLDER/whole: its moments, and the seconds it takes once all is compiled."""
    for seed, domain in enumerate("ab"):
        write_text(folder / domain, seed)
    for workdir in ("compiled", "whole"):
        begin = time.monotonic()
        child(live, folder, folder / workdir, None, 0.0)
    return int((folder / "moments").read_text()), time.monotonic() - begin


def main(folder: Path, kills: int, timed: int) -> None:
    warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)  # no device is in use before the fork
    begin, rng = time.monotonic(), random.Random(0)
    moments, seconds = undisturbed(folder)
    ends: list[int | str | float] = [rng.uniform(0, seconds) for _ in range(timed)]
    ends += [*AIMED, *(rng.randint(1, moments // 5) for _ in range(kills - timed - len(AIMED)))]
    rng.shuffle(ends)
    sweeps, ended, hit = 1, 0, collections.Counter()
    while ends:
        workdir, end = folder / f"killed{sweeps}", ends[-1]
        if isinstance(end, float):
            whole = child(live, folder, workdir, None, 0.0, seconds=end)
        else:
            whole = child(live, folder, workdir, end, rng.choice((0.0, rng.random() / 30)))
        if not whole:
            hit[LAST[:].rstrip(b"\0").decode()] += 1
            print(f"{sum(hit.values())}/{kills} killed in sweep {sweeps}: {end}", flush=True)
            ends.pop()
            child(check_what_ended, workdir)
            ended += len(json.loads((workdir / "ended.json").read_text()))
        elif not isinstance(end, str):  # it came to its end before: on this machine sweeps are faster now
            ends[-1] = rng.uniform(0, end) if isinstance(end, float) else rng.randint(1, end)
        if whole or not ends:
            child(live, folder, workdir, None, 0.0)
            child(check_tables, workdir, folder / "whole")
            sweeps += 1
    print(json.dumps({"kills": sum(hit.values()), "timed": timed, "sweeps": sweeps - 1, "ended_rows_checked": ended,
                      "last_moments": dict(hit.most_common()), "seconds": round(time.monotonic() - begin)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
