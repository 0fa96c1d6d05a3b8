"""Runs that start from the average of others: planned after all of them, started from numpy's average, made again."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pandas as pd
import pytest

from cluster_sweeps import brief_of, here, tasks_here
from helpers import never, small_run, windows_of
from scaling.config import Duration, Parent, Run
from scaling.fields import ConfigError
from scaling.sweeps import dispatch, tasks
from scaling.sweeps.early_stopping import contenders
from scaling.sweeps.executor import run_sweep
from scaling.sweeps.grid import product
from scaling.sweeps.jobs import Settings
from scaling.sweeps.plan import Width, branch_points, generations, groups
from scaling.sweeps.processes import _Claims
from scaling.sweeps.sweep import Stage, Sweep
from scaling.sweeps.tuning import Speed, Tuner
from scaling.sweeps.workbench import Workbench
from scaling.sweeps.workdir import Workdir
from scaling.training import checkpoints
from small_sweeps import KeptBench, assert_same, base_run, power_cut, sweep, tables

RESET = {"parent.at": {"steps": 20}, "parent.optimizer": "reset"}
AS_IT_IS = {"schedule.peak": 0.0, "schedule.warmup": {"steps": 0}, "training.duration": {"steps": 1},
            "evaluation.points": 2, "evaluation.steps": None}  # step 0 is the average
TRAINED = {"training.duration": {"steps": 6}, "evaluation.points": 3, "evaluation.steps": None}
WEIGHTS = (0.25, 0.75)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return base_run(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    return KeptBench(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def _two_lanes(monkeypatch: pytest.MonkeyPatch, bench: Workbench) -> None:
    monkeypatch.setattr(Tuner, "speed", lambda self, runs: Speed(Width(2, 1, 1), 1e-3, 1, 0.0))
    monkeypatch.setattr(tasks, "Workbench", lambda cache: bench)
    monkeypatch.setattr(dispatch, "POLL_SECONDS", 0.0)


def merged(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Points of the average of the first two runs: as it is, and trained."""
    first, second = runs[:2]
    start = {**RESET, "parent.run_id": first.run_id, "parent.others": {second.run_id: WEIGHTS[1]}}
    return [{**start, **AS_IT_IS}, {**start, **TRAINED}]


MODULES = Stage("modules", product({"data.mixture": [{"a": 1.0}, {"b": 1.0}]}))
MERGED = Stage("merged", merged, parent="modules")
AGAIN = Stage("again", [{**RESET, "parent.at": {"steps": 1}, **AS_IT_IS}], parent="merged")


def all_runs(base: Run, *stages: Stage) -> list[Run]:
    return Sweep(base, stages or (MODULES, MERGED)).runs()


@pytest.fixture(scope="module")
def whole(base: Run, bench: Workbench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sweep with its averages and a branch from each, all states kept."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tuner, "speed", lambda self, runs: Speed(Width(2, 1, 1), 1e-3, 1, 0.0))
        run_sweep(all_runs(base, MODULES, MERGED, AGAIN), folder, bench, Settings(0.0, keep_states=True), never)
    return folder


def params(workdir: Path, bench: Workbench, run: Run, step: int) -> list[np.ndarray]:
    state = checkpoints.load(Workdir(workdir).state(run.run_id, step), bench.template(run.program))[run.run_id]
    return jax.tree.leaves(state.params)


def losses(workdir: Path, run: Run, step: int) -> dict[str, float]:
    curves = tables(workdir)["curves"]
    rows = curves[(curves.run_id == run.run_id) & (curves.step == step) & (curves.split == "validation")]
    return dict(zip(rows.domain, rows.loss, strict=True))


def test_a_merged_run_holds_numpys_average_of_its_parents(base: Run, bench: Workbench, whole: Path) -> None:
    """Its only step has rate 0, so that the state after it is the start."""
    first, second, as_it_is, _ = all_runs(base)
    parents = [params(whole, bench, run, 20) for run in (first, second)]
    found = params(whole, bench, as_it_is, 1)
    assert len(found) > 5
    for one, two, mean in zip(*parents, found, strict=True):
        wanted = np.average([one.astype(np.float64), two.astype(np.float64)], axis=0, weights=WEIGHTS)
        np.testing.assert_allclose(mean, wanted, rtol=2**-23, atol=1e-12)
    assert any(not np.array_equal(one, mean) for one, mean in zip(parents[0], found, strict=True))


def test_step_0_evaluates_the_average_as_it_is(base: Run, whole: Path) -> None:
    first, second, as_it_is, trained = all_runs(base)
    start = losses(whole, as_it_is, 0)
    assert start == losses(whole, as_it_is, 1) == losses(whole, trained, 0)
    for parent in (first, second):
        assert all(start[name] != loss for name, loss in losses(whole, parent, 20).items())
    assert losses(whole, trained, 6) != start
    child = next(run for run in all_runs(base, MODULES, MERGED, AGAIN) if run.parent_ids == (as_it_is.run_id,))
    assert losses(whole, child, 0) == start, "an average may have branches of its own"


def test_rows_name_all_parents(base: Run, whole: Path) -> None:
    first, second, *averages = all_runs(base)
    rows = tables(whole)["runs"].set_index("run_id")
    for run in averages:
        found = rows.loc[run.run_id]
        assert (found.parent_id, found.parent_step, found.parent_optimizer) == (first.run_id, 20, "reset")
        assert found.parent_others == f'{{"{second.run_id}": 0.75}}'
    assert rows.parent_others.isna().sum() == 4
    assert rows.status.eq("done").all()


def test_the_average_of_one_state_with_itself_is_that_state(
    base: Run, bench: Workbench, tmp_path: Path,
) -> None:
    """Runs that differ only in when they are evaluated end in the same state."""
    module = dataclasses.replace(base, data=dataclasses.replace(base.data, mixture=((0.0, (("a", 1.0),)),)))
    twin = dataclasses.replace(module, evaluation=dataclasses.replace(base.evaluation, steps=(15,)))
    mean = Sweep(base, (Stage("mean", [{"parent": {
        "run_id": module.run_id, "at": {"steps": 20}, "optimizer": "reset", "others": {twin.run_id: 0.3}}, **AS_IT_IS,
    }]),)).runs()
    sweep([module, twin, *mean], tmp_path, bench)
    assert losses(tmp_path, mean[0], 0) == losses(tmp_path, module, 20) == losses(tmp_path, twin, 20)


def test_dropped_parents_are_made_again_for_an_average_that_came_later(
    base: Run, bench: Workbench, whole: Path, tmp_path: Path,
) -> None:
    sweep(all_runs(base, MODULES), tmp_path, bench)
    assert list(Workdir(tmp_path).states.glob("*")) == []
    runs = all_runs(base, MODULES, MERGED, AGAIN)
    sweep(runs, tmp_path, bench)
    assert_same(tables(tmp_path, packing=False), tables(whole, packing=False))
    assert list(Workdir(tmp_path).states.glob("*")) == []


@pytest.mark.parametrize("after", [4, 15])
def test_a_sweep_cut_in_parents_or_averages_equals_one_that_ran_through(
    after: int, base: Run, bench: Workbench, whole: Path, tmp_path: Path,
) -> None:
    """Step 15 is a parent's; of the averages only the trained one gets beyond step 4."""
    runs = all_runs(base, MODULES, MERGED, AGAIN)
    if after == 4:
        sweep(all_runs(base, MODULES), tmp_path, bench)
    with power_cut(after):
        sweep(runs, tmp_path, bench)
    sweep(runs, tmp_path, bench)
    assert_same(tables(tmp_path, packing=False), tables(whole, packing=False))


def test_a_cluster_trains_averages_after_all_their_parents(
    base: Run, bench: Workbench, whole: Path, tmp_path: Path,
) -> None:
    runs = all_runs(base, MODULES, MERGED, AGAIN)
    brief = brief_of(runs, tmp_path / "work", bench, share=f"file://{tmp_path}/share")
    facts = here(tasks.plan_task, brief, pd.DataFrame()).result().jobs
    parents = {job.run_ids: job.parents for job in facts}
    for run in runs[2:4]:
        assert next(found for ids, found in parents.items() if run.run_id in ids) == {r.run_id for r in runs[:2]}
    dispatch.run_sweep(brief, tasks_here())
    assert_same(tables(tmp_path / "work", packing=False), tables(whole, packing=False))


def test_a_process_claims_an_average_once_all_its_parents_have_ended(base: Run) -> None:
    first, second, average, _ = all_runs(base)
    job: Any = SimpleNamespace(runs=(average,))
    for ended, ready in (((first,), False), ((second,), False), ((first, second), True)):
        claims: Any = SimpleNamespace(work=SimpleNamespace(ended={run.run_id: None for run in ended}))
        assert _Claims._ready(claims, job) is ready


def test_an_average_fails_with_any_of_its_parents(base: Run, bench: Workbench, tmp_path: Path) -> None:
    wild = Stage("modules", product({"data.mixture": [{"a": 1.0}]}, {"schedule.peak": (1e-3, 300.0)}))
    runs = all_runs(base, wild, MERGED)
    found = sweep(runs, tmp_path, bench).set_index("run_id").loc[[run.run_id for run in runs]]
    assert found.status.tolist() == ["done", "diverged", "failed", "failed"]
    assert set(found.reason[2:]) == {f"parent {runs[1].run_id} diverged before the branch"}


# Planning alone, without a corpus.
TRUNK = small_run(**{"schedule.name": "constant", "schedule.floor": 1.0})


def other(**sections: Mapping[str, Any]) -> Run:
    """A run beside TRUNK."""
    return dataclasses.replace(TRUNK, **{
        name: dataclasses.replace(getattr(TRUNK, name), **values) for name, values in sections.items()})


def mean_of(*runs: Run, at: Duration | None = None) -> Run:
    first, *others = runs
    weights = tuple(sorted((run.run_id, 1 / len(runs)) for run in others))
    return dataclasses.replace(TRUNK, parent=Parent(first.run_id, at or Duration(steps=5), "reset", weights))


def planned(*runs: Run) -> list[int]:
    found = groups(runs, {run.program: windows_of(run) for run in runs})
    return [group.generation for group, members in found.items() for _ in members]


SECOND = other(training={"seed": 1})


def test_an_average_comes_after_the_last_of_its_parents() -> None:
    branch = dataclasses.replace(TRUNK, parent=Parent(TRUNK.run_id, Duration(steps=7), "keep"))
    mean = mean_of(SECOND, branch, TRUNK)
    assert generations([mean, branch, TRUNK, SECOND]) == {
        TRUNK.run_id: 0, SECOND.run_id: 0, branch.run_id: 1, mean.run_id: 2}
    assert planned(mean, branch, TRUNK, SECOND) == [0, 0, 1, 2]
    by_id = {run.run_id: run for run in (mean, branch, TRUNK, SECOND)}
    assert branch_points([mean, branch], by_id, {TRUNK.program: windows_of(TRUNK)}) == {
        SECOND.run_id: {5}, branch.run_id: {5}, TRUNK.run_id: {5, 7}}


def test_averages_of_other_seeds_are_one_contender() -> None:
    seeds = [other(training={"seed": seed}) for seed in range(4)]
    means = [mean_of(*seeds[:2]), mean_of(*seeds[2:]), mean_of(*seeds[:3])]
    by_id = {run.run_id: run for run in (*seeds, *means)}
    found = contenders(means, by_id, {run.run_id: np.ones(20) for run in means})
    assert [contender.run_ids for contender in found] == [tuple(run.run_id for run in means[:2]), (means[2].run_id,)]


@pytest.mark.parametrize(("second", "message"), [
    (other(model={"width": 32}), r"parent\.others = '.*': expected a parent with the model and tokenizer of run .*; a"),
    (other(data={"tokenizer": "bpe:512"}), r"parent\.others = .*: expected a parent with the model and tokenizer"),
    (other(data={"sequence": 8}), r"parent\.others = .*: expected the same data\.domains, data\.sequence and"),
    (other(data={"domains": (("prose", "wheels:prose"),)}), r"parent\.others = .*: expected the same data\.domains"),
    (other(training={"duration": Duration(steps=4)}), r"parent\.at = 5 steps: expected 1 to 4, the length of parent"),
])
def test_parents_that_do_not_fit_each_other_are_refused(second: Run, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        planned(TRUNK, second, mean_of(TRUNK, second))


def test_parents_meet_at_one_step() -> None:
    """640 tokens are 10 steps of the one and 5 of the other."""
    large, at = other(data={"batch": 8}), Duration(tokens=640)
    assert len(planned(TRUNK, large, mean_of(TRUNK, large))) == 3
    with pytest.raises(ConfigError, match=r"parent\.at = 5: expected step 10 of .* as of .*; give it in steps, or"):
        planned(TRUNK, large, mean_of(TRUNK, large, at=at))


def test_a_parent_that_is_missing_or_in_a_cycle_is_refused() -> None:
    with pytest.raises(ConfigError, match=rf"parent\.others = '{SECOND.run_id}': expected a run of this sweep .*; add"):
        generations([TRUNK, mean_of(TRUNK, SECOND)])
    one, two = mean_of(TRUNK, SECOND), mean_of(SECOND, TRUNK)
    for run, run_id, parent in ((one, "one", "two"), (two, "two", "one")):  # a hash forbids it, so forge the ids
        run.__dict__["run_id"] = run_id
        object.__setattr__(run, "parent", dataclasses.replace(run.parent, others=((parent, 0.5),)))
    with pytest.raises(ConfigError, match=r"parent\.others = 'two': the parents of run one form a cycle; break it"):
        generations([TRUNK, SECOND, one, two])


@pytest.mark.parametrize(("stages", "message"), [
    ((Stage("mean", merged),), r"stage 'mean' takes its points from the runs of a parent stage but has none; name one"),
    ((MODULES, Stage("mean", lambda runs: [RESET], parent="modules")),
     r"stage 'mean': parent\.run_id: unknown key None; use one of \w+"),
    ((MODULES, Stage("mean", lambda runs: [], parent="modules")), r"axis \[\]: expected at least one value"),
    ((MODULES, Stage("mean", [{**RESET, "parent": None}], parent="modules")),
     r"stage 'mean' sets 'parent' as a whole and has a parent stage; drop one of them"),
])
def test_a_stage_of_averages_that_is_none_is_refused(base: Run, stages: tuple[Stage, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        all_runs(base, *stages)


def test_points_made_from_runs_see_what_was_pinned(base: Run) -> None:
    runs = Sweep(base, (Stage("modules", product({"training.seed": [0, 1]}, MODULES.points)), MERGED),
                 {"training.seed": 5}).runs()
    assert {run.training.seed for run in runs} == {5}
    assert [run.parent_ids for run in runs] == [(), (), *2 * [(runs[0].run_id, runs[1].run_id)]]
