"""Corpora of packed windows: by hand, what they keep of documents, metadata, shares of documents, held-out windows."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling.data.batches import packed_batch
from scaling.data.corpus import Corpus, Domain, load_corpus
from scaling.data.packed import PackedCorpus, PackedWindows, pack, predicted, share_of
from scaling.data.tokenizers import Bytes
from scaling.packed import Packing

NONE = np.zeros(0, np.uint8)
PACKING = Packing(method="best_fit", attention="document", metadata=(), documents=())
lists_of_lengths = st.lists(st.integers(1, 40), min_size=1, max_size=40)
methods = st.sampled_from(["best_fit", "chop"])


def text(lengths: Sequence[int], first: int = 1) -> np.ndarray:
    """Documents of these lengths: document i is a run of the token `first` + i, ended by 0."""
    return np.concatenate([[*[first + index] * (length - 1), 0] for index, length in enumerate(lengths)]).astype(
        np.uint8)


def corpus_of(train: Sequence[int], validation: Sequence[int] = (5, 5, 5)) -> Corpus:
    """Two domains of such documents; the second one's tokens are 100 more."""
    domains = tuple(Domain(name, text(train, first), text(validation, first)) for name, first in (("a", 1), ("b", 101)))
    return Corpus(domains, 256, np.arange(256), "", Bytes())


def held_documents(packed: PackedWindows) -> list[tuple[int, ...]]:
    """The parts of documents in the windows, in order of their tokens."""
    return sorted(tuple(tokens_C[abs(segments_C) == segment].tolist())
                  for tokens_C, segments_C in zip(*packed, strict=True) for segment in set(abs(segments_C)) - {0})


def test_windows_by_hand() -> None:
    packed = pack(text([4, 2, 3, 7]), NONE, 5, "best_fit")  # pieces 5 4 3 2 2: {5} {4} {3, 2} {2}
    rows = sorted(zip(packed.tokens.tolist(), packed.segments.tolist(), strict=True))
    assert rows == [
        ([1, 1, 1, 0, 0], [1, 1, 1, 1, 0]), ([3, 3, 0, 2, 0], [1, 1, 1, 2, 2]), ([4, 0, 0, 0, 0], [1, 1, 0, 0, 0]),
        ([4, 4, 4, 4, 4], [1, 1, 1, 1, 1])]
    assert packed.tokens.dtype == np.uint8
    assert packed.segments.dtype == np.int16
    counts = {tuple(segments): predicted(np.array([segments]))[0].tolist() for _, segments in rows}
    assert counts[1, 1, 1, 1, 0] == [True, True, True, False]
    assert counts[1, 1, 1, 2, 2] == [True, True, False, True]
    assert counts[1, 1, 0, 0, 0] == [True, False, False, False]


def test_metadata_begin_every_piece_and_are_not_predicted() -> None:
    """Windows of 6 with a prefix of 2 hold 4 tokens of a document: 9 tokens are pieces of 4, 4 and 1."""
    packed = pack(text([9, 2]), np.array([7, 8], np.uint8), 6, "best_fit")
    rows = sorted(zip(packed.tokens.tolist(), packed.segments.tolist(), strict=True))
    assert rows == [
        ([7, 8, 0, 0, 0, 0], [-1, -1, 1, 0, 0, 0]), ([7, 8, 1, 1, 1, 1], [-1, -1, 1, 1, 1, 1]),
        ([7, 8, 1, 1, 1, 1], [-1, -1, 1, 1, 1, 1]), ([7, 8, 2, 0, 0, 0], [-1, -1, 1, 1, 0, 0])]
    assert predicted(np.array([[-1, -1, 1, 1, -2, -2, 2, 0]])).tolist() == [
        [False, True, True, False, False, True, False]], "the first token after metadata is predicted from them"


@settings(deadline=None, max_examples=50)
@given(lengths=lists_of_lengths, capacity=st.integers(4, 20), prefix=st.integers(0, 3), method=methods)
def test_every_token_of_the_documents_is_kept_once(lengths: list[int], capacity: int, prefix: int, method: str) -> None:
    prefix_P = np.arange(200, 200 + prefix, dtype=np.uint8)
    packed = pack(text(lengths), prefix_P, capacity, method)
    np.testing.assert_array_equal(np.sort(packed.tokens[packed.segments > 0]), np.sort(text(lengths)))
    assert (packed.tokens[packed.segments == 0] == 0).all()
    pieces = sum(-(-length // (capacity - prefix)) for length in lengths)
    np.testing.assert_array_equal(np.sort(packed.tokens[packed.segments < 0]), np.sort(np.tile(prefix_P, pieces)))
    if method == "best_fit":
        documents = np.split(text(lengths), np.cumsum(lengths)[:-1])
        fitting = {tuple(document.tolist()) for document in documents if len(document) + prefix <= capacity}
        assert fitting <= {part[prefix:] for part in held_documents(packed)}


def test_the_order_of_windows_says_nothing_of_their_length() -> None:
    """Best fit makes them from the longest document to the shortest; the first half must be a sample of all."""
    lengths = np.random.default_rng(0).integers(2, 33, 250)
    packed, again = (pack(text(lengths), NONE, 33, "best_fit") for _ in range(2))
    documents_W = packed.segments.max(axis=1)
    first_H, second_H = np.array_split(documents_W, 2)
    error = np.sqrt(first_H.var() / len(first_H) + second_H.var() / len(second_H))
    assert abs(first_H.mean() - second_H.mean()) < 3 * error < 0.5 * documents_W.mean()
    np.testing.assert_array_equal(again.tokens, packed.tokens)


@settings(deadline=None, max_examples=50)
@given(lengths=lists_of_lengths, cuts=st.lists(st.floats(0, 1), max_size=4))
def test_neighbouring_shares_of_documents_miss_none_and_have_none_in_common(
    lengths: list[int], cuts: list[float],
) -> None:
    edges = [0.0, *sorted(cuts), 1.0]
    parts = [share_of(text(lengths), *pair) for pair in itertools.pairwise(edges)]
    np.testing.assert_array_equal(np.concatenate(parts), text(lengths))
    for part in parts:
        assert not len(part) or part[-1] == 0


def test_two_domains_of_one_source_divide_it_and_share_its_validation(tmp_path: Path) -> None:
    """The plain and the named copy of a document fall on one side: no held-out document is trained on."""
    rng = np.random.default_rng(0)
    (tmp_path / "text.txt").write_text("\n\n".join(
        " ".join(rng.choice(["we", "see", "the", "sea"], 300)) + str(index) for index in range(400)))
    source = f"folder:{tmp_path / 'text.txt'}"
    packing = dataclasses.replace(PACKING, metadata=(("named", "sea.org"),),
                                  documents=(("named", (0.0, 0.9)), ("plain", (0.9, 1.0))))
    for tokenizer in ("bytes", "bpe:300"):
        corpus = load_corpus({"named": source, "plain": source}, tokenizer, tmp_path / "cache")
        packed = PackedCorpus(corpus, packing)
        assert corpus.tokenizer is not None
        prefix = corpus.tokenizer.encode(b"URL: sea.org\n\n\0")[:-1]
        sides: dict[str, list[set]] = {name: [set(), set()] for name in corpus.names}
        for side, windows in enumerate(packed.sides(4000)):
            for name, one in zip(corpus.names, windows, strict=True):
                named, parts = name == "named", held_documents(one)
                assert {part[:len(prefix)] == tuple(prefix.tolist()) for part in parts} == {named}
                assert (one.segments < 0).sum() == len(parts) * len(prefix) * named
                sides[name][side] = {part[len(prefix) * named:] for part in parts}
        assert sides["named"][1] == sides["plain"][1]
        assert not sides["named"][0] & sides["plain"][0]
        assert not (sides["named"][0] | sides["plain"][0]) & sides["plain"][1]
        assert sum(len(part) for side in sides.values() for part in side[0]) == corpus.domains[0].train.size


def test_tokens_and_segments_lie_side_by_side_and_are_drawn_together() -> None:
    packed = PackedCorpus(corpus_of([5, 3, 8, 2, 4, 4, 9]), PACKING)
    counts_K, tokens = packed.windows(7), packed.tokens(7)
    assert tokens.segments_N is not None
    assert tokens.start_K.tolist() == [0, 8 * counts_K[0]]
    assert counts_K.dtype == np.int32
    slots_B = np.arange(2 * sum(counts_K))  # two epochs of both
    tokens_BxT, segments_BxT = jax.jit(packed_batch, static_argnums=6)(
        tokens, jax.random.key(0), counts_K, np.zeros(2, np.int32), 2 * counts_K, slots_B, 7)
    assert tokens_BxT.dtype == segments_BxT.dtype == np.int32
    drawn = np.concatenate([tokens_BxT, segments_BxT], axis=1)
    there = np.concatenate([tokens.tokens_N.reshape(-1, 8).astype(np.int32), tokens.segments_N.reshape(-1, 8)], axis=1)
    for domain, (low, high) in enumerate(((0, counts_K[0]), (counts_K[0], sum(counts_K)))):
        for epoch in range(2):
            begin = 2 * low + epoch * counts_K[domain]
            rows = drawn[begin:begin + counts_K[domain]]
            np.testing.assert_array_equal(sorted(rows.tolist()), sorted(there[low:high].tolist()))


def test_held_out_windows_all_predict_something_and_bytes_are_those_of_what_they_predict() -> None:
    corpus = corpus_of([5], validation=[6, 1, 1, 1, 1, 1, 1, 4])  # some windows of 6 hold documents of 1 token alone
    packed = PackedCorpus(corpus, PACKING)
    held = packed.validation_windows(5, 2)
    assert held.tokens.shape == held.segments.shape == (2, 2, 6)
    assert predicted(held.segments).any(axis=2).all()
    expected = [[np.mean([token for token, counts in zip(tokens_C[1:], predicted(segments_C), strict=True) if counts])
                 for tokens_C, segments_C in zip(*window, strict=True)] for window in zip(*held, strict=True)]
    np.testing.assert_allclose(packed.bytes_per_token(5, 2), np.mean(expected, axis=1))  # token v stands for v bytes
    with pytest.raises(ValueError, match=r"domain 'a' holds 2 packed validation windows of 6 tokens, expected at least "
                                         r"3; evaluate on fewer or shorter windows"):
        packed.validation_windows(5, 3)


@pytest.mark.parametrize(("changes", "message"), [
    ({"metadata": (("b", "long.name"),)}, r"domain 'b': its metadata take 16 tokens, expected fewer than the 8 of a"),
    ({"documents": (("a", (0.5, 0.51)),)}, r"domain 'a': its share of the training text holds no document; widen"),
])
def test_what_does_not_fit_the_text_is_refused_by_domain(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PackedCorpus(corpus_of([5, 3, 8]), dataclasses.replace(PACKING, **changes)).windows(7)


def test_more_tokens_than_an_int32_addresses_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scaling.data.batches.INT32_MAX", 30)
    with pytest.raises(ValueError, match=r"domains: 32 training tokens in all, expected at most 30"):
        PackedCorpus(corpus_of([5, 3, 8]), PACKING).tokens(7)
