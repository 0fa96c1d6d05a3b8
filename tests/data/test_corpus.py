"""Tiny folder corpora: sides, windows, bytes per token, the cache, and processes that build at once."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from helpers import write_text
from scaling.data.corpus import Corpus, Domain, load_corpus
from scaling.data.documents import split
from scaling.data.tokenizers import Bpe

REPETITIONS = 150


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, str]:
    """Two domains of distinct paragraphs."""
    rng = np.random.default_rng(0)
    for name, words in (("prose", ["we", "see", "the", "sea", "für"]), ("code", ["x", "=", "(y)", "+", "1"])):
        (tmp_path / name).mkdir()
        paragraphs = [" ".join(rng.choice(words, 200)) for _ in range(REPETITIONS)]
        (tmp_path / name / "text.txt").write_text("\n\n".join(paragraphs))
    return {name: f"folder:{tmp_path / name}" for name in ("prose", "code")}


def test_a_folder_corpus_holds_its_text_divided(folders: dict[str, str], tmp_path: Path) -> None:
    corpus = load_corpus(folders, "bytes", tmp_path / "cache")
    assert corpus.names == ("prose", "code")
    assert corpus.vocabulary == 256
    for domain in corpus.domains:
        train, validation = (split(side.tobytes()) for side in (domain.train, domain.validation))
        text = (tmp_path / domain.name / "text.txt").read_bytes()
        assert sorted(b"\n\n".join(train + validation).split(b"\n\n")) == sorted(text.split(b"\n\n"))
        assert not set(train) & set(validation)
        assert domain.train.dtype == np.uint8


def test_order_of_domains_is_the_configs(folders: dict[str, str], tmp_path: Path) -> None:
    there = load_corpus(folders, "bytes", tmp_path / "cache")
    back = load_corpus(dict(reversed(folders.items())), "bytes", tmp_path / "cache")
    assert back.names == ("code", "prose")
    np.testing.assert_array_equal(back.domains[1].train, there.domains[0].train)
    assert back.checksum != there.checksum
    assert load_corpus(tuple(folders.items()), "bytes", tmp_path / "cache").checksum == there.checksum


def test_bpe_tokens_stand_for_the_same_text(folders: dict[str, str], tmp_path: Path) -> None:
    plain = load_corpus(folders, "bytes", tmp_path / "cache")
    corpus = load_corpus(folders, "bpe:270", tmp_path / "cache")
    assert corpus.vocabulary == 270
    tokenizer = Bpe(next((tmp_path / "cache" / "tokenizers").glob("*tokenizer.json")).read_text())
    for domain, expected in zip(corpus.domains, plain.domains, strict=True):
        assert domain.train.dtype == np.uint16
        assert tokenizer.decode(domain.train) == expected.train.tobytes()
        assert tokenizer.decode(domain.validation) == expected.validation.tobytes()
    windows = corpus.validation_windows(16, 5)
    exact = [[sum(len(tokenizer._tokenizer.id_to_token(int(token))) if token else 1 for token in window[1:])
              for window in domain] for domain in windows]
    np.testing.assert_allclose(corpus.bytes_per_token(16, 5), np.sum(exact, axis=1) / (5 * 16))
    np.testing.assert_array_equal(plain.bytes_per_token(16, 5), [1.0, 1.0])
    assert corpus.checksum != plain.checksum


def toy(train: int, validation: int) -> Corpus:
    domain = Domain("toy", np.arange(train, dtype=np.uint16), np.arange(validation, dtype=np.uint16))
    return Corpus((domain,), 2**16, np.ones(2**16, np.int64), "")


@pytest.mark.parametrize(("tokens", "windows"), [(5, 1), (8, 1), (9, 2), (400, 99), (401, 100)])
def test_training_windows_share_their_border_token(tokens: int, windows: int) -> None:
    held = toy(tokens, 1).windows(4)
    assert held.tolist() == [windows]
    assert held.dtype == np.int32
    assert (windows - 1) * 4 + 5 <= tokens < windows * 4 + 5


def test_a_domain_shorter_than_a_window_is_refused() -> None:
    with pytest.raises(ValueError, match=r"domain 'toy' holds 4 training tokens, expected more than sequence = 4"):
        toy(4, 1).windows(4)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 19, 20])
def test_validation_windows_are_disjoint_and_spread_over_the_text(count: int) -> None:
    windows = toy(1, 103).validation_windows(4, count)[0]
    assert windows.shape == (count, 5)
    assert windows.dtype == np.int32
    assert np.unique(windows).size == windows.size
    assert (np.diff(windows, axis=1) == 1).all()
    gaps = np.diff(windows[:, 0])
    assert gaps.size == 0 or gaps.max() - gaps.min() <= 5  # even to one window
    assert windows[-1, 0] >= 5 * math.floor(20 - 20 / count)


def test_more_validation_windows_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match=r"domain 'toy' holds 20 validation windows of 5 tokens, expected at least 21"):
        toy(1, 103).validation_windows(4, 21)


def test_no_domain_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected at least one domain"):
        load_corpus({}, "bytes", tmp_path)


def test_a_text_too_small_to_divide_is_refused_by_domain(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("short")
    with pytest.raises(ValueError, match=r"domains\.tiny = 'folder:.*documents for training and .*add text"):
        load_corpus({"tiny": f"folder:{tmp_path / 'a.txt'}"}, "bytes", tmp_path / "cache")


@pytest.mark.parametrize("kind", ["documents", "tokens", "tokenizers"])
def test_damaged_files_are_named_and_made_again(folders: dict[str, str], tmp_path: Path, kind: str) -> None:
    cache = tmp_path / "cache"
    before = load_corpus(folders, "bpe:270", cache)
    victim = next(path for path in sorted((cache / kind).iterdir()) if path.suffix != ".json" or kind == "tokenizers")
    victim.write_bytes(victim.read_bytes()[:100])
    with pytest.warns(RuntimeWarning, match=victim.name):
        after = load_corpus(folders, "bpe:270", cache)
    assert after.checksum == before.checksum
    for one, two in zip(before.domains, after.domains, strict=True):
        np.testing.assert_array_equal(one.train, two.train)


def test_processes_that_build_at_once_agree(folders: dict[str, str], tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from scaling.data.corpus import load_corpus; "
        f"print(load_corpus({folders!r}, 'bpe:270', Path(sys.argv[1])).checksum)"
    )
    command = [sys.executable, "-W", "error", "-c", program, str(tmp_path / "cache")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    printed = {process.communicate(timeout=60)[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert printed == {load_corpus(folders, "bpe:270", tmp_path / "other").checksum + "\n"}


def test_other_validation_windows_are_none_of_those_evaluated(tmp_path: Path) -> None:
    source = write_text(tmp_path / "texts", documents=600)
    corpus = load_corpus({"a": source}, "bytes", tmp_path / "cache")
    held = corpus.domains[0].validation.size // 33
    text = corpus.domains[0].validation[: held * 33].reshape(held, 33)
    places = {row.tobytes(): place for place, row in enumerate(text.astype(np.int32))}
    assert len(places) == held, "windows must differ for their places to be known"
    for evaluated, count in [(10, 5), (held // 2, held - held // 2), (1, held - 1)]:
        seen = [places[row.tobytes()] for row in corpus.validation_windows(32, evaluated)[0]]
        other = [places[row.tobytes()] for row in corpus.other_validation_windows(32, evaluated, count)[0]]
        assert len({*seen, *other}) == evaluated + count
        assert other == sorted(other)
        assert other[-1] - other[0] > held * 0.8 * (count - 1) / count, "spread over the whole text"
    with pytest.raises(ValueError, match=rf"holds {held} validation windows of 33 tokens, .* at least {held + 1}"):
        corpus.other_validation_windows(32, 10, held - 9)
