"""The report of the study `adamp_effective_step`."""

from __future__ import annotations

import pandas as pd

from experiments.adamp_effective_step import BARE, INVARIANT, SGDP, lengths
from experiments.effect_pages import effect_page, record, summary
from experiments.optimizer_effects import Findings
from experiments.page import Page
from scaling.figures.optimizer_effects import loss_by_rate, over_steps
from scaling.store import Store

__all__ = ["page", "record", "summary"]


def effective_steps(store: Store, table: pd.DataFrame) -> pd.DataFrame:
    """η / ‖w‖² over its start, mean over the kernels of blocks: a panel a rate of SGD and a rate of Adam, of runs that
    trained; SGD without momentum is left out, since its rates are others.
    """
    trained = table.loc[~table.failed & (table.method != BARE), ["run_id", "method", "peak"]]
    rows = lengths(store)
    rows = rows[rows.group == INVARIANT].merge(trained, on="run_id")
    first = rows[rows.step == 0].set_index(["run_id", "path"]).norm.rename("first")
    rows = rows.join(first, on=["run_id", "path"])
    rows = rows.assign(value=(rows["first"] / rows.norm) ** 2)
    mean = rows.groupby(["run_id", "method", "peak", "step"], as_index=False).value.mean()
    family = mean.method.map(lambda name: "SGD" if name in ("SGD", SGDP) else "Adam")
    mean = mean.assign(panel=[f"{name}, rate {peak:.3g}" for name, peak in zip(family, mean.peak, strict=True)])
    return mean.assign(family=family).sort_values(["family", "peak", "method"], ascending=[False, True, True])


def page(store: Store, found: Findings) -> tuple[Page, dict[str, bytes]]:
    """The page and its figures."""
    figures = {
        "effective_step": (over_steps(effective_steps(store, found.table), "‖w_0‖² / ‖w‖²", log=True),
                           "Effective step η / ‖w‖² over its start, mean over the kernels of blocks; lines: mean over "
                           "seeds, bands: range. Rates at which no run of either trained are left out."),
        "loss_by_rate": (loss_by_rate({"": found.table}), "Final loss by peak rate, mean and range over seeds."),
    }
    method = [
        "Norms after sublayers (peri), of queries and keys, and squared ReLU make every kernel of a block "
        "scale-invariant. Constant rates, no warm-up, no clipping, no decay.",
        f"SGD's momentum is {found.settings.momentum:g}; without momentum the rates are 1 / (1 - momentum) times as "
        "high.",
    ]
    return effect_page(store, found, "Does momentum shrink the effective step, and does a projection help?", figures,
                       method)
