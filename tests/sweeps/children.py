"""Verbs in processes of their own, forked from one that has imported everything: an import costs more than a sweep."""

import contextlib
import multiprocessing
import os
import runpy
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import jax

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["children", "experiments.report", "experiments.profiling", "scaling.sweeps.processes"])
CONFIG = Path(__file__).with_name("branching.py")
BOUND = 200.0  # seconds for anything to happen on a busy machine


def run_verb(arguments: list[str], environment: Mapping[str, str], output: Path) -> None:
    """Be `python -m experiments.run ARGUMENTS` on one host device."""
    os.environ.update(environment, JAX_NUM_CPU_DEVICES="1")
    jax.config.update("jax_num_cpu_devices", 1)
    for stream in (1, 2):
        os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    sys.argv = ["experiments/run.py", *arguments]
    runpy.run_module("experiments.run", run_name="__main__", alter_sys=True)


class Child:
    """A process that trains `workdir`."""

    def __init__(self, workdir: Path, environment: Mapping[str, str], *arguments: str) -> None:
        self.workdir = workdir
        self.output = workdir.with_name(f"{workdir.name}.{time.monotonic_ns()}.txt")
        self.process = CONTEXT.Process(target=run_verb, args=(
            [f"--config={CONFIG}", f"--workdir={workdir}", "--checkpoint_seconds=0", *arguments], dict(environment),
            self.output))
        self.process.start()

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def said(self) -> str:
        return self.output.read_text() if self.output.exists() else ""

    def code(self) -> int:
        """Exit code, or minus the signal that killed it."""
        self.process.join(BOUND)
        assert self.process.exitcode is not None, f"still at work after {BOUND} s:\n{self.said()}"
        return self.process.exitcode

    def signal(self, number: signal.Signals) -> None:
        assert self.process.is_alive(), f"the sweep came to its end too early:\n{self.said()}"
        os.kill(self.pid, number)

    def has_checkpoint(self) -> bool:
        """Whether it is at work on a job of which a checkpoint is written."""
        mine = [path.name for path in (self.workdir / "locks").glob("*")
                if path.read_text() == f"process {self.pid} on {socket.gethostname()}"]
        return any(list((self.workdir / "checkpoints" / name).glob("[0-9]*")) for name in mine)

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a moment in its life."""
        end = time.monotonic() + BOUND
        while not condition():
            assert self.process.is_alive(), f"the sweep came to its end too early:\n{self.said()}"
            assert time.monotonic() < end, self.said()
            time.sleep(0.01)


@contextlib.contextmanager
def started(
    workdir: Path, environment: Mapping[str, str], count: int, last: Sequence[str] = (),
) -> Iterator[list[Child]]:
    """The same command in `count` processes, which find each other on the loopback interface; killed at the end.

    `last`: what only the last process is told.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    start = {**environment, "JAX_COORDINATOR_ADDRESS": address, "JAX_COORDINATOR_BIND_ADDRESS": address,
             "JAX_NUM_PROCESSES": str(count)}
    children = [Child(workdir, {**start, "JAX_PROCESS_ID": str(process)}, "--distributed",
                      *(last if process == count - 1 else ()))
                for process in range(count)]
    try:
        yield children
    finally:
        for child in children:
            child.process.kill()
            child.process.join()
