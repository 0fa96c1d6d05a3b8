"""The verb under signals, alone and in several processes: tables as of a sweep left alone, and never two starts."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from children import Child, started
from helpers import write_text
from scaling.store import read
from scaling.sweeps.lock import lock_file, workdir_lock
from scaling.sweeps.preemption import EXIT_CODE
from scaling.sweeps.workdir import Workdir
from small_sweeps import assert_same, files, tables

RUNS = 12


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    texts = tmp_path_factory.mktemp("texts")
    for seed, domain in enumerate("ab"):
        write_text(texts / domain, seed, 300)
    return {"TINY_TEXTS": str(texts), "SCALING_CACHE": str(tmp_path_factory.mktemp("cache"))}


@pytest.fixture(scope="module")
def whole(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sweep trained by one process that nobody disturbed."""
    workdir = tmp_path_factory.mktemp("whole")
    child = Child(workdir, environment)
    assert child.code() == 0, child.said()
    assert len(tables(workdir)["runs"]) == RUNS
    return workdir


def goes_on(workdir: Path, environment: dict[str, str], whole: Path) -> None:
    """One process ends the sweep, with the tables of an undisturbed one."""
    child = Child(workdir, environment)
    assert child.code() == 0, child.said()
    assert f"{RUNS} runs in {workdir}: {RUNS} done" in child.said()
    assert_same(tables(workdir), tables(whole))


def test_sigterm_saves_and_the_next_start_goes_on(
    environment: dict[str, str], whole: Path, tmp_path: Path,
) -> None:
    child = Child(tmp_path, environment)
    child.until(child.has_checkpoint)
    time.sleep(random.uniform(0, 0.3))
    child.signal(signal.SIGTERM)
    assert child.code() == EXIT_CODE == 75
    assert "SIGTERM: saving, then stopping" in child.said()
    last = child.said().splitlines()[-1]
    assert last.startswith("Preempted: stopped on request")
    assert last.endswith("; start the same command again to go on")
    assert "Traceback" not in child.said()
    assert "running" in set(read(tmp_path / "store", "runs").status) or list((tmp_path / "checkpoints").glob("*/*"))
    goes_on(tmp_path, environment, whole)


def test_a_killed_process_is_missed_and_its_runs_are_trained_by_the_others(
    environment: dict[str, str], whole: Path, tmp_path: Path,
) -> None:
    with started(tmp_path, environment, 3) as (first, second, third):
        third.until(third.has_checkpoint)
        third.signal(signal.SIGKILL)
        assert (first.code(), second.code(), third.code()) == (0, 0, -signal.SIGKILL), first.said() + second.said()
        assert f"process 2 (process {third.pid} on " in first.said()
        assert "was lost or stopped; the others trained its runs" in first.said()
        assert f"{RUNS} runs in {tmp_path}: {RUNS} done" in first.said()
        assert "runs in" not in second.said()
    assert_same(tables(tmp_path), tables(whole))
    assert list((tmp_path / "states").iterdir()) == []
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_without_process_0_the_other_ends_the_training_and_keeps_new_starts_out(
    environment: dict[str, str], whole: Path, tmp_path: Path,
) -> None:
    with started(tmp_path, environment, 2) as (first, second):
        first.until(lambda: first.has_checkpoint() and second.has_checkpoint())
        second.signal(signal.SIGSTOP)
        first.signal(signal.SIGKILL)
        assert first.code() == -signal.SIGKILL
        refused = Child(tmp_path, environment)
        assert refused.code() == 1
        assert "another runner is at work there (2 processes, start " in refused.said()
        second.signal(signal.SIGCONT)
        assert second.code() == EXIT_CODE, second.said()
        assert f"LostProcessError: process 0 (process {first.pid} on " in second.said()
        assert "start the same command again, in one process or more" in second.said()
    before = files(tmp_path)
    goes_on(tmp_path, environment, whole)
    assert files(tmp_path) == before, "nothing was left to train"


def test_all_stopped_or_killed_and_two_new_processes_go_on(
    environment: dict[str, str], whole: Path, tmp_path: Path,
) -> None:
    with started(tmp_path, environment, 2) as (first, second):
        first.until(lambda: first.has_checkpoint() and second.has_checkpoint())
        first.signal(signal.SIGKILL)
        second.signal(signal.SIGTERM)
        assert (first.code(), second.code()) == (-signal.SIGKILL, EXIT_CODE), second.said()
    assert len(tables(tmp_path)["runs"].query("status == 'done'")) < RUNS
    with started(tmp_path, environment, 2) as (first, second):
        assert (first.code(), second.code()) == (0, 0), first.said() + second.said()
        assert "was lost" not in first.said()
    assert_same(tables(tmp_path), tables(whole))


def test_processes_that_cannot_tell_who_they_are_are_told_what_to_set(
    environment: dict[str, str], tmp_path: Path,
) -> None:
    child = Child(tmp_path / "work", environment, "--distributed")
    assert child.code() == 1
    assert "ConfigError: --distributed: expected a TPU pod, SLURM," in child.said()
    assert "JAX_NUM_PROCESSES and JAX_PROCESS_ID (coordinator_address should be defined.)" in child.said()
    assert not (tmp_path / "work").exists()


def test_processes_that_were_given_different_sweeps_refuse(environment: dict[str, str], tmp_path: Path) -> None:
    with started(tmp_path / "work", environment, 2, ["--config.data.batch=8"]) as (first, second):
        assert (first.code(), second.code()) == (1, 1), first.said() + second.said()
        for child in (first, second):
            assert "ConfigError: --config: process 1 was given another sweep than process 0" in child.said()
    assert not (tmp_path / "work" / "plan.json").exists()


def test_a_start_in_a_workdir_at_work_is_refused_in_every_process(environment: dict[str, str], tmp_path: Path) -> None:
    with workdir_lock(tmp_path), started(tmp_path, environment, 2) as (first, second):
        assert (first.code(), second.code()) == (1, EXIT_CODE), first.said() + second.said()
        assert f"LockedError: workdir {tmp_path}: another runner is at work" in first.said()
        assert f"(process {os.getpid()} on " in first.said()
        assert "LostProcessError: process 0 could not start: LockedError: workdir" in second.said()


def test_a_worker_whose_driver_was_killed_keeps_all_processes_out(environment: dict[str, str], tmp_path: Path) -> None:
    with lock_file(Workdir(tmp_path).lock("abc"), "job"), started(tmp_path, environment, 2) as (first, second):
        assert (first.code(), second.code()) == (1, EXIT_CODE), first.said() + second.said()
        assert f"LockedError: job abc: another runner is at work there (process {os.getpid()} on " in first.said()
        assert "LostProcessError: process 0 could not start: LockedError: job abc" in second.said()
    assert not (tmp_path / "plan.json").exists()
