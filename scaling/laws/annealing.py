"""Loss curves from the areas under a learning-rate schedule: the annealing law and the dynamics of continual
pre-training.

The areas of every logged point come from `scaling.laws.schedule.with_areas` and `with_phase_areas`.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from scaling.laws.law import Input, Law, Parameter, power

_TISSUE = "Tissue et al. 2024, arXiv 2408.11029"
_CPT = "Wang et al. 2025, arXiv 2505.07796"
_AREA = "learning rate x step"
_S1 = Input("S1", f"forward area up to the step, {_AREA}")
_S2 = Input("S2", f"annealing area up to the step, {_AREA}", low=-float("inf"))
_SIZE = Input("N", "parameters, non-embedding")
_COEFFICIENT, _EXPONENT = (1e-3, 100.0), (0.03, 2.0)
_WEAK = Parameter("gamma", "real", (-0.5, 0.5), bounds=(-3.0, 3.0))

_AREAS_NOTE = (
    "Areas are sums over every step, not over logged points, with the warm-up counted as the peak (momentum 0.999 a"
    " step). alpha depends on which schedules are fitted: have a constant and a decaying one. The bonus does not shrink"
    " as S1 grows, so the law may fall below L0."
)


def _annealing(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
    return p["L0"] + p["A"] * power(x["S1"], -p["alpha"]) - p["C"] * x["S2"]


ANNEALING = Law(
    name="annealing",
    formula="L0 + A/S1^alpha - C*S2",
    citation=_TISSUE,
    inputs=(_S1, _S2),
    target="nats/token",
    parameters=(
        Parameter("L0", "positive", (0.05, 20.0), linear=True),
        Parameter("A", "positive", _COEFFICIENT, unit="S1^alpha", linear=True),
        Parameter("C", "positive", (1e-5, 1e4), linear=True),
        Parameter("alpha", "positive", _EXPONENT, bounds=(1e-3, 10.0)),
    ),
    predict=_annealing,
    notes=f"Per model size. {_AREAS_NOTE}",
)


def _annealing_size(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
    size = p["B"] * power(x["N"], -p["beta"])
    return p["L0"] + p["A"] * power(x["S1"], -p["alpha"]) + size - p["C"] * x["S2"] * power(x["N"], p["gamma"])


ANNEALING_SIZE = Law(
    name="annealing-size",
    formula="L0 + A/S1^alpha + B/N^beta - C*S2*N^gamma",
    citation=_TISSUE,
    inputs=(_S1, _S2, _SIZE),
    target="nats/token",
    parameters=(
        *ANNEALING.parameters[:2],
        Parameter("C", "positive", (1e-5, 1e4), unit="N^-gamma", linear=True),
        ANNEALING.parameters[3],
        Parameter("B", "positive", _COEFFICIENT, unit="N^beta", linear=True),
        Parameter("beta", "positive", _EXPONENT, bounds=(1e-3, 10.0)),
        _WEAK,
    ),
    predict=_annealing_size,
    notes=f"N without embeddings, one convention throughout. {_AREAS_NOTE}",
)

_PHASES = (
    Input("S1pt", f"forward area of pre-training, {_AREA}", distinct=1),
    Input("S1cpt", f"forward area of continual pre-training (CPT), {_AREA}", low_included=True, distinct=5),
    Input("S2pt", f"annealing area of pre-training, {_AREA}", low=-float("inf"), distinct=2),
    Input("S2cpt", f"annealing area of CPT, {_AREA}", low=-float("inf")),
)
_CPT_NOTES = (
    "One fit a validation set and CPT corpus. B > 0 on the pre-training set (the loss rises), B < 0 on the new domain."
    " S1pt and S2pt must vary (several transfer points), else C1 is part of L0. Where the shift is nearly a step, E and"
    f" beta are identified by dense early points only. {_AREAS_NOTE} That re-warm-up counts as the peak of its phase,"
    " as warm-up does, is from memory, unverified."
)


def _forward(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
    return p["L0"] + p["A"] * power(x["S1pt"] + x["S1cpt"], -p["alpha"])


def _shift(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
    """B*(1 - (1 + E*S1cpt)^-beta), 0 at the start of CPT."""
    return -p["B"] * jnp.expm1(-p["beta"] * jnp.log1p(p["E"] * x["S1cpt"]))


def _cpt(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
    return _forward(p, x) - p["C1"] * x["S2pt"] - p["C2"] * x["S2cpt"] + _shift(p, x)


_CPT_FORWARD = "L0 + A/(S1pt+S1cpt)^alpha"
_CPT_SHIFT = "B*(1 - (1 + E*S1cpt)^-beta)"

CPT = Law(
    name="cpt-dynamics",
    formula=f"{_CPT_FORWARD} - C1*S2pt - C2*S2cpt + {_CPT_SHIFT}",
    citation=_CPT,
    inputs=_PHASES,
    target="nats/token",
    parameters=(
        Parameter("L0", "positive", (0.05, 20.0), linear=True),
        Parameter("A", "positive", _COEFFICIENT, linear=True),
        Parameter("alpha", "positive", _EXPONENT, bounds=(1e-3, 10.0)),
        Parameter("C1", "positive", (1e-5, 1e4), linear=True),
        Parameter("C2", "positive", (1e-5, 1e4), linear=True),
        Parameter("B", "real", (-2.0, 2.0), linear=True),
        Parameter("E", "positive", (1.0, 1e4), bounds=(1e-3, 1e7)),
        Parameter("beta", "positive", _EXPONENT, bounds=(1e-3, 10.0)),
    ),
    predict=_cpt,
    notes=f"Per model size. {_CPT_NOTES}",
)

# Peak 2e-4, FineWeb then the corpus, 106M parameters; "pt" the loss on the pre-training set, "cpt" on the corpus.
CPT_PUBLISHED: dict[tuple[str, str], dict[str, float]] = {
    key: dict(zip(("L0", "A", "alpha", "B", "E", "beta", "C1", "C2"), values, strict=True))
    for key, values in {
        ("Knowledge-Pile", "pt"): (3.057, 0.490, 0.497, 0.366, 28.0, 0.189, 0.299, 0.298),
        ("Knowledge-Pile", "cpt"): (3.024, 0.412, 0.677, -0.666, 5662.0, 0.146, 0.278, 0.324),
        ("Pile-of-Law", "pt"): (3.064, 0.482, 0.511, 1.353, 37.0, 0.262, 0.294, 0.264),
        ("Pile-of-Law", "cpt"): (2.978, 0.485, 0.701, -1.409, 383.0, 0.368, 0.274, 0.298),
    }.items()
}


def _cpt_size(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
    before = p["C1"] * x["S2pt"] * power(x["N"], p["gamma1"])
    after = p["C2"] * x["S2cpt"] * power(x["N"], p["gamma2"])
    return _forward(p, x) - before - after + _shift(p, x) + p["F"] * power(x["N"], -p["gamma3"])


_BY_NAME = {p.name: p for p in CPT.parameters}

CPT_SIZE = Law(
    name="cpt-dynamics-size",
    formula=f"{_CPT_FORWARD} - C1*S2pt*N^gamma1 - C2*S2cpt*N^gamma2 + {_CPT_SHIFT} + F/N^gamma3",
    citation=_CPT,
    inputs=(*_PHASES, _SIZE),
    target="nats/token",
    parameters=(
        *(p for p in CPT.parameters if p.name not in ("C1", "C2")),
        replace(_BY_NAME["C1"], unit="N^-gamma1"),
        replace(_BY_NAME["C2"], unit="N^-gamma2"),
        Parameter("F", "positive", _COEFFICIENT, unit="N^gamma3", linear=True),
        replace(_WEAK, name="gamma1"),
        replace(_WEAK, name="gamma2"),
        Parameter("gamma3", "positive", _EXPONENT, bounds=(1e-3, 10.0)),
    ),
    predict=_cpt_size,
    notes="N in parameters, without embeddings; the paper writes N in millions: its C1, C2 and F become C1*1e6^-gamma1,"
    f" C2*1e6^-gamma2 and F*1e6^gamma3. {_CPT_NOTES}",
)


def _in_parameters(values: Mapping[str, float]) -> dict[str, float]:
    """Constants published for N in millions, for N in parameters."""
    factor = {"C1": 1e6 ** -values["gamma1"], "C2": 1e6 ** -values["gamma2"], "F": 1e6 ** values["gamma3"]}
    return {name: value * factor.get(name, 1.0) for name, value in values.items()}


_CPT_SIZE_NAMES = ("L0", "A", "alpha", "B", "E", "beta", "C1", "gamma1", "C2", "gamma2", "F", "gamma3")
CPT_SIZE_PUBLISHED: dict[str, dict[str, float]] = {
    key: _in_parameters(dict(zip(_CPT_SIZE_NAMES, values, strict=True)))
    for key, values in {
        "pt": (1.829, 0.504, 0.537, 0.278, 12.0, 0.359, 0.090, 0.235, 0.103, 0.199, 3.072, 0.195),
        "cpt": (1.860, 0.438, 0.585, -0.552, 187.0, 0.326, 0.333, 0.012, 0.140, 0.145, 2.718, 0.189),
    }.items()
}

_REPLAY_INPUTS = (
    *_PHASES,
    Input("r", "token share of the CPT corpus in CPT", 0.0, 1.0, low_included=True, share_of="domain"),
)
_REPLAY_PARAMETERS = (
    *CPT.parameters,
    Parameter("a1", "real", (-1.0, 1.0), bounds=(-20.0, 20.0)),
    Parameter("a2", "positive", (0.3, 10.0), bounds=(1e-3, 50.0)),
)
_REPLAY_NOTES = (
    "The shift vanishes at r = 0, where nothing of the corpus is seen. With one value of r a2 cannot be told from B."
    f" {_CPT_NOTES}"
)


def _replay_pt(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
    after = p["C2"] * x["S2cpt"] * jnp.exp(p["a1"] * (1 - x["r"]))
    return _forward(p, x) - p["C1"] * x["S2pt"] - after - _shift(p, x) * jnp.expm1(-p["a2"] * x["r"])


def _replay_cpt(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
    after = p["C2"] * x["S2cpt"] * jnp.exp(p["a1"] * x["r"])
    return _forward(p, x) - p["C1"] * x["S2pt"] - after + _shift(p, x) * jnp.expm1(p["a2"] * x["r"])


CPT_REPLAY_OLD = Law(
    name="cpt-replay-old",
    formula=f"{_CPT_FORWARD} - C1*S2pt - C2*S2cpt*exp(a1*(1-r)) + {_CPT_SHIFT}*(1 - exp(-a2*r))",
    citation=f"{_CPT}, equation 8",
    inputs=_REPLAY_INPUTS,
    target="nats/token, loss on the pre-training set",
    parameters=_REPLAY_PARAMETERS,
    predict=_replay_pt,
    notes=f"{_REPLAY_NOTES} The paper uses one symbol for two shares; here the annealing term has the share of"
    " pre-training data, 1 - r, as its body says.",
)

CPT_REPLAY_NEW = Law(
    name="cpt-replay-new",
    formula=f"{_CPT_FORWARD} - C1*S2pt - C2*S2cpt*exp(a1*r) + {_CPT_SHIFT}*(exp(a2*r) - 1)",
    citation=f"{_CPT}, equation 8",
    inputs=_REPLAY_INPUTS,
    target="nats/token, loss on the CPT corpus",
    parameters=_REPLAY_PARAMETERS,
    predict=_replay_cpt,
    notes=_REPLAY_NOTES,
)

LAWS = (ANNEALING, ANNEALING_SIZE, CPT, CPT_SIZE, CPT_REPLAY_OLD, CPT_REPLAY_NEW)
