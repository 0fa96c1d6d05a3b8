"""A sweep as submitit jobs of this machine: one killed, and one told that its time is up, which requeues itself."""

import importlib.util
import signal
from pathlib import Path

import pytest

from cluster_sweeps import Killer, assert_as_on_one_device
from helpers import never, small_run
from scaling.fields import ConfigError
from scaling.sweeps.jobs import Settings
from scaling.sweeps.slurm_executor import run_sweep
from scaling.sweeps.workbench import Workbench
from scaling.sweeps.workdir import Workdir
from small_sweeps import base_run, branching

needs_submitit = pytest.mark.skipif(importlib.util.find_spec("submitit") is None, reason="needs the extra slurm")
# submitit leaves the pipes of its local jobs to the garbage collector
left_open = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
PARAMETERS = {"timeout_min": 60, "cpus_per_task": 1, "slurm_partition": "gpu"}
CLUSTER = {"scheduler": "local", "parameters": PARAMETERS, "retries": 1}


@needs_submitit
@left_open
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGUSR2])
def test_a_job_that_is_cut_off_goes_on(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # for how long submitit looks for the results of a dead job, in case that a folder of many machines shows them late
    monkeypatch.setattr("submitit.core.core.Job._results_timeout_s", 1)
    runs = branching(base_run(tmp_path, **{"training.duration": {"steps": 1500}}))[:2]
    workdir, cache = tmp_path / "sweep", tmp_path / "cache"
    retries = 1 if number == signal.SIGKILL else 0
    with Killer(workdir, number) as killer:
        rows = run_sweep(runs, workdir, Workbench(cache), Settings(0.0), never, None, {**CLUSTER, "retries": retries})
    assert len(killer.killed) == 1
    assert rows.status.tolist() == ["done", "done"]
    assert_as_on_one_device(runs, workdir, cache, tmp_path)
    logs = "".join(path.read_text() for path in Workdir(workdir).slurm.glob("*.err"))
    assert ("Requeued job" in logs) == (number == signal.SIGUSR2)
    assert len(list(Workdir(workdir).slurm.glob("*_submitted.pkl"))) == (3 if number == signal.SIGKILL else 2)


@pytest.mark.parametrize(("changes", "message"), [
    ({"parameters": {"timeout_min": 4}}, r"cluster\.parameters = .*: expected parameters of submitit's AutoExecutor"),
    ({"scheduler": "slrum"}, r"cluster\.scheduler = 'slrum': expected one of slurm, local; did you mean 'slurm'"),
    ({"retries": -1}, r"cluster\.retries = -1: expected 0 or more"),
    ({"share": "s3://b"}, "cluster: unknown key 'share'"),
])
def test_a_cluster_that_cannot_be_is_refused(changes: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        run_sweep([small_run()], tmp_path, Workbench(tmp_path), Settings(60), never, None, {**CLUSTER, **changes})
    assert list(tmp_path.iterdir()) == []


@needs_submitit
def test_a_parameter_that_submitit_does_not_know_is_refused(tmp_path: Path) -> None:
    cluster = {**CLUSTER, "parameters": {**PARAMETERS, "gpus": 1}}
    with pytest.raises(ConfigError, match=r"cluster\.parameters = .*'gpus': 1.*: expected what submitit takes on"):
        run_sweep([small_run()], tmp_path, Workbench(tmp_path), Settings(60), never, None, cluster)


@needs_submitit
def test_a_machine_without_slurm_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected what submitit takes on slurm .*[Cc]ould not detect"):
        run_sweep([small_run()], tmp_path, Workbench(tmp_path), Settings(60), never, None,
                  {**CLUSTER, "scheduler": "slurm"})
