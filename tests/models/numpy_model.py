"""The transformer again, in plain numpy and float64, written from its description and not from its code."""

import math
from typing import Any

import numpy as np

from scaling.config import Model


def norm(kind: str, scale: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    if kind == "rmsnorm":
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * scale["scale"]
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * scale["scale"] + scale["bias"]


def rotary(x_SxE: np.ndarray) -> np.ndarray:
    """Each pair (i, i + E/2) of position s, as a complex number, turned by s × 10000^(-2i/E)."""
    positions, width = x_SxE.shape
    half = width // 2
    turned = np.empty_like(x_SxE)
    for s in range(positions):
        for i in range(half):
            z = complex(x_SxE[s, i], x_SxE[s, i + half]) * np.exp(1j * s * 10_000 ** (-2 * i / width))
            turned[s, i], turned[s, i + half] = z.real, z.imag
    return turned


def attention(model: Model, p: dict[str, Any], x_SxD: np.ndarray) -> np.ndarray:
    positions, width = x_SxD.shape
    head = width // model.heads
    joined = np.zeros_like(x_SxD)
    for h in range(model.heads):
        part = slice(h * head, (h + 1) * head)
        q, k, v = (x_SxD @ p[name]["kernel"][:, part] for name in ("query", "key", "value"))
        if model.qk_norm:
            q, k = norm(model.norm, p["query_norm"], q), norm(model.norm, p["key_norm"], k)
        if model.positions == "rotary":
            q, k = rotary(q), rotary(k)
        for s in range(positions):
            scores = np.array([q[s] @ k[t] / math.sqrt(head) for t in range(s + 1)])
            weights = np.exp(scores - scores.max())
            joined[s, part] = (weights / weights.sum()) @ v[: s + 1]
    return joined @ p["output"]["kernel"]


def feedforward(model: Model, p: dict[str, Any], x: np.ndarray) -> np.ndarray:
    up = x @ p["up"]["kernel"]
    if model.activation == "swiglu":
        gate = x @ p["gate"]["kernel"]
        hidden = gate / (1 + np.exp(-gate)) * up
    elif model.activation == "relu2":
        hidden = np.maximum(up, 0) ** 2
    else:
        hidden = up / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (up + 0.044715 * up**3)))
    return hidden @ p["down"]["kernel"]


def logits(model: Model, p: dict[str, Any], tokens_S: np.ndarray) -> np.ndarray:
    """Logits [S, V] of one sequence."""
    x = p["embedding"]["embedding"][tokens_S]
    if model.positions == "learned":
        x = x + p["positions"]
    for layer in range(model.depth):
        block = p[f"block_{layer}"]
        x = x + attention(model, block["attention"], norm(model.norm, block["attention_norm"], x))
        x = x + feedforward(model, block["feedforward"], norm(model.norm, block["feedforward_norm"], x))
    x = norm(model.norm, p["final_norm"], x)
    return x @ (p["embedding"]["embedding"].T if model.tied_head else p["head"]["kernel"])
