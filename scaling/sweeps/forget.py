"""Taking single runs out of a finished job's files, so that they can be trained again in another job."""

from __future__ import annotations

from collections.abc import Collection

from scaling.seal import read_parquet
from scaling.store import Store

FORGOTTEN = "forgotten"  # status of a run whose other rows are being removed


def forget_runs(store: Store, job_id: str, run_ids: Collection[str]) -> None:
    """Remove all rows of some runs of a job; they are marked first, so that after a kill a second call ends it."""
    runs = read_parquet(store.path("runs", job_id)).to_pandas()
    store.write("runs", job_id, runs.assign(status=runs.status.mask(runs.run_id.isin(run_ids), FORGOTTEN)))
    for table in ("curves", "diagnostics", "runs"):
        for name in store.names(table):
            if name.split(".")[0] == job_id:
                _drop(store, table, name, run_ids)


def _drop(store: Store, table: str, name: str, run_ids: Collection[str]) -> None:
    rows = read_parquet(store.path(table, name)).to_pandas()
    kept = rows[~rows.run_id.isin(run_ids)]
    if len(kept):
        store.write(table, name, kept)
    else:
        store.remove(table, [name])
