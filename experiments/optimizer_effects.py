"""What studies of an optimizer's claimed effect share: last losses by method, rate and seed, differences by seed.

A run that diverged, or ended above where it started, counts with the loss before its first update, as in Wortsman et
al. 2023, arXiv 2309.14322: a failure costs what training had to gain, not whatever it blew up to.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from experiments.claims import Claim
from experiments.continual import claim
from scaling.fields import ConfigError, check
from scaling.store import Store

ENDED = ("done", "diverged")


@dataclasses.dataclass(frozen=True)
class Findings:
    """All that such a study concludes. `table`: a row a run, as from `outcomes`; `details`: tables of its own, by
    title.
    """

    settings: Any
    headline: str
    table: pd.DataFrame
    details: Mapping[str, pd.DataFrame]
    claims: list[Claim]
    not_identified: list[str]


def outcomes(store: Store, columns: Mapping[str, str], method: Callable[[Mapping[Any, Any]], str]) -> pd.DataFrame:
    """One row a run: run_id, `method` (of its configuration), `peak`, `seed`, `failed`, `loss` in nats/token after the
    last step or, where it failed, before the first; and `columns`, names by dotted field. Sorted by method, peak, seed.

    Raises ConfigError for no runs, runs that have not ended, or several held-out domains.
    """
    runs, curves = store.read("runs"), store.read("curves")
    if not len(runs):
        raise ConfigError(f"store {store.root}: expected runs to analyse; run the sweep to its end")
    open_runs = runs.status[~runs.status.isin(ENDED)]
    check(not len(open_runs), "runs", open_runs.value_counts().to_dict(), "all of them done or diverged",
          "run the sweep to its end")
    held_out = curves[curves.split == "validation"]
    check(held_out.domain.nunique() == 1, "domains", sorted(held_out.domain.unique()), "one held-out domain",
          "train on one domain")
    loss = held_out.set_index(["run_id", "step"]).loss
    start = loss.xs(0, level="step").reindex(runs.run_id).to_numpy()
    ends = pd.MultiIndex.from_frame(runs[["run_id", "steps"]].astype({"steps": int}))
    last = np.where(runs.status == "done", loss.reindex(ends).to_numpy(), np.inf)
    table = runs[["run_id", "schedule.peak", "training.seed", *columns]].rename(
        columns={"schedule.peak": "peak", "training.seed": "seed", **columns})
    named = [method(row) for row in runs.to_dict("records")]
    table = table.assign(method=named, failed=~(last < start), loss=np.fmin(last, start))
    return table.sort_values(["method", "peak", "seed"], ignore_index=True)


def diagnostic(store: Store, quantity: str) -> pd.DataFrame:
    """The diagnostics named QUANTITY.PATH: run_id, step, path, value. Raises ConfigError where there are none."""
    rows = store.read("diagnostics")
    name = rows.name if len(rows) else pd.Series(dtype=str)
    rows = rows[name.str.startswith(f"{quantity}.")]
    check(len(rows) > 0, "diagnostics", quantity, "rows of it in the store", "run the sweep with diagnostics.layers")
    path = rows.name.str.removeprefix(f"{quantity}.")
    return rows[["run_id", "step", "value"]].assign(path=path).reset_index(drop=True)


def by_seed(table: pd.DataFrame, method: str, peaks: Sequence[float]) -> pd.Series:
    """Mean loss over these rates, by seed. Raises ConfigError where the seeds lack one of them."""
    rows = table[(table.method == method) & np.isin(table.peak, peaks)]
    wide = rows.pivot(index="seed", columns="peak", values="loss")
    check(wide.shape[1] == len(peaks) and not wide.isna().any(axis=None), f"rates of {method}", list(wide.columns),
          f"{list(peaks)} with every seed", "run the sweep to its end")
    return wide.mean(axis=1)


def tuned(table: pd.DataFrame, method: str) -> pd.Series:
    """Loss of each seed at the rate that is best on average for the other seeds: no seed has a say in its own rate.

    Raises ConfigError for fewer than two seeds.
    """
    wide = table[table.method == method].pivot(index="seed", columns="peak", values="loss")
    check(len(wide) >= 2, f"seeds of {method}", len(wide), "2 or more, to choose a rate by the others", "train more")
    others = (wide.sum() - wide) / (len(wide) - 1)
    return pd.Series({seed: wide.at[seed, others.loc[seed].idxmin()] for seed in wide.index})


def best_rate(table: pd.DataFrame, method: str) -> float:
    """The rate with the lowest mean loss over seeds."""
    mean = table[table.method == method].groupby("peak").loss.mean()
    return float(mean.index.to_numpy()[mean.to_numpy().argmin()])


def methods_table(table: pd.DataFrame) -> pd.DataFrame:
    """One row a method: runs, those that failed, best rate, loss there (mean over seeds), loss tuned by other seeds."""
    rows = []
    for name in dict.fromkeys(table.method):
        part, best = table[table.method == name], best_rate(table, name)
        rows.append({"method": name, "runs": len(part), "failed": int(part.failed.sum()), "best rate": f"{best:.3g}",
                     "loss there": f"{by_seed(table, name, [best]).mean():.4f}",
                     "loss, tuned by other seeds": f"{tuned(table, name).mean():.4f}"})
    return pd.DataFrame(rows)


def less(first: pd.Series, second: pd.Series) -> pd.Series:
    """first - second of the seeds that both have."""
    return (first - second).dropna()


def tuned_claim(
    table: pd.DataFrame, statement: str, source: str, first: str, second: str, level: float, margin: float | None = None
) -> Claim:
    """Of the losses of two methods, each at the rate that the other seeds chose: first - second above 0, or within
    ±margin.
    """
    return claim(statement, source, f"loss at the own best rate, {first} less {second}",
                 less(tuned(table, first), tuned(table, second)), level, margin)


def limits(seeds: Sequence[int], own: Sequence[str] = ()) -> list[str]:
    """What none of these studies can tell, after what its own design cannot."""
    return [
        *own,
        f"Intervals are over {len(seeds)} seeds of weights and order of data, given one held-out set; they are not "
        "corrected for the number of claims",
        "One small transformer, one text, one length of training: nothing here says how the answers move with them",
    ]
