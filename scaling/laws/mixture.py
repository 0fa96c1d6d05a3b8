"""Loss against the mixture ratio, for continual pre-training on a domain corpus and a general one."""

from collections.abc import Mapping
from typing import Any

import jax

from scaling.laws.law import Input, Law, Parameter, power

_CMR = "Gu et al. 2024, arXiv 2407.17467"
_TOKENS = Input("T", "tokens (in the paper, units of 0.2B)")


def _d_cpt(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
    size = p["A"] * power(x["N"], -p["alpha"])
    data = p["B"] * power(x["r"], p["eta"]) * power(x["D"], -p["beta"])
    return p["E"] + size + data + p["C"] * power(x["r"] + p["eps"], -p["gamma"])


D_CPT = Law(
    name="d-cpt",
    formula="E + A/N^alpha + B*r^eta/D^beta + C/(r+eps)^gamma",
    citation="Que et al. 2024, arXiv 2406.01375, form L3",
    inputs=(
        Input("N", "parameters"),
        Input("D", "tokens of continual pre-training, both corpora"),
        Input(
            "r",
            "token share of the corpus on which the loss is measured",
            0.0,
            1.0,
            low_included=True,
            distinct=4,
            share_of="measured",
        ),
    ),
    target="nats/token",
    parameters=(
        Parameter("E", "positive", (0.05, 10.0), linear=True),
        Parameter("A", "positive", (1e-3, 10.0), unit="N^alpha", linear=True),
        Parameter("B", "positive", (1e-3, 10.0), unit="D^beta", linear=True),
        Parameter("C", "positive", (1e-3, 10.0), linear=True),
        Parameter("alpha", "positive", (0.03, 2.0), bounds=(1e-3, 10.0)),
        Parameter("beta", "positive", (0.03, 2.0), bounds=(1e-3, 10.0)),
        Parameter("gamma", "positive", (0.03, 2.0), bounds=(1e-3, 10.0)),
        Parameter("eta", "positive", (0.03, 2.0), bounds=(1e-3, 10.0)),
        Parameter("eps", "positive", (1e-3, 0.5), bounds=(1e-5, 10.0)),
    ),
    predict=_d_cpt,
    notes="Fit the domain loss at r = r_domain and the general loss at r = 1 - r_domain: two fits. Which N the paper"
    " counts is not recorded here: use one convention throughout. The loss falls with r only where"
    " eta*B*r^(eta-1)/D^beta < gamma*C/(r+eps)^(gamma+1): check the fitted range.",
)


def _one_power(
    coefficient: str, exponent: str, constant: str, variable: str, range_of_exponent: tuple[float, float]
) -> dict[str, Any]:
    """coefficient*variable^exponent + constant, every sign free."""

    def predict(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
        return p[coefficient] * power(x[variable], p[exponent]) + p[constant]

    parameters = (
        Parameter(coefficient, "real", (-1.0, 1.0), unit=f"{variable}^-{exponent}", linear=True),
        Parameter(exponent, "real", range_of_exponent, bounds=(-5.0, 5.0)),
        Parameter(constant, "real", (-1.0, 1.0), linear=True),
    )
    return {
        "formula": f"{coefficient}*{variable}^{exponent} + {constant}",
        "parameters": parameters,
        "predict": predict,
    }


CMR_RATIO = Law(
    name="cmr-ratio",
    citation=_CMR,
    inputs=(Input("R", "token share of the domain corpus", 0.0, 1.0, share_of="domain"),),
    target="nats/token, domain or general loss at the end of training",
    notes="One fit a size. R is the domain share for the general loss too.",
    **_one_power("alpha", "s", "beta", "R", (-3.0, 3.0)),
)

CMR_DOMAIN_CHANGE = Law(
    name="cmr-domain-change",
    citation=_CMR,
    inputs=(_TOKENS,),
    target="nats/token, domain loss less its value before continual pre-training",
    scale="raw",
    notes="One fit a size and ratio.",
    **_one_power("alpha1", "s1", "beta1", "T", (-2.0, 2.0)),
)

CMR_CRITICAL = Law(
    name="cmr-critical",
    citation=_CMR,
    inputs=(_TOKENS,),
    target="critical token share of the domain corpus",
    scale="raw",
    notes="One fit a size. alpha4 and s4 change sign between sizes: the curve is identified, its parameters hardly."
    " Not bounded to [0, 1]: clip, and do not read it below its zero crossing. That it tends to 1 does not follow"
    " from it.",
    **_one_power("alpha4", "s4", "beta3", "T", (-2.0, 2.0)),
)


def _general_change(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
    return p["alpha2"] * power(x["T"], p["s2"]) + p["alpha3"] * power(x["T"], p["s3"]) + p["beta2"]


CMR_GENERAL_CHANGE = Law(
    name="cmr-general-change",
    formula="alpha2*T^s2 + alpha3*T^s3 + beta2",
    citation=_CMR,
    inputs=(Input("T", "tokens (in the paper, units of 0.2B)", distinct=5),),
    target="nats/token, general loss less its value before continual pre-training",
    scale="raw",
    parameters=(
        Parameter("alpha2", "real", (-1.0, 1.0), unit="T^-s2", linear=True),
        Parameter("alpha3", "real", (-1.0, 1.0), unit="T^-s3", linear=True),
        Parameter("beta2", "real", (-1.0, 1.0), linear=True),
        Parameter("s2", "real", (-2.0, 2.0), bounds=(-5.0, 5.0)),
        Parameter("s3", "real", (-2.0, 2.0), bounds=(-5.0, 5.0)),
    ),
    predict=_general_change,
    notes="One fit a size and ratio. Rises, then falls. The two powers may be exchanged; a fit reports s2 <= s3.",
    exchangeable=(("s2", "alpha2"), ("s3", "alpha3")),
)

LAWS = (D_CPT, CMR_RATIO, CMR_DOMAIN_CHANGE, CMR_GENERAL_CHANGE, CMR_CRITICAL)
