"""The tables of a sweep: Parquet files written whole or not at all, read back as one table with columns united by name.

`runs`: one row a run. `curves`: run_id, step, tokens, flops, lr, split, domain, loss, loss_se. `diagnostics`: the rest.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

TABLES = ("runs", "curves", "diagnostics")


class StoreError(RuntimeError):
    """A table that cannot be read or written: names the file and the cure."""


def replace_durably(path: Path, write: object) -> None:
    """Call `write(temporary path)`, force it to disk, then rename it to `path`: readers see all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        write(temporary)  # type: ignore[operator]
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class Store:
    """The folder that holds a sweep's tables, one subfolder a table."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def folder(self, table: str) -> Path:
        """Where a table's files lie. Raises StoreError for a name that is no table."""
        if table not in TABLES:
            raise StoreError(f"table {table!r}: expected one of {', '.join(TABLES)}")
        return self.root / table

    def write(self, table: str, name: str, rows: pd.DataFrame) -> None:
        """Write rows as the file `name` of a table, in place of what the file held."""
        arrow = pa.Table.from_pandas(rows, preserve_index=False)
        replace_durably(self.folder(table) / f"{name}.parquet", lambda path: pq.write_table(arrow, path))

    def names(self, table: str) -> list[str]:
        """Names of a table's files, sorted."""
        return sorted(path.stem for path in self.folder(table).glob("*.parquet") if not path.name.startswith("."))

    def remove(self, table: str, names: Iterable[str]) -> None:
        """Remove files of a table."""
        for name in names:
            (self.folder(table) / f"{name}.parquet").unlink()

    def read(self, table: str) -> pd.DataFrame:
        """All rows of a table; a column that a file lacks is missing (NA) in its rows. An absent table has no rows.

        Raises StoreError naming the file that is no readable Parquet file, or the column whose types clash.
        """
        parts = [self._part(self.folder(table) / f"{name}.parquet") for name in self.names(table)]
        if not parts:
            return pd.DataFrame()
        try:
            return pa.concat_tables(parts, promote_options="permissive").to_pandas()
        except pa.ArrowTypeError as error:
            raise StoreError(f"{self.folder(table)}: a column has different types in different files ({error}); move "
                             "the files of one type away") from error

    @staticmethod
    def _part(path: Path) -> pa.Table:
        try:
            return pq.read_table(path, partitioning=None)
        except (pa.ArrowInvalid, OSError) as error:
            raise StoreError(f"{path}: not a readable Parquet file ({error}); move it away and run the sweep again, "
                             "which redoes only its work") from error


def read(root: str | Path, table: str) -> pd.DataFrame:
    """All rows of a table of the store in folder `root`; see `Store.read`."""
    return Store(root).read(table)
