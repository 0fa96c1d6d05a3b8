"""Whatever a grid is made of: points, or a refusal that names the axis."""

from typing import Any

import pytest
from fuzzing import JSON, LEAVES, TEXT, attempt, fuzzed, values
from hypothesis import given
from hypothesis import strategies as st

from helpers import small_run
from scaling.config import run_from
from scaling.fields import ConfigError
from scaling.sweeps.grid import chain, points, product, zip_
from scaling.sweeps.sweep import Stage, Sweep

BASE = small_run()
GOOD = st.sampled_from([
    {"training.seed": [0, 1, 2]}, {"model.width": [8, 16], "schedule.peak": [1e-3]}, [{"training.seed": 5}],
    [{"data.mixture": {"prose": 1.0}}, {"model.depth": 2}], {"training.duration": [{"steps": 5}, {"tokens": 640}]},
    {"parent.at": [{"steps": 3}]}, [{"parent.optimizer": "keep", "parent.at": {"steps": 2}}]])
AXES = st.one_of(GOOD, GOOD, values(st.one_of(TEXT, st.integers())),
                 st.dictionaries(
                     st.sampled_from(["training.seed", "model.width", "parent.at", "parent", "model", "x.y"]),
                     st.one_of(JSON, st.lists(LEAVES, max_size=3)), max_size=3))


@fuzzed
@given(st.lists(AXES, max_size=3), st.sampled_from([product, zip_, chain]))
def test_axes_give_points_or_are_refused(axes: list[Any], combine: Any) -> None:
    found = attempt(lambda: combine(*axes), ConfigError)
    if found is None:
        return
    assert all(isinstance(point, dict) for point in found)
    if combine is chain:
        assert len(found) == sum(len(points(axis)) for axis in axes)


STAGES = st.builds(Stage, st.one_of(st.sampled_from(["a", "b", "c"]), TEXT), AXES,
                   st.one_of(st.none(), st.sampled_from(["a", "b", "c"]), TEXT))


@fuzzed
@given(st.lists(STAGES, max_size=3),
       st.dictionaries(st.sampled_from(["training.seed", "model", "parent.at.steps", "x"]), JSON, max_size=2))
def test_a_sweep_gives_runs_or_is_refused(stages: list[Stage], pinned: dict[str, Any]) -> None:
    runs = attempt(lambda: Sweep(BASE, tuple(stages), pinned).runs(), ConfigError)
    if runs is None:
        return
    assert len({run.run_id for run in runs}) == len(runs)
    for run in runs:
        assert run_from(run.dump()) == run


@pytest.mark.parametrize(("axis", "message"), [
    (5, r"axis 5: expected \{key: values\} or a list of points"),
    (None, r"axis None: expected \{key: values\} or a list"),
    ([{3: 1}], r"axis key 3: expected text"),
])
def test_axes_found_by_fuzzing_are_refused_by_name(axis: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Sweep(BASE, (Stage("runs", axis),)).runs()
