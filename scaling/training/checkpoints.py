"""States of runs on disk: a stack of run states and whose they are, written whole or not at all (orbax).

One form serves both needs: a pack's checkpoint, and the state from which branches start. It knows nothing of lanes or
devices, so that a state saved under one layout starts another.
"""

from __future__ import annotations

import functools
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from scaling.training.state import TrainState


def save(folder: Path, run_ids: list[str], step: int, states_R: TrainState) -> None:
    """Write host arrays [R, ...] of the runs' states after `step` to a new folder, in place of an older one."""
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
        meta = {"run_ids": run_ids, "step": step}
        checkpointer.save(
            folder.absolute(), force=True,
            args=ocp.args.Composite(states=ocp.args.StandardSave(states_R), meta=ocp.args.JsonSave(meta)))


def load(folder: Path, template: TrainState) -> dict[str, TrainState]:
    """The states by run_id, as host arrays; `template` is one run's state as shapes (`jax.eval_shape`).

    Raises ValueError when names, shapes or types on disk differ from the template's.
    """
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
        run_ids = _meta(checkpointer, folder)["run_ids"]
        shapes = jax.tree.map(lambda x: np.empty((len(run_ids), *x.shape), x.dtype), template)
        args = ocp.args.Composite(states=ocp.args.StandardRestore(shapes))
        states_R = checkpointer.restore(folder.absolute(), args=args)["states"]
    jax.tree_util.tree_map_with_path(functools.partial(_check_leaf, folder), shapes, states_R)
    return {run_id: jax.tree.map(lambda x, i=index: np.asarray(x[i]), states_R) for index, run_id in enumerate(run_ids)}


def _check_leaf(folder: Path, path: tuple, wanted: np.ndarray, found: np.ndarray) -> None:
    """Orbax restores a numpy leaf with the shape on disk, whatever shape was asked for."""
    if (found.shape, found.dtype) != (wanted.shape, wanted.dtype):
        raise ValueError(f"{folder}: {jax.tree_util.keystr(path)} is {found.dtype}{list(found.shape)}, expected "
                         f"{wanted.dtype}{list(wanted.shape)}; it holds another model's states, use another --workdir")


def remove(folder: Path) -> None:
    """Remove a folder, renamed first: a kill half-way leaves nothing that looks complete."""
    gone = folder.with_name(f"{folder.name}.removed")
    if gone.exists():
        shutil.rmtree(gone)
    folder.rename(gone)
    shutil.rmtree(gone)


def _meta(checkpointer: ocp.Checkpointer, folder: Path) -> dict[str, Any]:
    args = ocp.args.Composite(meta=ocp.args.JsonRestore())
    return checkpointer.restore(folder.absolute(), args=args)["meta"]


class PackCheckpoints:
    """The latest checkpoint of one pack, in `root`/step; older ones go once a newer one is complete."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def _steps(self) -> list[int]:
        return sorted(int(path.name) for path in self.root.glob("*") if path.name.isdigit())

    def save(self, run_ids: list[str], step: int, states_R: TrainState) -> None:
        """Keep the states after `step`, then drop older ones."""
        older = self._steps()
        save(self.root / str(step), run_ids, step, states_R)
        for old in older:
            if old != step:
                remove(self.root / str(old))

    def latest(self, template: TrainState) -> tuple[int, dict[str, TrainState]] | None:
        """The last complete step and its states by run_id; None when there is none."""
        steps = self._steps()
        return (steps[-1], load(self.root / str(steps[-1]), template)) if steps else None

    def clear(self) -> None:
        """Remove all: the pack is done."""
        if self.root.exists():
            remove(self.root)
