"""The training step a second time, in numpy float64, written from the formulas: forward pass, loss, clip, AdamW.

The gradient is by complex steps, Im f(p + ih) / h with h = 1e-30, which is exact to rounding and shares no code with
backpropagation. D width, E width of a head, S sequence, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from scaling.config import Run

EPSILON = 1e-6  # of RMSNorm
STEP = 1e-30


def _norm(x_SxD: np.ndarray, scale_D: np.ndarray) -> np.ndarray:
    return x_SxD / np.sqrt(np.mean(x_SxD**2, axis=-1, keepdims=True) + EPSILON) * scale_D[None]


def _softmax(x: np.ndarray) -> np.ndarray:
    exp = np.exp(x - x.real.max(axis=-1, keepdims=True))
    return exp / exp.sum(axis=-1, keepdims=True)


def _gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def _attention(p: Any, heads: int, x_SxD: np.ndarray) -> np.ndarray:
    query, key, value = (x_SxD @ p[name]["kernel"] for name in ("query", "key", "value"))
    width = x_SxD.shape[1] // heads
    parts = []
    for head in range(heads):
        columns = slice(head * width, (head + 1) * width)
        scores_SxS = query[:, columns] @ key[:, columns].T / np.sqrt(width)
        future_SxS = np.triu(np.ones(scores_SxS.shape, bool), 1)
        weights_SxS = _softmax(np.where(future_SxS, -1e300, scores_SxS))
        parts.append(weights_SxS @ value[:, columns])
    return np.concatenate(parts, axis=1) @ p["output"]["kernel"]


def logits(params: Any, run: Run, tokens_S: np.ndarray) -> np.ndarray:
    """[S, V] of one window: pre-norm blocks of RMSNorm, GELU, learned positions, tied head."""
    embedding_VxD = params["embedding"]["embedding"]
    x_SxD = embedding_VxD[tokens_S] + params["positions"]
    for layer in range(run.model.depth):
        p = params[f"block_{layer}"]
        x_SxD = x_SxD + _attention(p["attention"], run.model.heads, _norm(x_SxD, p["attention_norm"]["scale"]))
        hidden = _gelu(_norm(x_SxD, p["feedforward_norm"]["scale"]) @ p["feedforward"]["up"]["kernel"])
        x_SxD = x_SxD + hidden @ p["feedforward"]["down"]["kernel"]
    return _norm(x_SxD, params["final_norm"]["scale"]) @ embedding_VxD.T


def losses(params: Any, run: Run, window_T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cross-entropy and log Z at every position of a window of S + 1 tokens."""
    logits_SxV = logits(params, run, window_T[:-1])
    top_S = logits_SxV.real.max(axis=-1)
    log_z_S = top_S + np.log(np.exp(logits_SxV - top_S[:, None]).sum(axis=-1))
    return log_z_S - logits_SxV[np.arange(len(top_S)), window_T[1:]], log_z_S


def objective(params: Any, run: Run, windows_BxT: np.ndarray) -> tuple[Any, Any]:
    """(objective with z-loss, cross-entropy), means over all tokens of the batch."""
    loss_B, log_z_B = zip(*(losses(params, run, window_T) for window_T in windows_BxT), strict=True)
    cross_entropy = np.mean(loss_B)
    return cross_entropy + run.training.z_loss * np.mean(np.square(log_z_B)), cross_entropy


def gradient(params: Any, run: Run, windows_BxT: np.ndarray) -> Any:
    """Of the objective with respect to every parameter, one complex step each."""
    leaves, tree = jax.tree.flatten(params)
    grads = [np.zeros_like(leaf) for leaf in leaves]
    for leaf_index, leaf in enumerate(leaves):
        for index in np.ndindex(leaf.shape):
            moved = leaf.astype(complex)
            moved[index] += 1j * STEP
            stepped = jax.tree.unflatten(tree, [*leaves[:leaf_index], moved, *leaves[leaf_index + 1:]])
            grads[leaf_index][index] = objective(stepped, run, windows_BxT)[0].imag / STEP
    return jax.tree.unflatten(tree, grads)


def adamw(params: Any, first: Any, second: Any, grads: Any, count: int, rate: float, decay: float, run: Run) -> Any:
    """Update number `count` (from 1): parameters and moments after it; `decay` multiplies the rate, kernels only."""
    spec = run.optimizer
    first = jax.tree.map(lambda m, g: spec.b1 * m + (1 - spec.b1) * g, first, grads)
    second = jax.tree.map(lambda v, g: spec.b2 * v + (1 - spec.b2) * g**2, second, grads)

    def update(path: tuple, p: np.ndarray, m: np.ndarray, v: np.ndarray) -> np.ndarray:
        step = m / (1 - spec.b1**count) / (np.sqrt(v / (1 - spec.b2**count)) + spec.eps)
        decays = spec.decay_on == "all" or path[-1].key == "kernel"
        return p - rate * (step + (decay * p if decays else 0.0))

    return jax.tree_util.tree_map_with_path(update, params, first, second), first, second


def clipped(grads: Any, limit: float | None) -> tuple[Any, float]:
    """Gradients scaled to a global norm of at most `limit`, and their norm before."""
    norm = float(np.sqrt(sum(np.sum(leaf**2) for leaf in jax.tree.leaves(grads))))
    factor = 1.0 if limit is None or norm < limit else limit / norm
    return jax.tree.map(lambda leaf: leaf * factor, grads), norm
