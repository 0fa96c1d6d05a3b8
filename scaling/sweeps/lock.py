"""Who is at work where: locks that the operating system drops when their holder dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

from scaling.files import disk_errors, make_folder


class LockedError(RuntimeError):
    """Another process holds the workdir or the job."""


@contextlib.contextmanager
def _locked(path: Path, mode: int, what: str) -> Iterator[FileIO]:
    with disk_errors(path):
        make_folder(path.parent)
        file = FileIO(path, "a+")
    with file:
        try:
            with disk_errors(path):
                fcntl.flock(file, mode)
        except BlockingIOError as error:
            holder = said(file).strip() or "unknown"
            raise LockedError(f"{what}: another runner is at work there ({holder}); wait for it or choose another "
                              "--workdir") from error
        yield file


@contextlib.contextmanager
def lock_file(path: Path, what: str, wait: bool = False) -> Iterator[FileIO]:
    """Hold the lock `path`; `wait` for its holder, or raise LockedError that names it.

    Raises StoreError where the disk refuses. What an earlier holder wrote into the file counts for nothing.
    """
    with _locked(path, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), what) as file:
        say(file, f"process {os.getpid()} on {socket.gethostname()}")
        yield file


@contextlib.contextmanager
def workdir_lock(workdir: Path) -> Iterator[FileIO]:
    """Hold `workdir`/lock. Raises LockedError, naming the holder, when another process does."""
    with lock_file(workdir / "lock", f"workdir {workdir}") as file:
        yield file


@contextlib.contextmanager
def shared_lock(path: Path, what: str) -> Iterator[FileIO]:
    """Hold the lock `path` beside others. Raises LockedError while one process holds it for itself."""
    with _locked(path, fcntl.LOCK_SH | fcntl.LOCK_NB, what) as file:
        yield file


def share(file: FileIO, what: str) -> None:
    """Let others hold a lock too from now on, by `shared_lock`. Raises LockedError if another runner was faster."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise LockedError(f"{what}: another runner took it over; choose another --workdir") from error


def last_words(path: Path) -> str | None:
    """What the last holder of the lock `path` said; None while somebody holds it."""
    try:
        with shared_lock(path, str(path)) as file:
            return said(file)
    except LockedError:
        return None


def say(file: FileIO, words: str) -> None:
    """Write into a lock that is held what others are told of its holder."""
    with disk_errors(Path(os.fsdecode(file.name))):
        file.truncate(0)
        file.write(words.encode())


def said(file: FileIO) -> str:
    """What the last holder wrote into a lock."""
    file.seek(0)
    return file.read().decode(errors="replace")
