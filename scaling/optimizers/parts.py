"""What the transformations share: the types they compute in, and which parameters decay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from scaling.fields import check

Mask = Callable[[Any], Any] | None  # parameters -> pytree of bools, those that decay; None: all


def widened(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """`inner`, computed in the parameters' type but float32 at least; updates return in the parameters' own type.

    The state keeps its types whatever the types of the hyperparameters, so that it can be scanned over.
    Raises ConfigError when `update` is called without params.
    """
    def init(params: Any) -> Any:
        return inner.init(_wide(params))

    def update(gradients: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        check(params is not None, "params", None, "the parameters, which this method needs",
              "call update(gradients, state, params)")
        updates, new = inner.update(_wide(gradients), state, _wide(params))
        return _typed_as(updates, params), _typed_as(new, state)

    return optax.with_extra_args_support(optax.GradientTransformation(init, update))


def scalar(params: Any) -> Array:
    """Zero in the widest type of the parameters: a number of the state."""
    return jnp.zeros((), jnp.result_type(jnp.float32, *jax.tree.leaves(params)))


def decaying(mask: Mask, params: Any) -> Any:
    """Pytree of bools like the parameters: which of them decay."""
    return jax.tree.map(lambda _: True, params) if mask is None else mask(params)


def _wide(tree: Any) -> Any:
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.promote_types(jnp.result_type(x), jnp.float32)), tree)


def _typed_as(tree: Any, like: Any) -> Any:
    return jax.tree.map(lambda x, y: x.astype(jnp.result_type(y)), tree, like)
