"""Parameters and FLOPs of a model, each under a named convention.

Parameters: `total` counts all; `non_embedding` leaves out the token embedding, learned positions and an untied head
(Kaplan et al. 2020, arXiv 2001.08361). FLOPs a training token (forward and backward, a multiply-add is two):
`6N_total`, `6N_non_embedding`, and `exact`: 6 a parameter of every matrix product, the head included whether tied or
not, and 12 S D a layer for attention's two products on the full S × S square. Running statistics of norms are no
parameters.
"""

from __future__ import annotations

import dataclasses

from scaling.config import Model


@dataclasses.dataclass(frozen=True)
class Counts:
    """Parameters by convention, and FLOPs a training token by convention."""

    total: int
    non_embedding: int
    flops_6n_total: float
    flops_6n_non_embedding: float
    flops_exact: float


def _norms(model: Model) -> int:
    one = model.width * (2 if model.norm != "rmsnorm" or model.centred else 1)
    qk = 2 * (model.width // model.heads) * {None: 0, "rmsnorm": 1, "layernorm": 2}[model.qk_norm_kind]
    a_layer = 4 if model.placement == "peri" else 2
    outside = {"peri": 2, "post": 0}.get(model.placement, 1)
    return one * (a_layer * model.depth + outside) + qk * model.depth


def _matrices(model: Model) -> int:
    reading = 3 * model.width**2 + (2 if model.activation == "swiglu" else 1) * model.width * model.hidden
    writing = (model.width + model.hidden) * model.stream
    return model.depth * (reading + writing)


def count(model: Model, vocabulary: int, sequence: int) -> Counts:
    """Counts in closed form; the tests hold them against the real tree and XLA's cost analysis."""
    embedding, head = vocabulary * model.stream, vocabulary * model.width
    positions = sequence * model.stream if model.positions == "learned" else 0
    non_embedding = _matrices(model) + _norms(model)
    total = non_embedding + positions + embedding + (0 if model.tied_head else head)
    exact = 6 * (_matrices(model) + head) + 12 * model.depth * sequence * model.width
    return Counts(total, non_embedding, 6.0 * total, 6.0 * non_embedding, float(exact))
