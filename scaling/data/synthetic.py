"""Text made so that the best mixture of its domains is known before anything is trained: random languages and noise.

Letters: A letters of an alphabet, D documents, C characters a document.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from scaling.data.cache import digest_of

CHARACTERS = 255  # a document; with its separator 256 tokens, so that windows of a power of two hold one kind of text
NOISE_LETTERS = "0123456789+-*/<>"
VERSION = 1  # part of the fingerprint: raise it when the documents change

_TABLE_SEED = 0
_OPTIONS = {"language": ("letters", "noise", "seed", "documents"), "noise": ("seed", "documents")}


@dataclass(frozen=True)
class Synthetic:
    """Documents of a random language, a share `noise` of them noise instead.

    Language: a Markov chain over `letters`, its `transitions` the same for every alphabet of that size. Two languages
    in different letters are each other's renaming: equally hard, and nothing of one can be learnt from the other.
    Noise: independent letters, all of NOISE_LETTERS alike. `seed` draws the documents.

    Of two languages in different letters that hold the same share of noise, and a third domain of noise alone, the
    mixture (1/2, 1/2, 0) is best for the mean of the three losses. Assumed: a language's loss falls with its own tokens
    alone and is convex in them, so that equal shares are best by symmetry and tokens of the third domain are lost on
    both; and noise is learnt from the first two domains as well as from its own, so that it asks for no share.
    """

    letters: str
    noise: float
    seed: int
    count: int

    def fingerprint(self) -> str:
        """From every option."""
        return digest_of("synthetic", VERSION, self.letters, repr(self.noise), self.seed, self.count)

    def documents(self) -> Iterator[str]:
        """`count` texts of CHARACTERS characters."""
        rng = np.random.default_rng(self.seed)
        noisy_D = rng.random(self.count) < self.noise
        noise_DxC = (rng.random((self.count, CHARACTERS)) * len(NOISE_LETTERS)).astype(int)
        language_DxC = self._language(rng.random((self.count, CHARACTERS)))
        for noisy, noise_C, language_C in zip(noisy_D, noise_DxC, language_DxC, strict=True):
            letters, index_C = (NOISE_LETTERS, noise_C) if noisy else (self.letters, language_C)
            yield "".join(letters[index] for index in index_C)

    def _language(self, uniform_DxC: np.ndarray) -> np.ndarray:
        """Letters of all documents, from numbers that are uniform on [0, 1): int[D, C]."""
        if not self.letters:
            return np.zeros(uniform_DxC.shape, int)
        cumulative_AxA = transitions(len(self.letters)).cumsum(axis=-1)
        letter_DxC = (uniform_DxC * len(self.letters)).astype(int)
        for place in range(1, CHARACTERS):
            row_DxA = cumulative_AxA[letter_DxC[:, place - 1]]
            letter_DxC[:, place] = (uniform_DxC[:, place, None] >= row_DxA[:, :-1]).sum(axis=1)
        return letter_DxC


def transitions(letters: int) -> np.ndarray:
    """Shares of the letters that follow each, P_bc ∝ sqrt(o_c) o_bc with odds o = u / (1 - u), u uniform: [A, A].

    Odds have a heavy tail: a few letters are frequent and are learnt first, so that loss falls over a long time.
    """
    uniform_1A, uniform_AxA = np.split(np.random.default_rng(_TABLE_SEED).random((letters + 1, letters)), [1])
    odds_AxA = np.sqrt(_odds(uniform_1A)) * _odds(uniform_AxA)
    return odds_AxA / odds_AxA.sum(axis=1, keepdims=True)


def entropy(letters: int) -> float:
    """Of a language: nats a character after the first, the least loss that a model of it can have."""
    share_AxA = transitions(letters)
    stationary_A = np.linalg.matrix_power(share_AxA, 4096)[0]
    return -float(stationary_A @ (share_AxA * np.log(share_AxA)).sum(axis=1))


def _odds(uniform: np.ndarray) -> np.ndarray:
    return uniform / (1 - uniform)


def open_synthetic(text: str) -> Synthetic:
    """The source that `language?letters=...&noise=...&seed=...&documents=...` or `noise?seed=...&documents=...` names.

    Raises:
      ValueError: another kind, a missing, unknown or impossible option.
    """
    kind, _, query = text.partition("?")
    if kind not in _OPTIONS:
        raise ValueError(f"unknown synthetic text {kind!r}: expected {' or '.join(_OPTIONS)}; correct it")
    options = {key: value for key, _, value in (part.partition("=") for part in query.split("&")) if key}
    if set(options) != set(_OPTIONS[kind]):
        raise ValueError(f"options {sorted(options)}: expected exactly {', '.join(_OPTIONS[kind])}; write ?"
                         + "&".join(f"{name}=..." for name in _OPTIONS[kind]))
    letters, noise = (options["letters"], _number(options, "noise", float)) if kind == "language" else ("", 1.0)
    if kind == "language" and (len(letters) < 2 or len(set(letters)) < len(letters)):
        raise ValueError(f"letters = {letters!r}: expected two or more different characters; correct it")
    if set(letters) & set(NOISE_LETTERS):
        raise ValueError(f"letters = {letters!r}: expected none of {NOISE_LETTERS}, which noise is made of; use others")
    if not 0 <= noise <= 1:
        raise ValueError(f"noise = {noise}: expected a share from 0 to 1; correct it")
    seed, documents = int(_number(options, "seed", int)), int(_number(options, "documents", int))
    if seed < 0 or documents < 1:
        raise ValueError(f"seed = {seed}, documents = {documents}: expected 0 or more and 1 or more; correct them")
    return Synthetic(letters, noise, seed, documents)


def _number(options: Mapping[str, str], name: str, kind: type[int] | type[float]) -> float:
    try:
        return kind(options[name])
    except ValueError:
        raise ValueError(f"{name} = {options[name]!r}: expected a number; correct it") from None
