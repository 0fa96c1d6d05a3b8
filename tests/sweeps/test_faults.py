"""What disks, clocks and people do to a workdir: a clear error or a clean recovery, never a wrong number."""

import errno
import itertools
import logging
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from configs.quickstart import get_config
from experiments.runtime import Experiment
from helpers import small_run
from scaling.config import Run
from scaling.files import CorruptFileError, StoreError
from scaling.seal import read_parquet
from scaling.store import TABLES, Store, read
from scaling.sweeps.jobs import JobTrainer
from scaling.sweeps.lock import LockedError
from scaling.sweeps.plan import Width
from scaling.sweeps.sweep import Sweep
from scaling.sweeps.tuning import Speed, Tuner
from scaling.sweeps.workbench import Workbench
from scaling.training.loop import PackRun
from small_sweeps import KeptBench, PowerCutError, assert_same, base_run, branching, files, power_cut, sweep, tables

NO_SPACE = r": no space left on device; free space and run the same command again: finished work is kept"


def die(*_: object, **__: object) -> None:
    raise PowerCutError


class Fault:
    """Lets functions fail from their call `number` on, counted together."""

    def __init__(self, number: int, fail: Callable[..., Any] = die) -> None:
        self.number, self.fail, self.calls = number, fail, 0

    def at(self, patch: pytest.MonkeyPatch, owner: Any, *names: str) -> "Fault":
        for name in names:
            patch.setattr(owner, name, self._counted(getattr(owner, name)))
        return self

    def _counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            self.calls += 1
            return (self.fail if self.calls > self.number else function)(*arguments, **named)
        return counted


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    return KeptBench(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True, scope="module")
def _four_lanes() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tuner, "speed", lambda self, runs: Speed(Width(4, 1, 1), 1e-3, 1, 0.0))
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return base_run(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def runs(base: Run) -> list[Run]:
    """2 trunks and 4 cooldowns: two packs."""
    return branching(base)


@pytest.fixture(scope="module")
def whole(runs: list[Run], bench: Workbench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sweep that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    sweep(runs, folder, bench)
    return folder


@pytest.fixture(scope="module")
def half(runs: list[Run], bench: Workbench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sweep, cut while its cooldowns train: a finished pack, a checkpoint with rows before it, four states."""
    folder = tmp_path_factory.mktemp("half")
    with power_cut(after=20):
        sweep(runs, folder, bench)
    assert read(folder / "store", "runs").status.value_counts().to_dict() == {"running": 4, "done": 2}
    assert len(list((folder / "states").iterdir())) == 4
    assert int(next((folder / "checkpoints").glob("*/*")).name) >= 5
    return folder


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    return tmp_path / "work"


def flip(path: Path, rng: random.Random) -> None:
    """Change one bit."""
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def truncate(path: Path, rng: random.Random) -> None:
    """Cut the end off."""
    path.write_bytes(path.read_bytes()[:rng.randrange(path.stat().st_size)])


def job_of(path: Path) -> str:
    return path.name.split(".")[0]


def others(files: dict[str, bytes], job: str) -> dict[str, bytes]:
    """The files that are not a job's."""
    return {name: content for name, content in files.items() if job_of(Path(name)) != job}


@pytest.mark.parametrize("table", ["runs", "curves", "diagnostics"])
@pytest.mark.parametrize(("stage", "damage"), [("trunk", flip), ("cooldown", truncate)])
def test_a_damaged_table_file_is_set_aside_and_only_its_job_done_again(
    table: str, stage: str, damage: Callable, whole: Path, workdir: Path, runs: list[Run], bench: Workbench,
    caplog: pytest.LogCaptureFixture,
) -> None:
    shutil.copytree(whole, workdir)
    rows = read(whole / "store", "runs")
    [job] = set(rows.job_id[rows.parent_id.isna() == (stage == "trunk")])
    rng = random.Random(f"{table} {stage} {damage.__name__}")
    path = rng.choice([p for p in sorted((workdir / "store" / table).iterdir()) if job_of(p) == job])
    damage(path, rng)
    damaged, before = path.read_bytes(), files(workdir)
    with pytest.raises(CorruptFileError, match=rf"{path}: damaged.*; restore it .*, or run the sweep again"):
        tables(workdir)
    with caplog.at_level(logging.WARNING, "scaling"):
        sweep(runs, workdir, bench)
    aside = workdir / "corrupt" / "store" / table / path.name
    assert [p for p in (workdir / "corrupt").rglob("*") if p.is_file()] == [aside]
    assert aside.read_bytes() == damaged
    [said] = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert re.fullmatch(rf"{path}: damaged.*; moved to {aside}, the runs of job {job} are to be trained again", said)
    assert others(files(workdir), job) == others(before, job)
    assert_same(tables(workdir), tables(whole))


@pytest.mark.parametrize(("place", "damage"), [
    ("checkpoints/*/*", flip), ("checkpoints/*/*", truncate), ("states/*-10", flip), ("states/*-20", truncate)])
def test_a_damaged_checkpoint_or_state_is_set_aside_and_made_again(
    place: str, damage: Callable, half: Path, whole: Path, workdir: Path, runs: list[Run], bench: Workbench,
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(half, workdir)
    rng = random.Random(f"{place} {damage.__name__}")
    folder = rng.choice(sorted(workdir.glob(place)))
    largest = max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    damage(largest, rng)
    if place.startswith("states"):  # else the checkpoint spares the sweep from looking at its states
        shutil.rmtree(workdir / "checkpoints")
    starts, advance = [], PackRun.advance
    monkeypatch.setattr(PackRun, "advance", lambda self, state, start, stop: (
        starts.append((self.job.runs[0].parent is None, start)), advance(self, state, start, stop))[1])
    with caplog.at_level(logging.WARNING, "scaling"):
        sweep(runs, workdir, bench)
    aside = workdir / "corrupt" / folder.relative_to(workdir)
    assert aside.is_dir()
    assert f"{folder}: damaged: not as written are {largest.relative_to(folder)}; moved to {aside}" in caplog.text
    trunks_are_replayed = place.startswith("states")
    assert starts[0] == (trunks_are_replayed, 0), "from the beginning, and nothing else first"
    assert_same(tables(workdir), tables(whole))


def test_two_damaged_files_of_one_name_are_both_kept(whole: Path, workdir: Path, runs: list[Run],
                                                     bench: Workbench) -> None:
    shutil.copytree(whole, workdir)
    path = sorted((workdir / "store" / "curves").iterdir())[0]
    for text in (b"one", b"two"):
        path.write_bytes(text)
        sweep(runs, workdir, bench)
    aside = workdir / "corrupt" / "store" / "curves" / path.name
    assert (aside.read_bytes(), aside.with_name(f"{path.name}~1").read_bytes()) == (b"one", b"two")
    assert_same(tables(workdir), tables(whole))


def assert_nothing_is_hidden(workdir: Path, wanted: dict[str, pd.DataFrame]) -> None:
    """A job with files has its rows in `runs`, and all its curves where they say that it ended; else it is damaged."""
    store = Store(workdir / "store")
    damaged = {job_of(error.path) for table in TABLES for error in store.damaged(table)}
    names = {table: [name for name in store.names(table) if job_of(Path(name)) not in damaged] for table in TABLES}
    assert {job_of(Path(name)) for table in ("curves", "diagnostics") for name in names[table]} <= set(names["runs"])
    for job in names["runs"]:
        rows = read_parquet(store.path("runs", job)).to_pandas()
        if set(rows.status) != {"running"}:
            found = pd.concat(read_parquet(store.path("curves", name)).to_pandas() for name in names["curves"]
                              if job_of(Path(name)) == job)
            assert len(found) == wanted["curves"].run_id.isin(rows.run_id).sum()


@pytest.mark.parametrize("damaged", [["runs"], ["curves"], ["curves", "runs"]])
def test_a_kill_while_damage_is_mended_loses_nothing(
    damaged: list[str], whole: Path, tmp_path: Path, runs: list[Run], bench: Workbench,
) -> None:
    """Cut before each change of the disk in turn, until the damage is mended and training begins."""
    wanted = tables(whole)
    job = job_of(sorted((whole / "store" / "runs").iterdir())[0])
    for number in itertools.count():
        workdir = tmp_path / str(number)
        shutil.copytree(whole, workdir)
        for table in damaged:
            flip(next((workdir / "store" / table).glob(f"{job}.*")), random.Random(0))
        with pytest.MonkeyPatch.context() as patch:
            changes = Fault(number).at(patch, os, "replace", "rename", "unlink")
            patch.setattr(JobTrainer, "train", die)
            with pytest.raises(PowerCutError):
                sweep(runs, workdir, bench)
        assert_nothing_is_hidden(workdir, wanted)
        if changes.calls <= number:
            break
    assert number > 3
    sweep(runs, workdir, bench)
    assert_same(tables(workdir), wanted)


def test_a_damaged_plan_is_refused_and_may_be_moved_away(
    whole: Path, workdir: Path, runs: list[Run], bench: Workbench,
) -> None:
    shutil.copytree(whole, workdir)
    plan, before = workdir / "plan.json", files(workdir)
    for text in (plan.read_text().replace('"lanes": 4', '"lanes": 5'), plan.read_text()[:-20], "[" * 10**5, "", "[]"):
        plan.write_text(text)
        with pytest.raises(CorruptFileError, match=rf"{plan}: damaged.*; restore it from a copy, or move it away: fin"):
            sweep(runs, workdir, bench)
    plan.unlink()
    sweep(runs, workdir, bench)
    assert files(workdir) == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a disk of its own with some options, or again with others; needs the rights of a superuser."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options: str) -> Path:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True,
                              text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"no disk of its own for this test, which this user may not mount: {done.stderr.strip()}")
        return folder

    yield mount
    subprocess.run(["umount", str(folder)], capture_output=True, check=False)


@pytest.mark.parametrize("free", [0, 40_000, 400_000])
def test_a_full_disk_ends_the_sweep_with_one_line_and_loses_nothing(
    free: int, small_disk: Callable[[str], Path], whole: Path, runs: list[Run], bench: Workbench,
    capfd: pytest.CaptureFixture,
) -> None:
    """Full at once, at the first checkpoint, or after some."""
    disk = small_disk("size=8m")
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(disk).free - free))
    with pytest.raises(StoreError, match=rf"{disk}/work.*{NO_SPACE}"):
        sweep(runs, disk / "work", bench)
    assert "Traceback" not in capfd.readouterr().err
    ballast.unlink()
    sweep(runs, disk / "work", bench)
    assert_same(tables(disk / "work"), tables(whole))


@pytest.mark.parametrize("number", [0, 4, 16])
def test_a_disk_that_takes_no_more_ends_the_sweep_and_loses_nothing(
    number: int, workdir: Path, whole: Path, runs: list[Run], bench: Workbench, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a full disk shows at the n-th write that is forced to it, or room that is asked for."""
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        fault = Fault(number, refuse).at(patch, os, "fsync", "posix_fallocate")
        with pytest.raises(StoreError, match=rf"{workdir}/.*{NO_SPACE}"):
            sweep(runs, workdir, bench)
    assert fault.calls > number
    sweep(runs, workdir, bench)
    assert_same(tables(workdir), tables(whole))


def test_a_folder_that_may_not_be_written_is_named_and_still_read(
    small_disk: Callable[[str], Path], half: Path, whole: Path, runs: list[Run], bench: Workbench,
) -> None:
    workdir = small_disk("size=8m") / "work"
    shutil.copytree(half, workdir)
    small_disk("remount,ro")
    with pytest.raises(StoreError, match=rf"{workdir}/lock: read-only file system; make it writable and run the same"):
        sweep(runs, workdir, bench)
    assert set(tables(workdir)["runs"].status) == {"done", "running"}
    small_disk("remount,rw")
    sweep(runs, workdir, bench)
    assert_same(tables(workdir), tables(whole))


def test_a_folder_that_turns_read_only_is_named(
    workdir: Path, whole: Path, runs: list[Run], bench: Workbench, monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as patch:
        Fault(6, refuse).at(patch, os, "replace", "rename")
        with pytest.raises(StoreError, match=r": read-only file system; make it writable and run the same command"):
            sweep(runs, workdir, bench)
    sweep(runs, workdir, bench)
    assert_same(tables(workdir), tables(whole))


def test_the_lock_of_a_dead_process_holds_nobody_up(
    half: Path, whole: Path, workdir: Path, runs: list[Run], bench: Workbench,
) -> None:
    shutil.copytree(half, workdir)
    for lock in [workdir / "lock", *(workdir / "locks").iterdir()]:
        lock.write_text("process 1 on this machine, since last year")
    sweep(runs, workdir, bench)
    assert_same(tables(workdir), tables(whole))


def test_a_second_runner_is_refused_while_the_first_goes_on(
    whole: Path, workdir: Path, runs: list[Run], bench: Workbench, monkeypatch: pytest.MonkeyPatch,
) -> None:
    read_, refused = PackRun.read, []

    def intrude(self: PackRun, step: int, measured: Any) -> Any:
        if not refused:
            before = files(workdir)
            refused.append(rf"workdir {workdir}: another runner .*process {os.getpid()} on ")
            with pytest.raises(LockedError, match=refused[0]):
                sweep(runs, workdir, bench)
            assert files(workdir) == before
        return read_(self, step, measured)

    monkeypatch.setattr(PackRun, "read", intrude)
    sweep(runs, workdir, bench)
    assert len(refused) == 1
    assert_same(tables(workdir), tables(whole))


def test_clocks_that_jump_back_and_dates_in_the_future_change_nothing(
    half: Path, whole: Path, workdir: Path, runs: list[Run], bench: Workbench, monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(half, workdir)
    rng = random.Random(0)
    for path in workdir.rglob("*"):
        os.utime(path, (time.time() + rng.uniform(-1e9, 1e9),) * 2)
    for name in ("time", "monotonic"):
        clock = getattr(time, name)
        hours = itertools.count()
        monkeypatch.setattr(time, name, lambda clock=clock, hours=hours: clock() - 3600 * next(hours))
    sweep(runs, workdir, bench)
    assert_same(tables(workdir), tables(whole))


def test_a_configuration_changed_between_runs_mixes_nothing(
    half: Path, whole: Path, base: Run, runs: list[Run], bench: Workbench, tmp_path: Path,
) -> None:
    """Cut, run with another rate, and with the first again: each sweep's rows are as if it had been alone."""
    changed = branching(base_run(Path(base.data.domains[0][1].removeprefix("folder:")).parent,
                                 **{"schedule.peak": 3e-3}))
    shutil.copytree(half, tmp_path / "shared")
    rows = sweep(changed, tmp_path / "shared", bench)
    assert set(rows.run_id) == {run.run_id for run in changed}
    both = tables(tmp_path / "shared")
    finished = {run.run_id for run in runs if run.parent is None}
    assert set(both["curves"].run_id) == set(rows.run_id) | finished, "no part of a curve is left"
    sweep(changed, tmp_path / "alone", bench)
    sweep(runs, tmp_path / "shared", bench)
    for wanted, mine in ((tables(whole), runs), (tables(tmp_path / "alone"), changed)):
        assert_same({name: table[table.run_id.isin([run.run_id for run in mine])].reset_index(drop=True)
                     for name, table in tables(tmp_path / "shared").items()}, wanted)


def test_a_verb_names_the_damaged_file_in_one_line(whole: Path, workdir: Path) -> None:
    shutil.copytree(whole, workdir)
    trained = Sweep(small_run(), ())
    Experiment(trained, {**get_config().study.to_dict(), "general": "a", "target": "b"}).save(workdir, trained)
    path = sorted((workdir / "store" / "runs").iterdir())[0]
    truncate(path, random.Random(0))
    done = subprocess.run([sys.executable, "-m", "experiments.analyse", f"--workdir={workdir}"], text=True,
                          capture_output=True, timeout=120, check=False)
    assert done.returncode == 1
    assert re.search(rf"^CorruptFileError: {path}: damaged.*redoes only its work$", done.stderr, re.MULTILINE)
    assert "Traceback" not in done.stderr
