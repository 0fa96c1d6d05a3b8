"""The transformer again, in plain numpy and float64, written from its description and not from its code."""

import math
from typing import Any

import numpy as np

from scaling.config import Model


def norm(kind: str, weights: dict[str, Any], x: np.ndarray) -> np.ndarray:
    """As an evaluation takes it: norms of batch statistics by their running ones. crmsnorm is given d - 1 entries."""
    if kind in ("powernorm", "unified"):
        if kind == "powernorm":
            x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)
        normed = x / np.sqrt(weights["statistics"]["square"] + 1e-5)
    else:
        if kind == "crmsnorm":
            x = np.append(x, -x.sum(-1, keepdims=True), axis=-1)
        if kind == "layernorm":
            x = x - x.mean(-1, keepdims=True)
        normed = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
    return normed * weights["scale"] + weights.get("bias", 0)


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


def attention_weights(kind: str, q_E: np.ndarray, k_NxE: np.ndarray) -> np.ndarray:
    """Weights of the N keys that one query sees."""
    visible, width = k_NxE.shape
    if kind == "softmax":
        scores_N = k_NxE @ q_E / math.sqrt(width)
        weights_N = np.exp(scores_N - scores_N.max())
        return weights_N / weights_N.sum()
    cosines_N = k_NxE @ q_E / np.linalg.norm(k_NxE, axis=1) / np.linalg.norm(q_E)
    weights_N = np.log(1 + np.exp(math.log(width) * math.log(visible) * cosines_N))
    weights_N = weights_N / weights_N.sum()
    if kind == "lssa":
        return weights_N
    powers_N = np.maximum(visible * weights_N - (visible > 3), 0) ** 15
    return powers_N / (powers_N.sum() + 1e-8)


def writing(model: Model, kernel: np.ndarray) -> np.ndarray:
    """A kernel, or a table, that writes to the residual stream, as it acts."""
    return kernel - kernel.mean(-1, keepdims=True) if model.centred else kernel


def attention(model: Model, p: dict[str, Any], x_SxD: np.ndarray) -> np.ndarray:
    positions, width = x_SxD.shape
    head = width // model.heads
    joined = np.zeros_like(x_SxD)
    for h in range(model.heads):
        part = slice(h * head, (h + 1) * head)
        q, k, v = (x_SxD @ p[name]["kernel"][:, part] for name in ("query", "key", "value"))
        if model.qk_norm:
            kind = "layernorm" if "bias" in p["query_norm"] else "rmsnorm"
            q, k = norm(kind, p["query_norm"], q), norm(kind, p["key_norm"], k)
        if model.positions == "rotary":
            q, k = rotary(q), rotary(k)
        for s in range(positions):
            joined[s, part] = attention_weights(model.attention, q[s], k[: s + 1]) @ v[: s + 1]
    return joined @ writing(model, p["output"]["kernel"])


def feedforward(model: Model, p: dict[str, Any], x: np.ndarray) -> np.ndarray:
    up = x @ p["up"]["kernel"]
    if model.activation == "swiglu":
        gate = x @ p["gate"]["kernel"]
        hidden = gate / (1 + np.exp(-gate)) * up
    elif model.activation == "relu2":
        hidden = np.maximum(up, 0) ** 2
    else:
        hidden = up / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (up + 0.044715 * up**3)))
    return hidden @ writing(model, p["down"]["kernel"])


def logits(model: Model, p: dict[str, Any], tokens_S: np.ndarray) -> np.ndarray:
    """Logits [S, V] of one sequence."""
    x = writing(model, p["embedding"]["embedding"])[tokens_S]
    if model.positions == "learned":
        x = x + writing(model, p["positions"])
    if model.placement == "peri":
        x = norm(model.norm, p["embedding_norm"], x)
    for layer in range(1, model.depth + 1):
        block = p[f"block_{layer - 1}"]
        for name, sublayer in (("attention", attention), ("feedforward", feedforward)):
            weights = block[f"{name}_norm"]
            if model.placement == "post":
                x = norm(model.norm, weights, x + sublayer(model, block[name], x))
            elif model.placement == "peri":
                out = sublayer(model, block[name], norm(model.norm, weights, x))
                x = x + norm(model.norm, block[f"{name}_output_norm"], out)
            else:
                factor = 1 / math.sqrt(layer) if model.placement == "scaled" else 1
                x = x + sublayer(model, block[name], factor * norm(model.norm, weights, x))
    if model.placement != "post":
        x = norm(model.norm, p["final_norm"], x)
    return x @ (p["embedding"]["embedding"].T if model.tied_head else p["head"]["kernel"])
