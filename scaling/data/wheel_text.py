"""Prose, code and headers out of the files that installed wheels list as their own."""

import ast
import gc
import importlib.metadata
import inspect
import itertools
import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

from scaling.data.documents import cut

SHORTEST_PROSE = 200  # characters; shorter docstrings say little beyond a name
SHORTEST_REPEAT = 40  # characters; shorter paragraphs are headings and may come again
TESTS = frozenset({"test", "testing", "tests", "test_data"})
GENERATED = frozenset({"__config__", "_version", "_version_meson", "version", "config", "_numpyconfig"})  # stems

_LITERAL_OR_COMMENT = re.compile(
    r'''("""(?:\\.|[^\\])*?"""|\'\'\'(?:\\.|[^\\])*?\'\'\'|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')|[ \t]*\#[^\n]*''',
    re.DOTALL,
)
_BLANKS = re.compile(r"\s*\n(?:[ \t]*\n)+")
# Where a paragraph begins, and where a line with a more indented one below begins: the entry of one parameter.
_BLOCK = re.compile(r"^(?=\s*\n|( *)\S[^\n]*\n\1 +\S)", re.MULTILINE)
_NOTICE = re.compile(r"\s*(?:/\*.*?\*/|(?://[^\n]*\n)+)\s*", re.DOTALL)


def collect(python: Iterable[str], headers: Iterable[str]) -> dict[str, list[str]]:
    """Documents by domain: `prose` and `code` of the packages `python`, `headers` of the packages `headers`.

    prose: docstrings and other bare strings, dedented, paragraphs seen before left out. code: Python source without
    them and without comments. headers: C and C++ headers without their copyright notice. Files of tests and files
    that a package's build generated are left out; files are cut at blank lines.
    """
    prose: list[str] = []
    code: list[str] = []
    seen: set[str] = set()
    collecting = gc.isenabled()
    gc.disable()  # syntax trees are many objects without cycles: a quarter of the time
    try:
        for path in _files(python, (".py",)):
            docstrings, source = separate(path.read_text(encoding="utf-8"))
            prose += (text for text in _fresh(docstrings, seen) if len(text) >= SHORTEST_PROSE)
            code += cut(source)
    finally:
        if collecting:
            gc.enable()
    texts = (path.read_text(encoding="utf-8", errors="replace") for path in _files(headers, (".h", ".hpp")))
    return {"prose": prose, "code": code, "headers": [piece for text in texts for piece in cut(without_notice(text))]}


def _files(packages: Iterable[str], suffixes: tuple[str, ...]) -> Iterator[Path]:
    for package in packages:
        listed = importlib.metadata.distribution(package).files
        if listed is None:
            raise ValueError(f"package {package} lists no files; install it from its wheel")
        for file in sorted(listed):
            own = file.suffix in suffixes and file.stem not in GENERATED and not file.stem.endswith("_test")
            if own and TESTS.isdisjoint(file.parts):
                yield Path(str(file.locate()))


def _fresh(docstrings: Iterable[str], seen: set[str]) -> Iterator[str]:
    for docstring in docstrings:
        kept = []
        text = inspect.cleandoc(docstring)
        starts = [0, *(match.start() for match in _BLOCK.finditer(text)), len(text)]
        for start, end in itertools.pairwise(starts):
            block = text[start:end].strip()
            if block not in seen or len(block) < SHORTEST_REPEAT:
                seen.add(block)
                kept.append(text[start:end])
        yield "".join(kept).strip()


def separate(source: str) -> tuple[list[str], str]:
    """Bare strings of a Python file, and its code without them and without comments."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in other people's strings
        tree = ast.parse(source)
    lines = source.splitlines(keepends=True)
    strings = []
    for node, alone in _bare_strings(tree.body):
        strings.append(node.value.value)  # type: ignore[attr-defined]
        first, last = node.lineno - 1, node.end_lineno or node.lineno
        indent = lines[first][: node.col_offset]
        if not indent.strip():
            lines[first:last] = [f"{indent}...\n" if alone else "\n"] + ["\n"] * (last - first - 1)
    code = _LITERAL_OR_COMMENT.sub(lambda match: match[1] or "", "".join(lines))
    return strings, _BLANKS.sub("\n\n", code).strip() + "\n"


def _bare_strings(body: list[ast.stmt]) -> Iterator[tuple[ast.Expr, bool]]:
    """Statements that are only a string, and whether each is all its block has. Enters statements, not expressions."""
    bare = [node for node in body if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)]
    bare = [node for node in bare if isinstance(node.value.value, str)]  # type: ignore[attr-defined]
    yield from ((node, len(bare) == len(body)) for node in bare)
    for node in body:
        for block in ("body", "orelse", "finalbody", "handlers"):
            yield from _bare_strings(getattr(node, block, []))


def without_notice(header: str) -> str:
    """A header without its leading comment where that speaks of copyright or licence."""
    match = _NOTICE.match(header)
    return header[match.end() :] if match and re.search("copyright|licen[cs]e", match[0], re.IGNORECASE) else header
