"""A sweep in a workdir: branches, resuming, widening, narrowing, replay, failures, refusals."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from helpers import never, small_run, write_text
from scaling.config import Duration, Parent, Run
from scaling.fields import ConfigError
from scaling.store import Store
from scaling.sweeps import jobs
from scaling.sweeps.executor import run_sweep
from scaling.sweeps.grid import product
from scaling.sweeps.jobs import Settings
from scaling.sweeps.lock import LockedError, lock_file, workdir_lock
from scaling.sweeps.plan import Width
from scaling.sweeps.sweep import Stage, Sweep
from scaling.sweeps.tuning import Speed, Tuner
from scaling.sweeps.work import ChangedCorpusError
from scaling.sweeps.workbench import Workbench
from scaling.sweeps.workdir import Workdir
from scaling.training.loop import PackRun
from small_sweeps import KeptBench, PowerCutError, assert_same, files, power_cut, tables

STEPS = 40
COOLDOWN = {
    "parent.optimizer": "keep", "schedule.name": "linear", "schedule.floor": 0.0, "schedule.warmup": {"steps": 0},
    "training.duration": {"steps": 10}, "evaluation.points": None, "evaluation.steps": (5,)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    for seed, domain in enumerate("ab"):
        write_text(folder / domain, seed)
    return folder


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    return KeptBench(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def _four_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tuner, "speed", lambda self, runs: Speed(Width(4, 1, 1), 1e-3, 1, 0.0))


@pytest.fixture
def base(folder: Path) -> Run:
    return small_run(**{
        "data.domains": {name: f"folder:{folder / name}" for name in "ab"}, "data.mixture": {"a": 0.5, "b": 0.5},
        "schedule.name": "constant", "schedule.floor": 1.0, "training.duration": {"steps": STEPS},
        "evaluation.points": None, "evaluation.steps": (10, 30)})


def branching(base: Run, at: Sequence[int] = (20,), seeds: Sequence[int] = (0, 1)) -> list[Run]:
    """Trunks by seed, a cooldown from each at each step."""
    return Sweep(base, (
        Stage("trunk", product({"training.seed": seeds})),
        Stage("cooldown", product({"parent.at": [{"steps": step} for step in at]}, [COOLDOWN]), parent="trunk"),
    )).runs()


def grandchildren(parents: Sequence[Run], at: int = 5) -> list[Run]:
    """A branch from each branch, with a fresh optimizer."""
    return [dataclasses.replace(run, parent=Parent(run.run_id, Duration(steps=at), "reset")) for run in parents]


def sweep(runs: Sequence[Run], workdir: Path, bench: Workbench, seconds: float = 1e9) -> pd.DataFrame:
    return run_sweep(runs, workdir, bench, Settings(seconds), never)


def cut(runs: Sequence[Run], workdir: Path, bench: Workbench, after: int) -> None:
    """A sweep that ends in a power cut once a pack has read that step."""
    with power_cut(after):
        sweep(runs, workdir, bench, seconds=0)


def test_a_trunk_and_its_cooldown_equal_the_single_wsd_run(base: Run, bench: Workbench, tmp_path: Path) -> None:
    """Bit for bit, for each seed and for cooldowns from two places; data go on where the trunk stood."""
    runs = branching(base, at=(20, 40))
    sweep(runs, tmp_path / "branches", bench)
    whole = Sweep(base, (Stage("wsd", product(
        {"training.seed": (0, 1)}, {"schedule.name": ["wsd"]}, {"schedule.floor": [0.0]},
        {"schedule.decay": [{"steps": 10}]},
        [{"training.duration": {"steps": at + 10}, "evaluation.steps": (at, at + 5)} for at in (20, 40)])),)).runs()
    sweep(whole, tmp_path / "whole", bench)
    branches, singles = (tables(tmp_path / name)["curves"].set_index(["run_id", "step", "split", "domain"])
                         for name in ("branches", "whole"))
    compared = 0
    for single in whole:
        at = single.training.duration.steps - 10
        branch = next(run for run in runs if run.parent and run.parent.at.steps == at
                      and run.training.seed == single.training.seed)
        for step in (5, 10):
            for split, domain in (("validation", "a"), ("validation", "b"), ("train", "mixture")):
                ours = branches.loc[(branch.run_id, step, split, domain)]
                theirs = singles.loc[(single.run_id, at + step, split, domain)]
                assert (ours.loss, ours.loss_se, ours.lr) == (theirs.loss, theirs.loss_se, theirs.lr)
                compared += 1
    assert compared == 24


def test_rows_say_how_each_run_ended(base: Run, bench: Workbench, tmp_path: Path) -> None:
    runs = branching(base)
    found = sweep(runs, tmp_path, bench).set_index("run_id")
    assert set(found.index) == {run.run_id for run in runs}
    assert set(found.status) == {"done"}
    for run in runs:
        row = found.loc[run.run_id]
        steps = 10 if run.parent else STEPS
        assert (row.steps, row.steps_trained, row.tokens) == (steps, steps, steps * 4 * 16)
        assert row.flops == row.tokens * row.flops_per_token
        assert (row.parent_id, row.parent_step) == (run.parent.run_id, 20) if run.parent else row.isna().parent_id
    curves = tables(tmp_path)["curves"]
    assert curves.groupby("run_id").step.max().to_dict() == found.steps.to_dict()


def test_nothing_is_left_beside_the_tables(base: Run, bench: Workbench, tmp_path: Path) -> None:
    sweep(branching(base), tmp_path, bench, seconds=0)
    assert list((tmp_path / "states").iterdir()) == []
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_a_sweep_run_again_trains_nothing(
    base: Run, bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs = branching(base)
    first = sweep(runs, tmp_path, bench)
    before = files(tmp_path)
    monkeypatch.setattr(jobs, "train_pack", lambda *arguments: pytest.fail("trained again"))
    pd.testing.assert_frame_equal(sweep(runs, tmp_path, bench), first)
    assert files(tmp_path) == before


def test_a_widened_sweep_trains_what_is_missing_and_leaves_the_rest(
    base: Run, bench: Workbench, tmp_path: Path,
) -> None:
    few, many = branching(base, seeds=(0, 1)), branching(base, seeds=(0, 1, 2))
    sweep(few, tmp_path / "grown", bench)
    before = files(tmp_path / "grown")
    sweep(many, tmp_path / "grown", bench)
    after = files(tmp_path / "grown")
    assert {name: after[name] for name in before} == before
    new = set(Store(tmp_path / "grown" / "store").read("runs").run_id) - {run.run_id for run in few}
    assert new == {run.run_id for run in many} - {run.run_id for run in few}
    sweep(many, tmp_path / "whole", bench)
    assert_same(tables(tmp_path / "grown", packing=False), tables(tmp_path / "whole", packing=False))


def test_a_branch_asked_for_later_starts_from_a_state_made_again(base: Run, bench: Workbench, tmp_path: Path) -> None:
    """The states of trunks and branches are dropped with the first sweep; two generations are replayed."""
    first, more = branching(base, at=(20,)), branching(base, at=(20, 30))
    whole = [*more, *grandchildren([run for run in more if run.parent])]
    sweep(first, tmp_path / "grown", bench)
    before = files(tmp_path / "grown")
    assert list((tmp_path / "grown" / "states").iterdir()) == []
    sweep(whole, tmp_path / "grown", bench)
    after = files(tmp_path / "grown")
    assert {name: after[name] for name in before} == before
    sweep(whole, tmp_path / "whole", bench)
    assert_same(tables(tmp_path / "grown", packing=False), tables(tmp_path / "whole", packing=False))
    assert list((tmp_path / "grown" / "states").iterdir()) == []


@pytest.mark.parametrize("after", [5, 30])
def test_a_sweep_cut_narrowed_and_restored_equals_one_that_ran_through(
    after: int, base: Run, bench: Workbench, tmp_path: Path,
) -> None:
    """Cut in the trunks' pack (step 30) or before its first checkpoint (5), then one seed alone, then all."""
    runs = branching(base, seeds=(0, 1, 2))
    sweep(runs, tmp_path / "whole", bench)
    cut(runs, tmp_path / "cut", bench, after)
    assert set(Store(tmp_path / "cut" / "store").read("runs").status) == {"running"}
    one = branching(base, seeds=(1,))
    narrowed = sweep(one, tmp_path / "cut", bench)
    assert set(narrowed.run_id) == {run.run_id for run in one}
    assert set(narrowed.status) == {"done"}
    assert set(Store(tmp_path / "cut" / "store").read("curves").run_id) == {run.run_id for run in one}
    sweep(runs, tmp_path / "cut", bench)
    assert_same(tables(tmp_path / "cut", packing=False), tables(tmp_path / "whole", packing=False))


def test_a_sweep_cut_in_its_branches_resumes_there(
    base: Run, bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    trunks = dataclasses.replace(base, training=dataclasses.replace(base.training, duration=Duration(steps=30)))
    runs = branching(trunks)
    longer = [run if run.parent is None else dataclasses.replace(
        run, training=dataclasses.replace(run.training, duration=Duration(steps=60))) for run in runs]
    sweep(longer, tmp_path / "whole", bench)
    cut(longer, tmp_path / "cut", bench, after=30)
    done = Store(tmp_path / "cut" / "store").read("runs").set_index("run_id").status
    assert {run.run_id: done[run.run_id] for run in longer} == {
        run.run_id: "running" if run.parent else "done" for run in longer}
    [checkpoint] = (tmp_path / "cut" / "checkpoints").glob("*/*")
    starts = []
    advance = PackRun.advance

    def noted(self: PackRun, state: Any, start: int, stop: int) -> Any:
        starts.append(start)
        return advance(self, state, start, stop)

    monkeypatch.setattr(PackRun, "advance", noted)
    sweep(longer, tmp_path / "cut", bench)
    assert 5 < starts[0] == int(checkpoint.name), "the branches go on from their checkpoint, the trunks are not touched"
    assert_same(tables(tmp_path / "cut"), tables(tmp_path / "whole"))


def test_a_checkpoint_never_outlives_its_rows(
    base: Run, bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A second power cut, while a narrowed sweep forgets the first one's pack, must not leave a pack that resumes in
    its middle without the rows before it.
    """
    runs = branching(base, seeds=(0, 1, 2))
    sweep(runs, tmp_path / "whole", bench)
    cut(runs, tmp_path / "cut", bench, after=30)
    removed = []
    remove = Store.remove

    def die(self: Store, table: str, names: Any) -> None:
        remove(self, table, names)
        removed.append(table)
        if table == "runs":
            raise PowerCutError

    with monkeypatch.context() as patch:
        patch.setattr(Store, "remove", die)
        with pytest.raises(PowerCutError):
            sweep(branching(base, seeds=(1,)), tmp_path / "cut", bench)
    assert removed == ["curves", "diagnostics", "runs"]
    sweep(runs, tmp_path / "cut", bench)
    assert_same(tables(tmp_path / "cut"), tables(tmp_path / "whole"))


def test_branches_of_a_diverged_run_fail_with_the_reason(base: Run, bench: Workbench, tmp_path: Path) -> None:
    trunks = {"training.seed": (0,), "schedule.peak": (1e-3, 300.0)}
    runs = Sweep(base, (Stage("trunk", product(trunks)), Stage("cooldown", product(
        {"parent.at": [{"steps": 1}, {"steps": 40}]}, [{**COOLDOWN, "schedule.peak": 1e-3}]), parent="trunk"))).runs()
    late = [run for run in runs if run.parent and run.parent.at.steps == 40]
    runs += grandchildren(late)
    found = sweep(runs, tmp_path, bench).set_index("run_id")
    good, wild = (run for run in runs if run.parent is None)
    assert found.status[good.run_id] == "done"
    at = found.diverged_at[wild.run_id]
    assert found.status[wild.run_id] == "diverged"
    assert 1 < at < STEPS
    assert found.steps_trained[wild.run_id] == at - 1
    for run in runs:
        if run.parent and run.parent.run_id == wild.run_id:
            early = run.parent.at.steps == 1  # the state after step 1 was sound
            assert found.status[run.run_id] == ("done" if early else "failed")
            if not early:
                assert found.reason[run.run_id] == f"parent {wild.run_id} diverged before the branch"
                assert found.steps_trained[run.run_id] == 0
                child = next(other for other in runs if other.parent and other.parent.run_id == run.run_id)
                assert found.status[child.run_id] == "failed"
                assert found.reason[child.run_id] == f"parent {run.run_id} failed before the branch"
    assert found.status.value_counts().to_dict() == {"done": 5, "failed": 2, "diverged": 1}
    failed = set(found.index[found.status == "failed"])
    curves = Store(tmp_path / "store").read("curves")
    assert not failed & set(curves.run_id)
    assert curves[curves.run_id == wild.run_id].step.max() < at
    before = files(tmp_path)
    sweep(runs, tmp_path, bench)
    assert files(tmp_path) == before, "a run that diverged or failed has its outcome and is not tried again"


def test_a_changed_corpus_is_refused(
    base: Run, bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = write_text(tmp_path / "text", seed=5)
    data = dataclasses.replace(base.data, domains=(("a", source), ("b", source)))
    run = dataclasses.replace(base, data=data)
    with monkeypatch.context() as patch:  # whether the run is trained is nothing to this test
        patch.setattr(jobs, "train_pack", lambda *arguments: np.full(1, -1))
        sweep([run], tmp_path / "work", bench)
    (tmp_path / "text" / "new.txt").write_text("a document that was not there before\n")
    with pytest.raises(ChangedCorpusError, match=rf"now hold other text .* run {run.run_id} .* use another --workdir"):
        sweep([run], tmp_path / "work", KeptBench(bench.cache))


def test_a_second_runner_is_refused(base: Run, bench: Workbench, tmp_path: Path) -> None:
    with workdir_lock(tmp_path), pytest.raises(LockedError, match="another runner is at work there"):
        sweep([base], tmp_path, bench)
    assert not (tmp_path / "store").exists()


def test_a_worker_whose_driver_was_killed_keeps_a_start_out(base: Run, bench: Workbench, tmp_path: Path) -> None:
    cut([base], tmp_path, bench, after=10)
    everything = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    [job] = [path.name for path in (tmp_path / "checkpoints").iterdir()]
    with lock_file(Workdir(tmp_path).lock(job), "job"), pytest.raises(LockedError, match=f"job {job}: another runner"):
        sweep([], tmp_path, bench)
    del everything[tmp_path / "lock"]
    assert {path: path.read_bytes() for path in everything} == everything
    assert sweep([base], tmp_path, bench).status.tolist() == ["done"]


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1.0])
def test_a_time_between_checkpoints_that_never_comes_is_refused(seconds: float) -> None:
    with pytest.raises(ConfigError, match=f"--checkpoint_seconds = {seconds}: expected a finite number of at least 0"):
        Settings(seconds)


@pytest.mark.parametrize(("changes", "message"), [
    ({"parent": Parent("0" * 12, Duration(steps=5), "keep")}, "expected a run of this sweep"),
    ({"evaluation.steps": (50,)}, r"evaluation.steps = \[50\]: expected steps up to the last, 40"),
    ({"data.sequence": 10**5}, "(?s)sequence = 100000.*shorter"),
])
def test_what_cannot_be_trained_is_refused_before_anything_is(
    changes: dict, message: str, base: Run, bench: Workbench, tmp_path: Path,
) -> None:
    bad = Sweep(base, (Stage("runs", [changes]),)).runs() if "parent" not in changes else [
        dataclasses.replace(base, **changes)]
    with pytest.raises(ValueError, match=message):
        sweep([base, *bad], tmp_path, bench)
    assert not (tmp_path / "store").exists()
    assert not (tmp_path / "plan.json").exists()


def test_double_precision_without_x64_is_refused(base: Run, bench: Workbench, tmp_path: Path) -> None:
    double = dataclasses.replace(base, training=dataclasses.replace(base.training, dtype="float64"))
    with pytest.raises(ConfigError, match=r"training.dtype = 'float64': expected .* JAX_ENABLE_X64=1"):
        sweep([double], tmp_path, bench)
