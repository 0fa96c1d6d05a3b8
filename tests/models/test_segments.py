"""Documents in one window: each has the logits that it has alone, and nothing of another reaches it."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import small_run
from numpy_model import logits as reference_logits
from scaling.models.attention import BLOCK
from scaling.models.positions import begins
from scaling.models.transformer import Transformer

VOCABULARY = 13
LENGTHS = (BLOCK + 9, 1, BLOCK, 17, 6)  # segments, the last one padding; blocks of queries end within them
SEQUENCE = sum(LENGTHS)


def module_of(
    positions: str, dtype: str = "float64", vocabulary: int = VOCABULARY, tied_head: bool = True,
) -> Transformer:
    run = small_run(**{"model.width": 12, "model.depth": 2, "model.heads": 3, "model.positions": positions,
                       "model.qk_norm": positions == "rotary", "model.tied_head": tied_head})
    return Transformer(run.model, vocabulary, jnp.dtype(dtype))


def params_of(module: Transformer, sequence: int) -> Any:
    """Random parameters of the module's shapes, large enough for attention far from even."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), np.zeros((1, sequence), np.int32))["params"]
    draw = functools.partial(np.random.default_rng(0).normal, 0.0, 0.4)
    return jax.tree.map(lambda leaf: draw(leaf.shape).astype(leaf.dtype), shapes)


def segments(*lengths: int) -> np.ndarray:
    """Numbered from 1, the last one 0; int32 [1, S]."""
    numbers = [*range(1, len(lengths)), 0]
    return np.repeat(numbers, lengths).astype(np.int32)[None]


def test_positions_know_where_their_segment_begins() -> None:
    segments_2xS = np.array([[1, 1, 1, 2, 2, 3, 0, 0], [1, 2, 2, 2, 2, 2, 2, 2]], np.int32)
    assert jax.jit(begins)(segments_2xS).tolist() == [[0, 0, 0, 3, 3, 5, 6, 6], [0, 1, 1, 1, 1, 1, 1, 1]]


@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_every_document_has_the_logits_that_it_has_alone(positions: str) -> None:
    """Against the model in plain numpy, which knows of one document at a time."""
    tokens_2xS = np.random.default_rng(0).integers(0, VOCABULARY, (2, SEQUENCE))
    both_2xS = np.concatenate([segments(*LENGTHS), segments(*LENGTHS[::-1])])
    with jax.enable_x64(True):
        module = module_of(positions)
        params = params_of(module, SEQUENCE)
        logits_NxV = np.asarray(jax.jit(module.apply)({"params": params}, tokens_2xS, begins(both_2xS)))
    logits_2xSxV = logits_NxV.reshape(2, SEQUENCE, VOCABULARY)
    for tokens_S, segments_S, logits_SxV in zip(tokens_2xS, both_2xS, logits_2xSxV, strict=True):
        for number in np.unique(segments_S):
            document = segments_S == number
            own = params if positions == "rotary" else {**params, "positions": params["positions"][:document.sum()]}
            alone = reference_logits(module.config, own, tokens_S[document])
            np.testing.assert_allclose(logits_SxV[document], alone, rtol=1e-9, atol=1e-10)


def test_a_logit_depends_on_earlier_tokens_of_its_document_and_on_nothing_else() -> None:
    """With all tokens distinct, the gradient by a row of the embedding is that by one position's input. Exactly 0 from
    another document and from padding.
    """
    lengths = (4, 1, 5, 3)
    sequence = sum(lengths)
    module = module_of("rotary", "float32", sequence, tied_head=False)
    params, tokens_1xS = params_of(module, sequence), np.arange(sequence, dtype=np.int32)[None]

    def probe(embedding: jax.Array) -> jax.Array:
        changed = {**params, "embedding": {"embedding": embedding}}
        logits_SxV = module.apply({"params": changed}, tokens_1xS, begins(segments(*lengths)))
        return logits_SxV @ np.cos(np.arange(sequence, dtype=np.float32))

    reach_SxS = np.abs(jax.jit(jax.jacrev(probe))(params["embedding"]["embedding"])).max(axis=-1)
    same_SxS = segments(*lengths)[0][:, None] == segments(*lengths)
    assert (reach_SxS[~same_SxS] == 0).all()
    assert (reach_SxS[same_SxS & np.tri(sequence, dtype=bool)] > 1e-6).all()
    assert (reach_SxS[~np.tri(sequence, dtype=bool)] == 0).all()


@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_a_window_of_one_document_is_a_plain_window(positions: str) -> None:
    tokens_2xS = np.random.default_rng(1).integers(0, VOCABULARY, (2, SEQUENCE))
    with jax.enable_x64(True):
        module = module_of(positions)
        params, apply = params_of(module, SEQUENCE), jax.jit(module.apply)
        plain_NxV = apply({"params": params}, tokens_2xS)
        np.testing.assert_allclose(apply({"params": params}, tokens_2xS, np.zeros((2, SEQUENCE), np.int32)), plain_NxV,
                                   rtol=1e-12, atol=1e-12)
        two_NxV = apply({"params": params}, tokens_2xS, begins(np.tile(segments(50, SEQUENCE - 50), (2, 1))))
    assert np.abs(two_NxV - plain_NxV).max() > 0.1, "a border must change something, or nothing is compared"


@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_without_segments_the_compiled_program_is_as_if_they_were_not_there(positions: str) -> None:
    module = module_of(positions, "float32")
    params, tokens_1xS = params_of(module, SEQUENCE), np.zeros((1, SEQUENCE), np.int32)
    lower = functools.partial(jax.jit(module.apply).lower, {"params": params}, tokens_1xS)
    assert lower(None).as_text() == lower().as_text()
    assert lower(begins(segments(*LENGTHS))).as_text() != lower().as_text()
