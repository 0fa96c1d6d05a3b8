"""What a fit reads from a table beside the law's inputs: target, labels of rows, and the rows to hold out.

Letters: M rows.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from scaling.fitting.objectives import Objective
from scaling.fitting.points import Points
from scaling.laws.law import Law, TableError, read_column

WEIGHTS = "the weights= of the rows; drop a row that shall not count, or name it with holdout="
Holdout = np.ndarray | pd.Series | str | Callable[[pd.DataFrame], Any] | None


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


def read_points(
    table: pd.DataFrame,
    law: Law,
    objective: Objective,
    *,
    columns: Mapping[str, str] | None,
    target: str,
    group: str | None,
    stratum: str | None,
    weights: str | None,
    error: str | None,
    holdout: Holdout,
) -> Points:
    """All that a fit takes from a table, checked."""
    rows = len(table)
    inputs = law.read_inputs(table, columns)
    law.check_units(table, columns)
    target_M = read_target(table, target, law, objective)
    weight_M = _read_positive(table, weights, WEIGHTS) if weights else np.ones(rows)
    sigma_M = _read_positive(table, error, "the standard errors of the target, error=") if error else None
    group_M = read_codes(table, group, "group") if group else np.arange(rows)
    stratum_M = read_codes(table, stratum, "stratum") if stratum else np.zeros(rows, dtype=np.int64)
    return Points(
        inputs,
        target_M,
        weight_M,
        np.full(rows, np.nan) if sigma_M is None else sigma_M,
        group_M,
        stratum_M,
        read_holdout(table, holdout, columns),
    )


def _read_positive(table: pd.DataFrame, column: str, purpose: str) -> np.ndarray:
    values_M = read_column(table, column, purpose)
    if (bad_M := values_M <= 0).any():
        row = int(np.argmax(bad_M))
        raise TableError(f"column {column!r}, row {table.index[row]}: {values_M[row]:g} must be > 0: it is {purpose}")
    return values_M


def read_holdout(table: pd.DataFrame, holdout: Holdout, columns: Mapping[str, str] | None = None) -> np.ndarray:
    """Which rows are held out; a condition may name columns or, through `columns`, a law's inputs. All of them is
    refused.
    """
    if holdout is None:
        return np.zeros(len(table), dtype=bool)
    if isinstance(holdout, str):
        holdout = _condition(table, holdout, columns or {})
    held_M = np.asarray(holdout(table) if callable(holdout) else holdout)
    if held_M.dtype != bool or held_M.shape != (len(table),):
        raise TableError(
            f"holdout: {held_M.dtype} of shape {held_M.shape} must be one boolean a row, ({len(table)},), or a"
            " condition on columns such as 'N > 1e9', or a function such as largest('N')"
        )
    if held_M.all():
        raise TableError(f"holdout: all {len(table)} rows are held out, none is left to fit; hold out fewer")
    return held_M


def _condition(table: pd.DataFrame, condition: str, columns: Mapping[str, str]) -> Any:
    named = table.assign(**{name: table[column] for name, column in columns.items() if column in table})
    try:
        return named.eval(condition)
    except (pd.errors.UndefinedVariableError, SyntaxError, TypeError, ValueError) as error:
        raise TableError(
            f"holdout: {condition!r} is no condition on the table ({error}); write one such as 'N > 1e9' on its columns"
            f" {', '.join(map(str, table))}"
        ) from error


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
