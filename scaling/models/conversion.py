"""Exact conversion of LayerNorm transformers to RMSNorm and CRMSNorm (Jiang et al. 2023, arXiv 2305.14858).

LayerNorm of x is RMSNorm of x less its mean, so a residual stream that is kept at mean zero needs no means: what writes
to it (embeddings, positions, output kernels) is centred over its last axis, the stream's.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from scaling.fields import check
from scaling.model import Model

WRITING = ("embedding", "positions", "output", "down")  # parameters, or modules of one kernel, that write to the stream


def converted(model: Model, params: Any, norm: str) -> tuple[Model, Any]:
    """The same function in real arithmetic with `norm` rmsnorm or crmsnorm in place of layernorm, and its parameters.

    rmsnorm: `centred`, with the parameters as they are, since they are centred where they act; it also trains as the
    model does. crmsnorm: centred and cut by the stream's last entry, with a head of its own, for a tied one reads the
    embedding as it was; trained on, it is another model, with fewer parameters. Norms keep scales and biases.
    ConfigError for a model whose stream norms write to, or that has no layernorm.
    """
    check(norm in ("rmsnorm", "crmsnorm"), "norm", norm, "rmsnorm or crmsnorm", "use one of these")
    check(model.norm == "layernorm", "model.norm", model.norm, "layernorm, to be converted", "leave it as it is")
    check(model.placement in ("pre", "scaled"), "model.placement", model.placement,
          "'pre' or 'scaled' to convert norms exactly, since others write norms to the stream", "keep layernorm")
    if norm == "rmsnorm":
        return dataclasses.replace(model, norm="rmsnorm", centred=True), params
    head = {"kernel": params["embedding"]["embedding"].T} if model.tied_head else params["head"]
    cut = jax.tree_util.tree_map_with_path(_cut, {name: part for name, part in params.items() if name != "head"})
    return dataclasses.replace(model, norm="crmsnorm", tied_head=False), {**cut, "head": head}


def _cut(path: tuple, leaf: Array) -> Array:
    """A parameter that writes to the stream, centred and without its last column; others as they are."""
    if not any(part.key in WRITING for part in path):
        return leaf
    return (leaf - jnp.mean(leaf, axis=-1, keepdims=True))[..., :-1]
