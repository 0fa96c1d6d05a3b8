"""Tokenizers lose nothing, count bytes exactly, and come out the same each time they are trained."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling.data.documents import Texts
from scaling.data.tokenizers import Bpe, Bytes, _sample, _train, bits_per_byte, make_tokenizer

WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "dog", "log;", "für", "Öl,", "漢字", "too"]


def text_of(seed: int, documents: int = 60) -> bytes:
    rng = np.random.default_rng(seed)
    return b"".join(" ".join(rng.choice(WORDS, 30)).encode() + b"\0" for _ in range(documents))


TRAINED = Bpe(_train([text_of(0), text_of(1)], 285))


@pytest.fixture
def bpe() -> Bpe:
    return TRAINED


documents = st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1), min_size=1)


@settings(deadline=None)
@given(parts=documents)
def test_both_tokenizers_are_lossless_and_count_bytes(parts: list[str]) -> None:
    text = b"".join(part.encode() + b"\0" for part in parts)
    for tokenizer in (Bytes(), TRAINED):
        tokens = tokenizer.encode(text)
        assert tokenizer.decode(tokens) == text
        assert tokenizer.token_bytes_V[tokens].sum() == len(text)
        assert (tokens == 0).sum() == len(parts)


def test_a_token_of_a_bpe_stands_for_as_many_bytes_as_it_decodes_to(bpe: Bpe) -> None:
    assert bpe.vocabulary == 285
    assert bpe.token_bytes_V[0] == 1
    ascii_tokens = bpe.encode(b"the cat sat on the log\0")
    for token in ascii_tokens[:-1]:
        assert bpe.token_bytes_V[token] == len(bpe.decode(np.array([token])))
    assert np.bincount(bpe.token_bytes_V)[1] == 257  # every byte, and the separator


def test_a_bpe_shortens_text_like_its_training_text(bpe: Bpe) -> None:
    text = text_of(7)
    assert len(bpe.encode(text)) < 0.5 * len(text)
    assert bpe.encode(text).dtype == np.uint16


def test_text_that_reads_like_the_separator_is_ordinary(bpe: Bpe) -> None:
    text = b"before <|end|> after\0"
    tokens = bpe.encode(text)
    assert (tokens == 0).sum() == 1
    assert bpe.decode(tokens) == text


def test_training_twice_gives_the_same_tokenizer() -> None:
    assert _train([text_of(0), text_of(1)], 285) == _train([text_of(0), text_of(1)], 285)


def test_domains_give_equally_many_bytes_of_whole_documents() -> None:
    long, short = text_of(0, 200), text_of(1, 40)
    sample = _sample([Texts(long, b""), Texts(short, b"")])
    assert sample[1] == short
    assert long.startswith(sample[0])
    assert sample[0].endswith(b"\0")
    assert 0 <= len(short) - len(sample[0]) < 300


def test_a_trained_bpe_is_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [Texts(text_of(0), text_of(1))]
    first = make_tokenizer("bpe:280", texts, tmp_path)
    monkeypatch.setattr("scaling.data.tokenizers._train", lambda sample, size: pytest.fail("trained again"))
    assert make_tokenizer("bpe:280", texts, tmp_path).checksum == first.checksum


@pytest.mark.parametrize("name", ["byte", "bpe", "bpe:", "bpe:256", "bpe:-5", "bpe:4k", "sentencepiece:400"])
def test_unknown_tokenizers_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected 'bytes' or 'bpe:SIZE' with SIZE at least 257") as refusal:
        make_tokenizer(name, [Texts(text_of(0), b"")], tmp_path)
    assert repr(name) in str(refusal.value)


def test_a_vocabulary_larger_than_the_text_gives_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"tokenizer = 'bpe:5000': \d+ bytes of training text give only \d+ tokens"):
        make_tokenizer("bpe:5000", [Texts(text_of(0), b"")], tmp_path)


def test_bits_per_byte_of_a_uniform_guess() -> None:
    assert bits_per_byte(math.log(256), 1.0) == pytest.approx(8)
    np.testing.assert_allclose(bits_per_byte(np.log([4.0, 16.0]), np.array([2.0, 4.0])), [1, 1])
