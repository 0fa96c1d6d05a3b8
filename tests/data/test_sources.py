"""Sources: folders of text and prepared TFDS datasets, and how everything else is refused."""

import shutil
import time
from pathlib import Path

import pytest

from scaling.data import wheels
from scaling.data.corpus import load_corpus
from scaling.data.sources import Folder, Tfds, open_source


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TFDS dataset on disk, with the splits `prose` and `code`."""
    data_dir = tmp_path_factory.mktemp("tfds")
    wheels.build(data_dir, {"prose": [f"Satz {index} für alle" for index in range(1500)], "code": ["x = 1"]})
    return data_dir


def test_a_folder_is_read_recursively_by_suffix(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "b.md").write_text("zwei ü")
    (tmp_path / "a.txt").write_text("one\n\n" + "x" * 3000)
    (tmp_path / "c.bin").write_bytes(b"\xff\x00")
    assert list(Folder(tmp_path).documents()) == ["one\n\n", "x" * 3000, "zwei ü"]


def test_a_file_may_have_any_suffix(tmp_path: Path) -> None:
    path = tmp_path / "corpus.data"
    path.write_text("text")
    assert list(Folder(path).documents()) == ["text"]


def test_a_folders_fingerprint_follows_the_content(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    before = Folder(tmp_path).fingerprint()
    assert Folder(tmp_path).fingerprint() == before
    (tmp_path / "a.txt").write_text("two")
    assert Folder(tmp_path).fingerprint() != before


def test_text_that_is_not_utf8_is_refused_by_file(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes("für".encode("latin-1"))
    with pytest.raises(ValueError, match=r"domains\.x = 'folder:.*latin\.txt is not UTF-8 text .*; convert it"):
        load_corpus({"x": f"folder:{tmp_path}"}, "bytes", tmp_path / "cache")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("wheel:prose", "unknown source: expected wheels:prose|code|headers, folder:PATH, tfds:NAME or synthetic:KIND; "
         "correct it"),
        ("prose", "unknown source: expected wheels:prose"),
        ("folder:", "unknown source: expected wheels:prose"),
        ("wheels:verse", "unknown wheels domain 'verse': expected one of prose, code, headers; correct it"),
        ("folder:/no/such/place", "no such file or folder: /no/such/place; correct the path"),
        ("tfds:mnist?splat=train", "unknown option 'splat': expected split, text or dir; correct it"),
        ("tfds:mnist?train", "unknown option 'train': expected split, text or dir"),
    ],
)
def test_unreadable_sources_are_refused_with_domain_and_value(value: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="domains") as refusal:
        load_corpus({"essays": value}, "bytes", tmp_path)
    assert str(refusal.value).startswith(f"domains.essays = {value!r}: {message}")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no text below .*; expected files ending in \.c, \.cc"):
        open_source(f"folder:{tmp_path}", tmp_path)


def test_a_prepared_tfds_dataset_is_read_whole_and_in_order(prepared: Path) -> None:
    source = open_source(f"tfds:wheel_text?split=prose&text=text&dir={prepared}", prepared)
    assert isinstance(source, Tfds)
    assert sorted(source.documents(), key=lambda text: int(text.split()[1])) == [
        f"Satz {index} für alle" for index in range(1500)
    ]
    assert list(source.documents()) == list(source.documents())
    assert source.fingerprint() != Tfds("wheel_text", "code", "text", str(prepared)).fingerprint()


def test_a_tfds_dataset_makes_a_corpus(prepared: Path, tmp_path: Path) -> None:
    corpus = load_corpus({"x": f"tfds:wheel_text?split=prose&dir={prepared}"}, "bytes", tmp_path)
    assert "für alle".encode() in corpus.domains[0].train.tobytes()
    again = load_corpus({"x": f"tfds:wheel_text?split=prose&dir={prepared}"}, "bytes", tmp_path)
    assert again.checksum == corpus.checksum


@pytest.mark.parametrize("name", ["lm1b", "no_such_dataset", "wikipedia/20230601.en"])
def test_a_missing_tfds_dataset_fails_at_once(name: str, tmp_path: Path) -> None:
    start = time.perf_counter()
    with pytest.raises(ValueError, match=r"domains\.x") as refusal:
        load_corpus({"x": f"tfds:{name}?dir={tmp_path / 'nowhere'}"}, "bytes", tmp_path)
    assert time.perf_counter() - start < 2
    for part in (f"TFDS dataset {name!r} is not prepared in", str(tmp_path / "nowhere"), "download_and_prepare()"):
        assert part in str(refusal.value)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("split=train", r"split 'train': expected one of prose, code; write \?split="),
        ("split=prose&text=title", r"text feature 'title': expected a Text feature among text \(Text\); write \?text="),
    ],
)
def test_unknown_split_and_feature_list_what_there_is(prepared: Path, query: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        load_corpus({"x": f"tfds:wheel_text?{query}&dir={prepared}"}, "bytes", tmp_path)


@pytest.fixture
def copied(prepared: Path, tmp_path: Path) -> Path:
    shutil.copytree(prepared / "wheel_text", tmp_path / "data" / "wheel_text")
    return tmp_path / "data"


def test_a_format_without_random_access_is_refused(copied: Path) -> None:
    info = next(copied.rglob("dataset_info.json"))
    info.write_text(info.read_text().replace('"fileFormat": "array_record"', '"fileFormat": "tfrecord"'))
    with pytest.raises(ValueError, match=r"is stored as tfrecord, expected array_record; prepare it again"):
        list(Tfds("wheel_text", "prose", "text", str(copied)).documents())


def test_a_dataset_whose_data_is_gone_fails_at_once(copied: Path) -> None:
    next(copied.rglob("*prose*array_record*")).unlink()
    start = time.perf_counter()
    with pytest.raises(ValueError, match=r"wheel_text-prose\.array_record\S* is missing; prepare the dataset"):
        list(Tfds("wheel_text", "prose", "text", str(copied)).documents())
    assert time.perf_counter() - start < 2
