"""The pure train step against the same step by hand in numpy, float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import packs
import reference
from scaling.config import Run
from scaling.data.batches import batch
from scaling.training import step as step_module
from scaling.training.losses import token_losses
from scaling.training.state import DATA, Tables, TrainState, counted_step, zero_metrics
from scaling.training.step import PART_BYTES, microbatches, train_step
from scaling.training.tables import RunTables, Stream, hyperparameters, run_tables

TINY = {
    "model.width": 4, "model.heads": 2, "model.feedforward_ratio": 2.0, "data.sequence": 3, "data.batch": 2,
    "training.dtype": "float64", "training.z_loss": 0.01, "schedule.warmup": {"steps": 1}, "schedule.peak": 0.05,
    "data.mixture": {"a": 0.5, "b": 0.5},
}


def rows(tables: RunTables, step: int) -> Tables:
    return jax.tree.map(lambda table: table[0], tables.rows(step, 1, 1, np.dtype(np.float64)))


def advance(run: Run, state: TrainState, step: int) -> tuple[TrainState, np.ndarray]:
    """The state after update number `step`, from 0, and the windows it saw."""
    tokens, _ = packs.corpus(run.data.sequence, 4)
    hyper = hyperparameters(run, packs.windows(), Stream.start(2), np.dtype(np.float64))
    at = rows(run_tables(run, packs.windows(), Stream.start(2)), step)
    key = jax.random.fold_in(jax.random.key(hyper.seed), DATA)
    slots_B = jnp.arange(run.data.batch)
    seen_BxT = batch(tokens, key, hyper.windows_K, at.drawn_CxK, at.counts_CxK, slots_B, run.data.sequence)
    step_fn = jax.jit(train_step, static_argnums=(0, 1, 2))
    return step_fn(run.program, packs.VOCABULARY, 1, hyper, at, tokens, None, state), np.asarray(seen_BxT)


@pytest.mark.parametrize(("changes", "decay"), [
    ({"optimizer.clip_norm": 0.5, "optimizer.weight_decay": 0.3}, 0.3),
    ({"optimizer.clip_norm": None, "optimizer.weight_decay": 0.02, "optimizer.decay_convention": "independent"},
     0.02 / 0.05),
])
def test_two_updates_equal_the_formulas(changes: dict, decay: float) -> None:
    run = packs.pack_run(**TINY, **changes)
    with jax.enable_x64(True):
        state = packs.random_state(run.program, seed=3)
        params = state.params
        first = second = jax.tree.map(np.zeros_like, params)
        rates = run_tables(run, packs.windows(), Stream.start(2)).learning_rate_T
        losses, norms = [], []
        for step in (0, 1, 2):  # the first update of a warm-up has rate 0 and moves the moments alone
            state, seen_BxT = advance(run, state, step)
            losses.append(reference.objective(params, run, seen_BxT)[1])
            grads, norm = reference.clipped(reference.gradient(params, run, seen_BxT), run.optimizer.clip_norm)
            norms.append(norm)
            params, first, second = reference.adamw(
                params, first, second, grads, step + 1, rates[step], decay, run)
            moments = state.optimizer[1][0]
            for ours, theirs in ((state.params, params), (moments.mu, first), (moments.nu, second)):
                jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-14), ours, theirs)
        if run.optimizer.clip_norm is not None:
            assert min(norms) > run.optimizer.clip_norm, "the clip must bite for this test to mean anything"
        assert (int(state.step), int(state.diverged_at), int(moments.count)) == (3, -1, 3)
        expected = (3, np.sum(losses), np.var(losses) * 3, np.sum(norms))
        np.testing.assert_allclose(state.metrics, expected, rtol=1e-12)


def test_the_spread_of_losses_is_kept_far_below_their_size() -> None:
    """20,000 steps of 10 +- 0.01 nats in float32, whose squares are known to 1e-5 of their size."""
    losses_C = (10 + 0.01 * np.random.default_rng(0).normal(size=20_000)).astype(np.float32)
    zero = zero_metrics(packs.pack_run().program)
    metrics, _ = jax.jit(lambda losses_C: jax.lax.scan(
        lambda metrics, loss: (counted_step(metrics, loss, jnp.float32(0)), None), zero, losses_C))(losses_C)
    assert metrics.deviations.dtype == jnp.float32
    assert float(metrics.deviations) == pytest.approx(np.var(losses_C.astype(np.float64)) * 20_000, rel=1e-2)
    assert float(metrics.loss) == pytest.approx(np.sum(losses_C.astype(np.float64)), rel=1e-5)


def test_token_losses_are_log_softmax() -> None:
    rng = np.random.default_rng(0)
    logits_NxV, targets_N = rng.normal(size=(50, 7)).astype(np.float32) * 30, rng.integers(7, size=50)
    loss_N, log_z_N = token_losses(jnp.asarray(logits_NxV), jnp.asarray(targets_N))
    np.testing.assert_allclose(loss_N, -jax.nn.log_softmax(logits_NxV)[np.arange(50), targets_N], atol=1e-4)
    np.testing.assert_allclose(log_z_N, jax.nn.logsumexp(logits_NxV, axis=-1), rtol=1e-6)


@pytest.mark.parametrize("of", ["loss", "log_z"])
def test_gradients_of_token_losses_to_the_second_order(of: str) -> None:
    """They are written down by hand; against those of log-softmax, the mean weighed so that no two tokens are alike."""
    rng = np.random.default_rng(0)
    logits_NxV, targets_N, weights_N = rng.normal(size=(6, 5)) * 3, rng.integers(5, size=6), rng.uniform(1, 2, 6)

    def ours(logits_NxV: jax.Array) -> jax.Array:
        loss_N, log_z_N = token_losses(logits_NxV, jnp.asarray(targets_N))
        return jnp.sum(weights_N * (loss_N if of == "loss" else log_z_N**2))

    def theirs(logits_NxV: jax.Array) -> jax.Array:
        log_z_N = jax.nn.logsumexp(logits_NxV, axis=-1)
        return jnp.sum(weights_N * (log_z_N - logits_NxV[np.arange(6), targets_N] if of == "loss" else log_z_N**2))

    with jax.enable_x64(True):
        np.testing.assert_allclose(jax.grad(ours)(logits_NxV), jax.grad(theirs)(logits_NxV), rtol=1e-12, atol=1e-14)
        ours_NxVxNxV, theirs_NxVxNxV = (jax.jacrev(jax.grad(f))(logits_NxV) for f in (ours, theirs))
        np.testing.assert_allclose(ours_NxVxNxV, theirs_NxVxNxV, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("limit", [1e-3, 20.0])
def test_a_refused_loss_changes_nothing_but_the_mark(limit: float) -> None:
    """Below the loss the step is refused, above it is taken."""
    run = packs.pack_run(**{**TINY, "training.diverged_above": limit})
    with jax.enable_x64(True):
        before = packs.random_state(run.program, seed=0)
        after = jax.device_get(advance(run, before, 1)[0])
        same = [np.array_equal(a, b) for a, b in zip(jax.tree.leaves(before.params), jax.tree.leaves(after.params),
                                                     strict=True)]
        if limit < 1:
            assert all(same)
            jax.tree.map(np.testing.assert_array_equal, before.optimizer, after.optimizer)
            assert (int(after.step), int(after.diverged_at)) == (0, 1)
            assert after.metrics.steps == 0
        else:
            assert not any(same)
            assert (int(after.step), int(after.diverged_at)) == (1, -1)


PART = PART_BYTES // 4 // 64  # tokens of the smallest part at width 16


@pytest.mark.parametrize(("sequence", "batch_size", "accumulation", "shards", "backend", "parts"), [
    (PART, 8, 1, 1, "cpu", 8),
    (PART, 8, 1, 1, "gpu", 1),
    (PART // 4, 8, 1, 1, "cpu", 2),
    (PART // 8, 8, 1, 1, "cpu", 1),
    (PART // 4, 8, 2, 1, "cpu", 2),  # its halves are small enough: as asked
    (PART // 2, 8, 2, 1, "cpu", 4),
    (PART // 2, 8, 1, 2, "cpu", 2),  # of half the windows on each device
    (PART // 2 + 1, 6, 1, 1, "cpu", 3),
    (PART // 2 + 1, 7, 1, 1, "cpu", 1),  # a part holds whole windows, all parts as many
])
def test_a_batch_is_split_into_parts_that_fit_caches(
    sequence: int, batch_size: int, accumulation: int, shards: int, backend: str, parts: int,
) -> None:
    run = packs.pack_run(**{"model.width": 16, "model.heads": 1, "model.feedforward_ratio": 4.0,
                            "data.sequence": sequence, "data.batch": batch_size, "training.accumulation": accumulation})
    assert microbatches(run.program, shards, backend) == parts


def test_parts_of_wide_models_hold_more_tokens_than_caches_would_ask_for() -> None:
    """Each part adds up a gradient as large as the model."""
    run = packs.pack_run(**{"model.width": 256, "model.heads": 1, "model.feedforward_ratio": 4.0,
                            "data.sequence": 128, "data.batch": 32})
    assert 32 * 128 * 4 * 256 * 4 // PART_BYTES > 32
    assert microbatches(run.program, 1, "cpu") == 32 * 128 // (2 * 256)


def test_a_split_batch_gives_the_update_of_a_whole_one(monkeypatch: pytest.MonkeyPatch) -> None:
    run = packs.pack_run(**{**TINY, "data.batch": 8})
    with jax.enable_x64(True):
        before = packs.random_state(run.program, seed=0)
        whole = jax.device_get(advance(run, before, 1)[0])
        asked = []
        monkeypatch.setattr(step_module, "microbatches", lambda *of: (asked.append(of), 4)[1])
        jax.clear_caches()  # which know nothing of the change
        parts = jax.device_get(advance(run, before, 1)[0])
    assert not np.array_equal(whole.params["embedding"]["embedding"], before.params["embedding"]["embedding"])
    assert asked == [(run.program, 1, jax.default_backend())]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-14), whole, parts)
