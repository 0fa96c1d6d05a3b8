"""Real text on every machine: docstrings, Python code and C/C++ headers of pinned wheels, as a local TFDS dataset.

The wheels' text is the same on every machine for one version of each package; the standard library's is not.
"""

import contextlib
import importlib.metadata
import io
import json
import os
import shutil
import uuid
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from scaling.data.cache import digest_of, sha256, write
from scaling.data.documents import VERSION as CUT_VERSION
from scaling.data.sources import Tfds
from scaling.data.wheel_text import collect

PYTHON = ("flax", "numpy", "optax", "orbax-checkpoint", "scipy")
HEADERS = ("jaxlib", "numpy", "pyarrow")
DOMAINS = ("prose", "code", "headers")
VERSION = 1  # raise it when the collected text changes
NAME = "wheel_text"


@dataclass(frozen=True)
class Wheels:
    """One domain of the wheels' text. The dataset is built below `folder` when first read."""

    domain: str
    folder: Path

    def __post_init__(self) -> None:
        if self.domain not in DOMAINS:
            raise ValueError(f"unknown wheels domain {self.domain!r}: expected one of {', '.join(DOMAINS)}; correct it")

    def fingerprint(self) -> str:
        """From the packages' versions."""
        return digest_of(self.domain, _key())

    def documents(self) -> Iterator[str]:
        """The domain's documents out of the TFDS dataset."""
        yield from Tfds(NAME, split=self.domain, dir=str(dataset(self.folder))).documents()


def dataset(folder: Path) -> Path:
    """Data directory of the TFDS dataset `wheel_text` (splits prose, code, headers), built if absent or damaged."""
    data_dir = folder / _key()
    if data_dir.exists():
        damage = _damage(data_dir)
        if damage is None:
            return data_dir
        warnings.warn(f"{damage}: damaged; removed with its dataset, building it again", RuntimeWarning, stacklevel=2)
        shutil.rmtree(data_dir, ignore_errors=True)
    temporary = folder / f".{data_dir.name}.{uuid.uuid4().hex}"
    build(temporary, collect(PYTHON, HEADERS))
    files = sorted(path for path in temporary.rglob("*") if path.is_file())
    sums = {str(path.relative_to(temporary)): sha256(path.read_bytes()) for path in files}
    write(temporary / "checksums.json", json.dumps(sums, indent=1).encode())
    try:
        os.rename(temporary, data_dir)
    except OSError:
        if not data_dir.exists():
            raise
        shutil.rmtree(temporary)  # another process finished first, with the same content
    return data_dir


def _key() -> str:
    versions = [f"{name} {importlib.metadata.version(name)}" for name in sorted({*PYTHON, *HEADERS})]
    return digest_of(VERSION, CUT_VERSION, *versions)


def _damage(data_dir: Path) -> Path | None:
    manifest = data_dir / "checksums.json"
    try:
        sums = json.loads(manifest.read_bytes())
        broken = [name for name, checksum in sums.items() if sha256((data_dir / name).read_bytes()) != checksum]
    except (OSError, ValueError):
        return manifest
    return data_dir / broken[0] if broken else None


def build(data_dir: Path, documents: Mapping[str, list[str]]) -> None:
    """Write the documents as a TFDS dataset, one split a domain, in a format that needs no TensorFlow."""
    import tensorflow_datasets as tfds

    class WheelText(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
        """Text of installed wheels."""

        VERSION = tfds.core.Version(f"{VERSION}.0.0")

        def _info(self) -> tfds.core.DatasetInfo:
            features = tfds.features.FeaturesDict({"text": tfds.features.Text()})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, manager: object) -> dict:
            del manager
            return {domain: self._generate_examples(domain) for domain in documents}

        def _generate_examples(self, domain: str) -> Iterator[tuple[int, dict[str, str]]]:
            for index, text in enumerate(documents[domain]):
                yield index, {"text": text}

    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):  # it announces a download, and there is none
        WheelText(data_dir=str(data_dir), file_format="array_record").download_and_prepare()
