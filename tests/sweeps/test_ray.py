"""A sweep on a Ray cluster of this machine: two workers, one killed in the middle of a pack."""

import importlib.util
import signal
from pathlib import Path

import pytest

from cluster_sweeps import Killer, assert_as_on_one_device
from helpers import never, small_run
from scaling.fields import ConfigError
from scaling.sweeps.jobs import Settings
from scaling.sweeps.ray_executor import run_sweep
from scaling.sweeps.workbench import Workbench
from small_sweeps import base_run, branching

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra ray")
CLUSTER = {"address": "local", "resources": {"CPU": 1}, "retries": 2, "share": None}


@needs_ray
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # Ray leaves sockets and log files of its processes open
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")  # Ray forks to exec; other tests used JAX's threads here
@pytest.mark.filterwarnings("ignore:Tip:FutureWarning")  # of Ray, about accelerators in tasks that ask for none
def test_a_killed_worker_costs_time_and_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_worker_niceness", "0")  # else workers get what the rest of a busy machine leaves
    runs = branching(base_run(tmp_path, **{"training.duration": {"steps": 1500}}), seeds=(0,))
    workdir, cache = tmp_path / "sweep", tmp_path / "cache"
    handler, handlers = signal.getsignal(signal.SIGTERM), set()

    def interrupted() -> bool:
        handlers.add(signal.getsignal(signal.SIGTERM))
        return False

    with Killer(workdir, signal.SIGKILL) as killer:
        rows = run_sweep(runs, workdir, Workbench(cache), Settings(0.0), interrupted, None, CLUSTER)
    assert len(killer.killed) == 1
    assert handlers == {handler}
    assert rows.status.eq("done").all()
    assert len(rows) == 3
    assert rows.device.str.startswith("1 x ").all()
    assert_as_on_one_device(runs, workdir, cache, tmp_path)


@pytest.mark.parametrize(("changes", "message"), [
    ({"resources": {"GPU": 1}}, r"cluster\.resources = .*GPU.*: expected amounts by Ray's names of resources, CPU "),
    ({"resources": {"CPU": 0}}, r"cluster\.resources = "),
    ({"retries": -1}, r"cluster\.retries = -1: expected 0 or more"),
    ({"retires": 1}, r"cluster: unknown key 'retires'; did you mean 'retries'"),
    ({"address": 6379}, r"cluster\.address = 6379: expected str"),
])
def test_a_cluster_that_cannot_be_is_refused(changes: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        run_sweep([small_run()], tmp_path, Workbench(tmp_path), Settings(60), never, None, {**CLUSTER, **changes})
    assert list(tmp_path.iterdir()) == []


def test_without_a_section_the_error_says_what_to_write(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cluster = None: expected a mapping with the keys address, resources, retri"):
        run_sweep([small_run()], tmp_path, Workbench(tmp_path), Settings(60), never, None, None)
