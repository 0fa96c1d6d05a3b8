"""Corpora as windows of packed documents, and the metadata that documents begin with.

Letters: K domains, N tokens, D documents, W windows, S sequence length, C = S + 1 tokens of a window.
"""

from __future__ import annotations

import functools
import hashlib
from typing import Any, NamedTuple

import numpy as np

from scaling.data.batches import Tokens, check_addressable
from scaling.data.corpus import Corpus, Domain
from scaling.data.documents import SEPARATOR
from scaling.data.packing import best_fit, chop, windows
from scaling.packed import Packing

PACKERS = {"best_fit": best_fit, "chop": chop}


class PackedWindows(NamedTuple):
    """Tokens, and int16 segments of the same shape: a window's segments are numbered from 1, the number is negative
    where a token is not to be predicted, and 0 where there is none (padding).
    """

    tokens: np.ndarray
    segments: np.ndarray


def predicted(segments_WxC: Any) -> Any:
    """Which targets count: those after a token of the same segment, and not metadata. bool [W, C - 1], of numpy's or
    JAX's arrays as given.
    """
    return (segments_WxC[..., 1:] > 0) & (abs(segments_WxC[..., :-1]) == segments_WxC[..., 1:])


class Sides(NamedTuple):
    """Packed windows of each domain."""

    train: list[PackedWindows]
    validation: list[PackedWindows]


class PackedCorpus:
    """A corpus asked for packed windows in place of those cut out of its text. Packs once a sequence length."""

    def __init__(self, corpus: Corpus, packing: Packing) -> None:
        self.corpus, self.packing = corpus, packing
        self.sides = functools.cache(self._sides)

    def windows(self, sequence: int) -> np.ndarray:
        """Training windows a domain holds: int32 [K].

        Raises:
          ValueError: a domain's share of documents holds none, or its metadata leave no room in a window.
        """
        return np.array([len(part.tokens) for part in self.sides(sequence).train], np.int32)

    def tokens(self, sequence: int) -> Tokens:
        """The training windows of all domains end to end, still on the host.

        Raises:
          ValueError: they hold more tokens than an int32 index can address.
        """
        train_K = self.sides(sequence).train
        sizes = [part.tokens.size for part in train_K]
        check_addressable(sizes)
        tokens_N, segments_N = (np.concatenate([array.ravel() for array in arrays])
                                for arrays in zip(*train_K, strict=True))
        return Tokens(tokens_N, np.cumsum([0, *sizes[:-1]]).astype(np.int32), segments_N)

    def validation_windows(self, sequence: int, count: int) -> PackedWindows:
        """`count` windows a domain, a random sample of those in which a token counts: int32 and int16 [K, count, C].

        Raises:
          ValueError: a domain holds fewer than `count`.
        """
        held_K = [_counting(name, part, count)
                  for name, part in zip(self.corpus.names, self.sides(sequence).validation, strict=True)]
        return PackedWindows(*(np.stack(arrays) for arrays in zip(*held_K, strict=True)))

    def bytes_per_token(self, sequence: int, count: int) -> np.ndarray:
        """Bytes of text a target that counts stands for: the mean over `validation_windows(sequence, count)` of each
        one's mean, as the loss is taken; float64 [K].
        """
        held = self.validation_windows(sequence, count)
        return np.mean(self.corpus.token_bytes_V[held.tokens[..., 1:]], axis=2, where=predicted(held.segments)
                       ).mean(axis=1)

    def _sides(self, sequence: int) -> Sides:
        shares = dict(self.packing.documents)
        train_K = [share_of(domain.train, *shares.get(domain.name, (0.0, 1.0))) for domain in self.corpus.domains]
        return Sides(
            [self._pack(domain, train_N, sequence)
             for domain, train_N in zip(self.corpus.domains, train_K, strict=True)],
            [self._pack(domain, domain.validation, sequence) for domain in self.corpus.domains])

    def _pack(self, domain: Domain, tokens_N: np.ndarray, sequence: int) -> PackedWindows:
        try:
            return pack(tokens_N, self._prefix(domain), sequence + 1, self.packing.method)
        except ValueError as error:
            raise ValueError(f"domain {domain.name!r}: {error}") from error

    def _prefix(self, domain: Domain) -> np.ndarray:
        """Tokens of the domain's metadata; none without."""
        name = dict(self.packing.metadata).get(domain.name)
        if name is None:
            return np.zeros(0, domain.train.dtype)
        assert self.corpus.tokenizer is not None
        return self.corpus.tokenizer.encode(f"URL: {name}\n\n".encode() + bytes([SEPARATOR]))[:-1]


def share_of(tokens_N: np.ndarray, start: float, stop: float) -> np.ndarray:
    """The tokens of documents round(start D) .. round(stop D): neighbouring shares have none in common, and miss none.
    """
    ends_D = np.flatnonzero(tokens_N == SEPARATOR) + 1
    first, last = (int(ends_D[count - 1]) if count else 0
                   for count in (round(share * len(ends_D)) for share in (start, stop)))
    return tokens_N[first:last]


def pack(tokens_N: np.ndarray, prefix_P: np.ndarray, capacity: int, method: str) -> PackedWindows:
    """Documents that each end with token 0, packed: [W, C], in an order that follows from the windows' content alone
    and says nothing of it, so that any first part is a random sample.

    With a prefix, a document too long for a window with it is first cut into pieces that are not; each begins with it.

    Args:
      tokens_N: whole documents.
      prefix_P: metadata, not to be predicted; may be empty.
      capacity: C.
      method: best_fit or chop.

    Raises:
      ValueError: no documents, or no room beside the prefix.
    """
    if len(prefix_P) >= capacity:
        raise ValueError(f"its metadata take {len(prefix_P)} tokens, expected fewer than the {capacity} of a window; "
                         "shorten the name or use a longer sequence")
    lengths = np.diff(np.flatnonzero(tokens_N == SEPARATOR), prepend=-1)
    if not len(lengths):
        raise ValueError("its share of the training text holds no document; widen packing.documents")
    if len(prefix_P):
        lengths = _cut(lengths, capacity - len(prefix_P))
    starts = np.cumsum(lengths) - lengths
    places = np.repeat(starts, len(prefix_P))
    prefixed_N = np.insert(tokens_N, places, np.tile(prefix_P, len(starts)))
    metadata_N = np.insert(np.zeros(len(tokens_N), np.uint8), places, 1)
    lengths = lengths + len(prefix_P)
    starts = np.cumsum(lengths) - lengths
    packing = PACKERS[method](lengths, capacity)
    tokens_WxC, segments_WxC = windows(prefixed_N, starts, packing, SEPARATOR)
    metadata_WxC, _ = windows(metadata_N, starts, packing, 0)
    signed_WxC = np.where(metadata_WxC > 0, -segments_WxC, segments_WxC).astype(np.int16)
    order_W = np.argsort([_digest(*window) for window in zip(tokens_WxC, signed_WxC, strict=True)], kind="stable")
    return PackedWindows(tokens_WxC[order_W], signed_WxC[order_W])


def _cut(lengths_D: np.ndarray, most: int) -> np.ndarray:
    """Lengths of the pieces of documents cut every `most` tokens."""
    return np.array([min(most, length - start) for length in lengths_D.tolist() for start in range(0, length, most)])


def _digest(tokens_C: np.ndarray, segments_C: np.ndarray) -> bytes:
    return hashlib.blake2b(tokens_C.tobytes() + segments_C.tobytes(), digest_size=16).digest()


def _counting(name: str, packed: PackedWindows, count: int) -> PackedWindows:
    """The first `count` windows in which a token counts."""
    counting = np.flatnonzero(predicted(packed.segments).any(axis=1))
    if len(counting) < count:
        raise ValueError(
            f"domain {name!r} holds {len(counting)} packed validation windows of {packed.tokens.shape[1]} tokens, "
            f"expected at least {count}; evaluate on fewer or shorter windows, or give the domain more text"
        )
    first = counting[:count]
    return PackedWindows(packed.tokens[first].astype(np.int32), packed.segments[first])
