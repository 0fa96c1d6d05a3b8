"""What a workdir holds that is damaged: found by checksum, named, set aside, and its work left to be done again."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence

from scaling.files import CorruptFileError, listed, set_aside
from scaling.seal import read_folder
from scaling.store import TABLES
from scaling.sweeps.lock import shared_lock
from scaling.sweeps.workdir import PROCESS, Workdir

LOG = logging.getLogger("scaling")
UNFINISHED = re.compile(r"\..+\.[0-9a-f]{32}")  # a name of `replace_durably` whose process was killed


def recover(workdir: Workdir) -> None:
    """Make a workdir whole before anything reads it; its one runner calls this, under the workdir's lock.

    A damaged state is made again when a branch asks for it, a damaged checkpoint costs its job the way from the one
    before or the start, a damaged table file costs its job all. A kill at any moment leaves what the next call mends.
    Raises what `refuse_workers` does.
    """
    refuse_workers(workdir)
    workdir.drop_unfinished_states()
    for folder in (workdir.store.folder(table) for table in TABLES):
        for name in filter(UNFINISHED.fullmatch, listed(folder)):
            (folder / name).unlink()
    for error in _damaged_states(workdir):
        LOG.warning("%s: %s; moved to %s", error.path, error.why, set_aside(error.path, workdir.root))
    damaged: dict[str, list[CorruptFileError]] = {}
    for table in TABLES:
        for error in workdir.store.damaged(table):
            damaged.setdefault(error.path.name.split(".")[0], []).append(error)
    for job_id, errors in damaged.items():
        _forget(workdir, job_id, errors)


def refuse_workers(workdir: Workdir) -> None:
    """Raise LockedError while a worker trains there whose start was killed: on a cluster, jobs outlive their driver."""
    folder = workdir.lock("any").parent
    for name in listed(folder):
        if not name.startswith(PROCESS):
            with shared_lock(folder / name, f"job {name}"):
                pass


def _damaged_states(workdir: Workdir) -> Iterator[CorruptFileError]:
    packs = [folder for name in workdir.whole_packs() for folder in workdir.checkpoints_of(name).folders()]
    for folder in [*workdir.whole_states(), *packs]:
        try:
            read_folder(folder)
        except CorruptFileError as error:
            yield error


def _forget(workdir: Workdir, job_id: str, errors: Sequence[CorruptFileError]) -> None:
    """Leave nothing of a job with damaged files. They go last: after a kill half-way they still tell what to forget."""
    store, damaged = workdir.store, [error.path for error in errors]
    workdir.checkpoints_of(job_id).clear()
    for table in TABLES:
        mine = [name for name in store.names(table) if name.split(".")[0] == job_id]
        store.remove(table, [name for name in mine if store.path(table, name) not in damaged])
    for error in errors:
        LOG.warning("%s: %s; moved to %s, the runs of job %s are to be trained again", error.path, error.why,
                    set_aside(error.path, workdir.root), job_id)
