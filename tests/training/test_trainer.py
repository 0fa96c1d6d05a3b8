"""A run's result depends on its configuration alone: not on pack, width, vmap, devices, neighbours, or their ends."""

import dataclasses
import functools
from pathlib import Path

import jax
import numpy as np
import pytest
from jax import monitoring

import packs
from helpers import small_run
from mixer_runs import MIXERS
from packs import ALONE, SEVEN
from scaling.config import Run
from scaling.training.loop import PackRun
from scaling.training.state import initial_params
from scaling.training.trainer import CHUNK, Layout, PackTrainer

SPLIT = Layout(1, 1, devices=2, data=2)
MANY_MAP, MANY_VMAP = Layout(32, 1, devices=1), Layout(32, 16, devices=2)

compilations: list[str] = []
monitoring.register_event_duration_secs_listener(
    lambda name, seconds, **facts: compilations.append(name) if name.endswith("backend_compile_duration") else None)


def runs_of(count: int, steps: int = 50) -> list[Run]:
    return [packs.varied_run(index, **{"training.duration": {"steps": steps}, "evaluation.points": 8})
            for index in range(count)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """Curves of some of the runs, each trained by itself."""
    return {run.run_id: packs.train(packs.job([run]), ALONE, tmp_path_factory.mktemp("alone")).losses(run)
            for run in (runs_of(32)[index] for index in (0, 1, 2, 6, 31))}


@pytest.mark.parametrize(("layout", "count"), [
    (SPLIT, 1), (SEVEN, 7), (MANY_MAP, 32), (MANY_VMAP, 32)])
def test_curves_are_those_of_runs_trained_alone(
    layout: Layout, count: int, alone: dict[str, np.ndarray], tmp_path: Path,
) -> None:
    runs = runs_of(count)
    trained = packs.train(packs.job(runs), layout, tmp_path)
    assert set(trained.curves.run_id) == {run.run_id for run in runs}
    compared = [run for run in runs if run.run_id in alone]
    assert len(compared) == {1: 1, 7: 4, 32: 5}[count]
    for run in compared:
        np.testing.assert_allclose(trained.losses(run), alone[run.run_id], rtol=1e-5)
    ends = {trained.losses(run)[-1] for run in runs}
    assert len(ends) == count, "runs that differ must end differently, or the comparison means nothing"


@functools.cache
def _long(layout: Layout, folder: Path, **changes: int) -> list[np.ndarray]:
    """Curves of 1 or 4 runs over 300 steps in float64 from the same drawn states, by index."""
    runs = [packs.varied_run(index, **{"training.duration": {"steps": 300}, "training.dtype": "float64"}, **changes)
            for index in range(1 if layout.lanes == 1 else 4)]
    with jax.enable_x64(True):
        states = [packs.random_state(run.program, run.training.seed) for run in runs]
        trained = packs.train(packs.job(runs, parents=states), layout, folder)
    return [trained.losses(run) for run in runs]


@pytest.mark.parametrize(("layout", "accumulation"), [
    (Layout(4, 2, devices=2), 1), (Layout(4, 1, devices=8, data=4), 1), (SPLIT, 2), (ALONE, 4)])
def test_float64_agrees_over_300_steps(
    layout: Layout, accumulation: int, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path,
) -> None:
    """Over map and vmap, over runs split on 2 and 4 devices, over 1, 2 and 4 microbatches a step."""
    expected = _long(ALONE, tmp_path_factory.getbasetemp() / "long")
    found = _long(layout, tmp_path, **{"training.accumulation": accumulation})
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-9)
    if layout.lanes > 1:
        assert found[1][-1] != found[0][-1]


def test_fresh_parameters_follow_from_model_and_seed_alone() -> None:
    """To the bit, in every layout and beside any mixer: they come from one program."""
    run, mixed = packs.pack_run(), packs.pack_run(**MIXERS["odm"], **{"data.mixture": {"a": 0.5, "b": 0.5}})
    expected = initial_params(run.program, packs.VOCABULARY, 3)
    for of, layout in ((run, ALONE), (run, SEVEN), (mixed, SEVEN)):
        job = packs.job([dataclasses.replace(of, training=dataclasses.replace(of.training, seed=seed))
                         for seed in range(3, 3 + layout.lanes)])
        found = PackRun(packs.trainer(of.program, layout), job).start().params
        for one, all_W in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
            np.testing.assert_array_equal(np.asarray(all_W)[0], one)
        assert layout is ALONE or np.ptp(np.asarray(found["embedding"]["embedding"]), axis=0).min() > 0


@pytest.mark.parametrize(("layout", "count"), [(SEVEN, 7), (MANY_VMAP, 20)])
def test_same_shapes_are_bit_identical_whatever_the_place_and_the_neighbours(
    layout: Layout, count: int, tmp_path: Path,
) -> None:
    runs = runs_of(count, steps=300)
    whole = packs.train(packs.job(runs), layout, tmp_path / "whole")
    few = [runs[4], runs[1]]
    part = packs.train(packs.job(few, positions=[1, layout.lanes - 1]), layout, tmp_path / "part")
    for run in few:
        np.testing.assert_array_equal(whole.losses(run), part.losses(run))
        jax.tree.map(np.testing.assert_array_equal, whole.params(run), part.params(run))


@pytest.mark.parametrize("layout", [MANY_MAP, MANY_VMAP])
@pytest.mark.parametrize("rate", [100.0, 1e38])
def test_a_diverging_run_is_marked_and_its_neighbours_do_not_notice(
    layout: Layout, rate: float, tmp_path: Path,
) -> None:
    runs = runs_of(16)
    wild = packs.varied_run(5, **{"training.duration": {"steps": 50}, "evaluation.points": 8, "schedule.peak": rate})
    calm = packs.train(packs.job(runs), layout, tmp_path / "calm")
    mixed = packs.train(packs.job([*runs[:5], wild, *runs[6:]]), layout, tmp_path / "mixed")
    for run in [*runs[:5], *runs[6:]]:
        np.testing.assert_array_equal(calm.losses(run), mixed.losses(run))
        jax.tree.map(np.testing.assert_array_equal, calm.params(run), mixed.params(run))
        assert mixed.diverged_at[run.run_id] == -1
    at = mixed.diverged_at[wild.run_id]
    assert 1 < at < 50
    rows = mixed.curves[mixed.curves.run_id == wild.run_id]
    assert rows.step.max() < at
    assert (calm.curves.step >= at).any()
    assert np.isfinite(rows.loss).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(mixed.params(wild)))
    state = mixed.states[50][wild.run_id]
    assert int(state.step) == at - 1
    assert set(mixed.diverged_at.values()) == {-1, at}


def test_traced_values_compile_nothing_new(tmp_path: Path) -> None:
    packs.train(packs.job(runs_of(7)), SEVEN, tmp_path / "first")
    trainer = packs.trainer(runs_of(1)[0].program, SEVEN)
    executable, before = trainer._train, len(compilations)
    changed = [packs.pack_run(**{
        "training.duration": {"steps": 33 + index}, "training.seed": 100 + index, "training.z_loss": 1e-4 * index,
        "training.diverged_above": 30.0, "schedule.peak": 1e-3 * (index + 1), "schedule.name": "linear",
        "schedule.floor": 0.0, "schedule.warmup": {"steps": index}, "optimizer.b1": 0.8, "optimizer.b2": 0.99,
        "optimizer.eps": 1e-6, "optimizer.weight_decay": 0.5, "optimizer.decay_convention": "independent",
        "optimizer.clip_norm": None, "data.mixture": ((0.0, {"a": 0.3, "b": 0.7}), (0.5, {"b": 1.0})),
        "data.unique_tokens": {"b": 160}, "evaluation.points": None, "evaluation.steps": (7, 13)}) for index in (0, 1)]
    for run in changed:
        assert packs.trainer(run.program, SEVEN) is trainer
        packs.train(packs.job([run]), SEVEN, tmp_path / run.run_id)
    assert trainer._train is executable
    assert len(compilations) == before > 0


def test_runs_are_dealt_round_the_devices() -> None:
    assert Layout(8, 2, devices=2).places(5).tolist() == [0, 4, 1, 5, 2]
    assert Layout(4, 1, devices=4, data=2).places(4).tolist() == [0, 2, 1, 3]
    for layout in (SEVEN, MANY_VMAP, Layout(12, 3, devices=4)):
        assert sorted(layout.places(layout.lanes)) == list(range(layout.lanes))


def test_layouts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"devices / data\) \* vmap = 4 to divide lanes; round lanes up"):
        Layout(7, 2, devices=2)
    with pytest.raises(ValueError, match="expected data to divide devices"):
        Layout(4, 1, devices=3, data=2)
    with pytest.raises(ValueError, match="9 runs do not fit into 8 lanes; split the pack"):
        SEVEN.places(9)


def test_memory_is_known_once_compiled() -> None:
    run = small_run(**{"data.domains": {"a": "folder:a"}, "data.mixture": {"a": 1.0}, "model.width": 8})
    fresh = PackTrainer(run.program, packs.VOCABULARY, *packs.corpus(16, 4), ALONE)
    with pytest.raises(RuntimeError, match="call prepare or train first"):
        fresh.memory()
    runs = runs_of(7)
    pack = PackRun(packs.trainer(runs[0].program, SEVEN), packs.job(runs))
    state = jax.block_until_ready(pack.advance(pack.start(), 0, 1))
    states_a_device = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) // 2
    assert states_a_device < pack.trainer.memory() < 100 * states_a_device


@pytest.mark.parametrize("vmap", [1, 2])
def test_a_pack_holds_the_states_of_its_runs_once(vmap: int) -> None:
    """Twice as many lanes take the memory of their states and tables more, and no second copy of either."""
    run, memory, held = runs_of(1)[0], [], []
    for lanes in (8, 16):
        pack = PackRun(packs.trainer(run.program, Layout(lanes, vmap, 1)), packs.job([run]))
        state = jax.block_until_ready(pack.advance(pack.start(), 0, 1))
        tables = pack.job.tables[0].rows(0, 1, CHUNK, pack.dtype)
        memory.append(pack.trainer.memory())
        held.append(sum(leaf.nbytes for leaf in jax.tree.leaves((state, pack.hyper)))
                    + lanes * sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(tables)))
    assert memory[1] - memory[0] < 1.1 * (held[1] - held[0])
