"""Sealed JSON and sealed folders: a changed byte is named, before anything parses it. Parquet: see test_store.py."""

import random
import shutil
from pathlib import Path

import pytest

from scaling.files import CorruptFileError, StoreError
from scaling.seal import read_folder, read_json, seal_folder, write_json


def test_contents_come_back(tmp_path: Path) -> None:
    contents = {"a": [1, 2.5, None, True, "ü"], "b": {"c": 1e-300}}
    write_json(tmp_path / "x.json", contents)
    assert read_json(tmp_path / "x.json") == contents


def test_every_changed_bit_of_the_contents_is_noticed(tmp_path: Path) -> None:
    """A bit that says the same in other bytes, such as a space for a line's end, may pass."""
    path, rng = tmp_path / "x.json", random.Random(0)
    contents = [{"run_ids": ["0123", "4567"], "lanes": 4, "rate": 1.5}]
    write_json(path, contents)
    content, noticed = path.read_bytes(), 0
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        try:
            assert read_json(path) == contents
        except CorruptFileError:
            noticed += 1
    assert noticed > 0.8 * len(content)


@pytest.mark.parametrize("text", ["", "[]", "1", "{}", '{"contents": 1}', "[" * 10**5, '{"contents": 1, "sha256": 2}'])
def test_what_is_no_sealed_json_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(CorruptFileError, match=r"x\.json: damaged"):
        read_json(tmp_path / "x.json")


def test_a_missing_file_is_not_called_damaged(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"x\.json: gone; restore it") as error:
        read_json(tmp_path / "x.json")
    assert not isinstance(error.value, CorruptFileError)


def test_a_sealed_folder_may_move_and_gives_its_facts(tmp_path: Path) -> None:
    (tmp_path / "a" / "deep").mkdir(parents=True)
    (tmp_path / "a" / "deep" / "file").write_bytes(b"\x00\x01")
    seal_folder(tmp_path / "a", {"step": 7})
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert read_folder(tmp_path / "b") == {"step": 7}


@pytest.mark.parametrize(("change", "named"), [
    (lambda folder: (folder / "one").write_text("2"), "one"),
    (lambda folder: (folder / "one").unlink(), "one"),
    (lambda folder: (folder / "one").rename(folder / "three"), "one, three"),
    (lambda folder: (folder / "new").write_text(""), "new"),
])
def test_a_changed_folder_names_what_changed(change: object, named: str, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_text("1")
    seal_folder(tmp_path, {})
    change(tmp_path)
    with pytest.raises(CorruptFileError, match=rf"^{tmp_path}: damaged: not as written are {named}; restore"):
        read_folder(tmp_path)


@pytest.mark.parametrize("there", [True, False])
def test_a_folder_without_files_is_not_sealed_and_not_made(there: bool, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    if there:
        folder.mkdir()
    with pytest.raises(StoreError, match=rf"^{folder}: holds no files to seal, expected those just written; let noth"):
        seal_folder(folder, {})
    assert [path.name for path in tmp_path.iterdir()] == ["folder"] * there
    assert not (folder / "seal.json").exists()


def test_a_seal_of_nothing_is_not_trusted(tmp_path: Path) -> None:
    write_json(tmp_path / "seal.json", {"facts": {}, "files": {}})
    with pytest.raises(CorruptFileError, match=rf"^{tmp_path}: damaged: holds nothing but its seal\.json; restore it"):
        read_folder(tmp_path)


def test_a_folder_without_its_seal_is_not_trusted(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("1")
    seal_folder(tmp_path, {})
    (tmp_path / "seal.json").unlink()
    with pytest.raises(CorruptFileError, match=rf"^{tmp_path}: damaged: without its seal\.json; restore it"):
        read_folder(tmp_path)
