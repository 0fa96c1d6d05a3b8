"""Synthetic text: two languages that are renamings of each other, of exactly known entropy, and noise."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from scaling.data.cache import digest_of
from scaling.data.corpus import load_corpus
from scaling.data.sources import open_source
from scaling.data.synthetic import CHARACTERS, NOISE_LETTERS, entropy, transitions

LOWER, UPPER = "abcdefghijklmnop", "ABCDEFGHIJKLMNOP"


def texts(source: str) -> list[str]:
    return list(open_source(source, Path()).documents())


def language(letters: str = LOWER, noise: float = 0.0, seed: int = 1, documents: int = 400) -> list[str]:
    return texts(f"synthetic:language?letters={letters}&noise={noise}&seed={seed}&documents={documents}")


def test_two_languages_are_each_others_renaming() -> None:
    lower, upper = language(LOWER), language(UPPER)
    assert [text.translate(str.maketrans(LOWER, UPPER)) for text in lower] == upper
    assert not set("".join(lower)) & set("".join(upper))


def test_letters_follow_as_the_table_says_and_their_entropy_is_the_stated_one() -> None:
    counts_AxA = np.zeros((16, 16))
    for text in language(documents=1000):
        place = np.array([LOWER.index(letter) for letter in text])
        np.add.at(counts_AxA, (place[1:-1], place[2:]), 1)  # the first letter is uniform
    shares_AxA = counts_AxA / counts_AxA.sum(axis=1, keepdims=True)
    often = counts_AxA.sum(axis=1) > 10_000
    assert often.sum() >= 5
    np.testing.assert_allclose(shares_AxA[often], transitions(16)[often], atol=0.015)  # 3 standard deviations
    logs = np.log(np.where(counts_AxA > 0, shares_AxA, 1))
    assert -(counts_AxA * logs).sum() / counts_AxA.sum() == pytest.approx(entropy(16), rel=0.005)


def test_the_entropy_of_two_letters_is_that_of_its_closed_form() -> None:
    (stay, leave), (back, keep) = transitions(2)
    first = back / (leave + back)  # stationary share of the first letter
    rows = [-(p * np.log(p) + q * np.log(q)) for p, q in ((stay, leave), (back, keep))]
    assert entropy(2) == pytest.approx(first * rows[0] + (1 - first) * rows[1], rel=1e-9)
    assert stay + leave == pytest.approx(1)


def test_noise_is_uniform_and_fills_its_share_of_the_documents() -> None:
    noisy = [text for text in language(noise=0.25, documents=1000) if set(text) <= set(NOISE_LETTERS)]
    assert len(noisy) == pytest.approx(250, abs=45)  # 3 standard deviations
    rest = [text for text in language(noise=0.25, documents=1000) if not set(text) & set(NOISE_LETTERS)]
    assert len(noisy) + len(rest) == 1000
    counts = Counter("".join(texts("synthetic:noise?seed=3&documents=400")))
    assert set(counts) == set(NOISE_LETTERS)
    assert np.array(list(counts.values())) / (400 * CHARACTERS) == pytest.approx(1 / 16, rel=0.05)


def test_documents_depend_on_the_options_alone() -> None:
    assert digest_of(*language(noise=0.25, documents=20)) == "343de1e10e85a2bc58d861fae8d595b0"
    assert language() == language()
    assert language(documents=30) != language(seed=2, documents=30)
    options = [(LOWER, 0.0, 1, 9), (UPPER, 0.0, 1, 9), (LOWER, 0.5, 1, 9), (LOWER, 0.0, 2, 9), (LOWER, 0.0, 1, 8)]
    sources = [f"synthetic:language?letters={a}&noise={b}&seed={c}&documents={d}" for a, b, c, d in options]
    assert len({open_source(source, Path()).fingerprint() for source in sources}) == len(sources)


def test_a_corpus_is_made_of_it(tmp_path: Path) -> None:
    corpus = load_corpus({"a": f"synthetic:language?letters={LOWER}&noise=0.25&seed=1&documents=200",
                          "n": "synthetic:noise?seed=3&documents=200"}, "bytes", tmp_path)
    assert (np.flatnonzero(corpus.domains[0].train == 0) % 256 == CHARACTERS).all(), "documents fill windows"
    assert sum(domain.train.size + domain.validation.size for domain in corpus.domains) == 2 * 200 * 256


@pytest.mark.parametrize(("source", "message"), [
    ("words?seed=1", "unknown synthetic text 'words': expected language or noise; correct it"),
    ("", "unknown synthetic text ''"),
    ("noise?seed=1", r"options \['seed'\]: expected exactly seed, documents; write \?seed=\.\.\.&documents=\.\.\."),
    ("noise?seed=1&documents=9&letters=abcd", r"options \['documents', 'letters', 'seed'\]: expected exactly seed,"),
    ("noise?seed=one&documents=9", "seed = 'one': expected a number; correct it"),
    ("noise?seed=1&documents=0", "seed = 1, documents = 0: expected 0 or more and 1 or more"),
    ("language?letters=a&noise=0&seed=1&documents=9", "letters = 'a': expected two or more different characters"),
    ("language?letters=abca&noise=0&seed=1&documents=9", "letters = 'abca': expected two or more different characters"),
    ("language?letters=abc1&noise=0&seed=1&documents=9", r"letters = 'abc1': expected none of 0123456789\+-"),
    ("language?letters=abcd&noise=2&seed=1&documents=9", r"noise = 2\.0: expected a share from 0 to 1; correct it"),
])
def test_impossible_options_are_refused_by_name(source: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"domains\.x = 'synthetic:.*': {message}"):
        load_corpus({"x": f"synthetic:{source}"}, "bytes", tmp_path)
