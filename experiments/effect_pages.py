"""The report that studies of an optimizer's claimed effect share: answer, figures, claims, tables, cost, method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from experiments.continual import claims_table, claims_text, plain
from experiments.critical_ratio_page import cost_table
from experiments.optimizer_effects import Findings
from experiments.page import Page
from scaling.figures.style import png
from scaling.store import Store


def summary(found: Findings) -> str:
    """What a person needs on the terminal."""
    tables = [f"{title}\n{table.to_string(index=False)}\n" for title, table in found.details.items()]
    return "\n".join([found.headline, "", *tables, claims_text(found.claims)])


def record(found: Findings) -> dict[str, Any]:
    """fits.json: tables and claims; the study fits no law."""
    return plain({"headline": found.headline, "settings": found.settings, "details": found.details,
                  "claims": found.claims, "not_identified": found.not_identified})


def effect_page(
    store: Store, found: Findings, title: str, figures: Mapping[str, tuple[Figure, str]], method: Sequence[str]
) -> tuple[Page, dict[str, bytes]]:
    """The page and its figures; `figures`: with captions, by name; `method`: how the numbers came about."""
    drawn = {name: png(figure) for name, (figure, _) in figures.items()}
    made = Page(title)
    made.paragraph(found.headline, "answer")
    for name, (_, caption) in figures.items():
        made.figure(drawn[name], caption)
    made.heading("Claims")
    made.table(claims_table(found.claims))
    for heading, table in found.details.items():
        made.heading(heading)
        made.table(table)
    made.heading("What is not identified")
    made.items(found.not_identified)
    made.heading("Cost and method")
    made.table(cost_table(store))
    made.items([
        *method,
        "Losses are nats a token on held-out windows after the last step. A run that diverged, or ended above where it "
        "started, counts with the loss before its first update; crosses in the figures mark rates with such runs.",
        "Differences are within a seed; their intervals are Student's over seeds. A method's loss at its own best rate "
        "is, for each seed, that at the rate which is best for the other seeds.",
        "Made again from the store alone by python -m experiments.report.",
    ])
    return made, drawn
