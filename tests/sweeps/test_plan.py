"""From runs to packs: what may share one, what must come first, what stays when a sweep grows; at 10,000 runs."""

import dataclasses
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from every_optimizer import optimizer_changes
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import small_run, windows_of
from scaling.config import Duration, Parent, Run
from scaling.fields import ConfigError
from scaling.packed import Packing
from scaling.sweeps.grid import product
from scaling.sweeps.plan import Group, Manifest, Pack, Width, branch_points, generations, groups, packs_of
from scaling.sweeps.sweep import Stage, Sweep
from scaling.training.tables import Windows
from scaling.weighing import Mixer

CONSTANT = {"schedule.name": "constant", "schedule.floor": 1.0}
TRUNK = small_run(**CONSTANT)
WIDTH = Width(4, 2, 1)


def windows(runs: list[Run]) -> dict[Run, Windows]:
    return {run.program: windows_of(run) for run in runs}


def child_of(parent: Run, at: int, optimizer: str = "keep", **sections: Any) -> Run:
    return dataclasses.replace(parent, parent=Parent(parent.run_id, Duration(steps=at), optimizer), **sections)


def grown(path: Path, runs: list[Run], width: Width = WIDTH) -> list[Pack]:
    """Packs of a workdir's manifest after planning these runs."""
    manifest = Manifest(path / "plan.json")
    manifest.extend(groups(runs, windows(runs)), lambda group, missing: width)
    return manifest.packs


def seeds(start: int, stop: int, **changes: Any) -> list[Run]:
    return [small_run(**CONSTANT, **changes, **{"training.seed": seed}) for seed in range(start, stop)]


FORTY = seeds(0, 40)


def test_runs_share_a_group_when_program_length_and_evaluations_agree() -> None:
    same = seeds(0, 2) + seeds(2, 4, **{"schedule.peak": 1.0, "data.mixture": {"code": 1.0}, "optimizer.b1": 0.5})
    others = [*seeds(0, 1, **{"model.depth": 2}), *seeds(0, 1, **{"training.duration": {"steps": 21}}),
              *seeds(0, 1, **{"evaluation.points": 4}), *seeds(0, 1, **{"data.batch": 8})]
    found = groups(same + others, windows(same + others))
    assert list(found.values()) == [same, *([run] for run in others)]
    assert next(iter(found)) == Group(TRUNK.program, 0, 20, (0, 1, 4, 20))


def test_groups_come_by_generation_and_branch_points_by_parent() -> None:
    middle, last = child_of(TRUNK, 5), child_of(child_of(TRUNK, 5), 7)
    found = groups([last, middle, TRUNK], windows([TRUNK]))
    assert [group.generation for group in found] == [0, 1, 2]
    by_id = {run.run_id: run for run in (TRUNK, middle, last)}
    tokens = dataclasses.replace(last, parent=Parent(TRUNK.run_id, Duration(tokens=64 * 4 + 1), "keep"))
    assert branch_points([last, middle, tokens], by_id, windows([TRUNK])) == {TRUNK.run_id: {5}, middle.run_id: {7}}


def test_unknown_and_cyclic_parents_are_refused() -> None:
    orphan = child_of(TRUNK, 5)
    with pytest.raises(ConfigError, match=rf"parent\.run_id = '{TRUNK.run_id}': .* sweep .*; add the parent to"):
        generations([orphan])
    one, two = child_of(TRUNK, 5), child_of(TRUNK, 6)
    for run, run_id, parent in ((one, "one", "two"), (two, "two", "one")):  # a hash forbids it, so forge the ids
        run.__dict__["run_id"] = run_id
        object.__setattr__(run, "parent", dataclasses.replace(run.parent, run_id=parent))
    with pytest.raises(ConfigError, match=r"parent\.run_id = 'two': the parents of run one form a cycle; break it"):
        generations([one, two])


def other(section: str, **values: Any) -> Run:
    """A branch of TRUNK at step 5 with other values in one section."""
    return child_of(TRUNK, 5, **{section: dataclasses.replace(getattr(TRUNK, section), **values)})


@pytest.mark.parametrize(("run", "message"), [
    (child_of(TRUNK, 0), r"parent\.at = 0 steps: expected 1 to 20, the length of parent .*; branch earlier or train"),
    (child_of(TRUNK, 21), r"parent\.at = 21 steps: expected 1 to 20, the length of parent .*; branch earlier or train"),
    (other("model", width=32), r"parent\.run_id = .*: expected a parent with the model and tokenizer of run .*; a bra"),
    (other("data", tokenizer="bpe:512"), r"parent\.run_id = .*: expected a parent with the model and tokenizer"),
    (other("training", dtype="bfloat16"), r"training\.dtype = 'bfloat16': expected 'float32' as in parent .*; use"),
    (other("data", sequence=8), r"parent\.run_id = .*: expected the same data\.domains, data\.sequence and "),
    (other("data", domains=(("prose", "wheels:prose"),)), r"parent\.run_id = .*: expected the same data\.domains"),
    (child_of(TRUNK, 5, packing=Packing("chop", "window", (), ())), r"parent\.run_id = .* data\.sequence and packing"),
])
def test_a_branch_that_its_parent_cannot_start_is_refused(run: Run, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        groups([TRUNK, run], windows([TRUNK, run]))


def branched(method: dict[str, Any], changes: dict[str, Any], treatment: str) -> list[Run]:
    """A trunk, a branch of it, and another whose optimizer has other values."""
    trunk = small_run(**CONSTANT, **method)
    branch = child_of(trunk, 5, treatment)
    return [trunk, branch, dataclasses.replace(branch, optimizer=dataclasses.replace(trunk.optimizer, **changes))]


@pytest.mark.parametrize(("method", "changes", "message"), [
    ({}, {"name": "adopt"}, r"optimizer\.name = 'adopt': expected 'adamw' as in parent"),
    ({}, {"groups": ((".*kernel", "named"), (".*", "named"))}, r"optimizer\.groups = .*: expected None as in parent"),
    (optimizer_changes("galore", "short"), {"rank": 4}, r"optimizer\.rank = 4: expected 2 as in parent .*'keep'; use"),
    (optimizer_changes("adafactor", "scaled"), {"form": "unscaled"}, r"optimizer\.form = 'unscaled': expected 's"),
    (optimizer_changes("schedule_free", None), {"b1": 0.98},
     r"optimizer\.b1 = 0\.98: expected 0\.9 as in parent .*; use the same, or parent\.optimizer = 'reset'"),
])
def test_a_branch_keeps_no_state_that_its_optimizer_cannot_go_on_from(
    method: dict[str, Any], changes: dict[str, Any], message: str,
) -> None:
    kept, fresh = (branched(method, changes, treatment) for treatment in ("keep", "reset"))
    with pytest.raises(ConfigError, match=message):
        groups(kept, windows(kept))
    groups(fresh, windows(fresh))


@pytest.mark.parametrize(("name", "form", "changes"), [
    ("adamw", None, {"b1": 0.8, "weight_decay": 0.2, "decay_on": "all"}), ("soap", None, {"every": 5}),
    ("schedule_free", None, {"b2": 0.99})])
def test_a_branch_keeps_the_state_where_other_values_leave_its_sense(
    name: str, form: str | None, changes: dict[str, Any],
) -> None:
    runs = branched(optimizer_changes(name, form), changes, "keep")
    assert sum(map(len, groups(runs, windows(runs)).values())) == 3


def test_a_branch_of_a_run_with_a_mixer_is_refused_and_one_with_a_mixer_of_its_own_is_not() -> None:
    mixer = Mixer(name="odm", memory=0.9)
    mixed = dataclasses.replace(TRUNK, mixer=mixer)
    branch = dataclasses.replace(child_of(mixed, 5), mixer=None)
    with pytest.raises(ConfigError, match=r"parent\.run_id = .*: expected a parent without a mixer, since where"):
        groups([mixed, branch], windows([mixed, branch]))
    learns = child_of(TRUNK, 5, mixer=mixer)
    assert len(groups([TRUNK, learns], windows([TRUNK, learns]))) == 2


def test_a_branch_may_change_schedule_data_and_reset_the_optimizer() -> None:
    bf16 = dataclasses.replace(TRUNK.training, dtype="bfloat16")
    runs = [TRUNK, child_of(TRUNK, 20), child_of(TRUNK, 5, "reset", training=bf16),
            other("data", mixture=((0.0, (("code", 1.0),)),), batch=8), other("schedule", name="linear", floor=0.0)]
    assert len(groups(runs, windows(runs))) == 4


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 12))
def test_packs_hold_every_run_once_and_never_more_than_their_width(runs: int, lanes: int) -> None:
    made = packs_of(FORTY[:runs], Width(lanes, 1, 1))
    assert [run_id for pack in made for run_id in pack.run_ids] == [run.run_id for run in FORTY[:runs]]
    assert all(1 <= len(pack.run_ids) <= lanes for pack in made)
    assert len({pack.pack_id for pack in made}) == len(made) == -(-runs // lanes)


def test_planning_again_adds_nothing(tmp_path: Path) -> None:
    first = grown(tmp_path, seeds(0, 10))
    text = (tmp_path / "plan.json").read_text()
    assert grown(tmp_path, seeds(0, 10), Width(8, 1, 1)) == first
    assert grown(tmp_path, seeds(3, 6)) == first, "a narrowed sweep keeps the plan"
    assert (tmp_path / "plan.json").read_text() == text
    assert [list(pack.run_ids) for pack in first] == [pack["run_ids"] for pack in json.loads(text)["contents"]]
    assert len(first) == 3


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 10), st.integers(1, 6)), min_size=1, max_size=5))
def test_widening_keeps_old_packs_and_plans_every_run_once(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int, int]]
) -> None:
    folder, before, asked = tmp_path_factory.mktemp("plan"), [], set()
    for start, count, lanes in steps:
        runs = FORTY[start:start + count]
        packs = grown(folder, runs, Width(lanes, 1, 1))
        assert packs[:len(before)] == before
        asked |= {run.run_id for run in runs}
        planned = [run_id for pack in packs for run_id in pack.run_ids]
        assert sorted(planned) == sorted(asked)
        before = packs


def test_width_is_asked_for_once_a_group_with_the_number_missing(tmp_path: Path) -> None:
    asked: list[tuple[int, int]] = []

    def width_of(group: Group, missing: int) -> Width:
        asked.append((group.program.model.depth, missing))
        return WIDTH

    for runs in (seeds(0, 3), seeds(0, 5) + seeds(0, 2, **{"model.depth": 2})):
        Manifest(tmp_path / "plan.json").extend(groups(runs, windows(runs)), width_of)
    assert asked == [(1, 3), (1, 2), (2, 2)]


def large_sweep(seeds: int) -> Sweep:
    """With 25 seeds 10,000 runs: 2,500 trunks of 4 programs, 5 mixtures, 5 rates and 25 seeds, with 3 branches each."""
    mixtures = [{"prose": round(share, 2), "code": round(1 - share, 2)} for share in (0.1, 0.3, 0.5, 0.7, 0.9)]
    grid = product({"model.width": [8, 16, 32, 64]}, {"data.mixture": mixtures},
                   {"schedule.peak": [1e-3 * 2**k for k in range(5)]}, {"training.seed": range(seeds)})
    branches = product({"parent.at": [{"steps": 10}, {"tokens": 1280}, {"steps": 15}]}, {"parent.optimizer": ["keep"]})
    return Sweep(TRUNK, (Stage("trunk", grid), Stage("branch", branches, parent="trunk")))


def planned(path: Path, seeds: int) -> tuple[int, int]:
    runs = large_sweep(seeds).runs()
    packs = grown(path, runs, Width(32, 4, 1))
    return len(runs), sum(len(pack.run_ids) for pack in packs)


def test_ten_thousand_runs_are_planned(tmp_path: Path) -> None:
    """How fast is benchmarks/limits.py's to say."""
    assert planned(tmp_path, seeds=25) == (10_000, 10_000)


def test_a_planned_run_takes_less_than_10_kilobytes(tmp_path: Path) -> None:
    planned(tmp_path / "warm", seeds=1)  # modules and caches once
    tracemalloc.start()
    try:
        assert planned(tmp_path, seeds=3) == (1_200, 1_200)
        assert tracemalloc.get_traced_memory()[1] / 1_200 < 10e3
    finally:
        tracemalloc.stop()
