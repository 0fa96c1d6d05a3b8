"""Who is at work where: locks that the operating system drops when their holder dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from scaling.files import disk_errors


class LockedError(RuntimeError):
    """Another process holds the workdir or the job."""


@contextlib.contextmanager
def lock_file(path: Path, what: str, wait: bool = False) -> Iterator[None]:
    """Hold the lock `path`; `wait` for its holder, or raise LockedError that names it.

    Raises StoreError where the disk refuses. What an earlier holder wrote into the file counts for nothing.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "ab+", buffering=0)  # noqa: SIM115  closed below
    with file:
        try:
            with disk_errors(path):
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
                file.truncate(0)
                file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().decode(errors="replace").strip() or "unknown"
            raise LockedError(f"{what}: another runner is at work there ({holder}); wait for it or choose another "
                              "--workdir") from error
        yield


@contextlib.contextmanager
def workdir_lock(workdir: Path) -> Iterator[None]:
    """Hold `workdir`/lock. Raises LockedError, naming the holder, when another process does."""
    with lock_file(workdir / "lock", f"workdir {workdir}"):
        yield
