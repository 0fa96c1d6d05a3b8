"""The tables of a sweep: Parquet files written whole or not at all, read back as one table with columns united by name.

`runs`: one row a run. `curves`: run_id, step, tokens, flops, lr, split, domain, loss, loss_se. `diagnostics`: the rest.
Every file holds its own checksum, which every read verifies (`scaling.seal`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa

from scaling.files import CorruptFileError, StoreError, disk_errors, listed, replace_durably
from scaling.seal import read_parquet, verify_parquet, write_parquet

__all__ = ["TABLES", "CorruptFileError", "Store", "StoreError", "read", "replace_durably"]
TABLES = ("runs", "curves", "diagnostics")
SUFFIX = ".parquet"


class Store:
    """The folder that holds a sweep's tables, one subfolder a table."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def folder(self, table: str) -> Path:
        """Where a table's files lie. Raises StoreError for a name that is no table."""
        if table not in TABLES:
            raise StoreError(f"table {table!r}: expected one of {', '.join(TABLES)}")
        return self.root / table

    def path(self, table: str, name: str) -> Path:
        """The file `name` of a table."""
        return self.folder(table) / f"{name}{SUFFIX}"

    def write(self, table: str, name: str, rows: pd.DataFrame) -> None:
        """Write rows as the file `name` of a table, replacing it. Raises StoreError when the disk refuses."""
        arrow = pa.Table.from_pandas(rows, preserve_index=False)
        replace_durably(self.path(table, name), lambda path: write_parquet(path, arrow))

    def names(self, table: str) -> list[str]:
        """Names of a table's files, sorted."""
        files = listed(self.folder(table))
        return [file.removesuffix(SUFFIX) for file in files if file.endswith(SUFFIX) and not file.startswith(".")]

    def remove(self, table: str, names: Iterable[str]) -> None:
        """Remove files of a table."""
        for name in names:
            path = self.path(table, name)
            with disk_errors(path):
                path.unlink()

    def damaged(self, table: str) -> Iterator[CorruptFileError]:
        """Every file of a table whose bytes are not as written."""
        for name in self.names(table):
            try:
                verify_parquet(self.path(table, name))
            except CorruptFileError as error:
                yield error

    def read(self, table: str) -> pd.DataFrame:
        """All rows of a table; a column that a file lacks is missing (NA) in its rows. An absent table has no rows.

        Raises CorruptFileError naming a file whose bytes are not as written, StoreError the column whose types clash.
        """
        parts = [read_parquet(self.path(table, name)) for name in self.names(table)]
        if not parts:
            return pd.DataFrame()
        try:
            return pa.concat_tables(parts, promote_options="permissive").to_pandas()
        except pa.ArrowTypeError as error:
            raise StoreError(f"{self.folder(table)}: a column has different types in different files ({error}); move "
                             "the files of one type away") from error
        except (pa.ArrowException, LookupError, TypeError, ValueError) as error:
            raise StoreError(f"{self.folder(table)}: a file that this program did not write "
                             f"({type(error).__name__}: {error}); move it away") from error


class Part(Store):
    """A store as some of its runs left it: what is decided by them does not change with what else it holds."""

    def __init__(self, whole: Store, run_ids: Collection[str]) -> None:
        super().__init__(whole.root)
        self.run_ids = frozenset(run_ids)

    def read(self, table: str) -> pd.DataFrame:
        """Rows of these runs; see `Store.read`."""
        rows = super().read(table)
        return rows[rows.run_id.isin(self.run_ids)].reset_index(drop=True) if len(rows) else rows


def read(root: str | Path, table: str) -> pd.DataFrame:
    """All rows of a table of the store in folder `root`; see `Store.read`."""
    return Store(root).read(table)
