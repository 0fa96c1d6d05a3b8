"""Packing against the published example, a linear search for the best bin, and the fewest bins by exhaustion."""

import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scaling.data.packing import Packing, Piece, best_fit, chop, windows

DOCUMENTS = (20, 7, 5, 3, 9, 2, 4)
lengths_lists = st.lists(st.integers(1, 40), min_size=1, max_size=60)
capacities = st.integers(1, 33)
packers = pytest.mark.parametrize("pack", [best_fit, chop])


def fills(packing: Packing) -> list[int]:
    return [sum(piece.length for piece in pieces) for pieces in packing.bins]


def by_linear_search(lengths: list[int], capacity: int) -> list[list[tuple[int, int, int]]]:
    """The same rule without a tree: all open windows are looked at, in the order in which they were last added to."""
    pieces = [(document, start, min(capacity, length - start))
              for document, length in enumerate(lengths) for start in range(0, length, capacity)]
    made: list[list[tuple[int, int, int]]] = []
    touched: list[tuple[int, int]] = []  # (window, space), last added to at the end
    for piece in sorted(pieces, key=lambda piece: -piece[2]):
        enough = [(space, -place) for place, (_, space) in enumerate(touched) if space >= piece[2]]
        if enough:
            window, space = touched.pop(-min(enough)[1])
        else:
            window, space = len(made), capacity
            made.append([])
        made[window].append(piece)
        touched.append((window, space - piece[2]))
    return made


def fewest_bins(sizes: list[int], capacity: int) -> int:
    """By dynamic programming over subsets: the fewest bins, and then the least fill of the last one."""
    best = [(0, capacity)] + [(len(sizes), 0)] * (2 ** len(sizes) - 1)
    for subset in range(1, 2 ** len(sizes)):
        options = []
        for place, size in enumerate(sizes):
            if subset >> place & 1:
                bins, fill = best[subset ^ 1 << place]
                options.append((bins, fill + size) if fill + size <= capacity else (bins + 1, size))
        best[subset] = min(options)
    return best[-1][0]


def test_the_published_example() -> None:
    packing = best_fit(DOCUMENTS, 8)
    assert [[piece.length for piece in pieces] for pieces in packing.bins] == [
        [8], [8], [8], [7, 1], [5, 3], [4, 4], [2]]
    assert [piece.length for piece in sorted(packing.pieces, key=lambda piece: -piece.length)] == [
        8, 8, 8, 7, 5, 4, 4, 3, 2, 1]
    assert f"{packing.padding:.1%}" == "10.7%"
    assert packing.padding == pytest.approx(6 / 56, rel=1e-15)
    assert np.flatnonzero(packing.truncated_D).tolist() == [0, 4]  # 20 and 9 cannot fit
    assert not packing.needlessly_truncated_D.any()


def test_chopping_the_published_example_cuts_two_documents_that_would_have_fitted() -> None:
    packing = chop(DOCUMENTS, 8)
    assert fills(packing) == [8, 8, 8, 8, 8, 8, 2]
    assert np.flatnonzero(packing.truncated_D).tolist() == [0, 1, 4, 6]
    assert np.flatnonzero(packing.needlessly_truncated_D).tolist() == [1, 6]
    assert packing.bins[2] == (Piece(0, 16, 4), Piece(1, 0, 4))


@settings(deadline=None)
@given(lengths=lengths_lists, capacity=capacities)
@example(lengths=[4, 4, 4, 4, 2, 2, 2, 2], capacity=6)
def test_equals_the_search_through_all_windows(lengths: list[int], capacity: int) -> None:
    assert [list(map(tuple, pieces)) for pieces in best_fit(lengths, capacity).bins] == (
        by_linear_search(lengths, capacity))


@packers
@settings(deadline=None)
@given(lengths=lengths_lists, capacity=capacities)
def test_every_token_is_packed_once_and_no_window_overflows(pack: object, lengths: list[int], capacity: int) -> None:
    packing = pack(lengths, capacity)  # type: ignore[operator]
    assert all(0 < fill <= capacity for fill in fills(packing))
    tokens = [(piece.document, place) for piece in packing.pieces
              for place in range(piece.start, piece.start + piece.length)]
    assert sorted(tokens) == [(document, place) for document, length in enumerate(lengths) for place in range(length)]
    assert packing.lengths_D.tolist() == lengths
    assert packing.padding == pytest.approx(1 - sum(lengths) / (len(packing.bins) * capacity), abs=1e-12)


@settings(deadline=None)
@given(lengths=lengths_lists, capacity=capacities)
def test_best_fit_cuts_only_documents_that_cannot_fit_and_opens_no_window_early(
    lengths: list[int], capacity: int
) -> None:
    packing = best_fit(lengths, capacity)
    assert packing.truncated_D.tolist() == [length > capacity for length in lengths]
    assert not packing.needlessly_truncated_D.any()
    filled = fills(packing)
    first = [pieces[0].length for pieces in packing.bins]
    for early, late in itertools.combinations(range(len(first)), 2):
        assert filled[early] + first[late] > capacity  # a window is opened for a piece that fits nowhere
    if len(packing.bins) > 1:
        assert 2 * sum(lengths) > len(packing.bins) * capacity  # hence no two windows are half empty


@settings(deadline=None)
@given(lengths=lengths_lists, capacity=capacities)
def test_chopping_needs_the_fewest_windows(lengths: list[int], capacity: int) -> None:
    packing = chop(lengths, capacity)
    assert len(packing.bins) == -(-sum(lengths) // capacity) <= len(best_fit(lengths, capacity).bins)
    assert fills(packing)[:-1] == [capacity] * (len(packing.bins) - 1)
    assert [(piece.document, piece.start) for piece in packing.pieces] == sorted(
        (piece.document, piece.start) for piece in packing.pieces)


@settings(deadline=None)
@given(lengths=st.lists(st.integers(1, 12), min_size=1, max_size=9), capacity=st.integers(12, 20))
def test_best_fit_is_within_half_of_the_fewest_windows(lengths: list[int], capacity: int) -> None:
    fewest = fewest_bins(lengths, capacity)
    assert fewest <= len(best_fit(lengths, capacity).bins) <= 3 * fewest / 2


def test_best_fit_is_not_always_optimal() -> None:
    lengths = [5, 4, 4, 3, 2, 2]  # 5+3+2 and 4+4+2 fill two bins of 10; best fit puts 5 and 4 together
    assert fewest_bins(lengths, 10) == 2
    assert [[piece.length for piece in pieces] for pieces in best_fit(lengths, 10).bins] == [[5, 4], [4, 3, 2], [2]]


def test_windows_by_hand() -> None:
    tokens = np.array([11, 12, 13, 14, 15, 21, 22, 99, 31, 32], np.uint16)
    filled, segments = windows(tokens, [0, 5, 8], best_fit([5, 2, 2], 4), 7)
    np.testing.assert_array_equal(filled, [[11, 12, 13, 14], [21, 22, 31, 32], [15, 7, 7, 7]])
    np.testing.assert_array_equal(segments, [[1, 1, 1, 1], [1, 1, 2, 2], [1, 0, 0, 0]])
    assert filled.dtype == np.uint16
    assert segments.dtype == np.int32


@packers
@settings(deadline=None)
@given(lengths=lengths_lists, capacity=capacities, gap=st.integers(0, 3))
def test_windows_hold_the_documents(pack: object, lengths: list[int], capacity: int, gap: int) -> None:
    """Every token is different, so that its place shows where it came from; between documents lie tokens unused."""
    starts = np.cumsum([0, *(length + gap for length in lengths[:-1])])
    tokens = np.arange(1000, 1000 + starts[-1] + lengths[-1], dtype=np.uint32)
    packing = pack(lengths, capacity)  # type: ignore[operator]
    filled, segments = windows(tokens, starts, packing, 0)
    assert filled.shape == segments.shape == (len(packing.bins), capacity)
    np.testing.assert_array_equal(filled == 0, segments == 0)
    expected = np.concatenate([tokens[start:start + length] for start, length in zip(starts, lengths, strict=True)])
    np.testing.assert_array_equal(np.sort(filled[segments > 0]), expected)
    document_N = np.full(len(tokens), -1)
    for document, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        document_N[start:start + length] = document
    for row, ids, pieces in zip(filled, segments, packing.bins, strict=True):
        assert np.all(np.diff(ids[ids > 0]) >= 0)
        assert set(ids[ids > 0]) == set(range(1, len(pieces) + 1))
        for segment, piece in enumerate(pieces, 1):
            held = row[ids == segment]
            np.testing.assert_array_equal(held, held[0] + np.arange(piece.length))
            assert set(document_N[held - 1000]) == {piece.document}
            assert held[0] - 1000 == starts[piece.document] + piece.start


TOKENS = np.arange(6, dtype=np.uint8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: best_fit([], 8), r"lengths_D = \[\]: expected at least one document"),
        (lambda: best_fit([3, 0], 8), r"lengths_D\[1\] = 0: expected a whole number of tokens, 1 or more; drop empty"),
        (lambda: chop([3, -1], 8), r"lengths_D\[1\] = -1: expected a whole number"),
        (lambda: chop([2.5], 8), r"lengths_D\[0\] = 2\.5: expected a whole number"),
        (lambda: best_fit([3], 0), r"capacity = 0: expected 1 token or more"),
        (lambda: windows(TOKENS, [0], chop([3, 3], 4), 0), r"starts_D = '1 documents': expected the 2 that were"),
        (lambda: windows(TOKENS, [0, 4], chop([3, 3], 4), 0), r"starts_D\[1\] = 4: expected 0 to 3, for 3 of 6 tokens"),
        (lambda: windows(TOKENS, [-1, 3], chop([3, 3], 4), 0), r"starts_D\[0\] = -1: expected 0 to 3"),
        (lambda: windows(TOKENS, [0, 3], chop([3, 3], 4), 256), r"pad = 256: expected a token from 0 to 255 \(uint8\)"),
    ],
)
def test_bad_input_is_refused(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]
