"""Valid configurations of every kind, written out and read back."""

import json
import re
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import small_config
from scaling import model, schedule
from scaling.config import run_from


def shares() -> st.SearchStrategy:
    """Shares of two domains that sum to 1."""
    return st.floats(0, 1).map(lambda share: {"prose": share, "code": 1 - share})


def durations() -> st.SearchStrategy:
    return st.one_of(
        st.fixed_dictionaries({"steps": st.integers(0, 10**6)}),
        st.fixed_dictionaries({"tokens": st.floats(0, 1e12)}),
        st.fixed_dictionaries({"epochs": st.floats(0, 100)}),
    )


@st.composite
def configurations(draw: st.DrawFn) -> dict[str, Any]:
    """Valid configurations, far from each other."""
    heads, half = draw(st.integers(1, 4)), draw(st.integers(1, 8))
    name = draw(st.sampled_from([name for name in schedule.SCHEDULES if name not in ("one_cycle", "power", "table")]))
    infinite = name == "infinite"
    accumulation = draw(st.integers(1, 4))
    points = draw(st.none() | st.integers(2, 50))
    return small_config(**{
        "model.heads": heads, "model.width": 2 * heads * half, "model.depth": draw(st.integers(1, 4)),
        "model.activation": draw(st.sampled_from(model.ACTIVATIONS)),
        "model.positions": draw(st.sampled_from(model.POSITIONS)), "model.tied_head": draw(st.booleans()),
        "data.mixture": draw(st.one_of(shares(), st.tuples(shares(), shares()).map(
            lambda both: [(0.0, both[0]), (0.5, both[1])]))),
        "data.unique_tokens": draw(st.dictionaries(st.sampled_from(["prose", "code"]), st.integers(16, 10**9))),
        "data.batch": accumulation * draw(st.integers(1, 4)), "training.accumulation": accumulation,
        "optimizer.clip_norm": draw(st.none() | st.floats(1e-3, 1e3)), "schedule.name": name,
        "schedule.floor": 1.0 if name == "constant" else draw(st.floats(1e-3 if infinite else 0.0, 1)),
        "schedule.peak": draw(st.floats(0, 1e3)), "schedule.warmup": draw(durations()),
        "schedule.decay": draw(durations()) if infinite or name == "wsd" else None,
        "schedule.level": 1.0 if infinite else None, "schedule.cooldown": draw(durations()) if infinite else None,
        "training.duration": draw(durations()),
        "training.seed": draw(st.integers(0, 2**31 - 1)), "evaluation.points": points,
        "evaluation.steps": None if points else draw(st.lists(st.integers(0, 10**6), unique=True).map(sorted)),
        "parent": draw(st.none() | st.fixed_dictionaries(
            {"run_id": st.text(), "at": durations(), "optimizer": st.sampled_from(["keep", "reset"])})),
    })


@settings(max_examples=60, deadline=None)
@given(configurations())
def test_dump_and_run_from_are_inverse(values: dict[str, Any]) -> None:
    run = run_from(values)
    again = run_from(json.loads(json.dumps(run.dump())))
    assert again == run
    assert again.run_id == run.run_id
    assert re.fullmatch(r"[0-9a-f]{12}", run.run_id)
    assert hash(again.program) == hash(run.program)
