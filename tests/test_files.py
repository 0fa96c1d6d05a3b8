"""Files are written whole or not at all; what a disk refuses is an error that names the file and the cure."""

import errno
import os
import pickle
from pathlib import Path

import pytest

from scaling import files
from scaling.files import CorruptFileError, StoreError, disk_errors, listed, make_folder, replace_durably, set_aside


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    replace_durably(path, lambda temporary: temporary.write_text("old"))

    def fail(temporary: Path) -> None:
        temporary.write_text("ne")
        assert path.read_text() == "old", "nobody sees a part"
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        replace_durably(path, fail)
    assert [file.name for file in tmp_path.iterdir()] == ["plan.json"]
    assert path.read_text() == "old"


def test_a_file_is_on_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    replace = os.replace
    monkeypatch.setattr(files.os, "fsync", lambda fd: events.append(os.readlink(f"/proc/self/fd/{fd}")))
    monkeypatch.setattr(files.os, "replace", lambda a, b: (events.append("rename"), replace(a, b)))
    replace_durably(tmp_path / "x", lambda temporary: temporary.write_text("all"))
    assert Path(events[0]).name.startswith(".x.")
    assert events[1:] == ["rename", str(tmp_path)], "file, then name, then folder"


@pytest.mark.parametrize(("number", "message"), [
    (errno.ENOSPC, "no space left on device; free space and run the same command again: finished work is kept"),
    (errno.EROFS, "read-only file system; make it writable and run the same command again"),
    (errno.EACCES, "permission denied; let this user at it and run"),
    (errno.ENAMETOOLONG, "file name too long; use a shorter name and run"),
    (errno.ELOOP, "too many levels of symbolic links; mend the links that lead in a circle and run"),
])
def test_what_a_user_can_see_to_names_the_file_and_the_cure(number: int, message: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text("old")

    def refuse(_: Path) -> None:
        raise OSError(number, os.strerror(number))

    with pytest.raises(StoreError, match=rf"^{path}: {message}"):
        replace_durably(path, refuse)
    assert path.read_text() == "old"
    assert listed(tmp_path) == ["plan.json"]


def test_a_file_in_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "work").write_text("not a folder")
    with pytest.raises(StoreError, match=r"work/plan\.json: (not a directory|file exists); move the file in the way"):
        replace_durably(tmp_path / "work" / "plan.json", lambda path: path.write_text(""))


def test_a_place_that_holds_no_folders_is_named() -> None:
    """Not even for root; the error is that of a file that is not there, which elsewhere is no refusal."""
    with pytest.raises(StoreError, match=r"^/proc/x: no folder can be made here; name another one"):
        make_folder(Path("/proc/x"))
    with pytest.raises(StoreError, match=r"^/proc/x: no folder can be made here"):
        replace_durably(Path("/proc/x/plan.json"), lambda path: path.write_text(""))


def test_other_errors_keep_their_type(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), disk_errors(tmp_path):
        (tmp_path / "nothing").unlink()


def test_an_absent_folder_is_empty_and_a_forbidden_one_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert listed(tmp_path / "none") == []

    def forbid(_: Path) -> list[str]:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(files.os, "listdir", forbid)
    with pytest.raises(StoreError, match=rf"{tmp_path}: permission denied"):
        listed(tmp_path)


def test_what_is_set_aside_keeps_its_place_and_name(tmp_path: Path) -> None:
    path = tmp_path / "store" / "curves" / "a.parquet"
    path.parent.mkdir(parents=True)
    for number, name in enumerate(("a.parquet", "a.parquet~1", "a.parquet~2")):
        path.write_text(str(number))
        assert set_aside(path, tmp_path) == tmp_path / "corrupt" / "store" / "curves" / name
    assert [(path.name, path.read_text()) for path in sorted((tmp_path / "corrupt").rglob("a.*"))] == [
        ("a.parquet", "0"), ("a.parquet~1", "1"), ("a.parquet~2", "2")]
    assert not path.exists()


def test_an_error_of_a_damaged_file_comes_whole_from_another_process() -> None:
    error = pickle.loads(pickle.dumps(CorruptFileError(Path("x/y"), "damaged")))
    assert (error.path, str(error)) == (Path("x/y"), str(CorruptFileError(Path("x/y"), "damaged")))
    assert isinstance(error, StoreError)
