"""The report of the study `radam_warmup`."""

from __future__ import annotations

from experiments.effect_pages import effect_page, record, summary
from experiments.optimizer_effects import Findings
from experiments.page import Page
from scaling.figures.optimizer_effects import loss_by_rate
from scaling.store import Store

__all__ = ["page", "record", "summary"]


def page(store: Store, found: Findings) -> tuple[Page, dict[str, bytes]]:
    """The page and its figures."""
    s = found.settings
    figures = {"loss_by_rate": (
        loss_by_rate({f"β₂ = {b2:g}": found.table[found.table.b2 == b2] for b2 in s.memories}),
        f"Final loss by peak rate, mean and range over {len(s.seeds)} seeds.")}
    method = [
        "Post-norm transformers, no clipping, no decay; the rate falls linearly to 0. Warm-up: "
        f"{s.warmup_steps} steps, linear. High rates: those above the best of Adam with warm-up.",
        "RAdam published: plain momentum SGD until the rectification is defined; released: no step until then.",
    ]
    return effect_page(store, found, "Does RAdam do without warm-up what Adam does with it?", figures, method)
