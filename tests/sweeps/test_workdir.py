"""States and checkpoints of a workdir: dropped beside processes that write them, and beside files of other programs."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from scaling.sweeps.recovery import recover
from scaling.sweeps.workdir import Workdir
from scaling.training import checkpoints

FOREIGN = (".DS_Store", ".nfs00000001", "notes.txt", "README")
LEFTOVERS = ("abc-10.unnamed", "abc-10.unnamed.orbax-checkpoint-tmp", "abc-10.removed", "abc-10.removed-0f")


def saved(workdir: Workdir, step: int, value: float = 1.0) -> Path:
    """The state of run abc after a step; any tree of arrays [R, ...] will do."""
    folder = workdir.state("abc", step)
    state: Any = {"leaf": np.full((1, 3), value)}
    checkpoints.save(folder, ["abc"], step, state)
    return folder


def loaded(folder: Path) -> list[float]:
    template: Any = {"leaf": jax.ShapeDtypeStruct((3,), np.float64)}
    state: Any = checkpoints.load(folder, template)["abc"]
    return state["leaf"].tolist()


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("needed", [[], ["abc-10"]])
def test_states_are_dropped_while_another_process_saves_one(
    needed: list[str], older: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    workdir, seal = Workdir(tmp_path), checkpoints.seal_folder
    if older:
        saved(workdir, 10)
    monkeypatch.setattr(checkpoints, "seal_folder", lambda folder, facts: (
        workdir.keep_states(needed), seal(folder, facts), workdir.keep_states(needed)))
    assert loaded(saved(workdir, 10, value=2.0)) == [2.0] * 3
    assert [path.name for path in workdir.states.iterdir()] == ["abc-10"]


def test_a_state_that_another_process_drops_first_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workdir = Workdir(tmp_path)
    folder, rename = saved(workdir, 10), Path.rename

    def late(self: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "rename", rename)
        workdir.keep_states([])
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", late)
    workdir.keep_states([])
    assert not folder.exists()
    assert list(workdir.states.iterdir()) == []


def test_what_killed_processes_left_goes_and_what_others_put_there_stays(tmp_path: Path) -> None:
    workdir = Workdir(tmp_path)
    saved(workdir, 10)
    saved(workdir, 20)
    for name in LEFTOVERS:
        (workdir.states / name / "deep").mkdir(parents=True)
    for folder in (workdir.states, workdir.checkpoints):
        folder.mkdir(exist_ok=True)
        for name in FOREIGN:
            (folder / name).write_text("not ours")
    for _ in range(2):
        recover(workdir)
        workdir.keep_states(["abc-20"])
        workdir.keep_jobs([])
        assert sorted(path.name for path in workdir.states.iterdir()) == sorted([*FOREIGN, "abc-20"])
        assert sorted(path.name for path in workdir.checkpoints.iterdir()) == sorted(FOREIGN)
    assert not (tmp_path / "corrupt").exists()
