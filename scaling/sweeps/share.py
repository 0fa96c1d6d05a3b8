"""A sweep over machines without a common folder: an object store, by any fsspec URL, carries what one needs of another.

Every object is one sealed archive of files of a workdir, so that an upload counts whole or not at all:
`ended/JOB`: all rows of a job that ended. `training/JOB`: a checkpoint and the rows that lead up to it.
`states/RUN-STEP`: what branches start from. `plan`: the packs. A worker that was given up and still runs can only
replace an object by an equal or an older one of the same job: that costs time, never a number.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path

from scaling.fields import ConfigError
from scaling.files import CorruptFileError, StoreError, disk_errors
from scaling.seal import read_parquet
from scaling.store import TABLES
from scaling.sweeps.jobs import JobTrainer, Settings
from scaling.sweeps.plan import Manifest
from scaling.sweeps.recovery import recover
from scaling.sweeps.work import Work
from scaling.sweeps.workdir import Workdir
from scaling.training.checkpoints import PackCheckpoints
from scaling.training.state import TrainState

LOG = logging.getLogger("scaling")
PLAN = "plan"
DIGEST = 32  # bytes of the SHA-256 that ends an object


def ended_object(job_id: str) -> str:
    """Name of the object with the rows of an ended job."""
    return f"ended/{job_id}"


def training_object(job_id: str) -> str:
    """Name of the object with a job's last checkpoint."""
    return f"training/{job_id}"


def state_object(name: str) -> str:
    """Name of the object with a state that branches start from."""
    return f"states/{name}"


class Share:
    """A folder of sealed archives at an fsspec URL, such as s3://bucket/sweeps/mine.

    Raises ConfigError for a URL that this machine cannot open.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            import fsspec

            self.fs, self.root = fsspec.core.url_to_fs(url, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise ConfigError(f"cluster.share = {url!r}: expected an object store that fsspec opens, such as "
                              f"s3://bucket/folder; install its package on every machine ({error})") from error

    def put(self, name: str, workdir: Path, paths: Iterable[Path]) -> None:
        """Upload files and folders of a workdir as one object, replacing an older one."""
        with tempfile.TemporaryDirectory() as folder:
            archive = Path(folder) / "archive"
            with tarfile.open(archive, "w") as tar:
                for path in paths:
                    tar.add(path, path.relative_to(workdir))
            with open(archive, "rb+") as file:
                file.write(hashlib.file_digest(file, "sha256").digest())
            with self._errors(name):
                target = f"{self.root}/{name}"
                self.fs.makedirs(target.rpartition("/")[0], exist_ok=True)
                self.fs.put_file(str(archive), target)

    def get(self, name: str, folder: Path) -> bool:
        """Unpack an object into a folder; False where there is none. Raises CorruptFileError for a damaged one."""
        with tempfile.TemporaryDirectory() as temporary:
            archive = Path(temporary) / "archive"
            try:
                with self._errors(name):
                    self.fs.get_file(f"{self.root}/{name}", str(archive))
            except FileNotFoundError:
                return False
            self._unseal(name, archive)
            with tarfile.open(archive) as tar, disk_errors(folder):
                tar.extractall(folder, filter="data")
        return True

    def _unseal(self, name: str, archive: Path) -> None:
        size = max(archive.stat().st_size - DIGEST, 0)
        with open(archive, "rb+") as file:
            file.seek(size)
            digest = file.read()
            file.truncate(size)
            file.seek(0)
            if hashlib.file_digest(file, "sha256").digest() != digest:
                raise CorruptFileError(Path(f"{self.url}/{name}"), "damaged: its checksum does not match its bytes",
                                       "remove it: only its work is done again")

    def names(self, folder: str) -> list[str]:
        """Names of the objects in a folder of the share, sorted."""
        self.fs.invalidate_cache()
        try:
            with self._errors(folder):
                return sorted(path.rpartition("/")[2] for path in self.fs.ls(f"{self.root}/{folder}", detail=False))
        except FileNotFoundError:
            return []

    def remove(self, name: str) -> None:
        """Remove an object, if it is there."""
        with self._errors(name), contextlib.suppress(FileNotFoundError):
            self.fs.rm_file(f"{self.root}/{name}")

    @contextlib.contextmanager
    def _errors(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StoreError(f"{self.url}/{name}: {type(error).__name__}: {error}; see to it and run the same command "
                             "again: finished work is kept") from error


@contextlib.contextmanager
def lay_out(share: Share, needed: Sequence[str]) -> Iterator[Path]:
    """A workdir of this process alone, with the needed objects that the share holds; gone at the end of the block."""
    with tempfile.TemporaryDirectory(prefix="scaling-") as folder:
        workdir = Path(folder)
        for name in needed:
            try:
                share.get(name, workdir)
            except CorruptFileError as error:
                LOG.warning("%s", error)
        recover(Workdir(workdir))
        yield workdir


def _rows_of(workdir: Workdir, job_id: str) -> list[Path]:
    """Files of a job's rows, that of its runs last."""
    return [workdir.store.path(table, name) for table in reversed(TABLES) for name in workdir.store.names(table)
            if name.split(".")[0] == job_id]


class _SharedCheckpoints(PackCheckpoints):
    """Checkpoints of one job that reach the share as they are written, with the rows that lead up to them."""

    def __init__(self, root: Path, share: Share, workdir: Workdir) -> None:
        super().__init__(root)
        self.share, self.workdir, self.job_id = share, workdir, root.name

    def save(self, run_ids: list[str], step: int, states_R: TrainState) -> None:
        super().save(run_ids, step, states_R)
        paths = [*_rows_of(self.workdir, self.job_id), self.folders()[-1]]
        self.share.put(training_object(self.job_id), self.workdir.root, paths)

    def clear(self) -> None:
        super().clear()
        self.share.put(ended_object(self.job_id), self.workdir.root, _rows_of(self.workdir, self.job_id))
        self.share.remove(training_object(self.job_id))


class _SharedWorkdir(Workdir):
    def __init__(self, root: Path, share: Share) -> None:
        super().__init__(root)
        self.share = share

    def checkpoints_of(self, job_id: str) -> PackCheckpoints:
        return _SharedCheckpoints(self.checkpoints / job_id, self.share, self)


class SharedTrainer(JobTrainer):
    """Trains in a workdir of its own and sends to the share what must outlive this machine."""

    def __init__(self, share: Share, work: Work, settings: Settings, interrupted: Callable[[], bool]) -> None:
        super().__init__(work, settings, interrupted)
        self.share, self.workdir = share, _SharedWorkdir(work.workdir.root, share)

    def _save_states(self, step: int, run_ids: list[str], states_R: TrainState) -> None:
        super()._save_states(step, run_ids, states_R)
        for folder in (self.workdir.state(run_id, step) for run_id in run_ids):
            self.share.put(state_object(folder.name), self.workdir.root, [folder])


class CommonFolder:
    """The driver's side where every worker sees its workdir: there is nothing to carry."""

    def open(self) -> None:
        """Bring workdir and workers together, before anything is planned."""

    def planned(self) -> None:
        """The plan is made."""

    def collect(self, job_id: str) -> None:
        """A job ended."""

    def forget(self, job_id: str) -> None:
        """Some runs of an ended job are to be trained again."""

    def keep_jobs(self, job_ids: Collection[str]) -> None:
        """No other job will be trained."""

    def keep_states(self, names: Collection[str]) -> None:
        """No other state is needed."""


class Carrier(CommonFolder):
    """The driver's side of a share: its workdir gives what the share lacks and gets what workers left there."""

    def __init__(self, share: Share, workdir: Workdir) -> None:
        self.share, self.workdir = share, workdir

    def open(self) -> None:
        """Raises StoreError where workdir and share hold the plans of different sweeps."""
        root = self.workdir.root
        self._check_plans()
        if self.workdir.plan.exists():
            self.share.put(PLAN, root, [self.workdir.plan])
        for job_id in self.share.names("ended"):
            try:
                if not self._has(job_id):
                    self.collect(job_id)
            except CorruptFileError as error:
                LOG.warning("%s", error)
        states, training = self.share.names("states"), self.share.names("training")
        for folder in self.workdir.whole_states():
            if folder.name not in states:
                self.share.put(state_object(folder.name), root, [folder])
        for job_id in self.workdir.whole_packs():
            steps = self.workdir.checkpoints_of(job_id).folders()
            if job_id not in training and steps:
                self.share.put(training_object(job_id), root, [*_rows_of(self.workdir, job_id), steps[-1]])

    def _check_plans(self) -> None:
        """Leave the longer of two plans of which one continues the other."""
        plan = self.workdir.plan
        with self._unpacked(PLAN) as folder:
            theirs = Manifest(Workdir(folder).plan).packs if folder else []
            ours = Manifest(self.workdir.plan).packs
            shorter, longer = sorted((ours, theirs), key=len)
            if longer[:len(shorter)] != shorter:
                raise StoreError(f"{self.share.url}: holds another sweep than {self.workdir.root}; choose another "
                                 "cluster.share or another --workdir")
            if folder and longer is theirs:
                os.replace(folder / plan.name, plan)

    def _has(self, job_id: str) -> bool:
        """Whether the workdir has all rows of an ended job."""
        path = self.workdir.store.path("runs", job_id)
        return path.exists() and not read_parquet(path).to_pandas().status.eq("running").any()

    def planned(self) -> None:
        with self._unpacked(PLAN) as folder:
            if folder is None:
                raise StoreError(f"{self.share.url}/{PLAN}: gone; run the same command again")
            os.replace(folder / self.workdir.plan.name, self.workdir.plan)

    def collect(self, job_id: str) -> None:
        """Rows of an ended job into the workdir, that of its runs last: a kill on the way leaves a job to collect."""
        with self._unpacked(ended_object(job_id)) as folder:
            if folder is None:
                raise StoreError(f"{self.share.url}/{ended_object(job_id)}: gone; run the same command again")
            found = [path.relative_to(folder) for path in _rows_of(Workdir(folder), job_id)]
            for path in _rows_of(self.workdir, job_id):
                if path.relative_to(self.workdir.root) not in found:
                    path.unlink()
            for name in found:
                target = self.workdir.root / name
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(folder / name, target)

    def forget(self, job_id: str) -> None:
        self.share.remove(ended_object(job_id))

    def keep_jobs(self, job_ids: Collection[str]) -> None:
        for job_id in set(self.share.names("training")) - set(job_ids):
            self.share.remove(training_object(job_id))

    def keep_states(self, names: Collection[str]) -> None:
        for name in set(self.share.names("states")) - set(names):
            self.share.remove(state_object(name))

    @contextlib.contextmanager
    def _unpacked(self, name: str) -> Iterator[Path | None]:
        """A folder on the workdir's disk with an object's files; None where there is none."""
        folder = self.workdir.root / ".unpacked"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            yield folder if self.share.get(name, folder) else None
        finally:
            shutil.rmtree(folder)
