"""Damage is found, named and repaired; builders at once do no harm; a crash leaves nothing half-written."""

import errno
import os
import threading
from pathlib import Path

import pytest

from scaling.data import cache
from scaling.data.cache import cached, digest_of, write
from scaling.files import StoreError

CONTENT = {"train": b"abc" * 100, "validation": b"xyz"}


class Builder:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> dict[str, bytes]:
        self.calls += 1
        return dict(CONTENT)


def test_the_second_call_reads_what_the_first_built(tmp_path: Path) -> None:
    build = Builder()
    first = cached(tmp_path / "deep" / "folder", "key", build)
    second = cached(tmp_path / "deep" / "folder", "key", build)
    assert build.calls == 1
    assert first == second
    assert second.files == CONTENT


def test_keys_do_not_meet_and_checksums_follow_the_content(tmp_path: Path) -> None:
    one = cached(tmp_path, "one", lambda: {"train": b"1"})
    two = cached(tmp_path, "two", lambda: {"train": b"2"})
    again = cached(tmp_path, "three", lambda: {"train": b"1"})
    assert (one.files, two.files) == ({"train": b"1"}, {"train": b"2"})
    assert one.checksum == again.checksum != two.checksum


@pytest.mark.parametrize(
    ("name", "damage", "reason"),
    [
        ("key-train", lambda path: path.write_bytes(path.read_bytes()[:-1]), "SHA-256 is not the"),
        ("key-train", lambda path: path.write_bytes(b"abd" * 100), "SHA-256 is not the"),
        ("key-validation", lambda path: path.write_bytes(b""), "SHA-256 is not the"),
        ("key-validation", lambda path: path.unlink(), "missing"),
        ("key.json", lambda path: path.write_bytes(path.read_bytes()[:20]), "not a list of checksums"),
        ("key.json", lambda path: path.write_bytes(b"\xff\xfe"), "not a list of checksums"),
    ],
)
def test_damage_is_named_and_repaired(tmp_path: Path, name: str, damage, reason: str) -> None:
    build = Builder()
    cached(tmp_path, "key", build)
    damage(tmp_path / name)
    with pytest.warns(RuntimeWarning, match=f"{name}: {reason}.*; removed, building it again"):
        repaired = cached(tmp_path, "key", build)
    assert repaired.files == CONTENT
    assert cached(tmp_path, "key", build) == repaired  # no warning this time
    assert build.calls == 2


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write(path, b"old")

    def crash(descriptor: int) -> None:
        raise OSError("power cut")

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(OSError, match="power cut"):
        write(path, b"new")
    assert path.read_bytes() == b"old"


def test_a_build_cut_off_before_its_manifest_counts_as_not_built(tmp_path: Path, monkeypatch) -> None:
    written = cache.write

    def crash(path: Path, content: bytes) -> None:
        if path.suffix == ".json":
            raise OSError("power cut")
        written(path, content)

    build = Builder()
    with monkeypatch.context() as patched:
        patched.setattr(cache, "write", crash)
        with pytest.raises(OSError, match="power cut"):
            cached(tmp_path, "key", build)
    assert cached(tmp_path, "key", build).files == CONTENT
    assert build.calls == 2


def test_a_place_for_no_cache_is_named_before_anything_is_built(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    build = Builder()
    for folder, message in (
        (tmp_path / "file" / "tokens", "file/tokens: not a directory; move the file in the way"),
        (tmp_path / "file", "file: file exists; move the file in the way"),
        (Path("/proc/x/tokens"), "/proc/x/tokens: no folder can be made here; name another one"),
    ):
        with pytest.raises(StoreError, match=message):
            cached(folder, "key", build)
    assert build.calls == 0


def test_a_disk_that_refuses_a_built_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=rf"{tmp_path}: no space left on device; free space"):
        cached(tmp_path, "key", Builder())


def test_builders_at_once_agree(tmp_path: Path) -> None:
    together, results = threading.Barrier(4), []

    def build() -> dict[str, bytes]:
        together.wait(10)  # all have found the cache empty
        return CONTENT

    threads = [threading.Thread(target=lambda: results.append(cached(tmp_path, "key", build))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all(result == cached(tmp_path, "key", build) for result in results)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key-train", "key-validation", "key.json"]


def test_digests_tell_lists_of_parts_apart() -> None:
    lists = [("ab", "c"), ("a", "bc"), ("abc",), ("ab", "c", 1), ("ab", "c", "1"), ()]
    assert len({digest_of(*parts) for parts in lists}) == len(lists)
