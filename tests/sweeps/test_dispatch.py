"""The driver of a cluster: retries, generations, failures, refusals; its workers are this process."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster_sweeps import Ended, brief_of, here, tasks_here
from helpers import never
from scaling.config import Run
from scaling.fields import ConfigError
from scaling.sweeps import dispatch, tasks
from scaling.sweeps.dispatch import Future, Tasks, TasksFailedError, run_sweep
from scaling.sweeps.lock import LockedError, lock_file
from scaling.sweeps.plan import Width
from scaling.sweeps.tasks import train_task
from scaling.sweeps.tuning import Speed, Tuner
from scaling.sweeps.work import ChangedCorpusError
from scaling.sweeps.workbench import Workbench
from scaling.sweeps.workdir import Workdir
from scaling.training.loop import PackRun, Preempted
from small_sweeps import KeptBench, assert_same, base_run, branching, sweep, tables


class WorkerDiedError(RuntimeError):
    pass


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    return KeptBench(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return base_run(tmp_path_factory.mktemp("text"))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, bench: Workbench) -> None:
    """Two lanes, unmeasured; programs compiled once; no time between two looks."""
    monkeypatch.setattr(Tuner, "speed", lambda self, runs: Speed(Width(2, 1, 1), 1e-3, 1, 0.0))
    monkeypatch.setattr(tasks, "Workbench", lambda cache: bench)
    monkeypatch.setattr(dispatch, "POLL_SECONDS", 0.0)


@pytest.fixture(scope="module")
def wanted(base: Run, bench: Workbench, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """Tables of the local executor."""
    folder = tmp_path_factory.mktemp("local")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tuner, "speed", lambda self, runs: Speed(Width(2, 1, 1), 1e-3, 1, 0.0))
        sweep(four(base), folder, bench)
    return tables(folder)


def four(base: Run) -> list[Run]:
    """4 trunks in 2 packs, 8 cooldowns in 4."""
    return branching(base, seeds=range(4))


def scripted(script: dict[str, list[Any]]) -> Callable[..., Future]:
    """Tasks that end as the script says, one entry an attempt."""
    def submit(name: str) -> Future:
        end = script[name].pop(0)
        return Ended(error=end) if isinstance(end, WorkerDiedError) else Ended(end)

    return submit


def test_a_task_is_tried_again_and_its_preemptions_do_not_count() -> None:
    died, preempted = WorkerDiedError("gone"), Preempted("saved")
    script = {"a": [died, preempted, preempted, died, 1], "b": [2], "c": [died, died, died, 3]}
    ended: list[tuple[str, int]] = []
    failed = Tasks(scripted(script), 2, never).run({name: (name,) for name in script}, lambda *e: ended.append(e), int)
    assert sorted(ended) == [("a", 1), ("b", 2)]
    assert failed == {"c": died}
    assert script == {"a": [], "b": [], "c": [3]}


def test_what_no_retry_can_cure_ends_the_sweep_at_once() -> None:
    script: dict[str, list[Any]] = {"a": [ConfigError("data.batch = 0"), 1]}
    with pytest.raises(ConfigError, match=r"data\.batch = 0"):
        Tasks(scripted(script), 2, never).run({"a": ("a",)}, lambda *_: None, int)
    assert script["a"] == [1]


def test_a_driver_that_is_asked_to_stop_does() -> None:
    with pytest.raises(Preempted, match="with 1 tasks at work"):
        Tasks(scripted({"a": [1]}), 2, lambda: True).run({"a": ("a",)}, lambda *_: None, int)


def test_a_sweep_equals_the_local_one_though_a_worker_dies_in_each_pack(
    base: Run, bench: Workbench, wanted: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    read, dead = PackRun.read, set()

    def die_once(self: PackRun, step: int, measured: Any) -> Any:
        runs = tuple(self.job.run_ids)
        if step > 5 and runs not in dead:
            dead.add(runs)
            raise WorkerDiedError
        return read(self, step, measured)

    monkeypatch.setattr(PackRun, "read", die_once)
    rows = run_sweep(brief_of(four(base), tmp_path, bench), tasks_here(retries=1))
    assert len(dead) == 6
    assert rows.status.eq("done").all()
    assert len(rows) == 12
    assert_same(tables(tmp_path), wanted)
    assert list(Workdir(tmp_path).states.iterdir()) == []


def test_a_job_that_always_fails_holds_up_its_branches_alone(
    base: Run, bench: Workbench, wanted: dict, tmp_path: Path,
) -> None:
    runs = four(base)

    def submit(function: Callable[..., Any], *arguments: Any) -> Future:
        if function is train_task and runs[0].run_id in arguments[1].run_ids:
            return Ended(error=WorkerDiedError("no such device"))
        return here(function, *arguments)

    brief = brief_of(runs, tmp_path, bench)
    with pytest.raises(TasksFailedError, match=r"1 tasks failed .*job \w+: WorkerDiedError: no such device.*; 2 jobs "
                                               "that branch from them wait"):
        run_sweep(brief, tasks_here(retries=1, submit=submit))
    status = tables(tmp_path)["runs"].status
    assert (status == "done").sum() == len(status) == 6
    run_sweep(brief, tasks_here())
    assert_same(tables(tmp_path), wanted)


def test_a_finished_sweep_asks_for_a_plan_alone(base: Run, bench: Workbench, tmp_path: Path) -> None:
    called = []

    def submit(function: Callable[..., Any], *arguments: Any) -> Future:
        called.append(function.__name__)
        return here(function, *arguments)

    runs = four(base)[:1]
    run_sweep(brief_of(runs, tmp_path, bench), tasks_here(submit=submit))
    run_sweep(brief_of(runs, tmp_path, bench), tasks_here(submit=submit))
    assert called == ["plan_task", "train_task", "plan_task"]


def test_workers_still_at_work_refuse_a_new_start(base: Run, bench: Workbench, tmp_path: Path) -> None:
    with lock_file(Workdir(tmp_path).lock("abc"), "job abc"), pytest.raises(LockedError, match="job abc: another runn"):
        run_sweep(brief_of(four(base), tmp_path, bench), tasks_here())


def test_a_task_waits_for_another_process_at_its_job(
    base: Run, bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As for a worker that was given up and is not dead; it may end the job meanwhile or leave it."""
    brief = brief_of(four(base)[:1], tmp_path, bench)
    job = here(tasks.plan_task, brief, None).result().jobs[0]
    lock = lock_file(Workdir(tmp_path).lock(job.job_id), "the other")
    lock.__enter__()
    waited = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        lock.__exit__(None, None, None)

    monkeypatch.setattr(tasks.time, "sleep", sleep)
    assert here(train_task, brief, job, None).result() == 0
    assert len(waited) == 1
    assert (tables(tmp_path)["runs"].status == "done").all()


def test_text_that_differs_between_workers_is_refused(base: Run, bench: Workbench, tmp_path: Path) -> None:
    brief = brief_of(four(base)[:1], tmp_path, bench)
    job = dataclasses.replace(here(tasks.plan_task, brief, None).result().jobs[0], corpus="other")
    with pytest.raises(ChangedCorpusError, match=r"hold other text on this worker .*planned \(other\)"):
        here(train_task, brief, job, None).result()
    assert not (tmp_path / "store").exists()
