"""How many steps a call may take: grown towards CHUNK, cut to what CHUNK_SECONDS hold."""

from scaling.training.loop import CHUNK_SECONDS, FIRST_CALL, Pace
from scaling.training.trainer import CHUNK


def paced(seconds_per_step: float, calls: int) -> list[int]:
    """Steps of successive calls on devices of this speed."""
    now = [0.0]
    pace, found = Pace(lambda: now[0]), []
    for _ in range(calls):
        steps = pace.steps
        pace.sent(steps)
        found.append(steps)
        now[0] += steps * seconds_per_step
    return found


def test_fast_devices_get_whole_chunks_after_a_few_calls() -> None:
    assert paced(1e-4, 6) == [FIRST_CALL, FIRST_CALL, 4 * FIRST_CALL, CHUNK, CHUNK, CHUNK]


def test_slow_devices_get_calls_that_last_as_long_as_a_signal_may_wait() -> None:
    assert paced(CHUNK_SECONDS / 10.5, 4) == [FIRST_CALL, FIRST_CALL, 10, 10]
    assert paced(3 * CHUNK_SECONDS, 4)[2:] == [1, 1], "never less than a step"
