"""What runs need beside their configuration: the corpus of a program, its devices, its compiled trainers."""

from __future__ import annotations

import functools
import logging
import os
from pathlib import Path

import jax
import numpy as np

from scaling.config import Run
from scaling.data.batches import Tokens, device_tokens
from scaling.data.corpus import Corpus, load_corpus
from scaling.data.packed import PackedCorpus
from scaling.fields import ConfigError
from scaling.packed import Packing
from scaling.sweeps.plan import Width
from scaling.training.state import TrainState, initial_state
from scaling.training.tables import Windows
from scaling.training.trainer import Layout, PackTrainer

LOG = logging.getLogger("scaling")


def cache_folder() -> Path:
    """Where corpora, compiled programs and measured widths are kept: $SCALING_CACHE, or ~/.cache/scaling."""
    return Path(os.environ.get("SCALING_CACHE") or Path.home() / ".cache" / "scaling")


class Workbench:
    """Loads each corpus once, and keeps one trainer a program and width."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self._trainers: dict[tuple[Run, Width], PackTrainer] = {}

    @functools.lru_cache(maxsize=8)  # noqa: B019  a workbench lives as long as its process
    def _corpus(self, domains: tuple[tuple[str, str], ...], tokenizer: str) -> tuple[Corpus, Tokens]:
        LOG.info("reading the corpora %s (%s)", ", ".join(name for name, _ in domains), tokenizer)
        try:
            corpus = load_corpus(dict(domains), tokenizer, self.cache)
            return corpus, device_tokens(corpus)
        except ValueError as error:
            raise ConfigError(f"data.{error}") from error

    @functools.lru_cache(maxsize=8)  # noqa: B019
    def _packed(self, domains: tuple[tuple[str, str], ...], tokenizer: str, packing: Packing) -> PackedCorpus:
        LOG.info("packing the documents of %s (%s)", ", ".join(name for name, _ in domains), packing.method)
        return PackedCorpus(self._corpus(domains, tokenizer)[0], packing)

    def _text(self, program: Run) -> Corpus | PackedCorpus:
        """What the windows of a program come from."""
        if program.packing is None:
            return self.corpus(program)
        return self._packed(program.data.domains, program.data.tokenizer, program.packing)

    def corpus(self, program: Run) -> Corpus:
        """The tokenized corpus of a program."""
        return self._corpus(program.data.domains, program.data.tokenizer)[0]

    def windows(self, program: Run) -> Windows:
        """Training windows that each domain holds.

        Raises ConfigError when a domain is too short for one, or for the held-out windows that are asked for.
        """
        corpus, text = self.corpus(program), self._text(program)
        try:
            counts_K = text.windows(program.data.sequence)
            text.validation_windows(program.data.sequence, program.evaluation.windows)
            _held_out(corpus, program)
        except ValueError as error:
            raise ConfigError(f"data.sequence = {program.data.sequence}, evaluation.windows = "
                              f"{program.evaluation.windows}: {error}") from error
        return Windows(tuple(zip(corpus.names, counts_K.tolist(), strict=True)))

    def bytes_per_token(self, program: Run) -> np.ndarray:
        """Bytes a held-out target token stands for, float64[K]."""
        return self._text(program).bytes_per_token(program.data.sequence, program.evaluation.windows)

    def layout(self, width: Width) -> Layout:
        """The width on the devices at hand: as many as divide it evenly."""
        devices = len(jax.local_devices())
        data = max(n for n in range(1, min(devices, width.data) + 1) if width.data % n == 0)
        fitting = [n for n in range(1, devices // data + 1) if width.lanes % (n * width.vmap) == 0]
        return Layout(width.lanes, width.vmap, max(fitting) * data, data)

    def trainer(self, program: Run, width: Width) -> PackTrainer:
        """The compiled trainer of a program at a width."""
        key = (program, width)
        if key not in self._trainers:
            corpus, tokens = self._corpus(program.data.domains, program.data.tokenizer)
            text = self._text(program)
            if isinstance(text, PackedCorpus):
                tokens = text.tokens(program.data.sequence)
            validation = text.validation_windows(program.data.sequence, program.evaluation.windows)
            self._trainers[key] = PackTrainer(program, corpus.vocabulary, tokens, validation, self.layout(width),
                                              held_out_KxMxT=_held_out(corpus, program))
        return self._trainers[key]

    def forget(self, program: Run) -> None:
        """Let go of a program's trainers and their device memory, once no pack needs them."""
        for key in [key for key in self._trainers if key[0] == program]:
            del self._trainers[key]

    def template(self, program: Run) -> TrainState:
        """Shapes of one run's state."""
        vocabulary = self.corpus(program).vocabulary
        return jax.eval_shape(functools.partial(initial_state, program, vocabulary), np.int32(0))


def _held_out(corpus: Corpus, program: Run) -> np.ndarray | None:
    """The held-out windows that a program's mixer looks at; None without such a mixer."""
    if program.mixer is None or program.mixer.windows is None:
        return None
    return corpus.other_validation_windows(program.data.sequence, program.evaluation.windows, program.mixer.windows)
