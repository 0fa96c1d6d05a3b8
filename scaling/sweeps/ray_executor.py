"""The Ray executor: every job of a sweep a task on a Ray cluster (extra `ray`)."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
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

LOG = logging.getLogger("scaling")
LOCAL = "local"
# Read as Ray is imported: a cluster on this machine alone then listens to this machine alone.
LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


def _resources(value: Any, path: str) -> tuple[tuple[str, float], ...]:
    listed = list(value.items()) if hasattr(value, "items") else None
    numbers = listed is not None and all(
        isinstance(amount, (int, float)) and not isinstance(amount, bool) and amount > 0 for _, amount in listed)
    if listed is None or not numbers or "CPU" not in dict(listed):
        raise ConfigError(f"{path} = {value!r}: expected amounts by Ray's names of resources, CPU among them; write "
                          'such as {"CPU": 4, "GPU": 1} or {"CPU": 8, "TPU": 4}')
    return tuple(sorted((name, float(amount)) for name, amount in listed))


@dataclasses.dataclass(frozen=True)
class RayCluster:
    """The section `cluster` of a configuration, for Ray. It is no part of any run.

    address: `local` (a cluster of this machine's cores for this sweep), `auto` (the one this machine belongs to) or
    HOST:PORT. resources: what one job takes of a machine, by Ray's names. retries: further attempts for a job whose
    worker died. share: None where --workdir is the same folder on every machine, else an fsspec URL to meet at.
    """

    address: str = fields.static()
    resources: tuple[tuple[str, float], ...] = fields.static(convert=_resources)
    retries: int = fields.static()
    share: str | None = fields.static()

    def __post_init__(self) -> None:
        check(self.retries >= 0, "cluster.retries", self.retries, "0 or more", "use 3")

    @property
    def host_devices(self) -> int:
        """JAX's devices in a worker without accelerator: its cores."""
        return max(1, int(dict(self.resources)["CPU"]))


def run_sweep(
    runs: Sequence[Run], workdir: Path, bench: Workbench, settings: Settings, interrupted: Callable[[], bool],
    question: Question | None, cluster: Mapping[str, Any] | None,
) -> pd.DataFrame:
    """Train on a Ray cluster the runs that the workdir lacks; returns the rows of this sweep's runs.

    `cluster`: fields of RayCluster. Raises what `dispatch.run_sweep` raises, and ConfigError without the package or
    the cluster.
    """
    ray_cluster = fields.convert(RayCluster, cluster, "cluster")
    brief = Brief(tuple(runs), workdir.absolute(), bench.cache.absolute(), settings, question, ray_cluster.share,
                  ray_cluster.host_devices, bool(jax.config.read("jax_enable_x64")))
    with connected(ray_cluster) as submit:
        return dispatch.run_sweep(brief, Tasks(submit, ray_cluster.retries, interrupted))


@contextlib.contextmanager
def connected(cluster: RayCluster) -> Iterator[Submit]:
    """Connect to the cluster, or start one; yields what submits a task there."""
    if cluster.address == LOCAL:
        os.environ.setdefault(LOOPBACK, "0")
    try:
        import ray
    except ImportError as error:
        raise ConfigError("--executor=ray: expected the package ray; run pip install 'scaling[ray]' on every "
                          "machine") from error
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=cluster.address, include_dashboard=None if cluster.address != LOCAL else False,
                 logging_level=logging.WARNING)
    except ConnectionError as error:
        raise ConfigError(f"cluster.address = {cluster.address!r}: expected a Ray cluster there ({error}); start one "
                          "with ray start --head, or use 'local'") from error
    if signal.getsignal(signal.SIGTERM) is not handler:
        signal.signal(signal.SIGTERM, handler)  # whoever asked to hear of it still does
    try:
        wanted, there = dict(cluster.resources), ray.cluster_resources()
        lacking = {name: amount for name, amount in wanted.items() if there.get(name, 0.0) < amount}
        check(not lacking or cluster.address != LOCAL, "cluster.resources", wanted,
              f"what this machine has, not more {', '.join(lacking)}", "lower it, or use a cluster")
        if lacking:
            LOG.warning("the cluster has no %s for a job now; waiting for machines that do", lacking)
        # A process a task: JAX keeps a device's memory until its process ends, and sees the devices it started with.
        remote = ray.remote(**_options(wanted), max_calls=1, max_retries=0)(attempt)

        def submit(function: Callable[..., Any], *arguments: Any) -> Future:
            return remote.remote(function, *arguments).future()

        yield submit
    finally:
        ray.shutdown()


def _options(resources: Mapping[str, float]) -> dict[str, Any]:
    others = {name: amount for name, amount in resources.items() if name not in ("CPU", "GPU")}
    return {"num_cpus": resources["CPU"], "num_gpus": resources.get("GPU", 0.0), "resources": others}
