"""Asked to stop: while packs train, a signal lets the loop save first; at any other time it ends the program there."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

from scaling.training.loop import Preempted

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: not done, the same command goes on; what schedulers are told to requeue


class Stop:
    """Whether this process was asked to stop, by SIGTERM or Ctrl-C; a second Ctrl-C kills. Main thread only.

    Outside `saving`, and in it until somebody first asks, the signal raises Preempted wherever it finds the program:
    what is on disk is whole at any moment.
    """

    def __init__(self) -> None:
        self._asked = self._heeded = False
        signal.signal(signal.SIGTERM, self._hear)
        signal.signal(signal.SIGINT, self._hear)

    def __call__(self) -> bool:
        """Whether to save and end now. Who asks once must go on asking until the block `saving` ends."""
        self._heeded = True
        return self._asked

    @contextlib.contextmanager
    def saving(self) -> Iterator[Stop]:
        """While packs train. Raises Preempted at the end of the block for a signal that nobody has acted on."""
        try:
            yield self
        finally:
            self._heeded = False
        if self._asked:
            raise Preempted("stopped on request after training")

    def _hear(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        self._asked = True
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        if not self._heeded:
            raise Preempted(f"stopped by {name}")
        os.write(2, f"{name}: saving, then stopping\n".encode())  # print is not safe in a signal handler
