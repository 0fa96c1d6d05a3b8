"""Checksums that travel with what they vouch for: inside a Parquet file, inside a JSON file, beside a folder's files.

A reader hashes first and parses after: damaged bytes never reach a parser.
"""

from __future__ import annotations

import errno
import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from scaling.files import CorruptFileError, StoreError, disk_errors, replace_durably

DIGEST = 32  # bytes of a SHA-256
SEAL = "seal.json"
ENDING = 8  # bytes that end a Parquet file: the footer's length, then "PAR1"


def write_parquet(path: Path, table: pa.Table) -> None:
    """Write a Parquet file with the SHA-256 of all its other bytes between data and footer, where readers never look:
    they find the footer from the end of the file and the data from offsets in the footer.
    """
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer)
    content = memoryview(buffer.getvalue())
    footer = len(content) - ENDING - int.from_bytes(content[-ENDING:-4], "little")
    with open(path, "wb") as file:
        file.writelines((content[:footer], hashlib.sha256(content).digest(), content[footer:]))


def read_parquet(path: Path) -> pa.Table:
    """The table of a sealed Parquet file. Raises CorruptFileError when a byte of it is not as written."""
    content = verify_parquet(path)
    try:
        return pq.read_table(pa.BufferReader(content), partitioning=None)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise CorruptFileError(path, f"no table, though its checksum fits: {error}") from error


def verify_parquet(path: Path) -> memoryview:
    """The bytes of a sealed Parquet file. Raises CorruptFileError when one of them is not as written."""
    content = memoryview(_read(path))
    footer = len(content) - ENDING - int.from_bytes(content[-ENDING:-4], "little")
    if len(content) < ENDING or footer < DIGEST:
        raise CorruptFileError(path, "damaged: it is cut short, or no Parquet file")
    digest = hashlib.sha256(content[:footer - DIGEST])
    digest.update(content[footer:])
    if digest.digest() != content[footer - DIGEST:footer]:
        raise CorruptFileError(path, "damaged, or written by another program: its checksum does not match its bytes")
    return content


def write_json(path: Path, contents: Any) -> None:
    """Write `contents` as JSON with their checksum, whole or not at all."""
    text = json.dumps({"sha256": _digest(contents), "contents": contents}, indent=1)
    replace_durably(path, lambda temporary: temporary.write_text(text))


def read_json(path: Path) -> Any:
    """Contents of a sealed JSON file. Raises CorruptFileError when they are not as written."""
    try:
        sealed = json.loads(_read(path))
        contents = sealed["contents"]
        intact = _digest(contents) == sealed["sha256"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptFileError(path, f"damaged: no sealed JSON ({type(error).__name__}: {error})") from error
    if not intact:
        raise CorruptFileError(path, "damaged, or edited by hand: its checksum does not match its contents")
    return contents


def seal_folder(folder: Path, facts: dict[str, Any]) -> None:
    """Vouch for all files in a folder, and for `facts`, which lie with their checksums in its seal.json.

    Raises StoreError for a folder without files.
    """
    files = _digests(folder)
    if not files:
        raise StoreError(f"{folder}: holds no files to seal, expected those just written; let nothing else remove "
                         "them and run the same command again: finished work is kept")
    write_json(folder / SEAL, {"facts": facts, "files": files})


def read_folder(folder: Path) -> dict[str, Any]:
    """The facts of a sealed folder. Raises CorruptFileError when a file in it is not as written, missing or new."""
    if not (folder / SEAL).exists():
        raise CorruptFileError(folder, f"damaged: without its {SEAL}")
    try:
        sealed = read_json(folder / SEAL)
    except CorruptFileError as error:
        raise CorruptFileError(folder, error.why) from error
    found, wanted = _digests(folder), sealed["files"]
    changed = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
    if changed:
        raise CorruptFileError(folder, f"damaged: not as written are {', '.join(changed)}")
    if not wanted:
        raise CorruptFileError(folder, f"damaged: holds nothing but its {SEAL}")
    return sealed["facts"]


def _digests(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): hashlib.sha256(_read(path)).hexdigest()
            for path in sorted(folder.rglob("*")) if path.is_file() and path != folder / SEAL}


def _digest(contents: Any) -> str:
    return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()


def _read(path: Path) -> bytes:
    """All bytes of a file. Raises CorruptFileError where the disk cannot give them, StoreError where it may not."""
    try:
        with disk_errors(path):
            return path.read_bytes()
    except FileNotFoundError as error:
        raise StoreError(f"{path}: gone; restore it, or read again where a runner is at work") from error
    except StoreError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EIO:
            raise CorruptFileError(path, "damaged: the disk cannot read it") from error
        raise
