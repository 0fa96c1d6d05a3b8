"""Documents: cut out of files, put in an order that does not depend on where they were, divided for validation."""

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

SEPARATOR = 0  # ends every document: byte 0 of a text, token 0 of every tokenizer
VALIDATION_SHARE = 0.05
PIECE = 2048  # bytes at which a long file is cut
VERSION = 1  # part of cache keys: raise it when the result of any function here changes

_PARAGRAPH = re.compile(r".*?(?:\n[^\S\n]*\n\s*|\Z)", re.DOTALL)


@dataclass(frozen=True)
class Texts:
    """A domain's documents, each ended by SEPARATOR."""

    train: bytes
    validation: bytes


def cut(text: str, size: int = PIECE) -> Iterator[str]:
    """Pieces of about `size` characters that join to the text again, ending at blank lines.

    A piece grows by whole paragraphs while it stays within `size`; a paragraph longer than that is cut at line ends; a
    longer line stays whole.
    """
    piece = ""
    for part in _parts(text, size):
        if piece and len(piece) + len(part) > size:
            yield piece
            piece = ""
        piece += part
    if piece:
        yield piece


def _parts(text: str, size: int) -> Iterator[str]:
    for match in _PARAGRAPH.finditer(text):
        paragraph = match[0]
        if len(paragraph) <= size:
            yield paragraph
        else:
            yield from paragraph.splitlines(keepends=True)


def arrange(documents: Iterable[str]) -> Texts:
    """Distinct documents, without newlines around them, in order of content's hash; about 5% are for validation.

    Side and place follow from the content alone: adding documents never moves one to the other side, any prefix of
    `train` is a random sample of it, and equal documents of two domains fall on one side.

    Raises:
      ValueError: no documents, none for one of the two sides, or a document that contains the separator.
    """
    stripped = (document.strip("\n") for document in documents)
    ordered = {_digest(document): document.encode() for document in stripped if document.strip()}
    sides: tuple[list[bytes], list[bytes]] = ([], [])
    for digest, content in sorted(ordered.items()):
        if SEPARATOR in content:
            raise ValueError(f"a document contains byte {SEPARATOR}, which separates documents: {content[:60]!r}...")
        sides[_is_validation(digest)].append(content)
    train, validation = sides
    if not train or not validation:
        raise ValueError(
            f"{len(train)} documents for training and {len(validation)} for validation, expected at least one each "
            f"({VALIDATION_SHARE:.0%} go to validation, by content); add text"
        )
    return Texts(_join(train), _join(validation))


def split(text: bytes) -> list[bytes]:
    """The documents of one side of `Texts`."""
    return text.split(bytes([SEPARATOR]))[:-1]


def _join(documents: list[bytes]) -> bytes:
    return b"".join(document + bytes([SEPARATOR]) for document in documents)


def _digest(document: str) -> bytes:
    return hashlib.blake2b(document.encode(), digest_size=16).digest()


def _is_validation(digest: bytes) -> bool:
    # The last bytes: the order of documents comes from the first ones.
    return int.from_bytes(digest[-4:], "big") < VALIDATION_SHARE * 2**32
