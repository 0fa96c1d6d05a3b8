"""Where a run may start: one parent, or the weighted average of several; what is refused, and which ids stay."""

import dataclasses
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import small_config, small_run
from scaling.config import Duration, Parent, run_from
from scaling.fields import ConfigError

ONE = {"run_id": "abc", "at": {"steps": 5}, "optimizer": "reset"}


def average(others: Any, **changes: Any) -> dict[str, Any]:
    return small_config(parent={**ONE, "others": others, **changes})


def test_a_branch_from_one_parent_keeps_the_id_it_had_before_averages_were() -> None:
    """The ids are of the configuration as it was without the field `others`."""
    ids = {"33a2911202bc": Parent("abc", Duration(steps=5), "keep"),
           "584116d70ba1": Parent("abc", Duration(tokens=640), "reset")}
    assert {dataclasses.replace(small_run(), parent=parent).run_id: parent for parent in ids.values()} == ids
    assert run_from(average(None)).run_id == run_from(average({})).run_id == small_run(parent=ONE).run_id


def test_parents_and_their_weights_are_part_of_the_id() -> None:
    given_others = [None, {"abd": 0.5}, {"abd": 0.25}, {"abe": 0.5}, {"abd": 0.25, "abe": 0.25}]
    runs = [run_from(average(others)) for others in given_others]
    assert len({run.run_id for run in runs}) == len(runs)
    assert len({run.program for run in runs}) == 1, "where a run starts is no part of its program"
    assert runs[-1].flat()["parent.others"] == '[["abd", 0.25], ["abe", 0.25]]'


def test_the_first_parent_has_the_rest_of_the_weight() -> None:
    run = run_from(average({"abe": 0.5, "abd": 0.125}))
    assert run.parent is not None
    assert run.parent.weights == {"abc": 0.375, "abd": 0.125, "abe": 0.5}
    assert run.parent_ids == ("abc", "abd", "abe")
    assert small_run(parent=ONE).parent_ids == ("abc",)
    assert small_run().parent_ids == ()


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.text("0123456789", min_size=1, max_size=4), st.integers(1, 9), min_size=1, max_size=4))
def test_dump_and_key_order_keep_the_run(parts: dict[str, int]) -> None:
    others = {run_id: part / (1 + sum(parts.values())) for run_id, part in parts.items()}
    run = run_from(average(others))
    assert run == run_from(average(dict(reversed(others.items()))))
    assert run_from(json.loads(json.dumps(run.dump()))) == run
    assert run.parent is not None
    assert sum(run.parent.weights.values()) == pytest.approx(1)


@pytest.mark.parametrize(("values", "message"), [
    (average({"abd": 0.5}, optimizer="keep"), "parent.optimizer = 'keep': expected 'reset' with parent.others, since "
     "the moments of several optimizers belong to no average; use 'reset', or a single parent"),
    (average({"abc": 0.5}), "parent.others = 'abc': expected runs other than parent.run_id, whose weight is the rest; "
     "leave it out"),
    (average({"abd": 0.0}), "parent.others.abd = 0.0: expected a weight between 0 and 1; leave the run out"),
    (average({"abd": -0.5, "abe": 0.5}), "parent.others.abd = -0.5: expected a weight between 0 and 1"),
    (average({"abd": float("nan")}), "parent.others.abd = nan: expected a weight between 0 and 1"),
    (average({"abd": 0.5, "abe": 0.5}), "parent.others = {'abd': 0.5, 'abe': 0.5}: expected weights that sum to less "
     "than 1, as parent.run_id has the rest; lower them, or leave one run out"),
    (average(0.5), "parent.others = 0.5: expected weights by run_id; write a dict"),
    (average({"abd": "half"}), "parent.others = 'half': expected float, not str; write a float"),
    (average([("abd", 0.2), ("abd", 0.3)]), "expected each name once; drop one of 'abd'"),
])
def test_an_average_that_is_none_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        run_from(values)
