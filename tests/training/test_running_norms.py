"""Norms of batch statistics in the train step: what moves them, what does not see them, packs and devices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest
from test_step import TINY, advance

import packs
from scaling.config import Run
from scaling.models.running import split
from scaling.training.state import TrainState, model_of
from scaling.training.step import PART_BYTES, gradients, microbatches
from scaling.training.trainer import Layout

KINDS = ("powernorm", "unified")


def running_run(kind: str, **changes: Any) -> Run:
    return packs.pack_run(**{"model.norm": kind, "model.norm_warmup": 3, **changes})


def start(run: Run, seed: int = 0) -> TrainState:
    """Random parameters, statistics as they are at first."""
    state = packs.random_state(run.program, seed)

    def fill(path: tuple, leaf: np.ndarray) -> np.ndarray:
        if all(part.key != "statistics" for part in path):
            return leaf
        return np.full_like(leaf, path[-1].key in ("square", "window"))

    return state._replace(params=jax.tree_util.tree_map_with_path(fill, state.params))


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_moves_statistics_past_the_optimizer(kind: str) -> None:
    """By the averages over microbatches of the next value; clip, norm, decay and moments are of the rest."""
    run = running_run(kind, **{**TINY, "data.batch": 4, "training.accumulation": 2, "optimizer.clip_norm": 0.5,
                               "optimizer.weight_decay": 0.3, "optimizer.decay_on": "all"})
    with jax.enable_x64(True):
        state = start(run)
        after, seen_BxT = jax.device_get(advance(run, state, 1))
        parts = [jax.device_get(jax.jit(gradients, static_argnums=(0, 1, 2))(
            run.program, packs.VOCABULARY, (), state.params, half_AxBxT, run.training.z_loss)[0])
            for half_AxBxT in (seen_BxT[None, :2], seen_BxT[None, 2:])]
        mean = jax.tree.map(lambda a, b: (a + b) / 2, *parts)
        norm, momentum = (float(optax.tree.norm(tree)) for tree in (split(mean)[0], after.optimizer[1][0].mu))
    trained, statistics = split(after.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), statistics, split(mean)[1])
    assert after.params["final_norm"]["statistics"]["count"] == 1
    assert float(after.metrics.gradient_norm) == pytest.approx(norm, rel=1e-10)
    assert norm > 0.5, "the clip must bite for this test to mean anything"
    moments = after.optimizer[1][0].mu
    assert jax.tree.structure(moments) == jax.tree.structure(trained) != jax.tree.structure(after.params)
    assert momentum == pytest.approx((1 - run.optimizer.b1) * 0.5, rel=1e-10)


def test_a_refused_step_leaves_statistics_alone() -> None:
    run = running_run("powernorm", **{**TINY, "training.diverged_above": 1e-3})
    with jax.enable_x64(True):
        state = start(run)
        after = jax.device_get(advance(run, state, 1)[0])
    assert int(after.diverged_at) == 1
    jax.tree.map(np.testing.assert_array_equal, after.params, state.params)


def test_a_batch_is_never_split_for_the_caches_alone() -> None:
    """Which would make its statistics those of a part."""
    sizes = {"model.width": 16, "model.heads": 1, "model.feedforward_ratio": 4.0,
             "data.sequence": PART_BYTES // 4 // 64 // 2, "data.batch": 8}
    assert microbatches(packs.pack_run(**sizes).program, 1, "cpu") == 4
    assert microbatches(running_run("powernorm", **sizes).program, 1, "cpu") == 1


def test_packs_and_devices_change_nothing(tmp_path: Path) -> None:
    """Alone against beside two others with each batch split over two devices, through warm-up and after: statistics
    are those of the whole batch wherever its windows lie.
    """
    changes = {"training.dtype": "float64", "training.duration": {"steps": 8}, "model.width": 8}
    runs = [running_run("unified", **changes, **{"training.seed": seed}) for seed in (0, 1, 2)]
    with jax.enable_x64(True):
        alone = packs.train(packs.job(runs[:1]), Layout(1, 1, devices=1), tmp_path / "alone")
        together = packs.train(packs.job(runs), Layout(4, 2, devices=2, data=2), tmp_path / "together")
    np.testing.assert_allclose(together.losses(runs[0]), alone.losses(runs[0]), rtol=1e-8)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9),
                 together.params(runs[0]), alone.params(runs[0]))
    statistics = alone.params(runs[0])["final_norm"]["statistics"]
    assert statistics["count"] == 8
    assert np.abs(statistics["gradient"]).max() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_training_logits_are_those_of_the_batch_and_evaluated_ones_are_not(kind: str) -> None:
    run = running_run(kind)
    params, tokens_BxS = start(run).params, np.arange(32).reshape(2, 16) % packs.VOCABULARY
    one, other = ({"params": jax.tree_util.tree_map_with_path(
        lambda path, leaf, f=factor: leaf * (f if path[-1].key == "square" else 1), params)} for factor in (1, 4))
    for axes, same in (((), True), (None, False)):
        apply = jax.jit(model_of(run.program, packs.VOCABULARY, axes).apply)
        assert np.array_equal(apply(one, tokens_BxS), apply(other, tokens_BxS)) is same
