"""The default corpora, built once a session; SCALING_TEST_CACHE keeps them between sessions."""

import os
from pathlib import Path

import pytest

from scaling.data.corpus import Corpus, load_corpus
from scaling.data.wheels import DOMAINS


@pytest.fixture(scope="session")
def corpus_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    kept = os.environ.get("SCALING_TEST_CACHE")
    return Path(kept) if kept else tmp_path_factory.mktemp("corpora")


@pytest.fixture(scope="session")
def wheels(corpus_cache: Path) -> Corpus:
    return load_corpus({name: f"wheels:{name}" for name in DOMAINS}, "bytes", corpus_cache)
