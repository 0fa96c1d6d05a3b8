"""Ways to count the parameters that a law calls N.

Letters: T segments of a training run.
"""

from typing import Any

import numpy as np

_EMBEDDING = 47491.0


def total_parameters(non_embedding: Any) -> np.ndarray:
    """Total from non-embedding parameters of typical language models: N_T = N_E + 47491*N_E^(1/3).

    Pearce and Song 2024, arXiv 2406.12907: vocabulary and shape of the models of Kaplan and of Hoffmann et al.
    ValueError unless positive.
    """
    count = _positive("non_embedding", non_embedding)
    return count + _EMBEDDING * np.cbrt(count)


def non_embedding_parameters(total: Any) -> np.ndarray:
    """Non-embedding from total parameters: the root N_E of N_E + 47491*N_E^(1/3) = N_T, in closed form.

    With t = N_E^(1/3) it is t^3 + p*t = N_T, p = 47491: t = 2*sqrt(p/3)*sinh(asinh(3*N_T/(2*p)*sqrt(3/p))/3).
    """
    count = _positive("total", total)
    scale = np.sqrt(_EMBEDDING / 3)
    return (2 * scale * np.sinh(np.arcsinh(count / (2 * scale**3)) / 3)) ** 3


def average_parameters(active_T: Any, tokens_T: Any) -> float:
    """Mean over training tokens of the parameters that are not zero, sum(tokens*active)/sum(tokens).

    Jin et al. 2025, arXiv 2501.12486. `tokens_T`: tokens trained in each segment of constant `active_T`. Weighting by
    tokens keeps C = 6*Nbar*D where FLOPs are counted sparse. ValueError for other shapes and what is not positive.
    """
    active_T, tokens_T = _positive("active_T", active_T), _positive("tokens_T", tokens_T)
    if active_T.shape != tokens_T.shape:
        raise ValueError(f"tokens_T: shape {tokens_T.shape} must be that of active_T, {active_T.shape}")
    return float(np.average(active_T, weights=tokens_T))


def _positive(name: str, values: Any) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if not (array > 0).all() or not np.isfinite(array).all():
        raise ValueError(f"{name}: {array[~(np.isfinite(array) & (array > 0))].flat[0]} must be finite and > 0")
    return array
