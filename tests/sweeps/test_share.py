"""A sweep over machines that share an object store alone: carried there and back, killed, damaged, mixed up."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest

from cluster_sweeps import brief_of, here, tasks_here
from scaling.config import Run
from scaling.fields import ConfigError
from scaling.files import CorruptFileError, StoreError
from scaling.sweeps import dispatch, share, tasks
from scaling.sweeps.dispatch import Future, run_sweep
from scaling.sweeps.plan import Width
from scaling.sweeps.share import Share
from scaling.sweeps.tasks import train_task
from scaling.sweeps.tuning import Speed, Tuner
from scaling.sweeps.workbench import Workbench
from scaling.training.loop import PackRun
from small_sweeps import KeptBench, assert_same, base_run, branching, sweep, tables


class WorkerDiedError(RuntimeError):
    pass


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    return KeptBench(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """2 trunks in a pack, 4 cooldowns in two."""
    return branching(base_run(tmp_path_factory.mktemp("text")))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, bench: Workbench) -> None:
    monkeypatch.setattr(Tuner, "speed", lambda self, runs: Speed(Width(2, 1, 1), 1e-3, 1, 0.0))
    monkeypatch.setattr(tasks, "Workbench", lambda cache: bench)
    monkeypatch.setattr(dispatch, "POLL_SECONDS", 0.0)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"memory://{tmp_path}/share"


@pytest.fixture(scope="module")
def wanted(runs: list[Run], bench: Workbench, tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("local")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tuner, "speed", lambda self, runs: Speed(Width(2, 1, 1), 1e-3, 1, 0.0))
        sweep(runs, folder, bench)
    return tables(folder)


def trains(patch: pytest.MonkeyPatch, after: int = -1) -> list[int]:
    """Steps from which calls of the devices start, from now on; the first to start after step `after` dies."""
    starts: list[int] = []
    advance = PackRun.advance

    def counted(self: PackRun, state: Any, start: int, stop: int) -> Any:
        if 0 <= after < start:
            patch.setattr(PackRun, "advance", advance)
            raise WorkerDiedError
        starts.append(start)
        return advance(self, state, start, stop)

    patch.setattr(PackRun, "advance", counted)
    return starts


def test_the_tables_come_home_and_the_share_holds_no_more_than_they_need(
    runs: list[Run], bench: Workbench, wanted: dict, url: str, tmp_path: Path,
) -> None:
    rows = run_sweep(brief_of(runs, tmp_path, bench, url), tasks_here())
    assert rows.status.eq("done").all()
    assert_same(tables(tmp_path), wanted)
    there = Share(url)
    assert len(there.names("ended")) == 3
    assert there.names("training") == there.names("states") == []
    assert not (tmp_path / "checkpoints").exists()


def test_a_worker_that_dies_leaves_its_checkpoint_to_the_next(
    runs: list[Run], bench: Workbench, wanted: dict, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    trains(monkeypatch, after=5)
    seen: list[list[int]] = []

    def submit(function: Callable[..., Any], *arguments: Any) -> Future:
        if function is not train_task or len(seen) > 1:
            return here(function, *arguments)
        seen.append(starts := [] if not seen else trains(monkeypatch))
        result = here(function, *arguments)
        seen[-1] = starts
        return result

    run_sweep(brief_of(runs, tmp_path, bench, url), tasks_here(1, submit))
    assert seen[1][0] >= 5
    assert_same(tables(tmp_path), wanted)


def test_a_driver_that_died_collects_what_its_workers_ended(
    runs: list[Run], bench: Workbench, wanted: dict, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another workdir stands for the one that died: all it needs is on the share, the plan too."""
    with monkeypatch.context() as patch:
        patch.setattr(share.Carrier, "collect", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run_sweep(brief_of(runs, tmp_path / "first", bench, url), tasks_here())
    starts = trains(monkeypatch)
    run_sweep(brief_of(runs[:2], tmp_path / "second", bench, url), tasks_here())
    assert starts == []
    run_sweep(brief_of(runs, tmp_path / "second", bench, url), tasks_here())
    assert_same(tables(tmp_path / "second"), wanted)


def test_a_sweep_begun_on_one_machine_goes_on_over_a_share(
    runs: list[Run], bench: Workbench, wanted: dict, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        trains(patch, after=5)
        with pytest.raises(WorkerDiedError):
            sweep(runs, tmp_path, bench)
    starts = trains(monkeypatch)
    run_sweep(brief_of(runs, tmp_path, bench, url), tasks_here())
    assert starts[0] >= 5
    assert_same(tables(tmp_path), wanted)


def test_damaged_objects_are_named_and_their_work_alone_is_done_again(
    runs: list[Run], bench: Workbench, wanted: dict, url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture,
) -> None:
    first = True

    def submit(function: Callable[..., Any], *arguments: Any) -> Future:
        nonlocal first
        if function is train_task and arguments[1].generation == 1 and first:
            first = False
            damage(url, "states")
            damage(url, "ended")
        return here(function, *arguments)

    with caplog.at_level(logging.WARNING, "scaling"):
        run_sweep(brief_of(runs, tmp_path, bench, url), tasks_here(submit=submit))
    assert "states/" in caplog.text
    assert "its checksum does not match its bytes; remove it: only its work is done again" in caplog.text
    assert_same(tables(tmp_path), wanted)
    caplog.clear()
    run_sweep(brief_of(runs, tmp_path / "other", bench, url), tasks_here())
    assert "ended/" in caplog.text
    assert_same(tables(tmp_path / "other"), wanted)


def damage(url: str, folder: str) -> None:
    """Flip a bit in the first object of a folder."""
    there = Share(url)
    path = f"{there.root}/{folder}/{there.names(folder)[0]}"
    content = bytearray(there.fs.cat_file(path))
    content[len(content) // 2] ^= 1
    there.fs.pipe_file(path, bytes(content))


def test_the_share_of_another_sweep_is_refused(runs: list[Run], bench: Workbench, url: str, tmp_path: Path) -> None:
    for name, some in (("one", runs[:1]), ("two", runs[1:2])):
        here(tasks.plan_task, brief_of(some, tmp_path / name, bench), None).result()
    there = Share(url)
    there.put(share.PLAN, tmp_path / "one", [tmp_path / "one" / "plan.json"])
    with pytest.raises(StoreError, match=r"holds another sweep than .*two; choose another cluster.share"):
        run_sweep(brief_of(runs[1:2], tmp_path / "two", bench, url), tasks_here())


@pytest.mark.parametrize("protocol", ["memory", "file"])
def test_an_object_is_whole_or_damaged_or_absent(protocol: str, tmp_path: Path) -> None:
    there = Share(f"{protocol}://{tmp_path}/share")
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").write_bytes(b"content")
    assert not there.get("x/y", tmp_path / "out")
    assert there.names("x") == []
    there.put("x/y", tmp_path, [tmp_path / "a"])
    assert there.names("x") == ["y"]
    assert there.get("x/y", tmp_path / "out")
    assert (tmp_path / "out" / "a" / "b" / "c").read_bytes() == b"content"
    path = f"{there.root}/x/y"
    whole = there.fs.cat_file(path)
    for cut in (0, 31, 32, len(whole) // 2, len(whole) - 1):
        there.fs.pipe_file(path, whole[:cut])
        with pytest.raises(CorruptFileError, match="x/y: damaged"):
            there.get("x/y", tmp_path / "out")
    there.remove("x/y")
    there.remove("x/y")
    assert not there.get("x/y", tmp_path / "out")


def test_what_the_store_refuses_names_the_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = Share(f"memory://{tmp_path}/share")
    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "put_file",
                        lambda *_, **__: (_ for _ in ()).throw(PermissionError("403")))
    with pytest.raises(StoreError, match=r"share/plan: PermissionError: 403; see to it and run the same command again"):
        there.put("plan", tmp_path, [])


def test_a_url_that_nothing_opens_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"cluster\.share = 'nosuch://b': expected an object store that fsspec opens"):
        Share("nosuch://b")
