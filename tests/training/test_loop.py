"""One pack from start to end: the windows it sees, what it logs and when, checkpoints at any cadence, interruptions."""

import dataclasses
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
import pytest

import packs
import reference
from helpers import never
from packs import ALONE, SEVEN
from scaling.config import Run
from scaling.data.batches import Tokens, batch
from scaling.store import Store
from scaling.training import step
from scaling.training.checkpoints import PackCheckpoints
from scaling.training.loop import Hooks, PackRun, replay_pack
from scaling.training.tables import Stream, evaluation_steps, run_tables
from scaling.training.trainer import Layout, PackTrainer

OPTIMIZED = True  # held-out losses meet the formulas to float32's rounding in the programs that sweeps run


@pytest.fixture(scope="module", autouse=True)
def _own_programs() -> None:
    """None that another file compiled without optimizations."""
    packs.trainer.cache_clear()


def run_with(steps: int = 50, index: int = 1, **changes: Any) -> Run:
    return packs.varied_run(index, **{"training.duration": {"steps": steps}, "evaluation.points": 6, **changes})


def at_every_step(steps: int) -> dict[str, Any]:
    return {"evaluation.points": None, "evaluation.steps": tuple(range(steps + 1))}


def test_the_trainer_sees_the_windows_of_its_tables_each_once_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every token of window w of domain k is 20 k + w, and the step's own batches are caught on their way, each half
    on its device.
    """
    windows, steps = 20, 150  # more steps than one chunk has rows
    run = packs.pack_run(**{
        "data.sequence": 5, "data.batch": 6, "model.width": 4, "training.duration": {"steps": steps},
        "data.mixture": ((0.0, {"a": 0.5, "b": 0.5}), (0.5, {"a": 1 / 6, "b": 5 / 6})),
        "data.unique_tokens": {"b": 35}})
    length = windows * 5 + 1
    tokens = Tokens(np.minimum(np.arange(length) // 5, windows - 1).astype(np.uint8), np.int32(0))
    both = Tokens(np.concatenate([tokens.tokens_N, tokens.tokens_N + windows]), np.array([0, length], np.int32))
    caught_parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def record(drawn_K: np.ndarray, slots_B: np.ndarray, tokens_BxT: np.ndarray) -> None:
        caught_parts.append((drawn_K, slots_B, tokens_BxT[:, 0]))

    def caught(*arguments: Any) -> jax.Array:
        tokens_BxT = batch(*arguments)
        jax.debug.callback(record, arguments[3], arguments[5], tokens_BxT)
        return tokens_BxT

    monkeypatch.setattr(step, "batch", caught)
    trainer = PackTrainer(run.program, 2 * windows, both, np.zeros((2, 2, 6), np.int32),
                          Layout(1, 1, devices=2, data=2))
    table = run_tables(run, packs.windows(windows), Stream.start(2))
    job = dataclasses.replace(packs.job([run]), tables=[table], windows=packs.windows(windows))
    pack = PackRun(trainer, job)
    state, at = pack.start(), 0
    while at < steps:
        state, at = pack.towards(state, at, steps)
    jax.block_until_ready(state)
    jax.effects_barrier()

    seen: dict[tuple[int, ...], dict[int, int]] = defaultdict(dict)
    for drawn_K, slots_B, first_B in caught_parts:
        seen[tuple(drawn_K.tolist())] |= dict(zip(slots_B.tolist(), first_B.tolist(), strict=True))
    drawn = [tuple(row) for row in table.drawn_TxK.tolist()]
    assert set(seen) == set(drawn)
    streams: dict[int, list[int]] = {0: [], 1: []}
    for before, counts_K in zip(drawn, table.counts_TxK.tolist(), strict=True):
        given = [seen[before][slot] for slot in range(6)]
        assert [sum(w < windows for w in given), sum(w >= windows for w in given)] == counts_K
        for window in given:
            streams[window // windows].append(window % windows)
    assert (len(streams[0]), len(streams[1])) == table.stream_after(steps).drawn_K
    for domain, limit in ((0, windows), (1, 7)):  # 35 tokens are 7 windows
        epochs = [streams[domain][start:start + limit] for start in range(0, len(streams[domain]), limit)]
        assert all(sorted(epoch) == list(range(limit)) for epoch in epochs[:-1])
        assert len(set(epochs[-1])) == len(epochs[-1])
        assert len({tuple(epoch) for epoch in epochs[:-1]}) > 1, "epochs come in different orders"


def test_held_out_losses_equal_the_formulas(tmp_path: Path) -> None:
    """loss: mean of the windows' means; loss_se: their standard deviation over the root of their number."""
    run = run_with(index=2, **{"evaluation.points": None, "evaluation.steps": (3,)})
    trained = packs.train(packs.job([run], saves={3: [run.run_id], 50: [run.run_id]}), ALONE, tmp_path)
    _, validation_KxMxT = packs.corpus(run.data.sequence, run.evaluation.windows)
    held_out = trained.curves[trained.curves.split == "validation"].set_index(["step", "domain"])
    assert set(held_out.index) == {(at, domain) for at in (0, 3, 50) for domain in packs.DOMAINS}
    for at in (3, 50):
        params = jax.tree.map(np.float64, trained.states[at][run.run_id].params)
        for domain, windows_MxT, length in zip(packs.DOMAINS, validation_KxMxT, packs.BYTES_PER_TOKEN, strict=True):
            losses_M = [reference.losses(params, run, window_T)[0].mean() for window_T in windows_MxT]
            row = held_out.loc[(at, domain)]
            np.testing.assert_allclose(row.loss, np.mean(losses_M), rtol=2e-6)
            np.testing.assert_allclose(row.loss_se, np.std(losses_M, ddof=1) / math.sqrt(len(losses_M)), rtol=1e-5)
            np.testing.assert_allclose(row.bits_per_byte, np.mean(losses_M) / math.log(2) / length, rtol=2e-6)


def test_rows_stand_at_log_spaced_steps_with_what_acted_there(tmp_path: Path) -> None:
    run = run_with(steps=100)
    assert evaluation_steps(run, 100) == (0, 1, 3, 6, 16, 40, 100)
    trained = packs.train(packs.job([run]), ALONE, tmp_path)
    validation = trained.curves[trained.curves.split == "validation"]
    assert validation.step.tolist() == [at for at in (0, 1, 3, 6, 16, 40, 100) for _ in packs.DOMAINS]
    assert trained.curves[trained.curves.split == "train"].step.tolist() == [1, 3, 6, 16, 40, 100]
    assert (trained.curves.tokens == trained.curves.step * 4 * 16).all()
    assert (trained.curves.flops == trained.curves.tokens).all()  # the tests' packs count 1 FLOP a token
    rates_T = run_tables(run, packs.windows(), Stream.start(2)).learning_rate_T
    for row in trained.curves.itertuples():
        assert math.isnan(row.lr) if row.step == 0 else row.lr == rates_T[row.step - 1]
    assert set(trained.diagnostics.step) == {1, 3, 6, 16, 40, 100}


def test_training_rows_are_means_over_the_steps_since_the_last(tmp_path: Path) -> None:
    each = packs.train(packs.job([run_with(**at_every_step(50))]), ALONE, tmp_path / "each")
    sparse = packs.train(packs.job([run_with()]), ALONE, tmp_path / "sparse")
    rows = each.curves[each.curves.split == "train"].set_index("step")
    norms = each.diagnostics.set_index("step").value
    assert rows.loss_se.isna().all()
    before = 0
    for row in sparse.curves[sparse.curves.split == "train"].itertuples():
        span = list(range(before + 1, row.step + 1))
        losses = rows.loss.loc[span].to_numpy()
        np.testing.assert_allclose(row.loss, losses.mean(), rtol=1e-6)
        if len(span) > 1:
            np.testing.assert_allclose(row.loss_se, losses.std(ddof=1) / math.sqrt(len(span)), rtol=1e-2)
        norm = sparse.diagnostics.set_index("step").value[row.step]
        np.testing.assert_allclose(norm, norms.loc[span].mean(), rtol=1e-6)
        before = row.step


def test_evaluating_more_often_changes_no_loss(tmp_path: Path) -> None:
    often, seldom = run_with(**at_every_step(50)), run_with()
    each = packs.train(packs.job([often]), ALONE, tmp_path / "each").curves
    few = packs.train(packs.job([seldom]), ALONE, tmp_path / "few").curves
    each, few = (t[t.split == "validation"].set_index(["step", "domain"]).loss for t in (each, few))
    pd.testing.assert_series_equal(each.loc[few.index], few, check_exact=True)


class PowerCutError(RuntimeError):
    pass


@pytest.mark.parametrize("cadence", [0.0, packs.NEVER])
@pytest.mark.parametrize("cut_after", [0, 16, 40])
def test_tables_do_not_depend_on_checkpoints_nor_interruptions(
    cadence: float, cut_after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs = [run_with(steps=100, index=index) for index in (0, 1, 2)]
    runs[1] = run_with(steps=100, index=1, **{"schedule.peak": 100.0})  # diverges on the way
    wanted = packs.train(packs.job(runs), SEVEN, tmp_path / "whole")
    assert [at > 0 for at in wanted.diverged_at.values()] == [False, True, False]

    def cut(self: PackRun, step: int, measured: Any) -> Any:
        if step > cut_after:
            raise PowerCutError
        return read(self, step, measured)

    read = PackRun.read
    with monkeypatch.context() as patch:
        patch.setattr(PackRun, "read", cut)
        with pytest.raises(PowerCutError):
            packs.train(packs.job(runs), SEVEN, tmp_path / "cut", cadence)
    found = packs.train(packs.job(runs), SEVEN, tmp_path / "cut", cadence)
    for name in ("curves", "diagnostics"):
        mine, theirs = (getattr(t, name).sort_values(list(getattr(t, name).columns)).reset_index(drop=True)
                        for t in (found, wanted))
        pd.testing.assert_frame_equal(mine, theirs, check_exact=True)
    assert found.diverged_at == wanted.diverged_at
    for run in runs:
        jax.tree.map(np.testing.assert_array_equal, found.params(run), wanted.params(run))


def test_rows_written_ahead_of_their_checkpoint_are_written_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A cut between the rows of step 40 and its checkpoint, then a resume that flushes at other steps."""
    runs = [run_with(steps=100, index=index) for index in (0, 1)]
    wanted = packs.train(packs.job(runs), SEVEN, tmp_path / "whole")
    save = PackCheckpoints.save

    def cut(self: PackCheckpoints, run_ids: list[str], at: int, states_R: Any) -> None:
        if at == 40:
            raise PowerCutError
        save(self, run_ids, at, states_R)

    with monkeypatch.context() as patch:
        patch.setattr(PackCheckpoints, "save", cut)
        with pytest.raises(PowerCutError):
            packs.train(packs.job(runs), SEVEN, tmp_path / "cut", checkpoint_seconds=0)
    assert Store(tmp_path / "cut" / "store").read("curves").step.max() == 40
    found = packs.train(packs.job(runs), SEVEN, tmp_path / "cut")
    order = ["run_id", "step", "split", "domain"]
    mine, theirs = (trained.curves.sort_values(order).reset_index(drop=True) for trained in (found, wanted))
    pd.testing.assert_frame_equal(mine, theirs, check_exact=True)


def test_replay_makes_the_states_that_training_kept(tmp_path: Path) -> None:
    runs = [run_with(index=index) for index in (3, 4)]
    saves = {20: [runs[0].run_id], 33: [runs[0].run_id, runs[1].run_id]}
    trained = packs.train(packs.job(runs, saves=saves), SEVEN, tmp_path)
    made: dict[int, Any] = {}
    replay_pack(packs.trainer(runs[0].program, SEVEN), packs.job(runs, saves=saves),
                Hooks(lambda step, run_ids, states_R: made.update({step: (run_ids, states_R)}),
                      lambda first, last: None, never, lambda snapshot: (), lambda step: ()))
    assert {step: run_ids for step, (run_ids, _) in made.items()} == saves
    for at, (run_ids, states_R) in made.items():
        for index, run_id in enumerate(run_ids):
            kept = trained.states[at][run_id]
            one = jax.tree.map(lambda leaf, i=index: leaf[i], states_R)
            for part in ("params", "optimizer", "step", "diverged_at"):
                jax.tree.map(np.testing.assert_array_equal, getattr(one, part), getattr(kept, part))


@pytest.mark.parametrize("optimizer", ["keep", "reset"])
def test_a_branch_starts_from_its_parents_state(optimizer: str, tmp_path: Path) -> None:
    trunk = run_with(index=4)
    kept = packs.train(packs.job([trunk], saves={30: [trunk.run_id]}), ALONE, tmp_path).states[30][trunk.run_id]
    branch = run_with(index=4, **{"parent": {"run_id": trunk.run_id, "at": {"steps": 30}, "optimizer": optimizer}})
    start = PackRun(packs.trainer(branch.program, ALONE), packs.job([branch], parents=[kept])).start()
    one = jax.tree.map(lambda leaf: np.asarray(leaf)[0], start)
    jax.tree.map(np.testing.assert_array_equal, one.params, kept.params)
    expected = kept.optimizer if optimizer == "keep" else jax.tree.map(np.zeros_like, kept.optimizer)
    jax.tree.map(np.testing.assert_array_equal, one.optimizer, expected)
    assert (int(one.step), int(one.diverged_at), float(sum(one.metrics))) == (0, -1, 0.0)
    assert any(np.any(leaf != 0) for leaf in jax.tree.leaves(kept.optimizer))
