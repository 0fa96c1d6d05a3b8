"""Normalization by statistics of batches with a memory, of gradients too: PowerNorm and Unified Normalization.

N tokens of a batch on this device, C channels, M batches of a window. Both layers divide each channel by a root mean
square over the batch's tokens, and put an average over batches in place of what a gradient through that would be.

The memory lies in the parameter tree, under `statistics`, since a pure step has nowhere else to keep what a backward
pass writes. The gradient of a statistic is its next value: an update replaces statistics by their gradients, and
the optimizer, clipping and gradient norms see the rest (scaling/models/running.py). Microbatches each take their own
statistics, and the mean of their next values is kept; devices that share a batch take them together. Gradients are
remembered per token's loss, not per batch's, so that memories do not go with the number of tokens on a device.

In training a token's output goes by its whole batch, tokens that follow it included; in an evaluation by the memory.
"""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

from scaling.models.normalization import rms
from scaling.models.running import STATISTICS

Training = tuple[str, ...] | None  # None: not; else the mesh axes that share a batch
Memory = dict[str, Array]

EPSILON = 1e-5
MEMORY = 0.9  # share of an average that a batch leaves
WINDOW = 4
UNCORRECTED, LARGEST_CORRECTION = 1000, 5.0  # updates without Unified's correction of gradients; its bound


def _common(x_C: Array, axes: tuple[str, ...]) -> Array:
    """The mean over devices that share a batch."""
    return lax.pmean(x_C, axes) if axes else x_C


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def powernorm(
    warmup: int, axes: tuple[str, ...], x_NxC: Array, scale_C: Array, bias_C: Array, memory: Memory
) -> Array:
    """y = γ z + β, z = x / √(φ + ε), φ the average of ψ² = mean_n x² over batches before; its first `warmup` updates
    take ψ² itself (Shen et al. 2020, arXiv 2003.07845).

    φ: plain mean during warm-up, then 0.9 φ + 0.1 ψ². Backward, g the gradient by z: g̃ = g - 0.1 e z; e += mean_n g̃ z;
    dx = g̃ / √(φ + ε), the root that z was divided by. The authors' code updates φ twice a step during warm-up and
    divides g̃ by √(ψ² + ε) after it; this is the paper's form.
    """
    return _power_forward(warmup, axes, x_NxC, scale_C, bias_C, memory)[0]


def _power_forward(
    warmup: int, axes: tuple[str, ...], x_NxC: Array, scale_C: Array, bias_C: Array, memory: Memory
) -> tuple[Array, tuple]:
    batch_C = _common(jnp.mean(jnp.square(x_NxC), axis=0), axes)
    root_C = lax.rsqrt(jnp.where(memory["count"] < warmup, batch_C, memory["square"]) + EPSILON)
    z_NxC = x_NxC * root_C[None]
    return z_NxC * scale_C[None] + bias_C[None], (z_NxC, root_C, batch_C, scale_C, memory)


def _power_backward(warmup: int, axes: tuple[str, ...], saved: tuple, dy_NxC: Array) -> tuple:
    z_NxC, root_C, batch_C, scale_C, memory = saved
    count = memory["count"] + 1
    g_NxC = dy_NxC * scale_C[None] - (1 - MEMORY) / len(z_NxC) * memory["gradient"][None] * z_NxC
    keep = jnp.where(count <= warmup, (count - 1) / count, MEMORY)
    after = {"count": count, "square": keep * memory["square"] + (1 - keep) * batch_C,
             "gradient": memory["gradient"] + _common(jnp.sum(g_NxC * z_NxC, axis=0), axes)}
    return g_NxC * root_C[None], jnp.sum(dy_NxC * z_NxC, axis=0), jnp.sum(dy_NxC, axis=0), after


powernorm.defvjp(_power_forward, _power_backward)


def outlying(window_MxC: Array, squares_C: Array) -> Array:
    """Whether a batch's mean squares lie too far from those of the M batches before it: with the oldest replaced by it,
    arithmetic less geometric mean of a channel above M Var(√window), the variance over batches and channels as in the
    authors' code (arXiv 2208.01313).
    """
    after_MxC = _pushed(window_MxC, squares_C)
    gap_C = jnp.mean(after_MxC, axis=0) - _geometric_mean(after_MxC)
    return jnp.any(gap_C > len(window_MxC) * jnp.var(jnp.sqrt(window_MxC), ddof=1))


def _geometric_mean(window_MxC: Array) -> Array:
    return jnp.exp(jnp.mean(jnp.log(window_MxC), axis=0))


def _pushed(window_MxC: Array, newest_C: Array) -> Array:
    """The window without its oldest row, and with a newest."""
    return jnp.concatenate([window_MxC[1:], newest_C[None]])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def unified(
    warmup: int, filtered: bool, axes: tuple[str, ...], x_NxC: Array, scale_C: Array, bias_C: Array, memory: Memory
) -> Array:
    """y = γ z + β, z = x / √(σ² + ε), σ² the geometric mean of mean_n x² over the last M batches; the batch's own in
    the first max(`warmup`, M) updates, and for an outlying batch where `filtered` (Yang et al. 2022, arXiv 2208.01313).

    Backward, r = √(σ² + ε) / √(running σ² + ε) within 1/5 and 5, and 1 in the first max(1000, `warmup`) updates:
    g = r γ dy; e = 0.9 e + 0.1 (mean of mean_n g z over the window); dx = (g - e z) / √(σ² + ε). The gradient of γ is
    Σ_n dy r z, as in the authors' code. A window of one batch, or an outlying one, has the exact gradient.
    """
    return _unified_forward(warmup, filtered, axes, x_NxC, scale_C, bias_C, memory)[0]


def _unified_forward(
    warmup: int, filtered: bool, axes: tuple[str, ...], x_NxC: Array, scale_C: Array, bias_C: Array, memory: Memory
) -> tuple[Array, tuple]:
    squares_C, size = _common(jnp.mean(jnp.square(x_NxC), axis=0), axes), len(memory["window"])
    early = memory["count"] < max(warmup, size)
    skipped = jnp.bool_(size == 1) | (~early & outlying(memory["window"], squares_C) if filtered else False)
    window_MxC = _pushed(memory["window"], squares_C)
    variance_C = jnp.where(early | skipped, squares_C, _geometric_mean(window_MxC))
    ratio_C = jnp.sqrt((variance_C + EPSILON) / (memory["square"] + EPSILON))
    plain = skipped | (memory["count"] < max(UNCORRECTED, warmup))
    ratio_C = jnp.where(plain, 1, jnp.clip(ratio_C, 1 / LARGEST_CORRECTION, LARGEST_CORRECTION))
    root_C = lax.rsqrt(variance_C + EPSILON)
    z_NxC = x_NxC * root_C[None]
    after = {"count": memory["count"] + 1, "square": MEMORY * memory["square"] + (1 - MEMORY) * variance_C,
             "window": jnp.where(skipped & (size > 1), _pushed(memory["window"], memory["square"]), window_MxC)}
    return z_NxC * scale_C[None] + bias_C[None], (z_NxC, root_C, ratio_C, scale_C, early, skipped, memory, after)


def _unified_backward(warmup: int, filtered: bool, axes: tuple[str, ...], saved: tuple, dy_NxC: Array) -> tuple:
    z_NxC, root_C, ratio_C, scale_C, early, skipped, memory, after = saved
    g_NxC = dy_NxC * (scale_C * ratio_C)[None]
    batch_C, old_C = _common(jnp.sum(g_NxC * z_NxC, axis=0), axes), memory["gradient"]
    gradients_MxC = _pushed(memory["gradients"], jnp.where(skipped, old_C, batch_C))
    mean_C = jnp.where(early | skipped, batch_C, jnp.mean(gradients_MxC, axis=0))
    gradient_C = MEMORY * old_C + (1 - MEMORY) * mean_C
    taken_C = jnp.where(skipped, batch_C, gradient_C) / len(z_NxC)
    dx_NxC = (g_NxC - taken_C[None] * z_NxC) * root_C[None]
    after = {**after, "gradient": gradient_C, "gradients": gradients_MxC}
    return dx_NxC, jnp.sum(dy_NxC * ratio_C[None] * z_NxC, axis=0), jnp.sum(dy_NxC, axis=0), after


unified.defvjp(_unified_forward, _unified_backward)


class Statistics(nn.Module):
    """What a norm remembers: updates, mean square, gradient along z, and for `unified` the last M of both."""

    kind: str
    dtype: Any

    @nn.compact
    def __call__(self, channels: int) -> Memory:
        ones, zeros = nn.initializers.ones, nn.initializers.zeros
        row = (channels,)
        shapes: dict[str, tuple] = {"count": (zeros, ()), "square": (ones, row), "gradient": (zeros, row)}
        if self.kind == "unified":
            shapes |= {"window": (ones, (WINDOW, channels)), "gradients": (zeros, (WINDOW, channels))}
        return {name: self.param(name, init, shape, self.dtype) for name, (init, shape) in shapes.items()}


class RunningNorm(nn.Module):
    """`powernorm` of tokens that each have mean square 1 (rms first, as its authors do), or `unified`, in float32.

    With `training` None it takes the running mean squares, and no gradient reaches them.
    """

    kind: str
    warmup: int
    filtered: bool
    training: Training
    dtype: Any

    @nn.compact
    def __call__(self, x_NxC: Array) -> Array:
        dtype, channels = jnp.promote_types(self.dtype, jnp.float32), x_NxC.shape[-1]
        scale_C = self.param("scale", nn.initializers.ones, (channels,), dtype)
        bias_C = self.param("bias", nn.initializers.zeros, (channels,), dtype)
        memory = Statistics(self.kind, dtype, name=STATISTICS)(channels)
        x_NxC = x_NxC.astype(dtype)
        if self.kind == "powernorm":
            x_NxC = rms(x_NxC, EPSILON)
        if self.training is None:
            root_C = lax.stop_gradient(lax.rsqrt(memory["square"] + EPSILON))
            y_NxC = x_NxC * root_C[None] * scale_C[None] + bias_C[None]
        elif self.kind == "powernorm":
            y_NxC = powernorm(self.warmup, self.training, x_NxC, scale_C, bias_C, memory)
        else:
            y_NxC = unified(self.warmup, self.filtered, self.training, x_NxC, scale_C, bias_C, memory)
        return y_NxC.astype(self.dtype)
