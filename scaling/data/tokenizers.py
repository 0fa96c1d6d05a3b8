"""Tokenizers: bytes, and byte-level BPE trained on the corpus itself. Both are lossless.

Letters: V vocabulary.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import tokenizers as hf

from scaling.data.cache import cached, digest_of, sha256
from scaling.data.documents import SEPARATOR, Texts, split

TRAINING_BYTES = 8_000_000  # most text that a BPE is trained on, of all domains together
SMALLEST_BPE = 257  # every byte and the separator
END = "<|end|>"  # the separator's name in a BPE; documents that contain this text are encoded as any other text


class Tokenizer(Protocol):
    """Turns documents into tokens; token SEPARATOR ends every document."""

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""

    @property
    def token_bytes_V(self) -> np.ndarray:
        """Bytes of text that each token stands for, int64; the separator counts as one."""

    @property
    def checksum(self) -> str:
        """Identifies the mapping from text to tokens."""

    def encode(self, text: bytes) -> np.ndarray:
        """Tokens of documents that are each ended by byte 0."""

    def decode(self, tokens: np.ndarray) -> bytes:
        """The documents again, each ended by byte 0."""


@dataclass(frozen=True)
class Bytes:
    """One token a byte."""

    vocabulary: int = 256
    token_bytes_V: np.ndarray = field(default_factory=lambda: np.ones(256, np.int64), compare=False)
    checksum: str = "bytes"

    def encode(self, text: bytes) -> np.ndarray:
        """uint8 tokens."""
        return np.frombuffer(text, np.uint8)

    def decode(self, tokens: np.ndarray) -> bytes:
        """The bytes."""
        return tokens.astype(np.uint8).tobytes()


class Bpe:
    """Byte-level byte-pair encoding (Sennrich et al. 2016; on bytes as in GPT-2), from a tokenizer's JSON."""

    def __init__(self, content: str) -> None:
        self._tokenizer = hf.Tokenizer.from_str(content)
        self._tokenizer.encode_special_tokens = True
        self.vocabulary: int = self._tokenizer.get_vocab_size()
        self.checksum = sha256(content.encode())
        # A byte-level BPE writes every byte as one character.
        self.token_bytes_V = np.ones(self.vocabulary, np.int64)
        for name, token in self._tokenizer.get_vocab().items():
            if token != SEPARATOR:
                self.token_bytes_V[token] = len(name)

    def encode(self, text: bytes) -> np.ndarray:
        """uint16 tokens, or uint32 where the vocabulary needs it."""
        documents = [document.decode() for document in split(text)]
        encoded = self._tokenizer.encode_batch_fast(documents)
        ids = [token for document in encoded for token in (*document.ids, SEPARATOR)]
        return np.array(ids, np.uint16 if self.vocabulary <= 2**16 else np.uint32)

    def decode(self, tokens: np.ndarray) -> bytes:
        """Joined documents; tokens must not begin or end inside a UTF-8 character."""
        ends = np.flatnonzero(tokens == SEPARATOR)
        documents = np.split(tokens, ends + 1)
        texts = [self._tokenizer.decode(part[part != SEPARATOR].tolist()).encode() for part in documents]
        return bytes([SEPARATOR]).join(texts)


def make_tokenizer(name: str, texts: Sequence[Texts], cache: Path) -> Tokenizer:
    """`bytes`, or `bpe:SIZE` trained on the training documents of all domains (cached).

    Raises:
      ValueError: another name, or a size below 257 or beyond what the text gives.
    """
    if name == "bytes":
        return Bytes()
    kind, _, size = name.partition(":")
    if kind != "bpe" or not size.isdecimal() or int(size) < SMALLEST_BPE:
        raise ValueError(
            f"tokenizer = {name!r}: expected 'bytes' or 'bpe:SIZE' with SIZE at least {SMALLEST_BPE}; correct it"
        )
    sample = _sample(texts)
    key = f"bpe-{size}-{digest_of(hf.__version__, *(sha256(part) for part in sample))}"
    entry = cached(cache / "tokenizers", key, lambda: {"tokenizer.json": _train(sample, int(size)).encode()})
    return Bpe(entry.files["tokenizer.json"].decode())


def _sample(texts: Sequence[Texts]) -> list[bytes]:
    """Equally long beginnings of the domains' training texts, which are in random order, as whole documents."""
    length = min(TRAINING_BYTES // len(texts), *(len(domain.train) for domain in texts))
    ends = [domain.train.rfind(SEPARATOR, 0, length) + 1 for domain in texts]
    return [domain.train[:end] for domain, end in zip(texts, ends, strict=True)]


def _train(sample: Sequence[bytes], size: int) -> str:
    tokenizer = hf.Tokenizer(hf.models.BPE())
    tokenizer.pre_tokenizer = hf.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = hf.decoders.ByteLevel()
    trainer = hf.trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END],
        initial_alphabet=sorted(hf.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    documents = [document.decode() for part in sample for document in split(part)]
    tokenizer.train_from_iterator(documents, trainer)
    learned = tokenizer.get_vocab_size()
    if learned != size:
        raise ValueError(
            f"tokenizer = 'bpe:{size}': {sum(map(len, sample))} bytes of training text give only {learned} tokens; "
            f"use bpe:{learned} or less, or more text in the smallest domain"
        )
    return tokenizer.to_str()


def bits_per_byte(nats_per_token: float | np.ndarray, bytes_per_token: float | np.ndarray) -> float | np.ndarray:
    """Cross-entropy in bits per byte of text: nats_per_token / (ln 2 * bytes_per_token)."""
    return nats_per_token / (math.log(2) * bytes_per_token)
