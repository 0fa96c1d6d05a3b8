"""Every optimizer in packs: a run alone and beside another is the same to the bit, in one program."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from every_optimizer import ONE, OTHER, VARIANTS, optimizer_changes

import packs
from mixer_runs import MIXERS
from scaling.config import Run
from scaling.optimizer import FORMS, SETTINGS
from scaling.optimizers.build import evaluation_params
from scaling.training.checkpoints import PackCheckpoints
from scaling.training.loop import PackRun
from scaling.training.state import TrainState, branch_state, initial_optimizer_state
from scaling.training.step import Gradients, draw, step_gradients, train_step, updated
from scaling.training.tables import Stream, hyperparameters, run_tables
from scaling.training.trainer import Layout, PackTrainer
from scaling.training.updating import Step

PAIR, SPLIT = Layout(2, 2, devices=1), Layout(1, 1, devices=2, data=2)
STEPS = 3
TINY = {"model.width": 4, "model.heads": 1, "model.feedforward_ratio": 2.0, "data.sequence": 4, "data.batch": 4,
        "schedule.warmup": {"steps": 1}, "training.duration": {"steps": STEPS}}
FLOAT32 = np.dtype("float32")


def tiny_runs(name: str, form: str | None, **changes: Any) -> tuple[Run, Run]:
    """Two runs of one program that differ in every traced setting, seed, peak, decay and mixture."""
    decay = 0.0 if name == "layca" else 0.3
    one = packs.pack_run(**{**TINY, **optimizer_changes(name, form, ONE), **changes})
    other = packs.pack_run(**{**TINY, **optimizer_changes(name, form, OTHER), "optimizer.weight_decay": decay,
                              "training.seed": 3, "schedule.peak": 0.02, "data.mixture": {"b": 1.0}, **changes})
    assert one.program == other.program
    return one, other


def first_state(run: Run) -> TrainState:
    """A start that costs no compilation: parameters at random, a fresh optimizer."""
    state = packs.random_state(run.program, run.training.seed)
    return state._replace(optimizer=jax.device_get(initial_optimizer_state(run.program, state.params)))


def stacked(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


@functools.cache
def gradients_of(program: Run) -> Callable:
    """Compiled once for all optimizers, since it knows nothing of them."""
    tokens, _ = packs.corpus(program.data.sequence, 4)

    def lane(hyper: Any, row: Any, state: TrainState) -> Any:
        drawn = draw(program, 1, hyper, row, tokens, state)
        return step_gradients(Step(program, packs.VOCABULARY, 1, hyper, row, drawn, None, state))

    return jax.jit(jax.vmap(lane))


def updates_of(program: Run) -> Callable:
    tokens, _ = packs.corpus(program.data.sequence, 4)

    def lane(hyper: Any, row: Any, found: Gradients, state: TrainState) -> TrainState:
        drawn = draw(program, 1, hyper, row, tokens, state)
        return updated(Step(program, packs.VOCABULARY, 1, hyper, row, drawn, None, state), found)

    return jax.jit(jax.vmap(lane))


def trained(runs: Sequence[Run], update: Callable) -> list[TrainState]:
    """State of each lane's run after the last step."""
    gradients = gradients_of(packs.pack_run(**TINY).program)
    windows, start = packs.windows(), Stream.start(2)
    tables = [run_tables(run, windows, start) for run in runs]
    hyper = stacked([hyperparameters(run, windows, start, FLOAT32) for run in runs])
    seen = hyper._replace(optimizer=())  # so that the gradient's program is one for all
    state = jax.device_put(stacked([first_state(run) for run in runs]))
    for step in range(STEPS):
        rows = stacked([jax.tree.map(lambda leaf: leaf[0], table.rows(step, 1, 1, FLOAT32)) for table in tables])
        state = update(hyper, rows, gradients(seen, rows, state._replace(optimizer=())), state)
    state = jax.device_get(state)
    return [jax.tree.map(lambda leaf, i=i: leaf[i], state) for i in range(len(runs))]


@pytest.mark.parametrize("name", SETTINGS)
def test_a_run_is_the_same_alone_and_beside_another_of_its_program(name: str) -> None:
    one, other = tiny_runs(name, FORMS.get(name, (None,))[0])
    update = updates_of(one.program)
    together = trained([one, other], update)
    for index, run in enumerate((one, other)):
        state = together[index]
        jax.tree.map(np.testing.assert_array_equal, trained([run, run], update)[index], state)
        assert (int(state.step), int(state.diverged_at)) == (STEPS, -1)
        assert np.isfinite(state.metrics.loss)
        moved = jax.tree.leaves(jax.tree.map(lambda a, b: np.abs(a - b).max(), state.params, first_state(run).params))
        assert np.isfinite(moved).all()
        assert max(moved) > 1e-5
    assert update._cache_size() == 1, "one program for all values"


def keeps_its_types(run: Run, number: np.dtype) -> bool:
    """Whether a step leaves every shape and type of the state as it was, which a loop over steps needs."""
    state = packs.template(run.program)
    hyper = hyperparameters(run, packs.windows(), Stream.start(2), number)
    rows = run_tables(run, packs.windows(), Stream.start(2)).rows(0, 1, 1, number)
    row = jax.tree.map(lambda leaf: leaf[0], rows)
    tokens, _ = packs.corpus(4, 4)
    held_out = None if run.mixer is None else jnp.asarray(packs.held_out(4, 3))
    step = functools.partial(train_step, run.program, packs.VOCABULARY, 1)
    after = jax.eval_shape(lambda state: step(hyper, row, tokens, held_out, state), state)
    same = jax.tree.map(lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype), after, state)
    return all(jax.tree.leaves(same))


@pytest.mark.parametrize(("name", "form", "dtype"), [
    *((name, form, "float64") for name, form in VARIANTS), ("sophia", "gauss_newton", "bfloat16"),
    ("sophia", "hutchinson", "bfloat16"), ("muon", "original", "bfloat16")])
def test_a_step_keeps_the_types_of_the_state(name: str, form: str | None, dtype: str) -> None:
    """As a loop over steps must, whatever the arithmetic and with a batch in parts."""
    run, _ = tiny_runs(name, form, **{"training.dtype": dtype, "training.accumulation": 2})
    with jax.enable_x64(dtype == "float64"):
        assert keeps_its_types(run, np.dtype("float64" if dtype == "float64" else "float32"))


@pytest.mark.parametrize("mixer", ["bilevel", "doge"])
@pytest.mark.parametrize(("name", "form"), [
    ("sophia", "gauss_newton"), ("sophia", "hutchinson"), ("schedule_free", None), ("soap", None), ("prodigy", None)])
def test_mixers_step_with_every_kind_of_optimizer(name: str, form: str | None, mixer: str) -> None:
    run = packs.pack_run(**{**TINY, **optimizer_changes(name, form), **MIXERS[mixer],
                            "data.mixture": {"a": 0.5, "b": 0.5}})
    assert keeps_its_types(run, FLOAT32)


def pack_of(runs: Sequence[Run], layout: Layout) -> PackRun:
    program = runs[0].program
    text = packs.corpus(program.data.sequence, program.evaluation.windows)
    return PackRun(PackTrainer(program, packs.VOCABULARY, *text, layout), packs.job(runs))


@pytest.mark.parametrize("name", ["schedule_free", "soap"])
def test_a_pack_cut_and_resumed_is_as_one_that_was_not(name: str, tmp_path: Path) -> None:
    runs = tiny_runs(name, None)
    pack = pack_of(runs, PAIR)
    ids = [run.run_id for run in runs]
    whole = pack.host_states(pack.advance(pack.place([first_state(run) for run in runs]), 0, STEPS), ids)
    cut = pack.advance(pack.place([first_state(run) for run in runs]), 0, 1)
    checkpoints = PackCheckpoints(tmp_path)
    checkpoints.save(ids, 1, pack.host_states(cut, ids))
    step, states = checkpoints.latest(packs.template(runs[0].program))
    resumed = pack.host_states(pack.advance(pack.place([states[run_id] for run_id in ids]), step, STEPS), ids)
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)
    assert np.isfinite(whole.metrics.loss).all()
    assert whole.step.tolist() == [STEPS, STEPS]


def test_sophia_on_split_devices_is_as_on_one() -> None:
    """Labels are drawn by window, so that the same are drawn on any number of devices."""
    run, _ = tiny_runs("sophia", "gauss_newton", **{"optimizer.every": 1, "optimizer.eps": 1e-2})
    found = [pack.host_states(pack.advance(pack.place([first_state(run)]), 0, STEPS), [run.run_id])
             for pack in (pack_of([run], packs.ALONE), pack_of([run], SPLIT))]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), *found)


@pytest.mark.parametrize("form", ["gauss_newton", "hutchinson"])
def test_sophia_in_groups_treated_alike_is_as_without_groups(form: str) -> None:
    """Its estimate is of the whole network, of which a group sees its part."""
    groups = ((".*kernel", "named"), (".*", "named"))
    runs = [tiny_runs("sophia", form, **{"optimizer.eps": 1e-2, "optimizer.groups": given})[0]
            for given in (None, groups)]
    whole, split = (trained([run], updates_of(run.program))[0] for run in runs)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), split.params, whole.params)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_sophia_beside_adamw_keeps_the_types_of_the_state(dtype: str) -> None:
    run, _ = tiny_runs("sophia", "hutchinson", **{"training.dtype": dtype, "training.accumulation": 2,
                                                  "optimizer.groups": ((".*kernel", "named"), (".*", "adamw"))})
    assert keeps_its_types(run, FLOAT32)


def test_sophia_trains_at_half_the_base_width() -> None:
    run, _ = tiny_runs("sophia", "gauss_newton", **{
        "model.base": {"width": 8, "heads": 1}, "optimizer.width_exponent": 1.0, "optimizer.decay_on": "matrices",
        "optimizer.eps": 1e-2})
    pack, before = pack_of([run], packs.ALONE), first_state(run)
    after = pack.host_states(pack.advance(pack.place([before]), 0, STEPS), [run.run_id])
    moved = jax.tree.leaves(jax.tree.map(lambda a, b: np.abs(a[0] - b).max(), after.params, before.params))
    assert (int(after.step[0]), int(after.diverged_at[0])) == (STEPS, -1)
    assert all(0 < most < 1 for most in moved)


def test_a_schedule_free_branch_goes_on_from_what_it_trains_or_starts_anew_from_what_is_evaluated() -> None:
    run, _ = tiny_runs("schedule_free", None)
    state = first_state(run)
    same = evaluation_params(state.optimizer, state.params)
    jax.tree.map(np.testing.assert_array_equal, same, state.params)
    averaged = state.optimizer[1]._replace(b1=np.float32(0.5), z=jax.tree.map(lambda leaf: leaf + 1, state.params))
    parent = state._replace(optimizer=(state.optimizer[0], averaged))
    kept, fresh = (branch_state(run.program, parent, reset, ()) for reset in (False, True))
    jax.tree.map(np.testing.assert_array_equal, kept.params, parent.params)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y - 1, atol=1e-6), fresh.params, parent.params)
    jax.tree.map(np.testing.assert_array_equal, fresh.optimizer[1].z, fresh.params)
