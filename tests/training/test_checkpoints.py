"""States on disk: what is saved comes back whole, under any layout, and never as another model's."""

import contextlib
import errno
import os
import random
import shutil
from collections import namedtuple
from pathlib import Path

import jax
import numpy as np
import pytest

import packs
from packs import ALONE, SEVEN
from scaling.files import CorruptFileError, StoreError
from scaling.training import checkpoints
from scaling.training.checkpoints import PackCheckpoints
from scaling.training.loop import PackRun
from scaling.training.state import TrainState


def stacked(states: list[TrainState]) -> TrainState:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *states)


def drawn(seed: int) -> TrainState:
    """A state in which every leaf, counters and moments too, holds values of its own."""
    rng = np.random.default_rng(seed)
    shapes = packs.template(packs.pack_run().program)
    return jax.tree.map(lambda leaf: (rng.normal(size=leaf.shape) * 100).astype(leaf.dtype), shapes)


def assert_equal(found: TrainState, wanted: TrainState) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


def test_every_leaf_comes_back(tmp_path: Path) -> None:
    states = {"first": drawn(1), "second": drawn(2), "third": drawn(3)}
    checkpoints.save(tmp_path / "kept", list(states), 7, stacked(list(states.values())))
    found = checkpoints.load(tmp_path / "kept", packs.template(packs.pack_run().program))
    assert list(found) == list(states)
    for run_id, state in states.items():
        assert_equal(found[run_id], state)


def test_a_state_saved_under_one_layout_goes_on_under_another(tmp_path: Path) -> None:
    """Three runs leave a pack of 8 on 2 devices; one goes on by itself and its end is that of staying."""
    runs = [packs.varied_run(index, **{"training.duration": {"steps": 50}}) for index in range(3)]
    trainer = packs.trainer(runs[0].program, SEVEN)
    pack = PackRun(trainer, packs.job(runs))
    half = pack.advance(pack.start(), 0, 25)
    checkpoints.save(tmp_path / "half", [run.run_id for run in runs], 25, pack.host_states(half, pack.job.run_ids))
    stayed = pack.host_states(pack.advance(half, 25, 50), [runs[2].run_id])
    found = checkpoints.load(tmp_path / "half", packs.template(runs[0].program))
    other = PackRun(packs.trainer(runs[0].program, ALONE), packs.job([runs[2]]))
    moved = other.advance(other.place([found[runs[2].run_id]]), 25, 50)
    assert int(moved.step[0]) == 50
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), moved.params, stayed.params)
    assert not np.allclose(moved.params["positions"][0], found[runs[2].run_id].params["positions"], atol=1e-4)


@pytest.mark.parametrize(("changes", "message"), [
    ({"model.width": 32}, r"kernel is float32\[1, 16, 16\], expected float32\[1, 32, 32\]; it holds states of another"),
    ({"model.depth": 2}, r"block_1.* is missing, expected float32\["),
    ({"data.sequence": 8}, r"positions is float32\[1, 16, 16\], expected float32\[1, 8, 16\]"),
])
def test_another_models_state_is_refused(changes: dict, message: str, tmp_path: Path) -> None:
    checkpoints.save(tmp_path / "kept", ["run"], 7, stacked([drawn(1)]))
    with pytest.raises(ValueError, match=message):
        checkpoints.load(tmp_path / "kept", packs.template(packs.pack_run(**changes).program))


def test_a_state_of_another_version_is_refused(tmp_path: Path) -> None:
    state, older = drawn(1), namedtuple("Older", ["steps", "loss", "squares", "gradient_norm"])
    checkpoints.save(tmp_path / "kept", ["run"], 7, stacked([state._replace(metrics=older(*state.metrics))]))
    with pytest.raises(ValueError, match=r"kept: metrics/deviations is missing, expected float32\[1\]; it holds"):
        checkpoints.load(tmp_path / "kept", packs.template(packs.pack_run().program))


def test_the_latest_checkpoint_counts_and_older_ones_go(tmp_path: Path) -> None:
    kept, template = PackCheckpoints(tmp_path / "pack"), packs.template(packs.pack_run().program)
    assert kept.latest(template) is None
    for step in (9, 10):  # text order would put 9 last
        kept.save(["run"], step, stacked([drawn(step)]))
    step, states = kept.latest(template)
    assert step == 10
    assert_equal(states["run"], drawn(10))
    assert [path.name for path in kept.root.iterdir()] == ["10"]
    kept.save(["run"], 10, stacked([drawn(11)]))
    assert_equal(kept.latest(template)[1]["run"], drawn(11))
    kept.clear()
    assert not kept.root.exists()
    kept.clear()


def test_an_unfinished_save_is_no_checkpoint(tmp_path: Path) -> None:
    """What a kill leaves while saving: a folder under a temporary name."""
    kept, template = PackCheckpoints(tmp_path / "pack"), packs.template(packs.pack_run().program)
    kept.save(["run"], 5, stacked([drawn(5)]))
    shutil.copytree(kept.root / "5", kept.root / "8.orbax-checkpoint-tmp-1")
    assert kept.latest(template)[0] == 5


def test_a_removal_that_was_cut_short_leaves_nothing_that_looks_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A kill in the middle of deleting a tree must not leave half a checkpoint that the next run would load."""
    kept, template = PackCheckpoints(tmp_path / "pack"), packs.template(packs.pack_run().program)
    kept.save(["run"], 5, stacked([drawn(5)]))

    def die(path: Path, *arguments: object) -> None:
        next(file for file in sorted(Path(path).rglob("*")) if file.is_file()).unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", die)
        with pytest.raises(KeyboardInterrupt):
            kept.clear()
    assert kept.latest(template) is None
    kept.save(["run"], 3, stacked([drawn(3)]))
    assert_equal(kept.latest(template)[1]["run"], drawn(3))


def test_whatever_is_changed_in_a_folder_of_states_is_noticed(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    """Each file with a flipped bit, cut short, gone; orbax alone loads some of these as other numbers."""
    folder, template = tmp_path / "kept", packs.template(packs.pack_run().program)
    rng = random.Random(0)
    checkpoints.save(folder, ["run"], 7, stacked([drawn(1)]))
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size]
    arrays = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(template))
    assert sum(path.stat().st_size for path in files) > arrays, "the arrays are among them"
    for path in files:
        content = path.read_bytes()
        flips = [bytearray(content) for _ in range(5)]
        for flipped in flips:
            flipped[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        for damaged in (*flips, content[:-1], content[:len(content) // 2], b"", None):
            path.unlink()
            if damaged is not None:
                path.write_bytes(damaged)
            with contextlib.suppress(CorruptFileError):  # a seal of the same meaning in other bytes may pass
                checkpoints.load(folder, template)
                assert path.name == "seal.json"
                assert len(damaged) == len(content)
            path.write_bytes(content)
    assert_equal(checkpoints.load(folder, template)["run"], drawn(1))
    assert capfd.readouterr().err == "", "orbax never met a damaged byte"


def test_a_full_disk_is_named_before_orbax_meets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture,
) -> None:
    kept, template = PackCheckpoints(tmp_path / "pack"), packs.template(packs.pack_run().program)
    kept.save(["run"], 5, stacked([drawn(5)]))
    asked = []

    def refuse(_: int, start: int, size: int) -> None:
        asked.append(size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", refuse)
        with pytest.raises(StoreError, match=rf"{kept.root / '8'}: no space left on device; free space and run the"):
            kept.save(["run"], 8, stacked([drawn(8)]))
    assert asked[0] > sum(path.stat().st_size for path in (kept.root / "5").rglob("*"))
    assert kept.latest(template)[0] == 5
    assert [path.name for path in kept.root.iterdir()] == ["5"]
    assert capfd.readouterr().err == ""
