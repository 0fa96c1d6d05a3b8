"""The rows of a fit: what was read from the table, kept with the result.

Letters: M rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from scaling.fitting.record import array


@dataclass(frozen=True, eq=False)
class Points:
    """Inputs by name, target, and for each row its weight, known standard error, group, stratum, and if it is held out.

    `sigma_M` is the standard error in the target's unit, nan where it is not known (then everywhere). Groups and strata
    are codes from 0.
    """

    inputs: dict[str, np.ndarray]
    target_M: np.ndarray
    weight_M: np.ndarray
    sigma_M: np.ndarray
    group_M: np.ndarray
    stratum_M: np.ndarray
    held_M: np.ndarray

    def __len__(self) -> int:
        return len(self.target_M)

    def at(self, rows_M: np.ndarray) -> "Points":
        """The rows of a mask, with groups and strata numbered anew."""
        inputs = {name: x_M[rows_M] for name, x_M in self.inputs.items()}
        group_M, stratum_M = (
            np.unique(code_M[rows_M], return_inverse=True)[1] for code_M in (self.group_M, self.stratum_M)
        )
        held_M, sigma_M = self.held_M[rows_M], self.sigma_M[rows_M]
        return Points(inputs, self.target_M[rows_M], self.weight_M[rows_M], sigma_M, group_M, stratum_M, held_M)

    @property
    def fitted(self) -> "Points":
        """The rows that were not held out."""
        return self.at(~self.held_M)

    @property
    def held(self) -> "Points":
        """The rows that were held out."""
        return self.at(self.held_M)

    @property
    def groups(self) -> int:
        """Number of groups."""
        return int(self.group_M.max()) + 1 if len(self) else 0

    def to_record(self) -> dict[str, Any]:
        """As JSON; an unknown standard error is null."""
        columns = {
            "target": self.target_M,
            "weight": self.weight_M,
            "group": self.group_M,
            "stratum": self.stratum_M,
            "held": self.held_M,
        }
        sigma = None if np.isnan(self.sigma_M).any() else self.sigma_M.tolist()
        inputs = {name: x_M.tolist() for name, x_M in self.inputs.items()}
        return {"inputs": inputs, "sigma": sigma, **{name: column.tolist() for name, column in columns.items()}}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Points":
        """The points that `to_record` wrote. Raises RecordError for columns of no numbers, or of several lengths."""
        sigma, shape = record["sigma"], (len(record["target"]),)
        return cls(
            {name: array(column, shape, name) for name, column in record["inputs"].items()},
            array(record["target"], shape, "target"),
            array(record["weight"], shape, "weight"),
            np.full(shape, np.nan) if sigma is None else array(sigma, shape, "sigma"),
            array(record["group"], shape, "group", np.int64),
            array(record["stratum"], shape, "stratum", np.int64),
            array(record["held"], shape, "held", np.bool_),
        )
