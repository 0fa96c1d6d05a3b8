"""The SLURM executor: every job of a sweep a SLURM job, through submitit (extra `slurm`)."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import jax
import pandas as pd

from scaling import fields
from scaling.config import Run
from scaling.fields import ConfigError, check
from scaling.sweeps import dispatch
from scaling.sweeps.dispatch import Future, Submit, Tasks
from scaling.sweeps.early_stopping import Question
from scaling.sweeps.jobs import Settings
from scaling.sweeps.tasks import Brief, attempt
from scaling.sweeps.workbench import Workbench
from scaling.sweeps.workdir import Workdir
from scaling.training.loop import Preempted


def _parameters(value: Any, path: str) -> tuple[tuple[str, Any], ...]:
    if not hasattr(value, "items") or "timeout_min" not in value or "cpus_per_task" not in value:
        raise ConfigError(f"{path} = {value!r}: expected parameters of submitit's AutoExecutor, timeout_min and "
                          'cpus_per_task among them; write such as {"timeout_min": 240, "cpus_per_task": 8, '
                          '"gpus_per_node": 1, "slurm_partition": "gpu"}')
    return tuple(sorted(value.items()))


@dataclasses.dataclass(frozen=True)
class SlurmCluster:
    """The section `cluster` of a configuration, for SLURM. It is no part of any run.

    scheduler: `slurm`, or `local` (processes of this machine, to try it out). parameters: of each job, as submitit's
    AutoExecutor names them. retries: further attempts for a job that died; a job preempted or out of time does not
    count, since it requeues itself.
    """

    scheduler: str = fields.static(choices=("slurm", "local"))
    parameters: tuple = fields.static(convert=_parameters)
    retries: int = fields.static()

    def __post_init__(self) -> None:
        check(self.retries >= 0, "cluster.retries", self.retries, "0 or more", "use 3")


def run_sweep(
    runs: Sequence[Run], workdir: Path, bench: Workbench, settings: Settings, interrupted: Callable[[], bool],
    question: Question | None, cluster: Mapping[str, Any] | None,
) -> pd.DataFrame:
    """Train as SLURM jobs the runs that the workdir lacks, which every node must see; returns this sweep's rows.

    `cluster`: fields of SlurmCluster. Raises what `dispatch.run_sweep` raises, and ConfigError without the package, the
    scheduler or for a parameter that submitit does not know. When this process ends, jobs that were submitted go on.
    """
    slurm_cluster = fields.convert(SlurmCluster, cluster, "cluster")
    host_devices = int(dict(slurm_cluster.parameters)["cpus_per_task"])
    brief = Brief(tuple(runs), workdir.absolute(), bench.cache.absolute(), settings, question, None, host_devices,
                  bool(jax.config.read("jax_enable_x64")))
    submit = submitter(slurm_cluster, Workdir(brief.workdir).slurm)
    return dispatch.run_sweep(brief, Tasks(submit, slurm_cluster.retries, interrupted))


def submitter(cluster: SlurmCluster, folder: Path) -> Submit:
    """What submits a task; its pickles and logs go to `folder`."""
    try:
        import submitit
    except ImportError as error:
        raise ConfigError("--executor=slurm: expected the package submitit; run pip install 'scaling[slurm]'"
                          ) from error
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster.scheduler)
        executor.update_parameters(name="scaling", **dict(cluster.parameters))
    except (RuntimeError, NameError, ValueError, AssertionError) as error:
        raise ConfigError(f"cluster.parameters = {dict(cluster.parameters)!r}: expected what submitit takes on "
                          f"{cluster.scheduler} ({error}); see its AutoExecutor") from error

    def submit(function: Callable[..., Any], *arguments: Any) -> Future:
        return executor.submit(Attempt(), function, *arguments)

    return submit


class Attempt:
    """`attempt` in a SLURM job. The signal that comes before the time limit or a preemption saves, then requeues."""

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any:
        number, requeue = _requeue_handler()
        heard: list[FrameType | None] = []

        def hear(_: int, frame: FrameType | None) -> None:
            heard.append(frame)
            signal.raise_signal(signal.SIGTERM)

        signal.signal(number, hear)
        value = attempt(function, *arguments)
        if heard and isinstance(value, Preempted):
            requeue(number, heard[0])  # ends this process
        return value

    def checkpoint(self, *arguments: Any) -> Any:
        """The submission that goes on where this one was cut off: the same, for its checkpoint is in the workdir."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, *arguments)


def _requeue_handler() -> tuple[signal.Signals, Callable[[int, FrameType | None], Any]]:
    """The signal that submitit was told to expect, and what it does then."""
    from submitit.core.job_environment import JobEnvironment

    number = JobEnvironment._usr_sig()
    handler = signal.getsignal(number)
    if not callable(handler):
        raise RuntimeError(f"{number.name}: expected a handler of submitit's; run this function through submitit")
    return number, handler
