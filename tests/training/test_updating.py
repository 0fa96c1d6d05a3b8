"""Sophia's estimates of the Hessian's diagonal, on a model whose Hessian is known."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from every_optimizer import optimizer_changes

import packs
from scaling.training import updating
from scaling.training.losses import Batch
from scaling.training.tables import Stream, hyperparameters, run_tables
from scaling.training.updating import Step, diagonal

LOGITS = np.array([0.5, -1.0, 2.0, 0.0], np.float32)
SEEDS = 4000


class Unigram:
    """The same logits, which are its parameters, at every position."""

    def apply(self, variables: Any, tokens_BxS: Any, begins_BxS: Any) -> Any:
        return jnp.tile(variables["params"]["logits"][None], (tokens_BxS.size, 1))


def estimates(form: str, monkeypatch: pytest.MonkeyPatch, accumulation: int, step: int = 0) -> np.ndarray:
    """One estimate a seed, [SEEDS, V]."""
    monkeypatch.setattr(updating, "model_of", lambda program, vocabulary: Unigram())
    run = packs.pack_run(**optimizer_changes("sophia", form), **{"training.accumulation": accumulation})
    hyper = hyperparameters(run, packs.windows(), Stream.start(2), np.dtype("float32"))
    at = run_tables(run, packs.windows(), Stream.start(2)).rows(0, 1, 1, np.dtype("float32"))
    batch = Batch(jnp.zeros((4, 6), jnp.int32), jnp.zeros(4, jnp.int32), jnp.zeros(2, jnp.int32))
    state = packs.template(run.program)._replace(step=jnp.int32(step))

    def one(seed: Any) -> Any:
        at_seed = Step(run.program, len(LOGITS), 1, hyper._replace(seed=seed), at, batch, None, state)
        return diagonal(at_seed, {"logits": jnp.asarray(LOGITS)})["logits"]

    return np.asarray(jax.jit(jax.vmap(one))(jnp.arange(SEEDS)))


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("form", ["gauss_newton", "hutchinson"])
def test_the_mean_of_estimates_is_the_hessians_diagonal(
    form: str, accumulation: int, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That of cross-entropy by logits is π (1 - π), and it is Gauss-Newton's too."""
    found = estimates(form, monkeypatch, accumulation)
    shares = np.exp(LOGITS) / np.exp(LOGITS).sum()
    error = found.std(axis=0) / np.sqrt(SEEDS)
    assert (np.abs(found.mean(axis=0) - shares * (1 - shares)) < 4 * error + 1e-6).all()
    assert (error < 0.01).all()


def test_estimates_differ_from_step_to_step_and_repeat_with_seed_and_step(monkeypatch: pytest.MonkeyPatch) -> None:
    first, again, later = (estimates("gauss_newton", monkeypatch, 1, step) for step in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.mean(first != later) > 0.5
