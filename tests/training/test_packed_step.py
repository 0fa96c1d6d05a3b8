"""Training on packed windows against the loss of one document at a time, in numpy; over shards and microbatches."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest

import packs
import reference
from scaling.config import Run
from scaling.data.corpus import Corpus, Domain
from scaling.data.packed import PackedCorpus, predicted
from scaling.training.loop import PackJob, PackRun
from scaling.training.losses import Batch
from scaling.training.packed import packed_gradients
from scaling.training.state import TrainState
from scaling.training.step import draw, gradients
from scaling.training.tables import Stream, Windows, hyperparameters, run_tables
from scaling.training.trainer import Layout, PackTrainer

SEQUENCE = 11
PACKING = {"method": "best_fit", "attention": "document", "metadata": {"b": "x"}, "documents": {}}
TINY = {"model.width": 4, "model.feedforward_ratio": 2.0, "data.sequence": SEQUENCE, "data.batch": 4,
        "training.dtype": "float64", "training.z_loss": 0.01, "optimizer.clip_norm": None, "packing": PACKING,
        "data.mixture": {"a": 0.5, "b": 0.5}, "training.duration": {"steps": 6}}


class Counting:
    """A tokenizer of no text: every name takes the tokens 1, 2, 3."""

    def encode(self, text: bytes) -> np.ndarray:
        return np.array([1, 2, 3, 0], np.uint8)


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


@functools.cache
def corpus() -> Corpus:
    """Documents of random tokens and token 0; those of the second domain leave windows half empty."""
    rng = np.random.default_rng(0)

    def text(lengths: range) -> np.ndarray:
        documents = [[*rng.integers(1, packs.VOCABULARY, rng.choice(lengths)), 0] for _ in range(150)]
        return np.concatenate(documents).astype(np.uint8)

    domains = tuple(Domain(name, text(lengths), text(lengths)) for name, lengths in (
        ("a", range(1, 15)), ("b", range(2, 6))))
    return Corpus(domains, packs.VOCABULARY, np.ones(packs.VOCABULARY, np.int64), "", Counting())  # type: ignore[arg-type]


def packed_corpus(run: Run) -> PackedCorpus:
    assert run.packing is not None
    return PackedCorpus(corpus(), run.packing)


def windows_of(run: Run) -> Windows:
    counts_K = packed_corpus(run).windows(SEQUENCE).tolist()
    return Windows(tuple(zip(packs.DOMAINS, counts_K, strict=True)))


class Trained:
    """A run after `steps` updates from drawn parameters, in one lane."""

    def __init__(self, run: Run, layout: Layout, steps: int) -> None:
        text, self.stream = packed_corpus(run), Stream.start(2)
        tokens, self.held = text.tokens(SEQUENCE), text.validation_windows(SEQUENCE, run.evaluation.windows)
        trainer = PackTrainer(run.program, packs.VOCABULARY, tokens, self.held, layout)
        self.before = packs.random_state(run.program, seed=3)
        table = run_tables(run, windows_of(run), self.stream)
        pack = PackRun(trainer, PackJob([run], [0], [table], windows_of(run), (), {}, [self.before]))
        self.measured = pack.read(0, pack.measure(pack.start(), 0))
        state = pack.advance(pack.start(), 0, steps)
        self.state: TrainState = jax.tree.map(lambda leaf: np.asarray(leaf)[0], state)


def batches(run: Run, steps: int) -> list[Batch]:
    """What a run draws, step by step, on one device."""
    table, tokens = run_tables(run, windows_of(run), Stream.start(2)), packed_corpus(run).tokens(SEQUENCE)
    hyper = hyperparameters(run, windows_of(run), Stream.start(2), np.dtype(np.float64))
    drawing = jax.jit(draw, static_argnums=(0, 1))
    rows = table.rows(0, steps, steps, np.dtype(np.float64))
    return [jax.device_get(drawing(run.program, 1, hyper, jax.tree.map(lambda x, i=step: x[i], rows), tokens,
                                   packs.random_state(run.program, 0))) for step in range(steps)]


def counted(params: Any, run: Run, tokens_T: np.ndarray, segments_T: np.ndarray) -> list[tuple[Any, Any]]:
    """(cross-entropy, log Z) of every target of a window that counts, each document (or the window) run by itself."""
    assert run.packing is not None
    counts_S = predicted(segments_T)
    seen = abs(segments_T) if run.packing.attention == "document" else np.ones_like(segments_T)
    found = []
    for number in np.unique(seen):
        part = np.flatnonzero(seen == number)
        if len(part) > 1:
            own = {**params, "positions": params["positions"][:len(part) - 1]}
            pairs = zip(*reference.losses(own, run, tokens_T[part]), strict=True)
            found += [pair for pair, counts in zip(pairs, counts_S[part[:-1]], strict=True) if counts]
    return found


def packed_objective(params: Any, run: Run, windows: tuple[np.ndarray, np.ndarray]) -> tuple[Any, Any]:
    """(objective with z-loss, cross-entropy), means over all targets of the batch that count."""
    pairs = [pair for window in zip(*windows, strict=True) for pair in counted(params, run, *window)]
    loss, log_z = (np.array(values) for values in zip(*pairs, strict=True))
    return np.mean(loss) + run.training.z_loss * np.mean(log_z**2), np.mean(loss)


@pytest.mark.parametrize(("attention", "method"), [("document", "best_fit"), ("window", "chop")])
def test_the_loss_is_the_mean_over_tokens_of_documents_run_singly(
    attention: str, method: str, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Learned positions start over in every document that is attended to by itself; metadata and padding are in."""
    run = packs.pack_run(**{**TINY, "packing": {**PACKING, "attention": attention, "method": method}})
    monkeypatch.setattr(reference, "objective", packed_objective)
    first = batches(run, 1)[0]
    assert first.segments_BxT is not None
    assert (first.segments_BxT < 0).any()
    assert (first.segments_BxT == 0).any() == (method == "best_fit")
    trained = Trained(run, packs.ALONE, steps=1)
    windows = (first.tokens_BxT, first.segments_BxT)
    _, loss = packed_objective(trained.before.params, run, windows)
    np.testing.assert_allclose(trained.state.metrics.loss, loss, rtol=1e-12)
    np.testing.assert_allclose(trained.state.metrics.predicted, predicted(first.segments_BxT).mean(), rtol=1e-12)
    expected = reference.gradient(trained.before.params, run, windows)
    jax.tree.map(lambda mu, grad: np.testing.assert_allclose(mu / (1 - run.optimizer.b1), grad, rtol=1e-8, atol=1e-13),
                 trained.state.optimizer[1][0].mu, expected)


def test_held_out_losses_are_means_over_what_counts_in_each_window() -> None:
    run = packs.pack_run(**TINY)
    trained = Trained(run, packs.ALONE, steps=1)
    for domain, losses_M in enumerate(trained.measured.losses_RxKxM[0]):
        for tokens_T, segments_T, loss in zip(*(part[domain] for part in trained.held), losses_M, strict=True):
            pairs = counted(trained.before.params, run, tokens_T, segments_T)
            assert len(pairs) == predicted(segments_T).sum()
            assert loss == pytest.approx(np.mean([cross_entropy for cross_entropy, _ in pairs]), rel=1e-12)


@functools.cache
def on_one_device() -> Trained:
    return Trained(packs.pack_run(**TINY), packs.ALONE, steps=5)


@pytest.mark.parametrize(("layout", "accumulation"), [
    (packs.ALONE, 4), (Layout(1, 1, devices=2, data=2), 1), (Layout(1, 1, devices=2, data=2), 2)], ids=str)
def test_shards_and_microbatches_change_nothing_though_they_hold_unequal_numbers_of_targets(
    layout: Layout, accumulation: int,
) -> None:
    run = packs.pack_run(**{**TINY, "training.accumulation": accumulation})
    parts = layout.data * accumulation
    unequal = [np.ptp(predicted(drawn.segments_BxT).reshape(-1, parts, SEQUENCE).sum(axis=(0, 2))) > 0
               for drawn in batches(run, 5)]
    assert all(unequal), "with equal numbers a mean of means would be the mean"
    found, expected = Trained(run, layout, steps=5), on_one_device()
    for ours, theirs in ((found.state.params, expected.state.params), (found.state.metrics, expected.state.metrics)):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-13), ours, theirs)
    np.testing.assert_allclose(found.measured.losses_RxKxM, expected.measured.losses_RxKxM, rtol=1e-12)


@pytest.mark.parametrize("attention", ["document", "window"])
def test_windows_of_one_document_train_as_plain_windows(attention: str) -> None:
    plain = packs.pack_run(**{**TINY, "packing": None})
    packed = packs.pack_run(**{**TINY, "packing": {**PACKING, "attention": attention}})
    params, z_loss = packs.random_state(plain.program, 3).params, np.float64(0.01)
    tokens_BxT = np.random.default_rng(0).integers(0, packs.VOCABULARY, (4, SEQUENCE + 1)).astype(np.int32)
    ours = jax.jit(packed_gradients, static_argnums=(0, 1, 2, 3))(
        packed.program, packs.VOCABULARY, 1, 2, params, tokens_BxT, np.full_like(tokens_BxT, 3), z_loss)
    theirs = jax.jit(gradients, static_argnums=(0, 1, 2))(
        plain.program, packs.VOCABULARY, (), params, tokens_BxT.reshape(2, 2, -1), z_loss)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-14), ours[:2], theirs)
    assert ours[2] == 1.0


def test_what_does_not_count_has_no_part_in_the_gradient() -> None:
    """Tokens of padding may be anything; a batch in which nothing counts has the gradient 0 and is sound."""
    run = packs.pack_run(**TINY)
    params, z_loss = packs.random_state(run.program, 3).params, np.float64(0.01)
    gradient = functools.partial(jax.jit(packed_gradients, static_argnums=(0, 1, 2, 3)), run.program, packs.VOCABULARY,
                                 1, 1, params)
    drawn = batches(run, 1)[0]
    assert drawn.segments_BxT is not None
    noise_BxT = np.random.default_rng(0).integers(0, packs.VOCABULARY, drawn.tokens_BxT.shape).astype(np.int32)
    other_BxT = np.where(drawn.segments_BxT == 0, noise_BxT, drawn.tokens_BxT)
    assert (other_BxT != drawn.tokens_BxT).any()
    jax.tree.map(np.testing.assert_array_equal, gradient(drawn.tokens_BxT, drawn.segments_BxT, z_loss),
                 gradient(other_BxT, drawn.segments_BxT, z_loss))
    nothing = gradient(drawn.tokens_BxT, -abs(drawn.segments_BxT), z_loss)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(nothing))


def test_the_logged_share_is_that_of_the_windows_of_an_epoch() -> None:
    run = packs.pack_run(**{**TINY, "data.mixture": {"b": 1.0}, "data.unique_tokens": {"b": 20 * SEQUENCE}})
    side = packed_corpus(run).sides(SEQUENCE).train[1]
    metrics = Trained(run, packs.ALONE, steps=5).state.metrics  # 5 batches of 4
    assert metrics.steps == 5
    assert metrics.predicted / 5 == pytest.approx(predicted(side.segments[:20]).mean(), rel=1e-12)
    assert 0 < metrics.predicted / 5 < 0.9
