"""States on disk: what is saved comes back whole, under any layout, and never as another model's."""

import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import packs
from packs import ALONE, SEVEN
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
    ({"model.width": 32}, r"kernel'\] is float32\[1, 16, 16\], expected float32\[1, 32, 32\]; it holds another model"),
    ({"model.depth": 2}, "(?i)structure|missing|match"),
    ({"data.sequence": 8}, r"positions'\] is float32\[1, 16, 16\], expected float32\[1, 8, 16\]"),
])
def test_another_models_state_is_refused(changes: dict, message: str, tmp_path: Path) -> None:
    checkpoints.save(tmp_path / "kept", ["run"], 7, stacked([drawn(1)]))
    with pytest.raises(ValueError, match=message):
        checkpoints.load(tmp_path / "kept", packs.template(packs.pack_run(**changes).program))


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
