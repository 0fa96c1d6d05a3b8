"""Loss against the mixture ratio, for continual pre-training on a domain corpus and a general one."""

from collections.abc import Mapping
from typing import Any

import jax

from scaling.laws.law import Input, Law, Parameter, power

_CMR = "Gu et al. 2024, arXiv 2407.17467"
_TOKENS = Input("T", "tokens (in the paper, units of 0.2B)")
_D_CPT_INPUTS = (
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
)


def _size(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
    return p["E"] + p["A"] * power(x["N"], -p["alpha"])


def _d_cpt(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
    data = p["B"] * power(x["r"], p["eta"]) * power(x["D"], -p["beta"])
    return _size(p, x) + data + p["C"] * power(x["r"] + p["eps"], -p["gamma"])


D_CPT = Law(
    name="d-cpt",
    formula="E + A/N^alpha + B*r^eta/D^beta + C/(r+eps)^gamma",
    citation="Que et al. 2024, arXiv 2406.01375, form L3",
    inputs=_D_CPT_INPUTS,
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


def _cross_domain(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
    return _d_cpt(p, x) + p["F"] * power(1 / x["k1"] + p["w2"] * x["k2"], -p["mu"])


D_CPT_CROSS_DOMAIN = Law(
    name="d-cpt-cross-domain",
    formula=f"{D_CPT.formula} + F/K^mu, K = 1/k1 + w2*k2",
    citation="Que et al. 2024, arXiv 2406.01375, cross-domain form",
    inputs=(
        *_D_CPT_INPUTS,
        Input("k1", "validation loss of the domain before training, nats/token", distinct=4),
        Input("k2", "rate of decline of that loss early in training, positive", distinct=4),
    ),
    target="nats/token",
    parameters=(
        *D_CPT.parameters,
        Parameter("F", "positive", (1e-3, 10.0), linear=True),
        Parameter("mu", "positive", (0.03, 2.0), bounds=(1e-3, 10.0)),
        Parameter("w2", "positive", (1e-2, 10.0), unit="k2^-1"),
    ),
    predict=_cross_domain,
    notes="One fit over several domains: k1 and k2 name a domain's two cheap measurements in each of its rows. The"
    " paper's K = w1/k1 + w2*k2; w1 is fixed at 1, since F absorbs the scale of K. From memory, unverified: how the"
    " paper normalises k1 and k2; here k1 is the loss itself, and any unit of k2 does.",
)

_UNVERIFIED = "A form that the paper weighs against L3, here from memory and unverified: do not quote it."


def _l1(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
    data = p["B"] * power(x["D"], -p["beta"])
    return _size(p, x) + data + p["C"] * power(x["r"] + p["eps"], -p["gamma"])


def _l4(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
    data = p["B"] * power(p["b"], x["r"]) * power(x["D"], -p["beta"])
    return _size(p, x) + data + p["C"] * power(p["c"], -x["r"])


def _l5(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
    tokens = (x["r"] + (1 - x["r"]) * p["sigma"]) * x["D"]
    return _size(p, x) + p["B"] * power(tokens, -p["beta"])


def _rival(form: str, formula: str, predict: Any, without: str, *more: Parameter) -> Law:
    """A form of the D-CPT law without some of L3's parameters, and with others."""
    kept = tuple(p for p in D_CPT.parameters if p.name not in without.split())
    return Law(
        name=f"d-cpt-{form.lower()}",
        formula=formula,
        citation=f"Que et al. 2024, arXiv 2406.01375, form {form}",
        inputs=_D_CPT_INPUTS,
        target="nats/token",
        parameters=(*kept, *more),
        predict=predict,
        notes=_UNVERIFIED,
    )


D_CPT_L1 = _rival("L1", "E + A/N^alpha + B/D^beta + C/(r+eps)^gamma", _l1, "eta")
D_CPT_L4 = _rival(
    "L4",
    "E + A/N^alpha + B*b^r/D^beta + C/c^r",
    _l4,
    "eta gamma eps",
    Parameter("b", "positive", (0.05, 20.0), bounds=(1e-4, 1e4)),
    Parameter("c", "positive", (1.05, 1e3), bounds=(1e-2, 1e6)),
)
D_CPT_L5 = _rival(
    "L5",
    "E + A/N^alpha + B/(r*D + (1-r)*sigma*D)^beta",
    _l5,
    "C eta gamma eps",
    Parameter("sigma", "positive", (1e-3, 2.0), bounds=(1e-6, 1e3)),
)


def _forgetting(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
    change = p["A"] * power(x["U"] / 1e8, p["beta"]) * power((1 + p["B"] * x["p"]) * x["N"] / 1e8, -p["alpha"])
    return x["L0"] + change + p["E"]


FORGETTING = Law(
    name="forgetting",
    formula="L0 + A*(U/1e8)^beta/((1+B*p)*N/1e8)^alpha + E",
    citation="Bethune et al. 2025, arXiv 2502.06042 (ICML 2025)",
    inputs=(
        Input("N", "parameters"),
        Input("U", "unique tokens of the target domain"),
        Input("p", "fraction of pre-training tokens injected into fine-tuning", 0.0, 1.0, low_included=True),
        Input("L0", "pre-training loss before fine-tuning, nats/token", distinct=1),
    ),
    target="nats/token, pre-training loss after fine-tuning",
    parameters=(
        Parameter("A", "positive", (1e-4, 10.0), linear=True),
        Parameter("alpha", "positive", (0.03, 2.0), bounds=(1e-3, 10.0)),
        Parameter("beta", "positive", (0.03, 2.0), bounds=(1e-3, 10.0)),
        Parameter("B", "positive", (1.0, 1e4), bounds=(1e-3, 1e7)),
        Parameter("E", "real", (-0.1, 0.1), linear=True),
    ),
    predict=_forgetting,
    notes="One fit a target domain. A is the rise of the loss at U = N = 1e8 and p = 0; the paper's own constants and"
    " its unit of A were not found. E is in the variant that we recall (from memory, unverified). Which N the paper"
    " counts is not recorded here.",
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

LAWS = (
    D_CPT,
    D_CPT_CROSS_DOMAIN,
    D_CPT_L1,
    D_CPT_L4,
    D_CPT_L5,
    FORGETTING,
    CMR_RATIO,
    CMR_DOMAIN_CHANGE,
    CMR_GENERAL_CHANGE,
    CMR_CRITICAL,
)
