"""Documents into windows of one length: best-fit packing, and concatenate-and-chop as its rival.

Letters: D documents, N tokens, W windows, C capacity (tokens a window holds).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from scaling.fields import check


class Piece(NamedTuple):
    """Tokens start .. start + length of a document."""

    document: int
    start: int
    length: int


@dataclass(frozen=True)
class Packing:
    """The pieces that each window holds, in order from its first token; what they leave free is padding."""

    capacity: int
    bins: tuple[tuple[Piece, ...], ...]

    @property
    def pieces(self) -> Iterator[Piece]:
        """All pieces, window by window."""
        return itertools.chain.from_iterable(self.bins)

    @property
    def lengths_D(self) -> np.ndarray:
        """Tokens of each document: int64 [D]."""
        document_P, _, length_P = np.array(list(self.pieces)).T
        lengths_D = np.zeros(document_P.max() + 1, np.int64)
        np.add.at(lengths_D, document_P, length_P)
        return lengths_D

    @property
    def padding(self) -> float:
        """Share of all positions that hold no token."""
        return 1 - sum(piece.length for piece in self.pieces) / (len(self.bins) * self.capacity)

    @property
    def truncated_D(self) -> np.ndarray:
        """Which documents lie in more than one window: bool [D]."""
        return np.bincount([piece.document for piece in self.pieces]) > 1

    @property
    def needlessly_truncated_D(self) -> np.ndarray:
        """Which documents lie in more than one window and would have fitted into one: bool [D]."""
        return self.truncated_D & (self.lengths_D <= self.capacity)


def best_fit(lengths_D: Sequence[int] | np.ndarray, capacity: int) -> Packing:
    """Best-fit-decreasing packing: no document that fits into a window is cut.

    A document longer than C is cut into pieces of C and a remainder. Then, from the longest piece to the shortest
    (equal ones in the order of documents), each goes into the window with the least space left that is enough for it,
    among equals the one that was added to last; if none has enough, into a new window. Finding the window is a descent
    in a segment tree over spaces 1 .. C, so D documents cost O(D log D + P log C) for P pieces.

    At most 3/2 of the fewest windows possible (Simchi-Levi 1994, New worst-case results for the bin-packing problem).

    Args:
      lengths_D: tokens of each document, 1 or more.
      capacity: C.

    Raises:
      ConfigError: no documents, a length that is not a whole number of 1 or more, a capacity below 1.

    Source: Ding et al. 2024, Fewer truncations improve language modeling, arXiv 2404.10830, whose result also needs
    attention within documents.
    """
    pieces = [Piece(document, start, min(capacity, length - start))
              for document, length in enumerate(_checked(lengths_D, capacity))
              for start in range(0, length, capacity)]
    spaces = _Spaces(capacity)
    spaces.add(capacity)  # of an empty window: there is always one more
    bins: list[list[Piece]] = []
    with_space: list[list[list[Piece]]] = [[] for _ in range(capacity)]
    for piece in sorted(pieces, key=lambda piece: piece.length, reverse=True):
        space = spaces.smallest_from(piece.length)
        if space == capacity:
            chosen: list[Piece] = []
            bins.append(chosen)
        else:
            chosen = with_space[space].pop()
            if not with_space[space]:
                spaces.remove(space)
        chosen.append(piece)
        left = space - piece.length
        if left:
            with_space[left].append(chosen)
            spaces.add(left)
    return Packing(capacity, tuple(map(tuple, bins)))


def chop(lengths_D: Sequence[int] | np.ndarray, capacity: int) -> Packing:
    """All documents end to end, cut every C tokens; only the last window may be padded. Raises as `best_fit`."""
    bins: list[list[Piece]] = []
    space = 0
    for document, length in enumerate(_checked(lengths_D, capacity)):
        start = 0
        while start < length:
            if not space:
                bins.append([])
                space = capacity
            piece = Piece(document, start, min(space, length - start))
            bins[-1].append(piece)
            start, space = start + piece.length, space - piece.length
    return Packing(capacity, tuple(map(tuple, bins)))


def windows(
    tokens_N: np.ndarray, starts_D: Sequence[int] | np.ndarray, packing: Packing, pad: int
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of each window, of the dtype of tokens_N, and the documents they belong to, int32: both [W, C].

    Documents are numbered from 1 in each window, in order; padding has number 0 and token `pad`.

    Args:
      tokens_N: where the documents lie.
      starts_D: first token of each document there; lengths are those that were packed.
      packing: from `best_fit` or `chop`.
      pad: token that fills up windows; it may also occur in documents.

    Raises:
      ConfigError: another number of documents than were packed, one that reaches beyond the tokens, or a padding token
        that the tokens' dtype cannot hold.
    """
    starts = np.asarray(starts_D).tolist()
    lengths_D = packing.lengths_D
    check(len(starts) == len(lengths_D), "starts_D", f"{len(starts)} documents", f"the {len(lengths_D)} that were "
          "packed", "give the start of every document")
    for document, (start, length) in enumerate(zip(starts, lengths_D.tolist(), strict=True)):
        check(0 <= start <= len(tokens_N) - length, f"starts_D[{document}]", start,
              f"0 to {len(tokens_N) - length}, for {length} of {len(tokens_N)} tokens", "pack these tokens' documents")
    largest = np.iinfo(tokens_N.dtype).max
    check(0 <= pad <= largest, "pad", pad, f"a token from 0 to {largest} ({tokens_N.dtype})", "use the separator")
    tokens_WxC = np.full((len(packing.bins), packing.capacity), pad, tokens_N.dtype)
    segments_WxC = np.zeros(tokens_WxC.shape, np.int32)
    for window, pieces in enumerate(packing.bins):
        place = 0
        for segment, piece in enumerate(pieces, 1):
            first, end = starts[piece.document] + piece.start, place + piece.length
            tokens_WxC[window, place:end] = tokens_N[first:first + piece.length]
            segments_WxC[window, place:end] = segment
            place = end
    return tokens_WxC, segments_WxC


def _checked(lengths_D: Sequence[int] | np.ndarray, capacity: int) -> list[int]:
    lengths = np.asarray(lengths_D).tolist()
    check(capacity >= 1, "capacity", capacity, "1 token or more", "use the length of a window")
    check(len(lengths) > 0, "lengths_D", lengths, "at least one document", "give the length of each")
    for document, length in enumerate(lengths):
        check(isinstance(length, int) and length >= 1, f"lengths_D[{document}]", length,
              "a whole number of tokens, 1 or more", "drop empty documents")
    return lengths


class _Spaces:
    """A set of spaces from 1 to C as a segment tree: leaf s holds s where s is in the set and 0 where it is not, a
    node the larger of its two children. The leftmost leaf that holds at least n is the smallest space from n on.
    """

    def __init__(self, capacity: int) -> None:
        self.leaves = 1 << capacity.bit_length()  # more than `capacity`
        self.largest = [0] * (2 * self.leaves)  # node i has the children 2i and 2i + 1, leaf s is node leaves + s

    def add(self, space: int) -> None:
        self._set(space, space)

    def remove(self, space: int) -> None:
        self._set(space, 0)

    def _set(self, space: int, value: int) -> None:
        node = self.leaves + space
        self.largest[node] = value
        while node > 1:
            node //= 2
            self.largest[node] = max(self.largest[2 * node], self.largest[2 * node + 1])

    def smallest_from(self, length: int) -> int:
        """The smallest space in the set that is at least `length`; there must be one."""
        node = 1
        while node < self.leaves:
            node *= 2
            if self.largest[node] < length:
                node += 1
        return node - self.leaves
