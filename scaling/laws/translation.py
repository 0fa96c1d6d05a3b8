"""Loss of encoder-decoder translation models."""

from collections.abc import Mapping
from typing import Any

import jax

from scaling.laws.law import Input, Law, Parameter, power

REFERENCE = 1e8  # parameters


def _encoder_decoder(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
    return p["alpha"] * power(x["Ne"] / REFERENCE, -p["pe"]) * power(x["Nd"] / REFERENCE, -p["pd"]) + p["Linf"]


ENCODER_DECODER = Law(
    name="encoder-decoder",
    formula="alpha*(1e8/Ne)^pe*(1e8/Nd)^pd + Linf",
    citation="Ghorbani et al. 2021, arXiv 2109.07740",
    inputs=(
        Input("Ne", "encoder parameters, embeddings not counted"),
        Input("Nd", "decoder parameters, embeddings not counted"),
    ),
    target="nats/token",
    parameters=(
        Parameter("alpha", "positive", (1e-4, 1e4), bounds=(1e-12, 1e12), linear=True),
        Parameter("pe", "positive", (0.03, 2.0), bounds=(1e-3, 10.0)),
        Parameter("pd", "positive", (0.03, 2.0), bounds=(1e-3, 10.0)),
        Parameter("Linf", "positive", (0.05, 10.0), linear=True),
    ),
    predict=_encoder_decoder,
    notes="One fit a test set: sets whose target side is original text scale otherwise than those whose source side is."
    " The form is from memory of the paper (unverified), whose reference sizes are a baseline's; here both are 1e8,"
    " which only changes alpha.",
)


def encoder_decoder_split(pe: float, pd: float, total: float) -> tuple[float, float]:
    """Encoder and decoder parameters of lowest loss at a given sum: Ne/Nd = pe/pd. ValueError unless all positive."""
    if not (pe > 0 and pd > 0 and total > 0):
        raise ValueError(f"pe, pd, total: {pe}, {pd}, {total} must be > 0")
    return total * pe / (pe + pd), total * pd / (pe + pd)


LAWS = (ENCODER_DECODER,)
