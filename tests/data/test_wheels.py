"""The default corpora: large enough, read back through TFDS, without leaks, quick the second time, repaired."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from scaling.data import wheels as module
from scaling.data.corpus import Corpus, load_corpus
from scaling.data.documents import split

WHEELS = {name: f"wheels:{name}" for name in module.DOMAINS}


def test_there_is_enough_text_of_each_kind(wheels: Corpus) -> None:
    sizes = {domain.name: domain.train.size for domain in wheels.domains}
    assert sizes["prose"] > 4e6
    assert sizes["code"] > 10e6
    assert sizes["headers"] > 3e6
    shares = [domain.validation.size / (domain.train.size + domain.validation.size) for domain in wheels.domains]
    assert min(shares) > 0.03
    assert max(shares) < 0.07
    assert (wheels.validation_windows(256, 200) >= 0).all()


def test_each_domain_is_what_it_is_called(wheels: Corpus) -> None:
    prose, code, headers = (domain.train.tobytes() for domain in wheels.domains)
    for word, home in ((b"Parameters\n", prose), (b"\ndef ", code), (b"#include <", headers)):
        counts = [text.count(word) / len(text) for text in (prose, code, headers)]
        assert max(counts) == home.count(word) / len(home)
    for text in (code, prose, headers):
        assert b"Copyright" not in text[:200_000] or text is not code


def test_no_document_of_validation_is_in_training(wheels: Corpus) -> None:
    train = {document for domain in wheels.domains for document in split(domain.train.tobytes())}
    for domain in wheels.domains:
        validation = split(domain.validation.tobytes())
        assert len(validation) > 50
        assert not train & set(validation)
        text = domain.train.tobytes()
        assert not [document for document in validation if len(document) > 1500 and document in text]


def test_validation_windows_hardly_occur_in_training(wheels: Corpus) -> None:
    """What does recur is boilerplate that neighbours share: a few percent of windows of 257 bytes, under 1% of 1025."""
    for sequence, most in ((256, 0.04), (1024, 0.01)):
        for domain, windows in zip(wheels.domains, wheels.validation_windows(sequence, 150), strict=True):
            text = domain.train.tobytes()
            assert np.mean([window.astype(np.uint8).tobytes() in text for window in windows]) <= most


def test_the_second_load_needs_neither_tfds_nor_tensorflow(wheels: Corpus, corpus_cache: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from scaling.data.corpus import load_corpus; "
        f"corpus = load_corpus({WHEELS!r}, 'bytes', Path(sys.argv[1])); "
        "print(corpus.checksum); "
        "print([name for name in ('tensorflow', 'tensorflow_datasets') if name in sys.modules])"
    )
    command = [sys.executable, "-W", "error", "-c", program, str(corpus_cache)]
    checksum, *modules = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert checksum == wheels.checksum
    assert modules == ["[]"]


def test_the_dataset_is_any_other_tfds_dataset(wheels: Corpus, corpus_cache: Path, tmp_path: Path) -> None:
    data_dir = module.dataset(corpus_cache / "wheels")
    builder = tfds.builder_from_directory(str(data_dir / "wheel_text" / f"{module.VERSION}.0.0"))
    assert set(builder.info.splits) == set(WHEELS)
    assert builder.info.splits["prose"].num_examples > 3000
    assert "tensorflow" not in sys.modules
    named = load_corpus({"any": f"tfds:wheel_text?split=headers&dir={data_dir}"}, "bytes", tmp_path)
    np.testing.assert_array_equal(named.domains[0].train, wheels.domains[2].train)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    documents = {name: [f"{name} number {index}" for index in range(300)] for name in module.DOMAINS}
    monkeypatch.setattr(module, "collect", lambda python, headers: documents)
    return documents


def test_a_package_of_another_version_gets_its_own_dataset(small, tmp_path: Path, monkeypatch) -> None:
    first = module.dataset(tmp_path)
    key = module.Wheels("prose", tmp_path).fingerprint()
    monkeypatch.setattr(module.importlib.metadata, "version", lambda name: "99")
    assert module.dataset(tmp_path) != first
    assert module.Wheels("prose", tmp_path).fingerprint() != key
    assert module.Wheels("prose", tmp_path).fingerprint() != module.Wheels("code", tmp_path).fingerprint()


@pytest.mark.parametrize("name", ["*code*array_record*", "features.json", "checksums.json"])
def test_a_damaged_dataset_is_named_and_built_again(small, tmp_path: Path, name: str) -> None:
    victim = next(module.dataset(tmp_path).rglob(name))
    victim.write_bytes(victim.read_bytes()[:30])
    with pytest.warns(RuntimeWarning, match="damaged; removed with its dataset") as caught:
        data_dir = module.dataset(tmp_path)
    assert str(victim) in str(caught[0].message)
    assert sorted(module.Wheels("code", tmp_path).documents()) == sorted(small["code"])
    assert json.loads((data_dir / "checksums.json").read_text())


def test_builders_at_once_leave_one_whole_dataset(small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    together, results = threading.Barrier(2), []
    original = module.write

    def late(path: Path, content: bytes) -> None:
        original(path, content)
        together.wait(60)  # both datasets are complete, neither is in place

    one_at_a_time, build = threading.Lock(), module.build

    def build_alone(data_dir: Path, documents: dict) -> None:
        with one_at_a_time:  # two threads share one standard output
            build(data_dir, documents)

    monkeypatch.setattr(module, "write", late)
    monkeypatch.setattr(module, "build", build_alone)
    threads = [threading.Thread(target=lambda: results.append(module.dataset(tmp_path))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results[0] == results[1]
    assert [path.name for path in tmp_path.iterdir()] == [results[0].name]
    assert sorted(module.Wheels("prose", tmp_path).documents()) == sorted(small["prose"])


def test_a_dataset_in_place_is_not_collected_again(
    wheels: Corpus, corpus_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(module, "collect")
    assert module.dataset(corpus_cache / "wheels").exists()
