"""The report of the study `rewarm_replay`: the answer in a sentence, figures, claims, what is not identified."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from experiments.continual import claims_table, claims_text, plain, said
from experiments.critical_ratio_page import cost_table
from experiments.page import Page
from experiments.rewarm_replay import Findings, Settings, headline, labelled
from experiments.statistics import Interval
from scaling.figures import continual
from scaling.figures.style import png
from scaling.store import Store


def cells_table(found: Findings) -> pd.DataFrame:
    """Change of every domain from the trunk, one row a way to go on."""
    s = found.settings
    shown = found.cells[found.cells.change.notna()]
    shown = shown.assign(text=[said(Interval(*ends), "") for ends in shown[["change", "low", "high"]].to_numpy()])
    wide = shown.pivot_table(index=["kind", "rewarm", "replay", "n"], columns="domain", values="text", aggfunc="first")
    wide = wide[[s.old, s.new]].reset_index().rename_axis(columns=None)
    return wide.assign(rewarm=wide.rewarm.map("{:g}".format), replay=wide.replay.map("{:.0%}".format)).rename(
        columns={"kind": "way", "rewarm": "peak / trunk's", s.old: f"{s.old}, change", s.new: f"{s.new}, change"})


def effects_table(found: Findings) -> pd.DataFrame:
    """Differences between ways that a person may choose from."""
    ends = found.effects[["value", "low", "high"]].to_numpy()
    return found.effects[["contrast", "domain", "n"]].assign(
        **{"difference, nats/token": [said(Interval(*row), "") for row in ends]})


def summary(found: Findings) -> str:
    """What a person needs on the terminal."""
    return "\n".join([headline(found), "", cells_table(found).to_string(index=False), "", claims_text(found.claims)])


def record(found: Findings) -> dict[str, Any]:
    """fits.json: cells, contrasts, claims; the study fits no law."""
    return {"headline": headline(found), **plain(found)}


def figures(store: Store, found: Findings) -> dict[str, tuple[bytes, str]]:
    """PNG and caption by name."""
    s, table = found.settings, labelled(store, found.settings)
    level = f"{s.level:.0%} intervals over seeds"
    drawn = {
        "by_peak": (continual.by_peak(found.cells, (s.old, s.new)),
                    f"Change of both losses at the end of a branch, by re-warm peak and share of replay; {level}. 100% "
                    f"replay is the trunk's own {s.old} a second time."),
        "trade": (continual.trade(found.cells, s.old, s.new, {"infinite schedule": "infinite",
                                                              "from scratch": "scratch", "optimizer reset": "reset",
                                                              f"{s.epochs} passes over a subset": "epochs"}),
                  "Mean losses at the end: a line a re-warm peak, from no replay (upper end) to the most below 100%. "
                  "Lower and to the left is better."),
        "curves": (continual.curves(_lines(table, s), (s.old, s.new), "loss", "loss"),
                   f"Losses after the branch, mean and range over {len(s.seeds)} seeds; step 0 stands at 1."),
        "differences": (continual.differences(found.effects, s.margin),
                        f"The recipe (re-warmed to the trunk's peak, {s.recipe_replay:.0%} replay) less other ways, at "
                        f"the end; {level}. Grey: the margin of equality, set before the runs."),
    }
    return {name: (png(figure), caption) for name, (figure, caption) in drawn.items()}


def _lines(table: pd.DataFrame, s: Settings) -> dict[str, pd.DataFrame]:
    """Rows of the ways whose curves are worth a look."""
    def rows(kind: str, replay: float) -> pd.DataFrame:
        full = (table.kind != "rewarmed") | np.isclose(table.rewarm, 1.0)
        return table[(table.kind == kind) & full & np.isclose(table.replay, replay) & table.seed.isin(s.seeds)]

    return {
        "rate held, no replay": rows("held", 0.0), "re-warmed, no replay": rows("rewarmed", 0.0),
        f"re-warmed, {s.recipe_replay:.0%} replay": rows("rewarmed", s.recipe_replay),
        f"infinite, {s.recipe_replay:.0%} replay": rows("infinite", s.recipe_replay),
        "re-warmed, same data": rows("rewarmed", 1.0),
    }


def page(store: Store, found: Findings) -> tuple[Page, dict[str, bytes]]:
    """The page and its figures."""
    s, drawn = found.settings, figures(store, found)
    made = Page(f"What do re-warming and replay do to a model of {s.old} that goes on with {s.new}?")
    made.paragraph(headline(found), "answer")
    for name in ("by_peak", "trade", "curves"):
        made.figure(*drawn[name])
    made.heading("The simple recipe against other ways")
    made.figure(*drawn["differences"])
    made.table(effects_table(found))
    made.heading("Claims")
    made.table(claims_table(found.claims))
    made.heading("Every cell: change from the own trunk at the end, nats/token")
    made.table(cells_table(found))
    made.end(found.not_identified, [cost_table(store)], method(s))
    return made, {name: content for name, (content, _) in drawn.items()}


def method(s: Settings) -> list[str]:
    """How the numbers came about."""
    return [
        f"Trunks see a pool of {s.old} once, cosine to a tenth of the peak; replay shows windows of the same pool "
        f"again, {s.new} is new. Branches of {s.branch_steps} steps keep the optimizer's state unless said otherwise.",
        f"Re-warming: {s.rewarm_steps} steps, linear from 0, then a cosine to where the trunk ended. Rate held: the "
        "trunk's last rate.",
        "From scratch: as many steps as trunk and branch together, one cosine with the trunk's peak; once on all data "
        f"(the pool once, and a branch's steps of {s.new}), once on as many tokens of each domain as the recipe saw.",
        f"Infinite schedule: a trunk of its own with a cooldown to {s.held_level:g} of the peak over its first half, "
        "held into the branch, exponential over the branch's last quarter to where the cosine ends.",
        "Every number is a difference within a seed; intervals are Student's over the seeds of both kinds of run, at "
        f"{s.level:.0%}. An equality is reproduced when the whole interval lies within ±{s.margin:g} nats/token.",
        "Runs from scratch count as trunks in the table of cost.",
        "Made again from the store alone by python -m experiments.report.",
    ]
