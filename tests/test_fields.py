"""Conversion of nested mappings by metadata alone, on a dataclass that the project does not know."""

import dataclasses
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from scaling import fields
from scaling.fields import TRACED, ConfigError, check, check_key, convert, flatten, static, traced, without_traced


@dataclasses.dataclass(frozen=True)
class Wheel:
    spokes: int = static()
    radius: float = traced()
    tags: tuple[str, ...] = static(())

    def __post_init__(self) -> None:
        check(self.spokes != 13, "wheel.spokes", self.spokes, "another number", "use 12")


@dataclasses.dataclass(frozen=True)
class Cart:
    front: Wheel = static()
    load: float | None = traced()
    colour: str = static(choices=("red", "green"))
    parts: tuple[tuple[str, int], ...] = static((), convert=fields.pairs)
    spare: Wheel | None = traced(None)


WHEEL = {"spokes": 12, "radius": 1}
CART = {"front": WHEEL, "load": None, "colour": "red"}


def test_nested_mappings_become_dataclasses_with_numbers_of_their_type() -> None:
    cart = convert(Cart, MappingProxyType({**CART, "load": np.float64(2), "spare": WHEEL}), "")
    assert cart == Cart(Wheel(12, 1.0), 2.0, "red", (), Wheel(12, 1.0))
    assert [type(number) for number in (cart.load, cart.front.radius, cart.front.spokes)] == [float, float, int]
    assert convert(Wheel, {"spokes": 12.0, "radius": 1}, "w").spokes == 12
    assert convert(Cart, cart, "") is cart


@pytest.mark.parametrize(("change", "message"), [
    ({"fornt": 1}, r"config: unknown key 'fornt'; did you mean 'front'\?"),
    ({"zzz": 1}, r"config: unknown key 'zzz'; use one of front, load, colour, parts, spare"),
    ({"front": [12, 1]}, r"front = \[12, 1\]: expected a mapping with the keys spokes, radius, tags"),
    ({"front": {"spokes": 12}}, r"front = \['spokes'\]: expected every key of spokes, radius, tags; add radius"),
    ({"front": {**WHEEL, "spokes": 12.5}}, r"front\.spokes = 12\.5: expected int, not float; write an int"),
    ({"front": {**WHEEL, "tags": "ab"}}, r"front\.tags = 'ab': expected a sequence; write a tuple"),
    ({"front": {**WHEEL, "tags": ["a", 1]}}, r"front\.tags = 1: expected str, not int; write a str"),
    ({"front": {**WHEEL, "spokes": 13}}, r"front: wheel\.spokes = 13: expected another number; use 12"),
    ({"load": True}, r"load = True: expected float, not bool; write a float"),
    ({"load": "2"}, r"load = '2': expected float, not str; write a float"),
    ({"colour": "rad"}, r"colour = 'rad': expected one of red, green; did you mean 'red'\?"),
    ({"colour": "blue"}, r"colour = 'blue': expected one of red, green$"),
    ({"parts": {"axle": 1.5}}, r"parts = 1\.5: expected int, not float; write an int"),
    ({"parts": [("axle", 1, 2)]}, r"parts = .*: expected a mapping from domain names; write a dict"),
    ({"parts": [("axle", 1), ("axle", 1)]}, r"parts = .*: expected each name once; drop one of 'axle'"),
])
def test_refusals_name_the_path(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        convert(Cart, {**CART, **change}, "")


def test_pairs_are_sorted_whatever_form_they_come_in() -> None:
    assert fields.pairs({"b": 1, "a": 2}, "x") == fields.pairs([["b", 1], ["a", 2]], "x") == (("a", 2), ("b", 1))


def test_traced_fields_leave_the_key_and_nested_static_ones_stay() -> None:
    cart = convert(Cart, {**CART, "spare": WHEEL}, "")
    key = without_traced(cart)
    assert (key.front.spokes, key.front.radius, key.load, key.spare) == (12, TRACED, TRACED, TRACED)
    other = convert(Cart, {**CART, "load": 9.0, "front": {**WHEEL, "radius": 7}}, "")
    assert without_traced(other) == key
    assert hash(without_traced(other)) == hash(key)
    assert without_traced(convert(Cart, {**CART, "front": {**WHEEL, "spokes": 10}}, "")) != key
    assert cart.front.radius == 1.0, "the original is untouched"


def test_flatten_gives_a_column_a_leaf_and_a_fresh_dict() -> None:
    cart = convert(Cart, {**CART, "parts": {"axle": 2}}, "")
    expected = {"front.spokes": 12, "front.radius": 1.0, "front.tags": "[]", "load": None, "colour": "red",
                "parts": '[["axle", 2]]', "spare": None}
    assert flatten(cart) == expected
    flatten(cart)["colour"] = "green"
    assert flatten(cart) == expected


def test_check_and_check_key_speak_only_when_something_is_wrong() -> None:
    check(True, "a", 1, "b", "c")
    check_key("a", iter(["a", "b"]), "here")
    with pytest.raises(ConfigError, match=r"^x\.y = 3: expected less; use 2$"):
        check(False, "x.y", 3, "less", "use 2")
