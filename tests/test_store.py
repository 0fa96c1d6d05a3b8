"""Tables are written whole or not at all, and read back as one with columns united by name."""

import random
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.dataset
import pyarrow.parquet
import pytest

from scaling.store import CorruptFileError, Store, StoreError, read


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_an_absent_table_has_no_rows(store: Store) -> None:
    assert store.read("runs").empty
    assert store.names("runs") == []


def test_columns_are_united_by_name(store: Store) -> None:
    store.write("runs", "a", pd.DataFrame({"run_id": ["x", "y"], "parent_step": [None, None], "loss": [1, 2]}))
    store.write("runs", "b", pd.DataFrame({"loss": [0.5], "run_id": ["z"], "parent_step": [7], "new": ["w"]}))
    table = store.read("runs").set_index("run_id")
    assert list(table.index) == ["x", "y", "z"]
    assert table.loss.tolist() == [1.0, 2.0, 0.5]
    assert table.parent_step.isna().tolist() == [True, True, False]
    assert table.parent_step["z"] == 7
    assert table.new.isna().tolist() == [True, True, False]
    assert table.new["z"] == "w"


def test_values_come_back_bit_for_bit(store: Store) -> None:
    values = np.random.default_rng(0).normal(size=1000) * 10.0 ** np.arange(-500, 500).clip(-300, 300)
    store.write("curves", "a.000000000.000000128", pd.DataFrame({"loss": values, "step": np.arange(1000)}))
    table = read(store.root, "curves")
    assert table.loss.to_numpy().tobytes() == values.tobytes()
    assert table.step.dtype == np.int64
    assert store.names("curves") == ["a.000000000.000000128"]


def test_a_file_is_replaced_and_removed(store: Store) -> None:
    for status in ("running", "done"):
        store.write("runs", "job", pd.DataFrame({"run_id": ["x"], "status": [status]}))
    assert store.read("runs").status.tolist() == ["done"]
    store.remove("runs", ["job"])
    assert store.read("runs").empty
    with pytest.raises(FileNotFoundError):
        store.remove("runs", ["job"])


def test_an_unknown_table_is_refused(store: Store) -> None:
    with pytest.raises(StoreError, match=r"table 'curve': expected one of runs, curves, diagnostics"):
        store.read("curve")
    with pytest.raises(StoreError, match=r"table 'loss': expected one of"):
        store.write("loss", "a", pd.DataFrame({"x": [1]}))


def test_a_leftover_temporary_file_is_ignored(store: Store) -> None:
    store.write("runs", "a", pd.DataFrame({"run_id": ["x"]}))
    (store.folder("runs") / ".a.parquet.0123abcd").write_bytes(b"PAR1 half a fi")
    assert store.names("runs") == ["a"]
    assert store.read("runs").run_id.tolist() == ["x"]


@pytest.mark.parametrize("content", [b"", b"not parquet", b"PAR1", b"PAR1" * 20, b"\xff" * 100])
def test_a_file_that_is_none_of_ours_is_named_with_the_cure(store: Store, content: bytes) -> None:
    store.write("curves", "good", pd.DataFrame({"run_id": ["x"]}))
    path = store.path("curves", "bad")
    path.write_bytes(content)
    with pytest.raises(CorruptFileError, match=r"curves/bad\.parquet: damaged.*; restore it from a copy, or run") as e:
        store.read("curves")
    assert e.value.path == path
    assert [error.path for error in store.damaged("curves")] == [path]


def test_a_parquet_file_without_checksum_is_refused(store: Store) -> None:
    """Nobody can say whether its bytes are those that were written."""
    store.write("curves", "good", pd.DataFrame({"run_id": ["x"]}))
    pd.DataFrame({"run_id": ["y"] * 100}).to_parquet(store.path("curves", "foreign"))
    with pytest.raises(CorruptFileError, match=r"foreign\.parquet: damaged, or written by another program"):
        store.read("curves")


def test_every_cut_and_every_flipped_bit_is_noticed(store: Store) -> None:
    """A bit in every byte of a file, and an end at every length."""
    store.write("curves", "x", pd.DataFrame({"loss": np.arange(100.0), "domain": ["prose", "code"] * 50}))
    path, rng = store.path("curves", "x"), random.Random(0)
    content = path.read_bytes()
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << rng.randrange(8)
        for damaged in (bytes(flipped), content[:place]):
            path.write_bytes(damaged)
            with pytest.raises(CorruptFileError, match=r"x\.parquet: damaged"):
                store.read("curves")
    path.write_bytes(content)
    assert len(store.read("curves")) == 100


def test_any_reader_of_parquet_reads_a_sealed_file(store: Store) -> None:
    rows = pd.DataFrame({"loss": np.arange(1000.0), "domain": ["prose", "code"] * 500})
    store.write("curves", "x", rows)
    path = store.path("curves", "x")
    pd.testing.assert_frame_equal(pd.read_parquet(path), rows)
    assert pyarrow.parquet.ParquetFile(path).metadata.num_rows == 1000
    found = pyarrow.dataset.dataset(path).to_table(filter=pyarrow.dataset.field("loss") >= 990.0)
    assert found["loss"].to_pylist() == list(range(990, 1000))


def test_columns_of_clashing_types_are_refused_by_name(store: Store) -> None:
    store.write("runs", "a", pd.DataFrame({"loss": [1.0]}))
    store.write("runs", "b", pd.DataFrame({"loss": ["high"]}))
    with pytest.raises(StoreError, match=r"store/runs: .*loss.*"):
        store.read("runs")


def test_the_curves_of_five_thousand_runs_are_read(store: Store) -> None:
    """In packs of 32, each run with 50 points of 4 rows; the files are copies of one. See also benchmarks/limits.py."""
    random, rows = np.random.default_rng(0), 32 * 50 * 4
    step = np.repeat(np.arange(50), 32 * 4)
    store.write("curves", "0", pd.DataFrame({
        "run_id": np.tile(np.repeat([f"{run:012x}" for run in range(32)], 4), 50), "step": step, "tokens": step * 4096,
        "flops": step * 4096 * 1e6, "lr": random.random(rows),
        "split": np.tile(["validation", "validation", "validation", "train"], rows // 4),
        "domain": np.tile(["prose", "code", "headers", "mixture"], rows // 4), "loss": random.random(rows),
        "loss_se": random.random(rows), "bits_per_byte": random.random(rows)}))
    files = -(-5000 // 32)
    for pack in range(1, files):
        shutil.copyfile(store.folder("curves") / "0.parquet", store.folder("curves") / f"{pack}.parquet")
    assert len(store.read("curves")) == files * rows
