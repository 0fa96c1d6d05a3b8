"""What a signal does: while packs train it only asks, elsewhere it ends the program there."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from scaling.sweeps.preemption import EXIT_CODE, Stop
from scaling.training.loop import Preempted


@pytest.fixture
def stop() -> Iterator[Stop]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield Stop()
    for number, handler in before.items():
        signal.signal(number, handler)


def trained(stop: Stop, number: signal.Signals, notices: bool) -> None:
    """As the loop: ask between calls of the devices, save when asked to; or come to the end before the next call."""
    with stop.saving() as interrupted:
        assert not interrupted()
        signal.raise_signal(number)
        if notices and interrupted():
            raise Preempted("its checkpoint is written")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_while_packs_train_a_signal_asks(number: signal.Signals, stop: Stop, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Preempted, match="its checkpoint is written"):
        trained(stop, number, notices=True)
    assert capfd.readouterr().err == f"{number.name}: saving, then stopping\n"


def test_before_training_and_after_it_a_signal_ends_the_program_there(stop: Stop) -> None:
    with pytest.raises(Preempted, match="stopped by SIGTERM"):
        signal.raise_signal(signal.SIGTERM)
    with pytest.raises(Preempted, match="stopped by SIGTERM"), stop.saving():
        signal.raise_signal(signal.SIGTERM)  # nobody has asked yet: planning
    later = Stop()
    with later.saving() as interrupted:
        assert not interrupted()
    with pytest.raises(Preempted, match="stopped by SIGTERM"):
        signal.raise_signal(signal.SIGTERM)


def test_a_signal_in_the_last_call_of_the_devices_is_not_lost(stop: Stop) -> None:
    with pytest.raises(Preempted, match="stopped on request after training"):
        trained(stop, signal.SIGTERM, notices=False)


def test_a_second_interrupt_kills() -> None:
    script = ("import signal; from scaling.sweeps.preemption import Stop\n"
              "with Stop().saving() as interrupted:\n"
              "    interrupted(); signal.raise_signal(signal.SIGINT); print('saving', flush=True)\n"
              "    signal.raise_signal(signal.SIGINT); print('alive')\n")
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stdout) == (-signal.SIGINT, "saving\n"), ended.stderr


def test_the_exit_code_is_that_of_a_temporary_failure() -> None:
    assert EXIT_CODE == os.EX_TEMPFAIL == 75
