"""What a fit reads from a table beside the law's inputs: target, labels of rows, and the rows to hold out.

Letters: M rows.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from scaling.fitting.objectives import Objective
from scaling.laws.law import Law, TableError, read_column

Holdout = np.ndarray | pd.Series | Callable[[pd.DataFrame], Any] | None


def largest(column: str) -> Callable[[pd.DataFrame], np.ndarray]:
    """A `holdout` that takes out the rows of the largest value of a column, e.g. the largest model."""
    return lambda table: np.asarray(table[column] == table[column].max())


def read_target(table: pd.DataFrame, target: str, law: Law, objective: Objective) -> np.ndarray:
    """The target column, positive where the objective takes its logarithm."""
    target_M = read_column(table, target, f"the target ({law.target}) of law {law.name!r}; name it with target=")
    if objective.scale == "log" and (target_M <= 0).any():
        row = int(np.argmax(target_M <= 0))
        raise TableError(
            f"column {target!r}, row {table.index[row]}: {target_M[row]:g} has no logarithm; use an objective with"
            " scale='raw', such as least_squares() (loss changes need it)"
        )
    return target_M


def read_holdout(table: pd.DataFrame, holdout: Holdout) -> np.ndarray:
    """Which rows are held out."""
    if holdout is None:
        return np.zeros(len(table), dtype=bool)
    held_M = np.asarray(holdout(table) if callable(holdout) else holdout)
    if held_M.dtype != bool or held_M.shape != (len(table),):
        raise TableError(
            f"holdout: {held_M.dtype} of shape {held_M.shape} must be one boolean a row, ({len(table)},), or a"
            " function to one such as largest('N')"
        )
    return held_M


def read_codes(table: pd.DataFrame, column: str, role: str) -> np.ndarray:
    """Codes of a label column, in the order of its sorted values, so that they do not depend on the rows' order."""
    if column not in table:
        cure = "; pass group=None where every row is a run of its own" if role == "group" else ""
        raise TableError(f"column {column!r} ({role}) is missing; the table has {', '.join(map(str, table))}{cure}")
    if (missing_M := table[column].isna().to_numpy()).any():
        raise TableError(
            f"column {column!r} ({role}), row {table.index[int(np.argmax(missing_M))]}: missing value; name the"
            f" {role} of every row"
        )
    return pd.factorize(table[column], sort=True)[0]
