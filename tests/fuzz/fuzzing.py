"""What the fuzz tests share: how many cases, and values that a file or a command line may hold."""

import copy
import json
import math
import os
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

PROPERTIES = 20  # in tests/fuzz; their cases together are 10,000 in the full form
FULL = os.environ.get("SCALING_FUZZ") == "full"
CASES = 10_000 // PROPERTIES if FULL else 15

# The suite's cases are always the same; the full form draws new ones each time.
fuzzed: Callable[[Any], Any] = settings(
    max_examples=CASES, deadline=None, derandomize=not FULL, database=None, phases=[Phase.generate], print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large,
                           HealthCheck.function_scoped_fixture])

# Text that has broken programs: not ASCII, not encodable, long, a path, a format, code in several languages.
NASTY_TEXT = (
    "", " ", "\x00", "\ud800", "ﬀ", "\u202e", "\n", "\U0001d518" * 3, "a" * 5000, "../../etc/passwd",
    "{0.__class__}", "%s%n",
    "__import__('os').system('false')", "!!python/object/apply:os.system ['false']", "cos\nsystem\n(S'false'\ntR.",
    "os.system", "__class__", "nan", "1e400", "True")
NUMBERS = st.one_of(
    st.integers(-3, 70), st.integers(), st.sampled_from([2**31, 2**63, -2**63 - 1, 10**400, -10**400]),
    st.floats(), st.sampled_from([math.nan, math.inf, -math.inf, 1e308, -0.0, 5e-324]))
TEXT = st.one_of(st.sampled_from(NASTY_TEXT), st.text(st.characters(exclude_categories=()), max_size=20))
LEAVES = st.one_of(st.none(), st.booleans(), NUMBERS, TEXT)


def nested(depth: int, mapping: bool) -> Any:
    """A value inside `depth` lists or mappings."""
    value: Any = 1
    for _ in range(depth):
        value = {"a": value} if mapping else [value]
    return value


DEEP = st.builds(nested, st.sampled_from([50, 900, 3000, 20_000]), st.booleans())


def values(keys: st.SearchStrategy[Any], leaves: st.SearchStrategy[Any] = LEAVES) -> st.SearchStrategy[Any]:
    """Nested values with these keys."""
    return st.one_of(DEEP, st.recursive(
        leaves, lambda inside: st.one_of(st.lists(inside, max_size=4), st.dictionaries(keys, inside, max_size=4)),
        max_leaves=12))


JSON = values(TEXT)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value inside a nested one."""
    inner = () if len(path) > 8 else value
    items = inner.items() if isinstance(inner, dict) else enumerate(inner) if isinstance(inner, list) else ()
    for key, inside in items:
        yield (*path, key)
        yield from places(inside, (*path, key))


@st.composite
def mutated(draw: st.DrawFn, valid: Any, replacements: st.SearchStrategy[Any] = JSON, most: int = 3) -> Any:
    """A valid nested value with a few of its parts replaced, removed, repeated or renamed."""
    value = copy.deepcopy(valid)
    for _ in range(draw(st.integers(1, most))):
        *path, last = draw(st.sampled_from(list(places(value)) or [(None,)]))
        inside = value
        for key in path:
            inside = inside[key]
        action = draw(st.sampled_from(["replace", "replace", "replace", "remove", "add"]))
        if action == "replace" and last is not None:
            inside[last] = draw(replacements)
        elif action == "remove" and last is not None:
            del inside[last]
        elif isinstance(inside, dict):
            inside[draw(TEXT)] = draw(replacements)
        elif isinstance(inside, list):
            inside.insert(draw(st.integers(0, len(inside))), draw(replacements))
    return value


def json_text(value: Any) -> str:
    """As JSON as it can be: NaN and Infinity as Python writes them, nothing where it is too deep to write."""
    try:
        return json.dumps(value)
    except (RecursionError, ValueError):  # too deep, or an integer of too many digits
        return "[" * 100_000


def attempt(make: Callable[[], Any], *errors: type[Exception]) -> Any:
    """What `make()` gives, or None for a refusal by one of `errors`, which must say something."""
    try:
        return make()
    except errors as error:
        refused(error)
        return None
    except RecursionError:  # its trace takes minutes to print
        raise AssertionError("a value that is too deep ended in a RecursionError") from None


def refused(error: Exception, names: str = "") -> None:
    """A refusal says something that a person can read and a terminal can show, and `names` what is meant."""
    text = str(error)
    assert names in text
    assert len(text) > 10
    assert len(text) < 20_000, "a message is no dump of the input"
    text.encode("utf-8", "backslashreplace")
