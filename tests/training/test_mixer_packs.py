"""Mixers in packs: lanes, vmap, devices and interruptions change no run, and what is drawn is what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import packs
from mixer_runs import MIXERS
from packs import ALONE
from scaling.config import Run
from scaling.data.batches import batch
from scaling.data.mixing import UNITS
from scaling.training.loop import PackRun
from scaling.training.mixing import whole_windows
from scaling.training.state import DATA, branch_state
from scaling.training.step import draw
from scaling.training.tables import Stream, hyperparameters, run_tables
from scaling.training.trainer import Layout

MAP, VMAP, SPLIT = Layout(4, 1, devices=2), Layout(4, 2, devices=2), Layout(2, 1, devices=4, data=2)
RATES = {"doremi": ("rate", (0.5, 3.0)), "doge": ("rate", (100.0, 900.0)), "odm": ("memory", (0.3, 0.9)),
         "odm_released": ("memory", (0.3, 0.9)), "skill_it": ("rate", (0.3, 2.0)), "aioli": ("rate", (0.3, 2.0)),
         "bilevel": ("rate", (0.2, 5.0))}
STEPS = 24


def runs_of(name: str) -> list[Run]:
    """Runs of one mixer that differ in its strength, and in seed."""
    key, values = RATES[name]
    changes = MIXERS[name]
    return [packs.pack_run(**{
        "data.mixture": {"a": 0.5, "b": 0.5}, "training.duration": {"steps": STEPS}, "evaluation.points": 4,
        "training.seed": seed, "schedule.peak": 2e-2, **changes, "mixer": {**changes["mixer"], key: value}})
        for seed, value in [(0, values[0]), (0, values[1]), (1, values[0])]]


def train(name: str, layout: Layout, folder: Path, take: slice = slice(None)) -> packs.Trained:
    runs = runs_of(name)[take]
    parents = None
    if name == "doremi":
        reference = packs.pack_run(**{"data.mixture": {"a": 0.5, "b": 0.5}})
        parents = [packs.random_state(reference.program, seed=5)] * len(runs)
    return packs.train(packs.job(runs, parents=parents), layout, folder)


def weights(trained: packs.Trained, run: Run, name: str = "mean_weights") -> np.ndarray:
    """A quantity of the mixer at the run's evaluations, [T, K]."""
    rows = trained.diagnostics[trained.diagnostics.run_id == run.run_id]
    return np.stack([rows[rows.name == f"{name}.{domain}"].sort_values("step").value for domain in packs.DOMAINS], 1)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, packs.Trained]:
    """The second run of every mixer, trained by itself."""
    return {name: train(name, ALONE, tmp_path_factory.mktemp(name), slice(1, 2)) for name in MIXERS}


CASES = [*((name, VMAP) for name in MIXERS), *((name, SPLIT) for name in ("doremi", "aioli", "bilevel"))]


@pytest.mark.parametrize(("name", "layout"), CASES, ids=str)
def test_a_pack_of_different_settings_gives_each_run_what_it_gets_alone(
    name: str, layout: Layout, alone: dict[str, packs.Trained], tmp_path: Path,
) -> None:
    runs = runs_of(name)[:layout.lanes]
    trained = train(name, layout, tmp_path, slice(0, layout.lanes))
    np.testing.assert_allclose(trained.losses(runs[1]), alone[name].losses(runs[1]), rtol=1e-4)
    np.testing.assert_allclose(weights(trained, runs[1]), weights(alone[name], runs[1]), rtol=2e-3)
    if name != "doge":  # whose two domains always have equal scores
        assert np.ptp([weights(trained, run)[-1, 0] for run in runs]) > 1e-4, "the settings must matter"


@pytest.mark.parametrize("name", MIXERS)
def test_the_mixture_is_logged_as_it_acted(name: str, alone: dict[str, packs.Trained]) -> None:
    run = runs_of(name)[1]
    trained = alone[name]
    np.testing.assert_allclose(weights(trained, run, "weights").sum(axis=1), 1, rtol=1e-5)
    drawn_TxK = weights(trained, run, "drawn")
    assert drawn_TxK[0].sum() == 0
    assert drawn_TxK[-1].sum() == STEPS * run.data.batch
    sampled = name in ("odm", "odm_released", "skill_it", "aioli")
    expected_K = weights(trained, run)[-1] if sampled else np.full(2, 0.5)
    np.testing.assert_allclose(drawn_TxK[-1] / drawn_TxK[-1].sum(), expected_K, atol=0.02)


@pytest.mark.parametrize("name", ["aioli", "bilevel", "odm"])
def test_a_cut_run_goes_on_to_the_same_tables(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = train(name, MAP, tmp_path / "whole")
    read = PackRun.read

    def cut(self: PackRun, step: int, measured: Any) -> Any:
        if step > 4:
            raise InterruptedError
        return read(self, step, measured)

    job = packs.job(runs_of(name))
    with monkeypatch.context() as patch:
        patch.setattr(PackRun, "read", cut)
        with pytest.raises(InterruptedError):
            packs.train(job, MAP, tmp_path / "cut", checkpoint_seconds=0)
    assert list((tmp_path / "cut" / "checkpoints").iterdir()), "nothing was saved to go on from"
    found = packs.train(job, MAP, tmp_path / "cut", checkpoint_seconds=0)
    for table in ("curves", "diagnostics"):
        mine, theirs = (getattr(t, table).sort_values(["run_id", "step", "domain" if table == "curves" else "name"])
                        .reset_index(drop=True) for t in (found, wanted))
        pd.testing.assert_frame_equal(mine, theirs, check_exact=True)


def test_aioli_probes_one_domain_at_a_time(alone: dict[str, packs.Trained]) -> None:
    """With own 0.75 and batches of 4, a probe draws 3 windows of its domain and 1 of the other."""
    run = runs_of("aioli")[1]
    steps = alone["aioli"].diagnostics.step.unique()
    drawn_TxK = weights(alone["aioli"], run, "drawn")
    assert steps.tolist() == [0, 1, 3, 8, 24]
    assert sorted(drawn_TxK[1]) == [1, 3]
    np.testing.assert_array_equal(np.sort(drawn_TxK[2]), [5, 7])  # two steps of one probe, one of the other


def test_a_branch_with_a_mixer_goes_on_in_its_parents_stream() -> None:
    run = runs_of("odm")[0]
    start, first = Stream((7, 3), (7 * UNITS, 3 * UNITS)), Stream.start(2)
    values = [hyperparameters(run, packs.windows(), stream, np.dtype(np.float32)) for stream in (start, first)]
    states = [branch_state(run.program, packs.random_state(packs.pack_run().program, 1), True, value.mixing)
              for value in values]
    assert [state.mixing.drawn_K.tolist() for state in states] == [[7, 3], [0, 0]]
    tokens, _ = packs.corpus(run.data.sequence, 4)
    tables = run_tables(run, packs.windows(), start).rows(0, 1, 1, np.dtype(np.float32))
    at = jax.tree.map(lambda table: table[0], tables)
    drawn, again = (draw(run.program, 1, value, at, tokens, state) for value, state in zip(values, states, strict=True))
    np.testing.assert_array_equal(drawn.counts_K, [2, 2])
    key = jax.random.fold_in(jax.random.key(run.training.seed), DATA)
    expected = batch(tokens, key, values[0].windows_K, np.array([7, 3]), drawn.counts_K, jnp.arange(4),
                     run.data.sequence)
    np.testing.assert_array_equal(drawn.tokens_BxT, expected)
    assert (np.asarray(again.tokens_BxT) != np.asarray(drawn.tokens_BxT)).any()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=6).filter(lambda s: sum(s) > 1e-3),
       st.integers(1, 64), st.integers(0, 2**31 - 1))
def test_whole_windows_make_up_a_batch(shares: list[float], size: int, step: int) -> None:
    shares_K = np.array(shares, np.float32) / np.sum(shares, dtype=np.float32)
    counts_K = np.asarray(whole_windows(jnp.asarray(shares_K), size, jnp.int32(step)))
    assert counts_K.sum() == size
    assert (counts_K >= 0).all()
    assert (np.abs(counts_K - size * shares_K) < 1 + 1e-4).all()
    assert (counts_K[shares_K == 0] == 0).all()


@pytest.mark.parametrize(("size", "step"), [
    (64, 75025), (128, 75025), (256, 46368), (512, 17711), (2048, 6765), (4096, 2584)])
def test_whole_windows_make_up_a_batch_where_the_last_edge_rounds_up(size: int, step: int) -> None:
    """At these steps the size plus the multiple of the golden ratio is nearest to the size plus 1 in float32."""
    counts_K = np.asarray(whole_windows(jnp.array([0.3, 0.5, 0.2]), size, jnp.int32(step)))
    assert counts_K.sum() == size


def test_whole_windows_follow_the_shares_in_the_mean() -> None:
    shares_K = jnp.array([0.013, 0.487, 0.1, 0.4])
    counts_TxK = jax.vmap(lambda step: whole_windows(shares_K, 16, step))(jnp.arange(2000))
    np.testing.assert_allclose(np.asarray(counts_TxK).sum(axis=0), 2000 * 16 * np.asarray(shares_K), atol=3)
