"""Separating prose from code, by hand-written cases and against the syntax trees of real files."""

import ast
import importlib.metadata
import warnings
from pathlib import Path

import pytest

from scaling.data import wheel_text
from scaling.data.wheel_text import collect, separate, without_notice

SOURCE = '''\
"""Module."""
import os  # operating system

# a comment of its own


X = "not # a comment"  # but this is
"""Documents X."""


class A:
    """Class
    on two lines."""


def f(y):
    """Function."""
    text = \'\'\'kept # here\'\'\'
    return text, y, 'it\\'s # kept', "\\\\"  # gone
'''
CODE = '''\
import os

X = "not # a comment"

class A:
    ...

def f(y):

    text = \'\'\'kept # here\'\'\'
    return text, y, 'it\\'s # kept', "\\\\"
'''


def test_code_loses_comments_and_bare_strings_only() -> None:
    strings, code = separate(SOURCE)
    assert sorted(strings) == sorted(["Module.", "Documents X.", "Class\n    on two lines.", "Function."])
    assert code == CODE


def without_bare_strings(tree: ast.Module) -> str:
    def is_bare(node: ast.stmt) -> bool:
        return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)

    for node in ast.walk(tree):
        for block in ("body", "orelse", "finalbody"):
            part = getattr(node, block, None)
            if isinstance(part, list) and part:
                kept = [child for child in part if not is_bare(child)]
                dots = [ast.Expr(ast.Constant(...))] * len(part)
                setattr(node, block, kept or (dots if not isinstance(node, ast.Module) else []))
    return ast.dump(tree)


@pytest.mark.parametrize("package", ["optax", "flax"])
def test_code_of_real_files_parses_to_the_same_program(package: str) -> None:
    files = sorted(wheel_text._files([package], (".py",)))[::6]
    assert len(files) > 10
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in files:
            source = path.read_text(encoding="utf-8")
            _, code = separate(source)
            assert ast.dump(ast.parse(code)) == without_bare_strings(ast.parse(source)), path


def test_copyright_notices_go_and_other_comments_stay() -> None:
    assert without_notice("// Copyright 2020\n// by us\n\n#pragma once\n") == "#pragma once\n"
    assert without_notice("/*\n * License: MIT\n */\nint x;\n") == "int x;\n"
    assert without_notice("// Sums numbers.\nint x;\n") == "// Sums numbers.\nint x;\n"


class FakeFile(type(Path())):  # type: ignore[misc]
    def locate(self) -> Path:
        return Path(self)


def test_collecting_leaves_out_tests_generated_files_repeats_and_crumbs(tmp_path: Path, monkeypatch) -> None:
    long = "A sentence that is long enough to be kept as prose by the collector. " * 4
    module = f'"""{long}"""\ndef f():\n    """{long}"""\n    return {{}}\ndef g():\n    """Short."""\n    return 1\n'
    for name in ("a.py", "tests/b.py", "c_test.py", "_version.py", "sub/d.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(module.replace("{}", repr(name)).replace("A sentence", f"A sentence of {name}"))
    (tmp_path / "x.h").write_text("// Copyright\nint x;\n")
    (tmp_path / "config.h").write_text("int y;\n")

    class Distribution:
        files = tuple(FakeFile(path) for path in sorted(tmp_path.rglob("*")) if path.is_file())

    monkeypatch.setattr(importlib.metadata, "distribution", lambda package: Distribution)
    found = collect(["package"], ["package"])
    assert [text[:24] for text in found["prose"]] == ["A sentence of a.py that ", "A sentence of sub/d.py t"]
    assert [code.count("return") for code in found["code"]] == [2, 2]
    assert "'a.py'" in found["code"][0]
    assert found["headers"] == ["int x;\n"]


def test_entries_seen_before_are_left_out_of_prose() -> None:
    entry = "axis : int, optional\n    The axis along which all of this is done.\n"
    docstrings = [f"Sum.\n\nParameters\n----------\nx : array\n    Numbers to sum.\n{entry}",
                  f"Mean.\n\nParameters\n----------\nx : array\n    Numbers to average.\n{entry}"]
    first, second = wheel_text._fresh(docstrings, set())
    assert first.endswith("done.")
    assert second == "Mean.\n\nParameters\n----------\nx : array\n    Numbers to average."


def test_a_package_without_a_list_of_files_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Distribution:
        files = None

    monkeypatch.setattr(importlib.metadata, "distribution", lambda package: Distribution)
    with pytest.raises(ValueError, match="package optax lists no files; install it from its wheel"):
        collect(["optax"], [])
