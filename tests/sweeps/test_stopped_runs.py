"""Runs stopped early in a sweep: their rows, their neighbours, branches, kills, and what comes after."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from helpers import never
from scaling.config import Run
from scaling.fields import ConfigError
from scaling.sweeps import forget
from scaling.sweeps.early_stopping import Question
from scaling.sweeps.executor import run_sweep
from scaling.sweeps.grid import product
from scaling.sweeps.jobs import Settings
from scaling.sweeps.plan import Width
from scaling.sweeps.sweep import Stage, Sweep
from scaling.sweeps.tuning import Speed, Tuner
from scaling.sweeps.workbench import Workbench
from scaling.training.loop import PackRun
from small_sweeps import COOLDOWN, KeptBench, PowerCutError, assert_same, base_run, files, power_cut, tables

QUESTION = Question("a", 0.9)
STEPS = 80


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return base_run(tmp_path_factory.mktemp("text"), **{
        "training.duration": {"steps": STEPS}, "evaluation.steps": tuple(range(5, STEPS, 5))})


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    return KeptBench(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def _four_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tuner, "speed", lambda self, runs: Speed(Width(4, 1, 1), 1e-3, 1, 0.0))


def rates(base: Run) -> list[Run]:
    """Two seeds of a rate that learns and two of one that hardly does."""
    return Sweep(base, (Stage("runs", product({"schedule.peak": [1e-2, 1e-5]}, {"training.seed": (0, 1)})),)).runs()


def sweep(
    runs: Sequence[Run], workdir: Path, bench: Workbench, question: Question | None, seconds: float = 1e9,
) -> pd.DataFrame:
    return run_sweep(runs, workdir, bench, Settings(seconds), never, question)


@pytest.fixture(scope="module")
def whole(base: Run, bench: Workbench, tmp_path_factory: pytest.TempPathFactory) -> dict[str, pd.DataFrame]:
    """Tables of the sweep that trains every run to its end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tuner, "speed", lambda self, runs: Speed(Width(4, 1, 1), 1e-3, 1, 0.0))
        workdir = tmp_path_factory.mktemp("whole")
        sweep(rates(base), workdir, bench, None)
    return tables(workdir, packing=False)


def test_neighbours_do_not_notice_and_rows_say_what_was_trained(
    base: Run, bench: Workbench, tmp_path: Path, whole: dict[str, pd.DataFrame],
) -> None:
    runs = rates(base)
    sweep(runs, tmp_path, bench, QUESTION)
    found = tables(tmp_path, packing=False)
    rows = found["runs"].set_index("run_id")
    assert rows.status[[run.run_id for run in runs]].tolist() == ["done", "done", "stopped", "stopped"]
    at = int(rows.steps_trained.min())
    stopped = rows[rows.status == "stopped"]
    assert 20 <= at < STEPS
    assert set(stopped.steps_trained) == {at}
    assert set(stopped.tokens) == {at * 4 * 16}
    assert (stopped.flops == stopped.tokens * stopped.flops_per_token).all()
    assert stopped.reason.str.contains("annealing law at level 0.9: a ends at").all()
    for name in ("curves", "diagnostics"):
        full = whole[name]
        kept = full[~full.run_id.isin(stopped.index) | (full.step <= at)].reset_index(drop=True)
        pd.testing.assert_frame_equal(found[name], kept, check_exact=True)


@pytest.mark.parametrize("after", [35, 70])
def test_a_cut_sweep_decides_the_same_once_it_resumes(
    base: Run, bench: Workbench, tmp_path: Path, after: int,
) -> None:
    """Between looks, and after the stops."""
    sweep(rates(base), tmp_path / "whole", bench, QUESTION)
    with power_cut(after):
        sweep(rates(base), tmp_path / "cut", bench, QUESTION, seconds=0)
    sweep(rates(base), tmp_path / "cut", bench, QUESTION, seconds=0)
    assert_same(tables(tmp_path / "cut"), tables(tmp_path / "whole"))


def test_stopped_runs_are_outcomes_while_it_is_on_and_work_once_it_is_off(
    base: Run, bench: Workbench, tmp_path: Path, whole: dict[str, pd.DataFrame], monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A kill while their rows are removed, at each of the files, changes nothing in the end."""
    sweep(rates(base), tmp_path, bench, QUESTION)
    before = files(tmp_path)
    sweep(rates(base), tmp_path, bench, QUESTION)
    assert files(tmp_path) == before
    drop = forget._drop
    for table in ("curves", "diagnostics", "runs"):
        def die(store: Any, name: str, *rest: Any, table: str = table) -> None:
            if name == table:
                raise PowerCutError
            drop(store, name, *rest)

        monkeypatch.setattr(forget, "_drop", die)
        with pytest.raises(PowerCutError):
            sweep(rates(base), tmp_path, bench, None)
    monkeypatch.setattr(forget, "_drop", drop)
    sweep(rates(base), tmp_path, bench, None)
    assert_same(tables(tmp_path, packing=False), whole)


def test_a_trunk_is_trained_as_far_as_its_branches_need(base: Run, bench: Workbench, tmp_path: Path) -> None:
    """Stopped after the branch step, not before; a later branch has the trunk trained on."""
    def trunks_and_branches(at: int) -> list[Run]:
        return Sweep(base, (
            Stage("trunk", product({"schedule.peak": [1e-2, 1e-5]}, {"training.seed": (0,)})),
            Stage("cooldown", product({"parent.at": [{"steps": at}]}, [COOLDOWN]), parent="trunk"),
        )).runs()

    runs = trunks_and_branches(60)
    found = sweep(runs, tmp_path / "on", bench, QUESTION).set_index("run_id")
    hopeless, branch = runs[1], next(run for run in runs if run.parent and run.parent.run_id == runs[1].run_id)
    assert found.status[hopeless.run_id] == "stopped"
    assert 60 <= found.steps_trained[hopeless.run_id] < STEPS
    assert found.status[branch.run_id] in ("done", "stopped")
    later = trunks_and_branches(STEPS)
    widened = sweep([*runs, *later], tmp_path / "on", bench, QUESTION).set_index("run_id")
    assert widened.status[hopeless.run_id] == "done"
    assert not tables(tmp_path / "on")["curves"].duplicated(["run_id", "step", "split", "domain"]).any()


def test_another_question_trains_an_unfinished_job_anew(
    base: Run, bench: Workbench, tmp_path: Path, whole: dict[str, pd.DataFrame], monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A checkpoint holds runs that the other question stopped: it must not be resumed."""
    read = PackRun.read

    def die(self: PackRun, step: int, measured: Any) -> Any:
        if step > 70:
            raise PowerCutError
        return read(self, step, measured)

    with monkeypatch.context() as patch:
        patch.setattr(PackRun, "read", die)
        with pytest.raises(PowerCutError):
            sweep(rates(base), tmp_path, bench, QUESTION, seconds=0)
    sweep(rates(base), tmp_path, bench, None)
    assert_same(tables(tmp_path, packing=False), whole)


def test_a_domain_that_is_not_there_is_refused(base: Run, bench: Workbench, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="early_stopping"):
        sweep(rates(base), tmp_path, bench, Question("c", 0.9))
    assert not (tmp_path / "store").exists()
