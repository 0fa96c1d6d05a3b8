"""Positions: rotary embedding, and where the segments of a window begin."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array, lax

BASE = 10_000.0


def rotate(x_GxSxE: Array) -> Array:
    """Rotary embedding (Su et al. 2021, arXiv 2104.09864), halves convention: (x1, x2) -> (x1 c - x2 s, x2 c + x1 s).

    E is the width of a head, c and s the cosine and sine of position × BASE^(-2i/E).
    """
    _, positions, head_width = x_GxSxE.shape
    half, dtype = head_width // 2, jnp.promote_types(x_GxSxE.dtype, jnp.float32)
    frequency_1xH = BASE ** (-jnp.arange(half, dtype=dtype) / half)[None, :]
    angle_SxH = jnp.arange(positions, dtype=dtype)[:, None] * frequency_1xH
    cos_1xSxH = jnp.cos(angle_SxH)[None].astype(x_GxSxE.dtype)
    sin_1xSxH = jnp.sin(angle_SxH)[None].astype(x_GxSxE.dtype)
    x1_GxSxH, x2_GxSxH = x_GxSxE[..., :half], x_GxSxE[..., half:]
    return jnp.concatenate(
        [x1_GxSxH * cos_1xSxH - x2_GxSxH * sin_1xSxH, x2_GxSxH * cos_1xSxH + x1_GxSxH * sin_1xSxH], axis=-1
    )


def begins(segments_BxS: Array) -> Array:
    """The position at which the segment of each position begins: int32 [B, S]. A segment is a stretch of one number."""
    index_1xS = jnp.arange(segments_BxS.shape[1], dtype=jnp.int32)[None, :]
    border_BxS = jnp.diff(segments_BxS, axis=1, prepend=segments_BxS[:, :1]) != 0
    return lax.cummax(jnp.where(border_BxS, index_1xS, 0), axis=1)
