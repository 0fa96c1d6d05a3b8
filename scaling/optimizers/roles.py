"""What a parameter is to width: the factors that muP gives its rate and its decay."""

from __future__ import annotations

from typing import NamedTuple

from scaling.fields import check
from scaling.model import Model
from scaling.parametrization import WIDTH_RULES

EMBEDDING, HIDDEN, READOUT, VECTOR = "embedding", "hidden", "readout", "vector"


class WidthFactors(NamedTuple):
    """The rate times `rate`; weight decay times `decay`^(optimizer.width_exponent - `less`), so that the product of the
    two goes with width as `decay`^(optimizer.width_exponent - 1).
    """

    rate: float
    decay: float
    less: float = 0.0


def role(path: str, shape: tuple[int, ...]) -> str:
    """embedding, hidden, readout or vector: the role of the parameter at a path such as block_0/attention/query/kernel.

    Raises ValueError for a matrix whose name tells nothing of its role.
    """
    names = path.split("/")
    if len(shape) < 2:
        return VECTOR
    if names[-1] in ("embedding", "positions"):
        return EMBEDDING
    if names[-1] != "kernel":
        raise ValueError(f"parameter {path} of shape {shape}: expected a vector, an embedding or a kernel; give its "
                         "role in scaling/optimizers/roles.py")
    return READOUT if names[-2:] == ["head", "kernel"] else HIDDEN


def role_factors(model: Model, method: str, path: str, shape: tuple[int, ...]) -> WidthFactors:
    """Factors of the parameter at `path`, which `method` trains; 1 and 1 in the standard parametrization.

    See scaling/parametrization.py for the table. Raises ConfigError for a method that has no width rule for the role.
    """
    if model.base is None:
        return WidthFactors(1.0, 1.0)
    m, what = model.width_ratio, role(path, shape)
    known = method in WIDTH_RULES and (method != "muon" or what == HIDDEN)
    check(known, "optimizer.groups", f"{method} on {path}", f"a method with a width rule for {what} parameters, with "
          "model.base", "treat it as adamw, or leave model.base out")
    if method == "sgd":
        return WidthFactors(1.0 if what == HIDDEN else m, 1.0)
    if what != HIDDEN:
        return WidthFactors(1.0, 1.0)
    return WidthFactors(1.0, m, 1.0) if method == "muon" else WidthFactors(1 / m, m)
