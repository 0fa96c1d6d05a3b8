"""One law fitted many times: to several targets of one table, or to the rows of each group."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from scaling.fitting.estimate import fit
from scaling.fitting.result import Fit
from scaling.laws.law import Law, TableError


def fit_each(
    law: Law, table: pd.DataFrame, *, targets: Sequence[str] = ("loss",), by: str | None = None, **options: Any
) -> dict[str, Fit]:
    """A fit for each target column (22 validation domains, say), or for each value of the column `by`.

    Keys are the targets, or the values as text; with both, "target, value". `options` are those of `fit`. The fits
    share one compilation where their numbers of rows pad to the same size. To give groups common parameters, fit
    `laws.pooled` instead. Raises TableError naming the target or the group that cannot be fitted.
    """
    if by is not None and by not in table:
        raise TableError(f"column {by!r} (by) is missing; the table has {', '.join(map(str, table))}")
    parts = [("", table)] if by is None else [(str(value), rows) for value, rows in table.groupby(by, sort=True)]
    fits = {}
    for target in targets:
        for value, rows in parts:
            name = value if by and len(targets) == 1 else ", ".join(filter(None, (target, value)))
            try:
                fits[name] = fit(law, rows, target=target, **options)
            except TableError as error:
                raise TableError(f"{name}: {error}") from error
    return fits
