"""Loss against model size and data."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from scaling.laws.law import Input, Law, Parameter, power

_HOFFMANN = "Hoffmann et al. 2022, arXiv 2203.15556"
_SIZE, _TOKENS = Input("N", "parameters"), Input("D", "tokens")
_FLOOR = Parameter("E", "positive", (0.05, 10.0), linear=True)


def _coefficient(name: str, unit: str, linear: bool = True) -> Parameter:
    return Parameter(name, "positive", (1e-3, 10.0), unit=unit, linear=linear)


def _exponent(name: str) -> Parameter:
    return Parameter(name, "positive", (0.03, 2.0), bounds=(1e-3, 10.0))


_DATA = (_coefficient("B", "D^beta"), _exponent("beta"))


def _data(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
    return p["B"] * power(x["D"], -p["beta"])


def _chinchilla(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
    return p["E"] + p["A"] * power(x["N"], -p["alpha"]) + _data(p, x)


CHINCHILLA = Law(
    name="chinchilla",
    formula="E + A/N^alpha + B/D^beta",
    citation=f"{_HOFFMANN}, approach 3",
    inputs=(_SIZE, _TOKENS),
    target="nats/token",
    parameters=(_FLOOR, _coefficient("A", "N^alpha"), _DATA[0], _exponent("alpha"), _DATA[1]),
    predict=_chinchilla,
    notes="N counts embeddings. The schedule must be matched to each horizon D.",
)

CHINCHILLA_PUBLISHED = {
    "E": math.exp(0.5267228),
    "A": math.exp(6.0073404),
    "B": math.exp(6.0179186),
    "alpha": 0.33917084,
    "beta": 0.2849083,
}
"""Hoffmann et al., digits from the paper's source. The rounded ones triple the objective: never test with those."""

EPOCH_PUBLISHED = {"E": 1.8172, "A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3658}
"""Besiroglu et al. 2024, arXiv 2404.10102: refitted to 240 points read off a figure of Hoffmann et al."""


def _gamma(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
    return p["E"] + power(p["A"] * power(x["N"], -p["alpha"]) + _data(p, x), p["gamma"])


CHINCHILLA_GAMMA = Law(
    name="chinchilla-gamma",
    formula="E + (A/N^alpha + B/D^beta)^gamma",
    citation="arXiv 2510.02228 (xLSTM scaling laws)",
    inputs=(_SIZE, _TOKENS),
    target="nats/token",
    parameters=(
        _FLOOR,
        _coefficient("A", "N^alpha", linear=False),
        _coefficient("B", "D^beta", linear=False),
        _exponent("alpha"),
        _exponent("beta"),
        Parameter("gamma", "positive", (0.2, 2.0), bounds=(1e-2, 20.0)),
    ),
    predict=_gamma,
    notes="gamma = 1 is the Chinchilla law. A common exponent on both terms leaves the optimal allocation as it is at"
    " given A, B, alpha, beta. Where one term rules throughout, gamma and its exponent cannot be told apart.",
)


def _width_depth(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
    shape = p["A"] * power(x["width"], -p["alpha"]) + p["G"] * power(x["depth"], -p["gamma"])
    return p["E"] + shape + _data(p, x)


WIDTH_DEPTH = Law(
    name="width-depth",
    formula="E + A/width^alpha + G/depth^gamma + B/D^beta",
    citation="after McLeish et al. 2025 (Gemstones), arXiv 2502.06857",
    inputs=(Input("width", "model dimension"), Input("depth", "layers"), _TOKENS),
    target="nats/token",
    parameters=(
        _FLOOR,
        _coefficient("A", "width^alpha"),
        _coefficient("G", "depth^gamma"),
        _DATA[0],
        _exponent("alpha"),
        _exponent("gamma"),
        _DATA[1],
    ),
    predict=_width_depth,
    notes="A/N^alpha of the Chinchilla law replaced by a term in width and one in depth. Which product or sum the paper"
    " uses is unverified: do not quote constants across. Width and depth that grow in proportion are refused as"
    " collinear.",
)


def _average(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
    return p["E"] + p["A"] * power(x["Nbar"], -p["alpha"]) + _data(p, x)


AVERAGE_PARAMETERS = Law(
    name="average-parameters",
    formula="E + A/Nbar^alpha + B/D^beta, Nbar = mean over training tokens of the parameters that are not zero",
    citation="Jin et al. 2025, arXiv 2501.12486 (ICLR 2025)",
    inputs=(Input("Nbar", "parameters that are not zero, averaged over training"), _TOKENS),
    target="nats/token",
    parameters=(_FLOOR, _coefficient("A", "Nbar^alpha"), _DATA[0], _exponent("alpha"), _DATA[1]),
    predict=_average,
    notes="For pruning during pre-training; a dense run has Nbar = N. See parameter_counts.average_parameters. No"
    " constants of the paper were found.",
)


def _over_training(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
    ratio = p["a"] * power(x["M"], p["eta"]) + p["b"] * power(x["M"], -p["eta"])
    return p["E"] + ratio * power(x["C"], -p["eta"])


OVER_TRAINING = Law(
    name="over-training",
    formula="E + (a*M^eta + b/M^eta)/C^eta, M = D/N",
    citation="Gadre et al. 2024, arXiv 2403.08540",
    inputs=(Input("C", "training FLOPs, 6*N*D"), Input("M", "tokens per parameter", distinct=2)),
    target="nats/token",
    parameters=(
        _FLOOR,
        _coefficient("a", "C^eta"),
        _coefficient("b", "C^eta"),
        Parameter("eta", "positive", (0.015, 1.0), bounds=(5e-4, 5.0)),
    ),
    predict=_over_training,
    notes="The Chinchilla law with alpha = beta = 2*eta, A = a/6^eta and B = b/6^eta. Best M = (b/a)^(1/(2*eta)) at"
    " every C. The paper fits four parameters to five points a corpus: no intervals to speak of.",
)


def _top_1_error(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
    return p["epsilon"] - p["k"] * jnp.exp(-p["gamma"] * x["L"])


TOP_1_ERROR = Law(
    name="top-1-error",
    formula="epsilon - k*exp(-gamma*L)",
    citation="Gadre et al. 2024, arXiv 2403.08540",
    inputs=(Input("L", "validation loss, nats/token", distinct=4),),
    target="average top-1 error over downstream tasks, a fraction",
    scale="raw",
    parameters=(
        Parameter("epsilon", "positive", (0.05, 2.0), linear=True),
        Parameter("k", "positive", (1e-3, 1e3), bounds=(1e-9, 1e12), linear=True),
        Parameter("gamma", "positive", (0.05, 5.0), bounds=(1e-3, 50.0)),
    ),
    predict=_top_1_error,
    notes="epsilon is the error at chance. In the paper L is the loss on the validation split of C4, and the average is"
    " over 46 tasks or 17 of them.",
)

OVER_TRAINING_PUBLISHED = {
    "C4": {"eta": 0.12124, "a": 141.27, "b": 189.52, "E": 1.50826},
    "RedPajama": {"eta": 0.13643, "a": 212.23, "b": 366.69, "E": 1.83665},
    "RefinedWeb": {"eta": 0.12720, "a": 157.12, "b": 246.21, "E": 1.73446},
}
"""Constants of the over-training law by corpus, recomputed from the released evaluations."""

LAWS = (CHINCHILLA, CHINCHILLA_GAMMA, WIDTH_DEPTH, AVERAGE_PARAMETERS, OVER_TRAINING, TOP_1_ERROR)
