"""muP against the standard parametrization: equal at the base, its initial values and multipliers elsewhere."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import small_run, windows_of
from scaling.config import Run
from scaling.data.batches import Tokens
from scaling.training.state import TrainState, initial_state, model_of
from scaling.training.step import train_step
from scaling.training.tables import Stream, hyperparameters, run_tables

VOCABULARY, STEPS = 19, 3
UNTIED = {"model.tied_head": False, "model.positions": "rotary", "model.qk_norm": True}


def sized_run(width: int, heads: int, base: tuple[int, int] | None, **changes: Any) -> Run:
    section = None if base is None else {"width": base[0], "heads": base[1]}
    exponent = None if base is None else 0.5
    return small_run(**{"model.width": width, "model.heads": heads, "model.base": section,
                        "optimizer.width_exponent": exponent, **changes})


@functools.cache
def probe() -> np.ndarray:
    return np.random.default_rng(0).integers(0, VOCABULARY, (2, 16)).astype(np.int32)


def logits_of(run: Run, params: Any) -> np.ndarray:
    return np.asarray(jax.jit(model_of(run.program, VOCABULARY).apply)({"params": params}, probe()))


def start_of(run: Run) -> Any:
    return jax.jit(lambda seed: initial_state(run.program, VOCABULARY, seed).params)(jnp.int32(0))


def trained(run: Run) -> TrainState:
    """The state after STEPS steps on random tokens."""
    windows = windows_of(run, 50)
    hyper = hyperparameters(run, windows, Stream.start(3), np.dtype("float32"))
    tables = run_tables(run, windows, Stream.start(3)).rows(0, STEPS, STEPS, np.dtype("float32"))
    stream_N = np.random.default_rng(1).integers(0, VOCABULARY, 3 * 1000).astype(np.uint8)
    tokens = Tokens(stream_N, np.array([0, 1000, 2000], np.int32))

    def train(hyper: Any, tables: Any) -> TrainState:
        state = initial_state(run.program, VOCABULARY, hyper.seed)
        step = functools.partial(train_step, run.program, VOCABULARY, 1, hyper)
        return jax.lax.scan(lambda state, at: (step(at, tokens, None, state), None), state, tables)[0]

    return jax.jit(train)(hyper, tables)


@pytest.mark.parametrize("changes", [{}, UNTIED], ids=["tied", "untied"])
def test_at_the_base_three_steps_equal_the_standard_model_bit_for_bit(changes: dict[str, Any]) -> None:
    standard, mup = (sized_run(24, 3, base, **changes) for base in (None, (24, 3)))
    assert standard.run_id != mup.run_id
    first, second = trained(standard), trained(mup)
    assert int(first.step) == STEPS
    for ours, theirs in zip(jax.tree.leaves(second.params), jax.tree.leaves(first.params), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(second.metrics.loss, first.metrics.loss)
    np.testing.assert_array_equal(logits_of(mup, second.params), logits_of(standard, first.params))


def test_runs_without_a_base_keep_their_ids() -> None:
    assert sized_run(16, 2, None).run_id == small_run().run_id == "9db79495ca2e"


def test_initial_deviation_by_role() -> None:
    """Eight times the base: hidden kernels as ever, the readout at the base's 1/√32, embeddings at 0.02."""
    params = start_of(sized_run(256, 16, (32, 2), **{"model.tied_head": False, "model.depth": 2}))
    block = params["block_0"]
    found = {
        "query": block["attention"]["query"]["kernel"], "output": block["attention"]["output"]["kernel"],
        "up": block["feedforward"]["up"]["kernel"], "down": block["feedforward"]["down"]["kernel"],
        "head": params["head"]["kernel"], "embedding": params["embedding"]["embedding"],
        "positions": params["positions"]}
    assert {name: float(np.std(leaf)) for name, leaf in found.items()} == pytest.approx({
        "query": 1 / 16, "output": 1 / 32, "up": 1 / 16, "down": 1 / 64, "head": 32**-0.5, "embedding": 0.02,
        "positions": 0.02}, rel=0.05)
    assert (params["final_norm"]["scale"] == 1).all()


@pytest.mark.parametrize("changes", [{}, UNTIED], ids=["tied", "untied"])
def test_logits_are_divided_by_the_width_ratio(changes: dict[str, Any]) -> None:
    """By 4, a power of two, exactly; heads as wide as the base's attend as ever."""
    standard, mup = (sized_run(64, 8, base, **changes) for base in (None, (16, 2)))
    params = start_of(standard)
    np.testing.assert_array_equal(logits_of(mup, params), logits_of(standard, params) / 4)


@pytest.mark.parametrize("changes", [{}, {"model.positions": "rotary"}], ids=["learned", "rotary"])
def test_wider_heads_have_attention_logits_that_go_as_one_over_their_width(changes: dict[str, Any]) -> None:
    """Four times the base's head width: √8/32 = (1/√32) / 2, the standard model's with queries halved."""
    standard, mup = (sized_run(64, 2, base, **changes) for base in (None, (16, 2)))
    params = start_of(standard)

    def with_queries(factor: float) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: leaf * factor if "query" in jax.tree_util.keystr(path) else leaf, params)

    expected = logits_of(standard, with_queries(4.0))  # so that attention is far from even
    np.testing.assert_allclose(4 * logits_of(mup, with_queries(8.0)), expected, rtol=1e-5, atol=1e-6)
    assert np.abs(expected - logits_of(standard, with_queries(8.0))).max() > 1e-3
