"""Files that cost time to make, kept on disk under a key, verified when read, made again when damaged."""

import hashlib
import json
import os
import uuid
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from scaling.files import disk_errors, make_folder


@dataclass(frozen=True)
class Entry:
    """Contents of the files kept under one key; `checksum` covers all of them."""

    files: Mapping[str, bytes]
    checksum: str


def cached(folder: Path, key: str, build: Callable[[], Mapping[str, bytes]]) -> Entry:
    """The files that `build` makes, from `folder` if they are there undamaged.

    The files lie in `folder` as `KEY-NAME`, their SHA-256 in `KEY.json`, which is written last. A damaged or missing
    file is named in a warning and removed, and all files of the key are built again. `build` must be deterministic:
    two processes that build at once then replace each other's files by equal ones. Raises StoreError where the disk
    refuses.
    """
    manifest = folder / f"{key}.json"
    with disk_errors(folder):
        make_folder(folder)
        found = manifest.exists()
    if found:
        try:
            with disk_errors(folder):
                return _read(folder, key, manifest)
        except _DamagedError as damage:
            message = f"{damage.path}: {damage.reason}; removed, building it again"
            warnings.warn(message, RuntimeWarning, stacklevel=2)
            damage.path.unlink(missing_ok=True)
            manifest.unlink(missing_ok=True)
    files = dict(build())
    text = json.dumps({name: sha256(content) for name, content in sorted(files.items())}, indent=1)
    with disk_errors(folder):
        for name, content in files.items():
            write(folder / f"{key}-{name}", content)
        write(manifest, text.encode())
    return Entry(files, sha256(text.encode()))


class _DamagedError(Exception):
    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason


def _read(folder: Path, key: str, manifest: Path) -> Entry:
    text = manifest.read_bytes()
    try:
        expected: dict[str, str] = dict(json.loads(text))
    except ValueError as error:
        raise _DamagedError(manifest, f"not a list of checksums ({error})") from error
    files = {}
    for name, checksum in expected.items():
        path = folder / f"{key}-{name}"
        if not path.exists():
            raise _DamagedError(path, "missing")
        files[name] = path.read_bytes()
        if sha256(files[name]) != checksum:
            raise _DamagedError(path, f"SHA-256 is not the {checksum[:12]}... written with it")
    return Entry(files, sha256(text))


def write(path: Path, content: bytes) -> None:
    """Replace the file in one step: a reader sees the old content or the new, also after a crash."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def sha256(content: bytes | memoryview) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(content).hexdigest()


def digest_of(*parts: str | int) -> str:
    """A 32-digit key that identifies a list of values."""
    return sha256(json.dumps(parts).encode())[:32]
