"""Tokenized corpora: what is trained on and what is evaluated on, domain by domain.

Letters: K domains, N tokens, S sequence length (a window holds S + 1 tokens), V vocabulary.
"""

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scaling.data import documents
from scaling.data.cache import Entry, cached, digest_of
from scaling.data.documents import Texts
from scaling.data.sources import open_source
from scaling.data.tokenizers import Tokenizer, make_tokenizer


@dataclass(frozen=True, eq=False)
class Domain:
    """One domain's tokens; every document ends with token 0. No document has tokens on both sides."""

    name: str
    train: np.ndarray  # unsigned [N]: distinct documents in random order, so any prefix is a random sample
    validation: np.ndarray  # unsigned [N]


@dataclass(frozen=True, eq=False)
class Corpus:
    """All domains under one tokenizer. `checksum` identifies names, tokens and vocabulary; `tokenizer` is None where
    the tokens were made of no text.
    """

    domains: tuple[Domain, ...]
    vocabulary: int
    token_bytes_V: np.ndarray  # int64: bytes of text a token stands for
    checksum: str
    tokenizer: Tokenizer | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The domains' names, in order."""
        return tuple(domain.name for domain in self.domains)

    def windows(self, sequence: int) -> np.ndarray:
        """Training windows a domain holds: int32 [K], floor((N - 1) / S). Neighbours share one token, no target.

        Raises:
          ValueError: a domain is shorter than one window.
        """
        for domain in self.domains:
            if domain.train.size <= sequence:
                raise ValueError(
                    f"domain {domain.name!r} holds {domain.train.size} training tokens, expected more than sequence = "
                    f"{sequence}; use a shorter sequence, or give the domain more text"
                )
        return np.array([(domain.train.size - 1) // sequence for domain in self.domains], np.int32)

    def validation_windows(self, sequence: int, count: int) -> np.ndarray:
        """`count` windows of S + 1 tokens a domain, spread evenly over its validation text: int32 [K, count, S + 1].

        Windows share no token. They start at multiples of S + 1, so they are the same at every call.

        Raises:
          ValueError: a domain holds fewer than `count`.
        """
        return np.stack([_spread(domain, sequence + 1, count) for domain in self.domains])

    def other_validation_windows(self, sequence: int, evaluated: int, count: int) -> np.ndarray:
        """`count` more windows of S + 1 tokens a domain, spread evenly over those that `validation_windows(sequence,
        evaluated)` leaves: int32 [K, count, S + 1]. What looks at them while it trains has not seen the evaluation.

        Raises:
          ValueError: a domain holds fewer than both together.
        """
        return np.stack([_spread(domain, sequence + 1, count, evaluated) for domain in self.domains])

    def bytes_per_token(self, sequence: int, count: int) -> np.ndarray:
        """Bytes of text a target token stands for, over `validation_windows(sequence, count)`: float64 [K]."""
        targets_KxCxS = self.validation_windows(sequence, count)[:, :, 1:]
        return self.token_bytes_V[targets_KxCxS].mean(axis=(1, 2))


def _spread(domain: Domain, width: int, count: int, passed_over: int = 0) -> np.ndarray:
    """`count` windows spread evenly, over all or over those that an equal spread of `passed_over` leaves."""
    held = domain.validation.size // width
    if held < count + passed_over:
        raise ValueError(
            f"domain {domain.name!r} holds {held} validation windows of {width} tokens, expected at least "
            f"{count + passed_over}; evaluate on fewer or shorter windows, or give the domain more text"
        )
    windows_NxS = domain.validation[: held * width].reshape(held, width)
    rest = np.delete(np.arange(held), np.arange(passed_over) * held // max(passed_over, 1))
    return windows_NxS[rest[np.arange(count) * len(rest) // count]].astype(np.int32)


def load_corpus(domains: Mapping[str, str] | Iterable[tuple[str, str]], tokenizer: str, cache: Path) -> Corpus:
    """Read, divide and tokenize the domains, from the cache where it has them.

    Args:
      domains: source of each domain: `wheels:prose|code|headers`, `folder:PATH`, or
        `tfds:NAME[?split=...&text=...&dir=...]`.
      tokenizer: `bytes` or `bpe:SIZE`.
      cache: folder for datasets, documents, tokenizers and tokens; safe to share between processes.

    Raises:
      ValueError: names the domain, its source and what was expected.
    """
    named = dict(domains)
    if not named:
        raise ValueError("domains = {}: expected at least one domain; give a name and a source")
    entries = [_documents(name, value, cache) for name, value in named.items()]
    texts = [Texts(entry.files["train"], entry.files["validation"]) for entry in entries]
    made = make_tokenizer(tokenizer, texts, cache)
    sides = [_tokens(entry, text, made, cache) for entry, text in zip(entries, texts, strict=True)]
    checksum = digest_of(made.checksum, *named, *(entry.checksum for entry in entries))
    tokenized = tuple(Domain(name, *side) for name, side in zip(named, sides, strict=True))
    return Corpus(tokenized, made.vocabulary, made.token_bytes_V, checksum, made)


def _documents(name: str, value: str, cache: Path) -> Entry:
    try:
        source = open_source(value, cache)
        key = digest_of(documents.VERSION, source.fingerprint())
        return cached(cache / "documents", key, lambda: vars(documents.arrange(source.documents())))
    except ValueError as error:
        raise ValueError(f"domains.{name} = {value!r}: {error}") from error


def _tokens(entry: Entry, texts: Texts, tokenizer: Tokenizer, cache: Path) -> tuple[np.ndarray, np.ndarray]:
    """Training and validation tokens. Bytes are their own tokens; others are cached."""
    if tokenizer.checksum == "bytes":
        return tokenizer.encode(texts.train), tokenizer.encode(texts.validation)
    key = digest_of(entry.checksum, tokenizer.checksum)
    build = lambda: {side: _npy(tokenizer.encode(text)) for side, text in vars(texts).items()}  # noqa: E731
    files = cached(cache / "tokens", key, build).files
    return _from_npy(files["train"]), _from_npy(files["validation"])


def _npy(tokens_N: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, tokens_N, allow_pickle=False)
    return file.getvalue()


def _from_npy(content: bytes) -> np.ndarray:
    return np.load(io.BytesIO(content), allow_pickle=False)
