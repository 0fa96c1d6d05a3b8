"""Grids: sizes and order of products, zips and chains; what is no axis is refused."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.fields import ConfigError
from scaling.sweeps.grid import chain, points, product, zip_

AXES = st.dictionaries(st.sampled_from("abcdef"), st.lists(st.integers(), min_size=1, max_size=4), min_size=1)


@given(AXES)
def test_size_of_a_product_is_the_product_of_sizes(axes: dict[str, list[int]]) -> None:
    grid = product(*({key: values} for key, values in axes.items()))
    assert len(grid) == math.prod(len(values) for values in axes.values())
    assert all(point.keys() == axes.keys() for point in grid)
    assert product(axes) == grid


def test_product_runs_through_the_last_axis_fastest() -> None:
    assert product({"a": [1, 2]}, {"b": ["x", "y"], "c": (0,)}) == [
        {"a": 1, "b": "x", "c": 0}, {"a": 1, "b": "y", "c": 0}, {"a": 2, "b": "x", "c": 0}, {"a": 2, "b": "y", "c": 0}]
    assert product() == [{}]


def test_zip_goes_side_by_side() -> None:
    pairs = [{"a": 1, "b": 10}, {"a": 2, "b": 20}]
    assert zip_({"a": [1, 2], "b": [10, 20]}) == zip_({"a": [1, 2]}, {"b": [10, 20]}) == pairs
    assert zip_(pairs, {"c": [5, 6]}) == [{"c": 5, **pairs[0]}, {"c": 6, **pairs[1]}]


def test_chain_appends_and_nests_in_products() -> None:
    both = chain({"a": [1, 2]}, {"b": [3]})
    assert both == [{"a": 1}, {"a": 2}, {"b": 3}]
    assert product(both, {"c": [0, 1]}) == [{**point, "c": c} for point in both for c in (0, 1)]


def test_numpy_values_are_axes() -> None:
    assert [point["a"] for point in points({"a": np.logspace(-2, 0, 3)})] == pytest.approx([0.01, 0.1, 1.0])


@pytest.mark.parametrize(("build", "message"), [
    (lambda: product({"a": [1]}, {"b": []}), r"axis \{'b': \[\]\}: expected at least one value; give one or drop"),
    (lambda: product([]), r"axis \[\]: expected at least one value; give one or drop the axis"),
    (lambda: chain({"a": [1]}, []), r"axis \[\]: expected at least one value"),
    (lambda: product({"a": [1]}, {"a": [2]}), r"grid: key 'a' is set by two axes; keep one of them"),
    (lambda: product([{"a": 1, "b": 2}], {"b": [2]}), r"grid: key 'b' is set by two axes"),
    (lambda: zip_({"a": [1], "b": [1, 2]}), r"grid: zipped axes have lengths \[1, 2\]; make them equal, or use produc"),
    (lambda: zip_(), r"grid: zipped axes have lengths \[\]"),
    (lambda: points({"a": "relu2"}), r"axis 'a' = 'relu2': expected a sequence of values; wrap it in a list"),
    (lambda: points({"a": {"steps": 5}}), r"axis 'a' = \{'steps': 5\}: expected a sequence of values; wrap it in a li"),
    (lambda: points({"a": 3}), r"axis 'a' = 3: expected a sequence of values; wrap it in a list"),
    (lambda: points({"a": (value for value in [1])}), r"axis 'a' = <generator.*: expected a sequence of values"),
    (lambda: points("model.width"), r"axis 'model\.width': expected \{key: values\} or a list of points; write"),
    (lambda: points(["model.width"]), r"axis \['model\.width'\]: expected \{key: values\} or a list of points; write"),
])
def test_what_is_no_axis_is_refused(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build()
