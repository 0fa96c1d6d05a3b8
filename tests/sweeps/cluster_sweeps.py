"""Sweeps on clusters, in this process or on this machine, and the local executor's tables that they must equal."""

import dataclasses
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import pytest

from helpers import never
from scaling.config import Run
from scaling.sweeps.dispatch import Future, Tasks
from scaling.sweeps.jobs import Settings
from scaling.sweeps.tasks import Brief
from scaling.sweeps.workbench import Workbench
from small_sweeps import assert_same, sweep, tables


@dataclasses.dataclass
class Ended:
    """A future of what has ended already."""

    value: Any = None
    error: Exception | None = None

    def done(self) -> bool:
        return True

    def result(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.value


def here(function: Callable[..., Any], *arguments: Any) -> Future:
    """Do a task in this process at once."""
    try:
        return Ended(function(*arguments, never))
    except Exception as error:
        return Ended(error=error)


def brief_of(runs: Sequence[Run], workdir: Path, bench: Workbench, share: str | None = None) -> Brief:
    """A brief whose tasks write a checkpoint whenever they may."""
    return Brief(tuple(runs), workdir, bench.cache, Settings(0.0), None, share, 1, False)


def tasks_here(retries: int = 0, submit: Callable[..., Future] = here) -> Tasks:
    return Tasks(submit, retries, never)


def assert_as_on_one_device(runs: Sequence[Run], workdir: Path, cache: Path, tmp_path: Path) -> None:
    """Tables of a workdir whose workers have one device each, against the local executor's by the same plan."""
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(workdir / "plan.json", alone / "plan.json")
    with pytest.MonkeyPatch.context() as patch:
        first = jax.local_devices()[:1]
        patch.setattr(jax, "local_devices", lambda: first)
        sweep(runs, alone, Workbench(cache))
    assert_same(tables(workdir), tables(alone))


class Killer(threading.Thread):
    """Sends a signal, once, to the process that trains a job of a workdir, when it has written a first checkpoint."""

    def __init__(self, workdir: Path, number: signal.Signals) -> None:
        super().__init__(daemon=True)
        self.workdir, self.number = workdir, number
        self.killed: list[tuple[str, int]] = []
        self.given_up = threading.Event()

    def run(self) -> None:
        while not self.given_up.is_set():
            for step in (self.workdir / "checkpoints").glob("*/[1-9]*"):
                if not step.name.isdigit():
                    continue
                said = (self.workdir / "locks" / step.parent.name).read_text()
                process = int(re.fullmatch(r"process (\d+) on .*", said)[1])
                os.kill(process, self.number)
                self.killed.append((step.parent.name, process))
                return
            time.sleep(0.005)

    def __enter__(self) -> "Killer":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.given_up.set()
        self.join()
