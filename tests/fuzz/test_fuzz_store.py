"""Whatever lies in a workdir: tables, or an error that names the file. Nothing in a file is ever run."""

import ast
import dataclasses
import hashlib
import json
import math
import os
import pickle
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from fuzzing import JSON, LEAVES, NASTY_TEXT, TEXT, attempt, fuzzed, json_text, mutated, refused
from hypothesis import given
from hypothesis import strategies as st

from experiments import runtime
from scaling.fields import ConfigError
from scaling.files import StoreError
from scaling.seal import DIGEST, ENDING, write_json, write_parquet
from scaling.store import TABLES, Store
from scaling.sweeps.heartbeat import Heartbeat, read_heartbeats
from scaling.sweeps.plan import Manifest, Pack, Width

ROOT = Path(__file__).parents[2]
ROWS = pd.DataFrame({"run_id": ["a", "b"] * 20, "loss": [1.5, math.nan] * 20, "status": ["done", "failed"] * 20})
BEAT = dataclasses.asdict(Heartbeat("node", 7, 1e3, 2e3, 4.0, 10, 3, 1, 6e6, 2e12, 8e12, 5e2, 9e3, 3e9, ""))
PACKS = [dataclasses.asdict(Pack(name * 3, (name, name * 2), Width(4, 2, 1))) for name in "ab"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def sealed(folder: Path) -> bytes:
    """A valid file."""
    write_parquet(folder / "valid", pa.Table.from_pandas(ROWS))
    return (folder / "valid").read_bytes()


def check_read(folder: Path, content: bytes, table: str = "curves") -> None:
    """A table that holds `content` as a file is read, or the file is named."""
    store = Store(folder / "store")
    path = store.path(table, "x")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    try:
        assert isinstance(store.read(table), pd.DataFrame)
    except StoreError as error:
        refused(error, names=str(path.parent))
    finally:
        path.unlink()


def resealed(content: bytes) -> bytes:
    """The bytes with the checksum that they need: what a file not written by this program may be."""
    footer = len(content) - ENDING - int.from_bytes(content[-ENDING:-4], "little")
    if footer < DIGEST:
        return content
    rest = content[:footer - DIGEST] + content[footer:]
    return content[:footer - DIGEST] + hashlib.sha256(rest).digest() + content[footer:]


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """The bytes with some changed, cut out or put in."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(changed) - 1, 0)))
        action = draw(st.sampled_from(["flip", "cut", "insert", "repeat"]))
        if action == "flip" and changed:
            changed[at] ^= draw(st.integers(1, 255))
        elif action == "cut":
            del changed[at:at + draw(st.integers(1, 200))]
        else:
            changed[at:at] = draw(st.binary(max_size=20)) if action == "insert" else changed[at:at + 50]
    return bytes(changed)


@fuzzed
@given(st.one_of(st.binary(max_size=200), st.binary(max_size=60).map(lambda middle: b"PAR1" + middle + b"PAR1"),
                 st.sampled_from([text.encode("utf-8", "surrogatepass") for text in NASTY_TEXT])),
       st.sampled_from(TABLES), st.booleans())
def test_any_bytes_for_a_table(folder: Path, content: bytes, table: str, seal: bool) -> None:
    check_read(folder, resealed(content) if seal else content, table)


@fuzzed
@given(st.data())
def test_a_table_with_bytes_changed(folder: Path, sealed: bytes, data: st.DataObject) -> None:
    content = data.draw(damaged(sealed))
    if content == sealed:
        return
    store = Store(folder / "changed")
    path = store.path("runs", "x")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"x\.parquet"):
        store.read("runs")
    assert len(list(store.damaged("runs"))) == 1


@fuzzed
@given(st.data())
def test_a_table_with_bytes_changed_and_a_checksum_that_fits(folder: Path, sealed: bytes, data: st.DataObject) -> None:
    check_read(folder, resealed(data.draw(damaged(sealed))))


COLUMNS = st.lists(st.one_of(st.integers(-5, 5), st.floats(), st.booleans(), st.text(max_size=3), st.none(),
                             st.lists(st.integers(0, 3), max_size=2)), min_size=1, max_size=3)


@fuzzed
@given(st.lists(st.dictionaries(st.sampled_from(["run_id", "loss", "step", "", "é", "a.b"]), COLUMNS, max_size=3),
                min_size=1, max_size=3))
def test_tables_of_foreign_schemas_are_united_or_refused(folder: Path, tables: list[dict[str, list[Any]]]) -> None:
    store = Store(folder / "foreign")
    for index, columns in enumerate(tables):
        length = min((len(values) for values in columns.values()), default=0)
        try:
            arrow = pa.table({name: values[:length] for name, values in columns.items()})
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            arrow = pa.table({"run_id": [index]})
        path = store.path("diagnostics", str(index))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_parquet(path, arrow)
    try:
        assert isinstance(store.read("diagnostics"), pd.DataFrame)
    except StoreError as error:
        refused(error)
    finally:
        store.remove("diagnostics", store.names("diagnostics"))


@fuzzed
@given(st.one_of(TEXT, st.sampled_from(TABLES)), st.lists(TEXT, max_size=3))
def test_odd_names(folder: Path, table: str, names: list[str]) -> None:
    store = Store(folder / "odd")
    try:
        where = store.folder(table)
    except StoreError as error:
        assert table not in TABLES
        refused(error)
        return
    where.mkdir(parents=True, exist_ok=True)
    for name in names:
        try:
            (where / name.replace("/", "_")).write_bytes(b"")
        except (OSError, ValueError):  # no name for a file here
            continue
    assert store.read(table).empty
    for name in os.listdir(where):
        (where / name).unlink()


def sealed_json(contents: Any) -> Any:
    """With the checksum that a reader asks for; as it is where it cannot be written."""
    try:
        text = json.dumps(contents, sort_keys=True)
    except (RecursionError, ValueError):
        return contents
    return {"sha256": hashlib.sha256(text.encode()).hexdigest(), "contents": contents}


def check_file(path: Path, content: str, read: Any) -> None:
    """`read()` succeeds, or says what is wrong."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8", errors="surrogatepass")
    try:
        attempt(read, StoreError, ConfigError)
    finally:
        path.unlink()


@fuzzed
@given(st.one_of(JSON, mutated(BEAT, LEAVES)).map(json_text) | TEXT)
def test_any_progress_file(folder: Path, content: str) -> None:
    check_file(folder / "progress" / "n-1.json", content, lambda: read_heartbeats(folder / "progress"))


@fuzzed
@given(st.one_of(JSON, mutated(PACKS)), st.booleans())
def test_any_plan(folder: Path, packs: Any, seal: bool) -> None:
    path = folder / "plans" / "plan.json"

    def read() -> None:
        assert all(isinstance(run_id, str) for pack in Manifest(path).packs for run_id in pack.run_ids)

    check_file(path, json_text(sealed_json(packs) if seal else packs), read)


@fuzzed
@given(st.one_of(JSON, mutated({"base": {}, "study": {"name": "critical_ratio"}})), st.booleans())
def test_any_experiment_file(folder: Path, record: Any, seal: bool) -> None:
    check_file(folder / "work" / "experiment.json", json_text(sealed_json(record) if seal else record),
               lambda: runtime.study_modules(runtime.load_study(folder / "work")))


class Bomb:
    """Touches a file when a pickle of it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def test_no_file_of_a_workdir_runs_code(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    bomb = pickle.dumps(Bomb(marker))
    pickle.loads(bomb)
    assert marker.exists(), "the bomb works where pickles are loaded"
    marker.unlink()
    store = Store(tmp_path / "store")
    arrow = pa.table({"run_id": [bomb], "loss": [bomb]}, metadata={b"pandas": bomb, b"ARROW:schema": bomb})
    path = store.path("curves", "bomb")
    path.parent.mkdir(parents=True)
    for content in (bomb, b"PAR1" + bomb + b"PAR1"):
        check_read(tmp_path, content)
    write_parquet(path, arrow)
    check_read(tmp_path, path.read_bytes())
    for name in ("plan.json", "progress/n-1.json", "experiment.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(bomb)
    for read in (lambda: Manifest(tmp_path / "plan.json"), lambda: read_heartbeats(tmp_path / "progress"),
                 lambda: runtime.load_study(tmp_path)):
        with pytest.raises((StoreError, ConfigError)):
            read()
    assert not marker.exists()


@pytest.mark.parametrize("name", ["os", "os.system", "subprocess", "runtime", "../fit", "published.chinchilla", "fit"])
def test_a_study_names_a_study_and_no_other_module(tmp_path: Path, name: str) -> None:
    write_json(tmp_path / "experiment.json", {"base": {}, "study": {"name": name}})
    with pytest.raises(ConfigError, match=r"study\.name: unknown key"):
        runtime.study_modules(runtime.load_study(tmp_path))


FORBIDDEN_CALLS = {"eval", "exec", "__import__", "compile"}
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml"}


def test_no_module_loads_pickles_or_evaluates_text() -> None:
    """Of the built-in functions that run text, and the modules that unpickle: no call and no import."""
    found = []
    for path in sorted([*ROOT.glob("scaling/**/*.py"), *ROOT.glob("experiments/**/*.py"), *ROOT.glob("configs/*.py")]):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, (ast.Import, ast.ImportFrom)) else []
            if isinstance(node, ast.ImportFrom):
                names.append(node.module or "")
            bad = {name.split(".")[0] for name in names} & FORBIDDEN_MODULES
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                bad |= {node.func.id} & FORBIDDEN_CALLS
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                off = isinstance(node.value, ast.Constant) and not node.value.value
                bad |= set() if off else {"allow_pickle"}
            found += [f"{path.relative_to(ROOT)}:{node.lineno} {name}" for name in bad]
    assert found == []


def test_a_file_that_is_no_parquet_behind_a_fitting_checksum_is_named(tmp_path: Path) -> None:
    path = Store(tmp_path).path("runs", "x")
    path.parent.mkdir(parents=True)
    path.write_bytes(resealed(b"PAR1" + b"\0" * 100 + (20).to_bytes(4, "little") + b"PAR1"))
    with pytest.raises(StoreError, match=r"x\.parquet: "):
        Store(tmp_path).read("runs")
