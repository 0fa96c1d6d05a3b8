"""From a base and stages to runs: parents before children, nothing twice, overrides stand, nonsense refused."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from helpers import small_config, small_run
from scaling.config import run_from
from scaling.fields import ConfigError
from scaling.sweeps.grid import product
from scaling.sweeps.plan import generations
from scaling.sweeps.sweep import Stage, Sweep, overlay

CONSTANT = {"schedule.name": "constant", "schedule.floor": 1.0}
KEEP = {"parent.optimizer": "keep"}


def branch(step: int, **changes: Any) -> dict[str, Any]:
    return {"parent.at": {"steps": step}, **KEEP, **changes}


def sweep(*stages: Stage, pinned: Mapping[str, Any] | None = None) -> Sweep:
    return Sweep(small_run(**CONSTANT), stages, pinned or {})


def test_runs_of_a_grid_are_the_runs_written_out() -> None:
    grid = product({"schedule.peak": [1e-3, 1e-2]}, {"training.seed": [0, 1, 2]})
    runs = sweep(Stage("grid", grid)).runs()
    written = [small_run(**CONSTANT, **{"schedule.peak": peak, "training.seed": seed})
               for peak, seed in itertools.product([1e-3, 1e-2], range(3))]
    assert runs == written
    assert [run.run_id for run in runs] == [run.run_id for run in written]


def test_equal_points_are_one_run() -> None:
    twice = [{"training.seed": 1}, {"training.seed": 0}, {"training.seed": 1, "model.width": 16},
             {"training.duration": {"tokens": 20 * 64}}, {"training.seed": 1.0}]
    assert [run.training.seed for run in sweep(Stage("a", twice)).runs()] == [1, 0]


def test_values_of_an_axis_take_every_form_a_configuration_may() -> None:
    mixed = overlay(small_run(), {
        "data.mixture": {"prose": 0.5, "code": 0.5}, "data.unique_tokens": {"prose": 64}, "evaluation.points": None,
        "evaluation.steps": [1, 5], "schedule.peak": np.float64(1)})
    assert mixed == small_run(**{"data.mixture": {"code": 0.5, "prose": 0.5}, "data.unique_tokens": {"prose": 64},
                                 "evaluation.points": None, "evaluation.steps": (1, 5), "schedule.peak": 1})
    assert overlay(small_run(), {"schedule": small_config(**CONSTANT)["schedule"]}) == small_run(**CONSTANT)


def test_children_follow_parents_whatever_the_order_of_stages() -> None:
    late = Stage("late", [branch(5)], parent="cooldown")
    cooldown = Stage("cooldown", [branch(10), branch(20, **{"optimizer.weight_decay": 0.0})], parent="trunk")
    trunk = Stage("trunk", product({"training.seed": [0, 1]}))
    runs = sweep(late, cooldown, trunk).runs()
    assert runs == sweep(trunk, cooldown, late).runs()
    place = {run.run_id: index for index, run in enumerate(runs)}
    assert all(run.parent is None or place[run.parent.run_id] < place[run.run_id] for run in runs)
    assert sorted(generations(runs).values()) == [0] * 2 + [1] * 4 + [2] * 4


def test_a_branch_inherits_its_parent_and_changes_the_rest() -> None:
    trunk = Stage("trunk", [{"training.seed": 3}])
    parent, child = sweep(trunk, Stage("child", [branch(10, **{"schedule.peak": 0.5})], parent="trunk")).runs()
    assert child.parent is not None
    assert (child.parent.run_id, child.parent.at.steps, child.parent.optimizer) == (parent.run_id, 10, "keep")
    assert (child.training, child.schedule.peak) == (parent.training, 0.5)


def test_an_override_stands_where_an_axis_sets_the_same_key() -> None:
    grid = product({"schedule.peak": [1e-3, 1e-2]}, {"training.seed": [0, 1]})
    runs = sweep(Stage("a", grid), pinned={"schedule.peak": 7.0, "model.depth": 9}).runs()
    assert [(run.schedule.peak, run.training.seed) for run in runs] == [(7.0, 0), (7.0, 1)]
    assert {run.model.depth for run in runs} == {1}, "a key that no axis sets is in the base already"


TRUNK = Stage("trunk", [{}])
REFUSED: list[tuple[tuple[Stage, ...], dict[str, Any], str]] = [
    ((Stage("a", [{"schedule.peek": 1.0}]),), {}, r"axis 'schedule\.peek': unknown key 'peek'; did you mean 'peak'\?"),
    ((Stage("a", [{"shedule.peak": 1.0}]),), {}, r"axis 'shedule\.peak': unknown key 'shedule'; did you mean 'schedu"),
    ((Stage("a", [{"training.duration.steps": 5}]),), {}, r"axis 'training\.duration\.steps': unknown key .*'duration"),
    ((Stage("a", [{"schedule.peak": -1.0}]),), {}, r"schedule\.peak = -1\.0: expected finite and not negative; use"),
    ((Stage("a", [{"schedule.peak": "1e-3"}]),), {}, r"schedule\.peak = '1e-3': expected float, not str; write a floa"),
    ((Stage("a", [{"model.width": np.int64(8)}]),), {}, r"model\.width = np\.int64\(8\): expected int, not int64; wri"),
    ((Stage("a", [{"model": small_config()["model"], "model.width": 8}]),), {},
     r"grid: 'model' is set as a whole and so is its part 'model\.width'; keep one"),
    ((Stage("a", {"training.seed": 3}),), {}, r"axis 'training\.seed' = 3: expected a sequence of values; wrap it"),
    ((Stage("a", []),), {}, r"axis \[\]: expected at least one value; give one or drop the axis"),
    ((TRUNK, Stage("b", [branch(5)], parent="trnk")), {}, r"stage 'b': parent: unknown key 'trnk'; did you mean 'trun"),
    ((Stage("a", [branch(5)], parent="b"), Stage("b", [branch(5)], parent="a")), {},
     r"stages \['a', 'b'\]: their parents form a cycle; break it"),
    ((Stage("a", [branch(5)], parent="a"),), {}, r"stages \['a'\]: their parents form a cycle; break it"),
    ((TRUNK, Stage("trunk", [{}])), {}, r"stages \['trunk', 'trunk'\]: expected different names; rename one"),
    ((Stage("a", [branch(5)]),), {}, r"stage 'a' sets \['parent\.at', 'parent\.optimizer'\] but has no parent stage; "),
    ((TRUNK, Stage("b", [{"parent.at": {"steps": 5}}], parent="trunk")), {},
     r"stage 'b': a branch needs \['parent\.optimizer'\] in each of its points; add them"),
    ((TRUNK, Stage("b", [branch(5, **{"parent.step": 5})], parent="trunk")), {}, r"parent: unknown key 'step'"),
    ((TRUNK, Stage("b", [{**KEEP, "parent.at": {"steps": -5}}], parent="trunk")), {},
     r"parent\.at: duration\.steps = -5: expected finite and not negative; use 0 or more"),
    ((Stage("a", product({"data.mixture": [{"prose": 1.0}]})),), {"data.mixture.prose": 0.5},
     r"override 'data\.mixture\.prose': stage 'a' sets 'data\.mixture' as a whole; override the setting"),
    ((Stage("a", product({"training.duration": [{"steps": 5}]})),), {"training.duration.steps": 9},
     r"override 'training\.duration\.steps': stage 'a' sets 'training\.duration' as a whole; override the setting"),
]


@pytest.mark.parametrize(("stages", "pinned", "message"), REFUSED, ids=[message[:50] for _, _, message in REFUSED])
def test_a_bad_stage_is_refused(stages: tuple[Stage, ...], pinned: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sweep(*stages, pinned=pinned).runs()


def test_a_changed_section_is_checked_against_the_others() -> None:
    with pytest.raises(ConfigError, match=r"training\.accumulation = 3: expected a divisor of data\.batch = 4"):
        overlay(run_from(small_config()), {"training.accumulation": 3})
