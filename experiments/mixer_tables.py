"""What the reports of studies of online mixers share: tables of what was chosen and what came of it, weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from experiments import mixers
from experiments.mixer_comparison import NAMES
from experiments.mixers import Settings
from scaling.store import Store


def ranking_table(rows: pd.DataFrame, domains: Sequence[str], rival: str, strengths: Mapping[str, float]
                  ) -> pd.DataFrame:
    """`differences` for a page: method, strength, cost, differences of loss and perplexity."""
    return pd.DataFrame([{
        "method": NAMES.get(row["method"], row["method"]),
        "strength": f"{strengths[row['method']]:g}" if row["method"] in strengths else "",
        "n": row["n"],
        f"loss less {rival}, nats/token": f"{row['value']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}]",
        "corrected": f"[{row['wide_low']:+.4f}, {row['wide_high']:+.4f}]",
        "perplexity": f"{row['perplexity']:+.3f} [{row['ppl_low']:+.3f}, {row['ppl_high']:+.3f}]",
        **{domain: f"{row[domain]:+.4f}" for domain in domains},
        "more runs": mixers.cost(row["method"], len(domains)),
    } for row in rows.to_dict("records")])


def trials_table(table: pd.DataFrame, settings: Settings, strengths: Mapping[str, float]) -> pd.DataFrame:
    """Mean loss over the tuning seeds of every strength tried, and which was chosen."""
    tuned = mixers.finals(table)
    tuned = tuned[tuned.seed.isin(settings.tuning_seeds)]
    means = tuned.groupby(["method", "strength"]).loss.agg(["mean", "size"]).reset_index()
    return pd.DataFrame([{
        "method": NAMES[row["method"]], "setting": settings.method(row["method"]).strength,
        "value": f"{row['strength']:g}", "n": row["size"], "mean loss": f"{row['mean']:.4f}",
        "chosen": "yes" if strengths[row["method"]] == row["strength"] else "",
    } for row in means.to_dict("records")])


def graph_table(graph: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """Skill-It's graph: relative drop of each domain's loss by training on one alone."""
    return pd.DataFrame([{"trained on": source, **{f"on {target}": f"{value:.3f}" for target, value in row.items()}}
                         for source, row in graph.items()])


def weights_by_method(store: Store, table: pd.DataFrame, settings: Settings, strengths: Mapping[str, float]
                      ) -> dict[str, pd.DataFrame]:
    """Weights of the chosen runs of the fresh seeds over steps, those that act on the last update last, by name."""
    logged = mixers.weights_table(store, "weights").merge(table[["run_id", "steps"]], on="run_id")
    logged = logged[logged.step < logged.steps]
    fresh = table[table.seed.isin(settings.seeds)]
    return {NAMES[name]: logged[logged.run_id.isin(fresh.run_id[(fresh.method == name) & (fresh.strength == strength)])]
            for name, strength in strengths.items()}
