"""The report of the study `swats_switch`."""

from __future__ import annotations

from experiments.effect_pages import effect_page, record, summary
from experiments.optimizer_effects import Findings
from experiments.page import Page
from experiments.swats_switch import ADAM, SGD, switched_shares
from scaling.figures.optimizer_effects import loss_by_rate, shares
from scaling.store import Store

__all__ = ["page", "record", "summary"]


def page(store: Store, found: Findings) -> tuple[Page, dict[str, bytes]]:
    """The page and its figures."""
    s, table = found.settings, found.table
    parts = {"Adam and SWATS": table[table.method != SGD], SGD: table[table.method.isin([ADAM, SGD])]}
    figures = {
        "switched": (shares(switched_shares(table, s), "share of runs that switched"),
                     f"Runs that switched, by tolerance, over rates and seeds; {s.level:.0%} intervals."),
        "loss_by_rate": (loss_by_rate(parts), "Final loss by peak rate, mean and range over seeds. A tolerance at "
                         "which no run switches lies on Adam's line."),
    }
    method = [
        "Linear warm-up, then the rate falls linearly to 0; after the switch SGD's rate falls with it. No clipping, no "
        "decay. SGD has momentum 0.9.",
        "A run's switch is where its held-out losses depart from those of the run that never switches, of the same "
        "seed and rate.",
    ]
    return effect_page(store, found, "When does SWATS switch, and does it pay?", figures, method)
