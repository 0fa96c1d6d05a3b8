"""z-loss by hand, its gradient, and the bound that normed queries and keys put on attention logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import small_run
from scaling.models.transformer import Transformer
from scaling.training.losses import token_losses

LOGITS_1xV = np.array([[2.0, 1.0, 0.0]])


def test_z_loss_of_three_logits() -> None:
    """log Z = log(e² + e + 1); the gradient of 1e-4 log² Z is 2e-4 log Z softmax."""
    with jax.enable_x64(True):
        def z_loss(logits_1xV: jax.Array) -> jax.Array:
            return 1e-4 * jnp.square(token_losses(logits_1xV, jnp.array([0]))[1])[0]

        log_z_1 = token_losses(jnp.asarray(LOGITS_1xV), jnp.array([0]))[1]
        value, gradient_1xV = jax.value_and_grad(z_loss)(jnp.asarray(LOGITS_1xV))
        assert float(log_z_1[0]) == pytest.approx(2.407606, abs=1e-6)
        assert float(value) == pytest.approx(5.79657e-4, abs=1e-9)
        np.testing.assert_allclose(gradient_1xV[0], [3.20e-4, 1.18e-4, 4.3e-5], atol=5e-7)


@pytest.mark.parametrize("qk_norm", [True, False])
def test_normed_queries_and_keys_bound_attention_logits(qk_norm: bool) -> None:
    """With scales of 1, |q · k| / √E ≤ √E; without norms large kernels go far beyond."""
    run = small_run(**{"model.qk_norm": qk_norm, "model.norm": "rmsnorm", "model.positions": "rotary"})
    seen: list[float] = []

    def watch(method: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        if context.method_name == "attend":
            q_GxSxE, k_GxSxE = (np.asarray(x) for x in args[:2])
            seen.append(float(np.abs(np.einsum("gqe,gke->gqk", q_GxSxE, k_GxSxE)).max() / q_GxSxE.shape[-1] ** 0.5))
        return method(*args, **kwargs)

    module = Transformer(run.model, 11, jnp.dtype("float32"))
    tokens_BxS = np.random.default_rng(0).integers(0, 11, (2, 16))
    params = jax.jit(module.init)(jax.random.key(0), tokens_BxS)["params"]
    large = jax.tree_util.tree_map_with_path(lambda path, leaf: leaf * (10 if path[-1].key == "kernel" else 1), params)
    with nn.intercept_methods(watch):
        module.apply({"params": large}, tokens_BxS)
    bound = (run.model.width // run.model.heads) ** 0.5
    assert len(seen) == run.model.depth
    assert max(seen) <= bound * (1 + 1e-5) if qk_norm else max(seen) > 3 * bound
