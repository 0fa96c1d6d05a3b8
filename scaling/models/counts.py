"""Parameters and FLOPs of a model, each under a named convention.

Parameters: `total` counts all; `non_embedding` leaves out the token embedding, learned positions and an untied head
(Kaplan et al. 2020, arXiv 2001.08361). FLOPs a training token (forward and backward, a multiply-add is two):
`6N_total`, `6N_non_embedding`, and `exact`: 6 a parameter of every matrix product, the head included whether tied or
not, and 12 S D a layer for attention's two products on the full S × S square.
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


def _norm(model: Model, width: int) -> int:
    return 2 * width if model.norm == "layernorm" else width


def _matrices(model: Model) -> int:
    feedforward = (3 if model.activation == "swiglu" else 2) * model.width * model.hidden
    return model.depth * (4 * model.width**2 + feedforward)


def count(model: Model, vocabulary: int, sequence: int) -> Counts:
    """Counts in closed form; the tests hold them against the real tree and XLA's cost analysis."""
    norms = _norm(model, model.width) * (2 * model.depth + 1)
    if model.qk_norm:
        norms += 2 * model.depth * _norm(model, model.width // model.heads)
    embedding = vocabulary * model.width
    positions = sequence * model.width if model.positions == "learned" else 0
    non_embedding = _matrices(model) + norms
    total = non_embedding + positions + embedding * (1 if model.tied_head else 2)
    exact = 6 * (_matrices(model) + embedding) + 12 * model.depth * sequence * model.width
    return Counts(total, non_embedding, 6.0 * total, 6.0 * non_embedding, float(exact))
