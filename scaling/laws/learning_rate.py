"""The best learning rate and batch against size, tokens and compute; sensitivity to the rate; transfer in width."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from scaling.laws.law import Input, Law, Parameter, power

_STEP = "Li et al. 2025, arXiv 2503.04715"
_DEEPSEEK = "DeepSeek-AI 2024, arXiv 2401.02954"
_SIZE, _TOKENS = Input("N", "parameters, without vocabulary embeddings"), Input("D", "training tokens")
_COMPUTE = Input("C", "training FLOPs, M*D with M the non-embedding FLOPs a token")
_WIDE = (1e-60, 1e60)


def _best_rate(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
    return p["c"] * power(x["N"], -p["a"]) * power(x["D"], p["b"])


STEP_LAW = Law(
    name="step-law",
    formula="c*N^-a*D^b",
    citation=_STEP,
    inputs=(_SIZE, _TOKENS),
    target="best peak learning rate",
    parameters=(
        Parameter("c", "positive", (1e-20, 1e10), bounds=_WIDE, unit="N^a", linear=True),
        Parameter("a", "real", (-0.5, 1.5), bounds=(-3.0, 3.0)),
        Parameter("b", "real", (-0.5, 1.0), bounds=(-3.0, 3.0)),
    ),
    predict=_best_rate,
    notes="AdamW, cosine to a fixed floor of 1e-5, not a share of the peak: with another floor the best peak differs."
    " The loss is flat around the best rate: judge the law by regret, not by its constants.",
)


def _power_of(variable: str, exponent: str) -> dict[str, Any]:
    """c*variable^exponent."""

    def predict(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
        return p["c"] * power(x[variable], p[exponent])

    parameters = (
        Parameter("c", "positive", (1e-12, 1e15), bounds=_WIDE, unit=f"{variable}^-{exponent}", linear=True),
        Parameter(exponent, "real", (-0.5, 1.5), bounds=(-3.0, 3.0)),
    )
    return {"formula": f"c*{variable}^{exponent}", "parameters": parameters, "predict": predict}


STEP_LAW_BATCH = Law(
    name="step-law-batch",
    citation=_STEP,
    inputs=(_TOKENS,),
    target="best batch, tokens",
    notes="Tokens, not sequences. The best batch does not depend on N.",
    **_power_of("D", "b"),
)

_DEEPSEEK_NOTES = "C counts attention: M is non-embedding FLOPs a token, not 6N."
DEEPSEEK_LR = Law(
    name="deepseek-lr",
    citation=_DEEPSEEK,
    inputs=(_COMPUTE,),
    target="best peak learning rate",
    notes=_DEEPSEEK_NOTES,
    **_power_of("C", "a"),
)
DEEPSEEK_BATCH = Law(
    name="deepseek-batch",
    citation=_DEEPSEEK,
    inputs=(_COMPUTE,),
    target="best batch, tokens",
    notes=_DEEPSEEK_NOTES,
    **_power_of("C", "a"),
)
DEEPSEEK_SCALE = Law(
    name="deepseek-scale",
    citation=_DEEPSEEK,
    inputs=(_COMPUTE,),
    target="compute-optimal FLOPs a token",
    notes=_DEEPSEEK_NOTES,
    **_power_of("C", "a"),
)
DEEPSEEK_TOKENS = Law(
    name="deepseek-tokens",
    citation=_DEEPSEEK,
    inputs=(_COMPUTE,),
    target="compute-optimal training tokens",
    notes=_DEEPSEEK_NOTES,
    **_power_of("C", "a"),
)

# The paper's rounded constants; the means of the released bootstrap are exp(0.5863), 0.71292, 0.30749 and exp(-0.5435),
# 0.57094.
STEP_LAW_PUBLISHED: dict[str, dict[str, float]] = {
    "step-law": {"c": 1.79, "a": 0.713, "b": 0.307},
    "step-law-batch": {"c": 0.58, "b": 0.571},
}
DEEPSEEK_PUBLISHED: dict[str, dict[str, float]] = {
    "deepseek-lr": {"c": 0.3118, "a": -0.1250},
    "deepseek-batch": {"c": 0.2920, "a": 0.3271},
    "deepseek-scale": {"c": 0.1715, "a": 0.5243},
    "deepseek-tokens": {"c": 5.8316, "a": 0.4757},
}

SENSITIVITY_RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)


def sensitivity(loss_R: Any, initial_loss: float) -> float:
    """Learning-rate sensitivity: mean over rates of min(loss, initial loss) - least loss, nats/token.

    `loss_R`: final loss at each rate of a grid, equally spaced in its logarithm (`SENSITIVITY_RATES` in Wortsman et al.
    2023, arXiv 2309.14322); inf for a diverged run, which counts as the loss at initialisation. Compare only figures
    of one grid. ValueError for fewer than two rates, nan, or no rate below the initial loss.
    """
    loss_R = np.asarray(loss_R, dtype=np.float64)
    if loss_R.ndim != 1 or loss_R.size < 2 or np.isnan(loss_R).any():
        raise ValueError(f"loss_R: {loss_R} must be one final loss a rate, two or more; inf, not nan, where diverged")
    if not (math.isfinite(initial_loss) and loss_R.min() < initial_loss):
        raise ValueError(
            f"initial_loss: {initial_loss:g} must be finite and above the least loss {loss_R.min():g}; it is the loss"
            " at initialisation, about log(vocabulary)"
        )
    return float(np.mean(np.minimum(loss_R, initial_loss)) - loss_R.min())


def matrix_rate_and_decay(rate: float, decay: float, width: int, new_width: int) -> tuple[float, float]:
    """AdamW rate and weight decay of matrix parameters at another width: rate*d/d', decay*sqrt(d'/d).

    In the steady state the top singular value goes as sqrt(rate/decay)*d^0.75, which this keeps the same. Vector-like
    parameters keep their rate, and have decay 0. Source: Fan et al. 2025, arXiv 2510.15262 (one transcription prints
    decay ~ d; only sqrt(d) agrees with d^0.75). ValueError for widths < 1.
    """
    if width < 1 or new_width < 1:
        raise ValueError(f"width: {width} and {new_width} must be >= 1")
    return rate * width / new_width, decay * math.sqrt(new_width / width)


LAWS = (STEP_LAW, STEP_LAW_BATCH, DEEPSEEK_LR, DEEPSEEK_BATCH, DEEPSEEK_SCALE, DEEPSEEK_TOKENS)
