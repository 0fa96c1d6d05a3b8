"""States of runs on disk: a stack of run states and whose they are, written whole or not at all (orbax), and sealed.

One form serves both needs: a pack's checkpoint, and the state from which branches start. It knows nothing of lanes or
devices, so that a state saved under one layout starts another.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from scaling.files import disk_errors, listed, make_folder, sync_folder
from scaling.seal import read_folder, seal_folder
from scaling.training.state import TrainState

SLACK = 2**18  # bytes that a folder of states takes beside its arrays
UNNAMED, REMOVED = ".unnamed", ".removed"  # go on the names of folders that are being written, or removed


def save(folder: Path, run_ids: list[str], step: int, states_R: TrainState) -> None:
    """Write host arrays [R, ...] of the runs' states after `step` to a new folder, in place of an older one.

    Raises StoreError when the disk refuses; an older folder is then still there.
    """
    unnamed = folder.with_name(f"{folder.name}{UNNAMED}")
    with disk_errors(folder):
        make_folder(folder.parent)
        _ask_for_room(folder.parent, sum(leaf.nbytes for leaf in jax.tree.leaves(states_R)) * 5 // 4 + SLACK)
        with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
            checkpointer.save(unnamed.absolute(), args=ocp.args.StandardSave(states_R), force=True)
        seal_folder(unnamed, {"run_ids": run_ids, "step": step})
        remove(folder)
        unnamed.rename(folder)
        sync_folder(folder.parent)


def _ask_for_room(folder: Path, size: int) -> None:
    """Raise OSError where `size` bytes do not fit, since orbax's threads say so in hundreds of lines."""
    with tempfile.TemporaryFile(dir=folder) as trial:
        os.posix_fallocate(trial.fileno(), 0, size)


def load(folder: Path, template: TrainState) -> dict[str, TrainState]:
    """The states by run_id, as host arrays; `template` is one run's state as shapes (`jax.eval_shape`).

    Raises CorruptFileError when a byte on disk is not as written, ValueError when names, shapes or types differ from
    the template's.
    """
    run_ids = read_folder(folder)["run_ids"]
    shapes = jax.tree.map(lambda x: np.empty((len(run_ids), *x.shape), x.dtype), template)
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
        _check_leaves(folder, _leaves(checkpointer.metadata(folder.absolute()).item_metadata.tree), _leaves(shapes))
        states_R = checkpointer.restore(folder.absolute(), args=ocp.args.StandardRestore(shapes))
    return {run_id: jax.tree.map(lambda x, i=index: np.asarray(x[i]), states_R) for index, run_id in enumerate(run_ids)}


def _leaves(tree: Any) -> dict[str, str]:
    """Type and shape of each leaf, by names that are the same for what orbax says of a checkpoint."""
    return {jax.tree_util.keystr(path, simple=True, separator="/"): f"{np.dtype(leaf.dtype)}{list(leaf.shape)}"
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _check_leaves(folder: Path, found: dict[str, str], wanted: dict[str, str]) -> None:
    """Orbax restores a numpy leaf with the shape on disk, whatever shape was asked for."""
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            raise ValueError(f"{folder}: {name} is {found.get(name, 'missing')}, expected {wanted.get(name, 'none')}; "
                             "it holds states of another model or version, use another --workdir")


def remove(folder: Path) -> None:
    """Remove a folder, if it is there, renamed first: a kill half-way leaves nothing that looks complete."""
    gone = folder.with_name(f"{folder.name.split('.')[0]}{REMOVED}-{uuid.uuid4().hex}")  # another process may do so too
    with disk_errors(folder):
        try:
            folder.rename(gone)
        except FileNotFoundError:
            return
        shutil.rmtree(gone)


class PackCheckpoints:
    """The latest checkpoint of one pack, in `root`/step; older ones go once a newer one is complete."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folders(self) -> list[Path]:
        """Complete checkpoints, the latest last; a kill may leave more than one."""
        return [self.root / str(step) for step in sorted(int(name) for name in listed(self.root) if name.isdigit())]

    def save(self, run_ids: list[str], step: int, states_R: TrainState) -> None:
        """Keep the states after `step`, then drop older ones."""
        older = self.folders()
        save(self.root / str(step), run_ids, step, states_R)
        for folder in older:
            if folder.name != str(step):
                remove(folder)

    def latest(self, template: TrainState) -> tuple[int, dict[str, TrainState]] | None:
        """The last complete step and its states by run_id; None when there is none."""
        folders = self.folders()
        return (int(folders[-1].name), load(folders[-1], template)) if folders else None

    def clear(self) -> None:
        """Remove all: the pack is done."""
        remove(self.root)
