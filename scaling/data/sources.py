"""Where a domain's text comes from: `wheels:...`, `folder:...`, `tfds:...` or `synthetic:...`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from scaling.data.cache import digest_of, sha256
from scaling.data.documents import cut

SUFFIXES = (".c", ".cc", ".cpp", ".h", ".hpp", ".md", ".py", ".rst", ".tex", ".txt")


class Source(Protocol):
    """Text that can be told from other text (`fingerprint`) before it is read in full."""

    def fingerprint(self) -> str:
        """Changes whenever the documents may have changed."""

    def documents(self) -> Iterator[str]:
        """All documents."""


@dataclass(frozen=True)
class Folder:
    """A UTF-8 text file, or the files below a folder that end in one of SUFFIXES, cut at blank lines."""

    path: Path

    def __post_init__(self) -> None:
        if not self.path.exists():
            raise ValueError(f"no such file or folder: {self.path}; correct the path")
        if not self.files():
            raise ValueError(f"no text below {self.path}; expected files ending in {', '.join(SUFFIXES)}")

    def files(self) -> list[Path]:
        """The text files, sorted by path."""
        if self.path.is_file():
            return [self.path]
        return sorted(path for path in self.path.rglob("*") if path.suffix in SUFFIXES and path.is_file())

    def fingerprint(self) -> str:
        """From the content of all files."""
        return digest_of(*(sha256(path.read_bytes()) for path in self.files()))

    def documents(self) -> Iterator[str]:
        """Pieces of the files."""
        for path in self.files():
            try:
                text = path.read_bytes().decode()
            except UnicodeDecodeError as error:
                raise ValueError(f"{path} is not UTF-8 text ({error}); convert it or move it away") from error
            yield from cut(text)


@dataclass(frozen=True)
class Tfds:
    """One text feature of one split of a TFDS dataset that is prepared on disk in a random-access format."""

    name: str
    split: str = "train"
    text: str = "text"
    dir: str | None = None

    def fingerprint(self) -> str:
        """From the dataset's files: names, sizes, times of change."""
        folder = Path(self._builder().data_dir)
        stats = [(path.name, path.stat()) for path in sorted(folder.iterdir())]
        files = [f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats]
        return digest_of(self.name, self.split, self.text, *files)

    def documents(self) -> Iterator[str]:
        """The text feature of every example, in stored order."""
        builder = self._builder()
        self._check(builder)
        source = builder.as_data_source(split=self.split)
        for start in range(0, len(source), 1024):
            for example in source.__getitems__(range(start, min(start + 1024, len(source)))):
                yield example[self.text].decode()

    def _builder(self) -> Any:
        import tensorflow_datasets as tfds  # costs seconds, and only some corpora need it

        try:
            return tfds.core.read_only_builder.builder_from_files(self.name, data_dir=self.dir)
        except tfds.core.registered.DatasetNotFoundError as error:
            searched = tfds.core.utils.file_utils.list_data_dirs(given_data_dir=self.dir)
            raise ValueError(
                f"TFDS dataset {self.name!r} is not prepared in {', '.join(map(str, searched))}; nothing is downloaded "
                f"here: run tfds.builder({self.name!r}, file_format='array_record').download_and_prepare() where "
                "there is a network, or name its folder with ?dir="
            ) from error

    def _check(self, builder: Any) -> None:
        if self.split not in builder.info.splits:
            raise ValueError(f"split {self.split!r}: expected one of {', '.join(builder.info.splits)}; write ?split=")
        features = {name: type(feature).__name__ for name, feature in builder.info.features.items()}
        if features.get(self.text) != "Text":
            listed = ", ".join(f"{name} ({kind})" for name, kind in features.items())
            raise ValueError(f"text feature {self.text!r}: expected a Text feature among {listed}; write ?text=")
        if builder.info.file_format.value != "array_record":
            raise ValueError(
                f"{builder.data_dir} is stored as {builder.info.file_format.value}, expected array_record; "
                "prepare it again with file_format='array_record'"
            )
        for path in builder.info.splits[self.split].filepaths:
            if not path.exists():  # the reader would retry for long
                raise ValueError(f"{path} is missing; prepare the dataset again")


def open_source(value: str, cache: Path) -> Source:
    """The source that a config's text names.

    Raises:
      ValueError: unknown kind, unknown option, unreadable path.
    """
    kind, _, rest = value.partition(":")
    if kind == "wheels":
        from scaling.data.wheels import Wheels

        return Wheels(rest, cache / "wheels")
    if kind == "synthetic":
        from scaling.data.synthetic import open_synthetic

        return open_synthetic(rest)
    if kind == "folder" and rest:
        return Folder(Path(rest).expanduser())
    if kind == "tfds" and rest:
        name, _, query = rest.partition("?")
        options = {key: text for key, _, text in (part.partition("=") for part in query.split("&")) if key}
        unknown = options.keys() - {"split", "text", "dir"}
        if unknown:
            raise ValueError(f"unknown option {min(unknown)!r}: expected split, text or dir; correct it")
        return Tfds(name, **options)
    raise ValueError("unknown source: expected wheels:prose|code|headers, folder:PATH, tfds:NAME or synthetic:KIND; "
                     "correct it")
