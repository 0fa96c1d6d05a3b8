"""Weighed training: each mixer and objective inside the step, against numpy float64.

The numpy model and its gradient by complex steps are those of `reference`; the mixers' formulas are written again here.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

import packs
import reference
from mixer_runs import MIXERS
from scaling.config import Run
from scaling.data.mixers import mixer as mixers
from scaling.training.losses import Batch
from scaling.training.mixing import initial_mixing
from scaling.training.state import TrainState
from scaling.training.step import draw, train_step
from scaling.training.tables import Stream, hyperparameters, run_tables
from scaling.training.weighed import observed

TINY = {"model.width": 4, "model.heads": 1, "data.sequence": 5, "data.batch": 4, "training.dtype": "float64",
        "data.mixture": {"a": 0.5, "b": 0.5}, "optimizer.clip_norm": None, "training.z_loss": 1e-2}

class Steps:
    """A run's step function on the made-up corpus, in float64, one update at a time."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.hyper = hyperparameters(run, packs.windows(), Stream.start(2), np.dtype(np.float64))
        self.tokens, _ = packs.corpus(run.data.sequence, 4)
        self.tables = run_tables(run, packs.windows(), Stream.start(2))
        wanted = 0 if run.mixer is None else run.mixer.windows or 0
        self.held_out_KxMxT = packs.held_out(run.data.sequence, wanted) if wanted else None
        self._step = jax.jit(train_step, static_argnums=(0, 1, 2))
        self._draw = jax.jit(draw, static_argnums=(0, 1))

    def at(self, step: int) -> Any:
        return jax.tree.map(lambda table: table[0], self.tables.rows(step, 1, 1, np.dtype(np.float64)))

    def batch(self, state: TrainState, step: int) -> Batch:
        return jax.device_get(self._draw(self.run.program, 1, self.hyper, self.at(step), self.tokens, state))

    def update(self, state: TrainState, step: int) -> TrainState:
        return self._step(self.run.program, packs.VOCABULARY, 1, self.hyper, self.at(step), self.tokens,
                          self.held_out_KxMxT, state)


def tiny(**changes: Any) -> Steps:
    return Steps(packs.pack_run(**{**TINY, **changes}))


def start(steps: Steps, seed: int = 3, companion: Any = None) -> TrainState:
    """Random parameters, the mixer as it starts, its companion's parameters where it has one."""
    state = packs.random_state(steps.run.program, seed)
    if steps.run.mixer is None:
        return state
    return state._replace(mixing=initial_mixing(steps.run.program, steps.hyper.mixing, companion))


def losses(steps: Steps, params: Any, tokens_BxT: np.ndarray) -> np.ndarray:
    """Cross-entropy of every token, float64[B, S]."""
    return np.array([reference.losses(params, steps.run, window_T)[0] for window_T in tokens_BxT])


def weighed_gradient(steps: Steps, params: Any, tokens_BxT: np.ndarray, coefficient_B: np.ndarray) -> Any:
    """Of sum_b c_b (loss_b + z mean log² Z_b), by the reference's complex steps, a window at a time."""
    parts = [reference.gradient(params, steps.run, window_T[None]) for window_T in tokens_BxT]
    return jax.tree.map(lambda *leaves: sum(c * leaf for c, leaf in zip(coefficient_B, leaves, strict=True)), *parts)


def assert_updated(steps: Steps, before: TrainState, after: TrainState, grads: Any, step: int) -> None:
    """The step from `before` to `after` is AdamW's for these gradients."""
    moments = before.optimizer[1][0]
    decay = steps.run.optimizer.weight_decay
    params, first, _ = reference.adamw(before.params, moments.mu, moments.nu, grads, int(moments.count) + 1,
                                       steps.tables.learning_rate_T[step], decay, steps.run)
    for ours, theirs in ((after.params, params), (after.optimizer[1][0].mu, first)):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-12), ours, theirs)


def domain_means(values_B: np.ndarray, domain_B: np.ndarray) -> np.ndarray:
    return np.array([values_B[domain_B == k].mean() for k in range(2)])


@pytest.fixture(autouse=True)
def _float64() -> Any:
    with jax.enable_x64(True):
        yield


def test_domain_weights_multiply_the_losses_of_their_windows() -> None:
    steps = tiny(objective={"domain_weights": {"b": 3.0}, "reweighting": "none", "temperature": None,
                            "uniform_for": None})
    before = start(steps)
    drawn = steps.batch(before, 1)
    assert sorted(drawn.domain_B) == [0, 0, 1, 1]
    coefficient_B = np.where(drawn.domain_B == 1, 3.0, 1.0) / 4
    after = steps.update(before, 1)
    assert_updated(steps, before, after, weighed_gradient(steps, before.params, drawn.tokens_BxT, coefficient_B), 1)
    plain = losses(steps, before.params, drawn.tokens_BxT).mean()
    assert float(after.metrics.loss) == pytest.approx(plain, rel=1e-9), "what is logged is not weighed"


def test_windows_are_reweighted_by_loss_from_the_named_step_on() -> None:
    steps = tiny(objective={"domain_weights": {}, "reweighting": "lin_upper", "temperature": 0.5,
                            "uniform_for": {"steps": 1}})
    before = start(steps)
    drawn = steps.batch(before, 1)
    loss_B = losses(steps, before.params, drawn.tokens_BxT).mean(axis=1)
    h_B = (2 * loss_B - loss_B.max() - loss_B.min()) / (loss_B.max() - loss_B.min())
    softmax_B = np.exp(np.minimum(h_B + 1, 1) / 0.5)
    softmax_B /= softmax_B.sum()
    assert np.ptp(softmax_B) > 0.1, "the weights must differ for this test to mean anything"
    uniform = steps.update(before, 1)  # step 0 of the run
    plain = weighed_gradient(steps, before.params, drawn.tokens_BxT, np.full(4, 1 / 4))
    assert_updated(steps, before, uniform, plain, 1)
    later = before._replace(step=np.int32(1))
    weighed = steps.update(later, 1)
    assert_updated(steps, later, weighed, weighed_gradient(steps, before.params, drawn.tokens_BxT, softmax_B), 1)


def test_doremi_weighs_a_batch_by_its_own_clipped_excess_loss() -> None:
    steps = tiny(**MIXERS["doremi"])
    companion = packs.random_state(steps.run.program, seed=8).params
    before = start(steps, companion=companion)
    drawn = steps.batch(before, 1)
    excess_BxS = np.maximum(losses(steps, before.params, drawn.tokens_BxT) - losses(steps, companion, drawn.tokens_BxT),
                            0)
    assert (excess_BxS == 0).any(), "some token must be clipped for this test to mean anything"
    excess_K = domain_means(excess_BxS.mean(axis=1), drawn.domain_B)
    raised_K = 0.5 * np.exp(1.5 * excess_K)
    weights_K = 0.99 * raised_K / raised_K.sum() + 0.01 / 2
    coefficient_B = weights_K[drawn.domain_B] / 2
    after = steps.update(before, 1)
    assert_updated(steps, before, after, weighed_gradient(steps, before.params, drawn.tokens_BxT, coefficient_B), 1)
    np.testing.assert_allclose(after.mixing.weight_sum_K, weights_K, rtol=1e-9)
    jax.tree.map(np.testing.assert_array_equal, after.mixing.companion, companion)


def test_doge_adds_up_clipped_gradients_by_how_they_agree() -> None:
    steps = tiny(**MIXERS["doge"])
    before = start(steps)
    drawn = steps.batch(before, 1)
    norms, gradients = [], []
    for k in range(2):
        grads, norm = reference.clipped(
            reference.gradient(before.params, steps.run, drawn.tokens_BxT[drawn.domain_B == k]), 1.0)
        norms.append(min(norm, 1.0))
        gradients.append(grads)
    product = sum(np.sum(a * b) for a, b in zip(*map(jax.tree.leaves, gradients), strict=True))
    rate = steps.tables.learning_rate_T[1]
    score = np.clip(rate * product / (np.mean(norms) + 1e-6), 0, 5 * rate)
    raised_K = np.exp(300.0 * np.array([score, score]))  # of two domains both get the same score: the product
    weights_K = raised_K / raised_K.sum()
    grads = jax.tree.map(lambda a, b: weights_K[0] * a + weights_K[1] * b, *gradients)
    assert_updated(steps, before, steps.update(before, 1), grads, 1)


def test_odm_draws_the_next_batch_by_the_losses_of_this_one() -> None:
    steps = tiny(**MIXERS["odm_released"], **{"data.batch": 16})
    state, reward_K = start(steps), np.zeros(2)
    for step in range(4):
        epsilon = 0.5 if step == 0 else min(0.5, np.sqrt(np.log(2) / (2 * step)))
        drawn = steps.batch(state, step)
        if step == 3:
            share_K = (1 - 2 * epsilon) * reward_K / reward_K.sum() + epsilon
            np.testing.assert_allclose(drawn.counts_K, 16 * share_K, atol=1)
        loss_K = domain_means(losses(steps, state.params, drawn.tokens_BxT).mean(axis=1), drawn.domain_B)
        reward_K = 0.5 * reward_K + 0.5 * np.exp(loss_K)
        np.testing.assert_array_equal(state.mixing.drawn_K + drawn.counts_K,
                                      (state := steps.update(state, step)).mixing.drawn_K)
    assert int(state.mixing.drawn_K.sum()) == 64


@pytest.mark.parametrize("name", ["skill_it", "aioli"])
def test_held_out_losses_reach_the_mixer(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = tiny(**MIXERS[name])
    state = start(steps)
    seen: list[Any] = []

    def record(inner: Any, observation: mixers.Observation) -> Any:
        seen.append(observation)
        return inner

    built = mixers.Mixer("held_out", "sampling", lambda: (), lambda inner, step: step, record)
    monkeypatch.setattr("scaling.training.weighed.mixer_of", lambda program, inputs: built)
    observed(steps.run.program, packs.VOCABULARY, steps.hyper, steps.held_out_KxMxT, state)
    expected_K = [losses(steps, state.params, tokens_MxT).mean() for tokens_MxT in steps.held_out_KxMxT]
    np.testing.assert_allclose(seen[0].seen, expected_K, rtol=1e-9)
    assert int(seen[0].step) == int(state.step)


def test_bilevel_descends_held_out_loss_and_its_companion_does_not() -> None:
    steps = tiny(**MIXERS["bilevel"])
    zeros = packs.random_state(steps.run.program, seed=8)
    before = start(steps, companion=(zeros.params, zeros.optimizer))
    drawn = steps.batch(before, 1)
    half_B = np.full(4, 1 / 4)
    inner = weighed_gradient(steps, before.params, drawn.tokens_BxT, half_B)
    held_out_BxT = steps.held_out_KxMxT[:, [0, 1]].reshape(4, -1)  # batch / domains = 2 a domain, at step 0
    without_z = Steps(packs.pack_run(**{**TINY, "training.z_loss": 0.0}))
    outer = reference.gradient(before.params, without_z.run, held_out_BxT)
    after = steps.update(before, 1)
    assert_updated(steps, before, after, jax.tree.map(lambda a, b: a + 3.0 * b, outer, inner), 1)
    descent = weighed_gradient(steps, zeros.params, drawn.tokens_BxT, half_B)
    moments = zeros.optimizer[1][0]
    expected, _, _ = reference.adamw(zeros.params, moments.mu, moments.nu, descent, 1,
                                     steps.tables.learning_rate_T[1], steps.run.optimizer.weight_decay, steps.run)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-12), after.mixing.companion[0],
                 expected)
    gap_K = domain_means((losses(steps, before.params, drawn.tokens_BxT)
                          - losses(steps, zeros.params, drawn.tokens_BxT)).mean(axis=1), drawn.domain_B)
    gradient_K = 3.0 * 0.5 * (gap_K - gap_K.mean())
    logits_K = np.log(0.5) - 0.5 * gradient_K
    np.testing.assert_allclose(after.mixing.mixer, logits_K, rtol=1e-9)
