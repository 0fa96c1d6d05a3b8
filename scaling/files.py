"""Files written whole or not at all, and what disks do wrong as errors that a user can act on."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

# What a user can see to, by error number; anything else is a defect and keeps its trace.
CURES = {
    errno.ENOSPC: "free space", errno.EDQUOT: "free space", errno.EFBIG: "raise the limit on the size of files",
    errno.EROFS: "make it writable", errno.EACCES: "let this user at it", errno.EPERM: "let this user at it",
    errno.EIO: "check the disk", errno.ENOTDIR: "move the file in the way", errno.EEXIST: "move the file in the way",
    errno.ENAMETOOLONG: "use a shorter name", errno.ELOOP: "mend the links that lead in a circle",
    errno.ENOLCK: "use a file system that can lock files", errno.EOPNOTSUPP: "use a file system that can lock files",
}


class StoreError(RuntimeError):
    """What lies on disk, or cannot: names the file and the cure."""


class CorruptFileError(StoreError):
    """A file or folder, `path`, whose bytes are not those that were written."""

    def __init__(self, path: Path, why: str, cure: str = "restore it from a copy, or run the sweep again, which sets "
                 "it aside and redoes only its work") -> None:
        super().__init__(path, why, cure)
        self.path, self.why, self.cure = path, why, cure

    def __str__(self) -> str:
        return f"{self.path}: {self.why}; {self.cure}"


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Raise StoreError, naming `path` and the cure, for what a disk refuses: full, read-only, forbidden, broken."""
    try:
        yield
    except OSError as error:
        if error.errno not in CURES:
            raise
        reason = os.strerror(error.errno).lower()
        raise StoreError(f"{path}: {reason}; {CURES[error.errno]} and run the same command again: finished work is "
                         "kept") from error


def make_folder(folder: Path) -> None:
    """Make a folder and those above it. Raises StoreError for a place that holds no folders, such as /proc."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:
        raise StoreError(f"{folder}: no folder can be made here; name another one") from error


def replace_durably(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write(temporary path)`, force it to disk, then rename it to `path`: readers see all of it or nothing.

    Raises StoreError when the disk refuses; the old file is then still there.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with disk_errors(path):
        make_folder(path.parent)
        try:
            write(temporary)
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Force a folder's list of names to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def listed(folder: Path) -> list[str]:
    """Names in a folder, sorted; none where it does not exist. Unlike glob it never takes forbidden for empty."""
    try:
        with disk_errors(folder):
            return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []


def set_aside(path: Path, root: Path) -> Path:
    """Move a damaged file or folder of `root` to the same place under `root`/corrupt; returns where it lies now."""
    place = root / "corrupt" / path.relative_to(root)
    names = (place.with_name(f"{place.name}~{n}" if n else place.name) for n in itertools.count())
    with disk_errors(path):
        make_folder(place.parent)
        free = next(name for name in names if not name.exists())
        path.rename(free)
        sync_folder(free.parent)
    return free
