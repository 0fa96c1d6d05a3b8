"""Study: what re-warming and replay do to a model that goes on with another domain, and what they save.

Trunks see the old domain once, with a cosine. Branches see the new one with a share of the old one's windows again
(replay), at a rate that stays where the trunk ended, or warms up and decays again (Ibrahim et al. 2024, arXiv
2403.08763; Gupta et al. 2023, arXiv 2308.04014). Beside them: the infinite schedule, an optimizer that forgets, several
passes over a subset (Guo et al. 2024, arXiv 2406.14833), and training from scratch for as many steps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from experiments.claims import Claim
from experiments.continual import MEAN, Contrast, by_seed, claim, losses, said, seeds_interval
from experiments.statistics import Interval
from scaling import fields
from scaling.fields import static
from scaling.store import Store

_IBRAHIM, _GUPTA, _GUO = (
    "Ibrahim et al. 2024, arXiv 2403.08763", "Gupta et al. 2023, arXiv 2308.04014", "Guo et al. 2024, arXiv 2406.14833")
KEYS = ["kind", "rewarm", "replay", "domain"]


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the configuration says of the study. Shares are of old data; `margin` in nats/token."""

    name: str = static()
    old: str = static()
    new: str = static()
    seeds: tuple[int, ...] = static()
    more_seeds: tuple[int, ...] = static()
    branch_steps: int = static()
    evaluations: tuple[int, ...] = static()
    rewarm_steps: int = static()
    dip_step: int = static()
    rewarm: tuple[float, ...] = static()
    replay: tuple[float, ...] = static()
    recipe_replay: float = static()
    epochs: int = static()
    held_level: float = static()
    margin: float = static()
    level: float = static()

    @property
    def recipe(self) -> dict[str, Any]:
        """Labels of the simple recipe: re-warmed to the trunk's peak, re-decayed, with replay."""
        return rewarmed(self.recipe_replay)


@dataclasses.dataclass(frozen=True)
class Findings:
    """All that the study concludes. `cells`: as from `cells`; `effects`: the contrasts with their intervals."""

    settings: Settings
    cells: pd.DataFrame
    effects: pd.DataFrame
    claims: list[Claim]
    not_identified: list[str]


def rewarmed(replay: float) -> dict[str, Any]:
    """Labels of branches re-warmed to the trunk's own peak."""
    return {"kind": "rewarmed", "rewarm": 1.0, "replay": replay}


def held(replay: float) -> dict[str, Any]:
    """Labels of branches whose rate stays where the trunk ended."""
    return {"kind": "held", "replay": replay}


def labelled(store: Store, s: Settings) -> pd.DataFrame:
    """`losses` with `kind` of run, `replay`, its share of old data, and `rewarm`, its peak over its trunk's.

    Kinds: trunk, held trunk (infinite schedule, not annealed), scratch; of branches: held (rate), rewarmed, epochs,
    reset, infinite.
    """
    table = losses(store, s.old)
    peaks = table.drop_duplicates("run_id").set_index("run_id").peak
    branch = table.parent_id.notna()
    kinds = {
        "infinite": branch & (table.schedule == "infinite"), "held": branch & (table.schedule == "constant"),
        "epochs": branch & table.subset.str.contains(f'"{s.new}"', regex=False),
        "reset": branch & (table.parent_optimizer == "reset"), "rewarmed": branch,
        "held trunk": table.schedule == "infinite", "trunk": np.isclose(table.share, 1.0),
    }
    return table.assign(kind=np.select(list(kinds.values()), list(kinds), "scratch"), replay=table.share,
                        rewarm=table.peak / table.parent_id.map(peaks))


def analyse(store: Store, study: Mapping[str, Any]) -> Findings:
    """Changes of every cell of the design, contrasts, and the papers' claims."""
    s: Settings = fields.convert(Settings, study, "study")
    table = labelled(store, s)
    effects = pd.DataFrame([_effect(contrast, table, s.level) for contrast in contrasts(s, table)])
    return Findings(s, cells(table, s), effects, claims(table, s), _not_identified(store, s))


def cells(table: pd.DataFrame, s: Settings) -> pd.DataFrame:
    """One row a kind of run, re-warm peak, replay share and domain, after the last step: `n` seeds, mean `loss`, and
    `change` from the own trunk with its interval, `low` to `high` (nan without a trunk). Over the seeds of every kind
    alone, so that levels compare.
    """
    rows = []
    for key, part in table[table["last"] & table.seed.isin(s.seeds)].groupby(KEYS, dropna=False):
        change = seeds_interval(part.change.dropna(), s.level)
        rows.append({**dict(zip(KEYS, key, strict=True)), "n": len(part), "loss": part.loss.mean(),
                     "change": change.value, "low": change.low, "high": change.high})
    return pd.DataFrame(rows)


def scratch_shares(table: pd.DataFrame) -> tuple[float, float]:
    """Shares of old data of the two unions: all data, and as much of each domain as the recipe saw."""
    shares = np.sort(table.share[table.kind == "scratch"].unique())
    fields.check(len(shares) == 2, "shares of old data in runs from scratch", shares.tolist(),
                 "two, all data and the recipe's", "run the sweep to its end")
    return float(shares[0]), float(shares[1])


def contrasts(s: Settings, table: pd.DataFrame) -> list[Contrast]:
    """What differs between ways that a person may choose from, by domain, at the end."""
    all_data, matched = scratch_shares(table)
    ways: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "recipe less from scratch, same tokens of each domain": (s.recipe, {"kind": "scratch", "replay": matched}),
        "recipe less from scratch, all data": (s.recipe, {"kind": "scratch", "replay": all_data}),
        "recipe less infinite schedule": (s.recipe, {"kind": "infinite"}),
        "recipe less rate held": (s.recipe, held(s.recipe_replay)),
        "recipe less optimizer reset": (s.recipe, {"kind": "reset"}),
        f"recipe less {s.epochs} passes over a subset": (s.recipe, {"kind": "epochs"}),
        "recipe less no replay": (s.recipe, rewarmed(0.0)),
    }
    return [Contrast(name, first, second, domain) for name, (first, second) in ways.items()
            for domain in (s.old, s.new, MEAN)]


def _effect(contrast: Contrast, table: pd.DataFrame, level: float) -> dict[str, Any]:
    pairs = contrast.pairs(table)
    return {"contrast": contrast.name, "domain": contrast.domain, "n": len(pairs),
            **seeds_interval(pairs, level)._asdict()}


def claims(table: pd.DataFrame, s: Settings) -> list[Claim]:
    """The papers' claims against paired differences."""
    return [*forgetting_claims(table, s), *rewarming_claims(table, s), *match_claims(table, s), *gap_claims(table, s)]


def forgetting_claims(table: pd.DataFrame, s: Settings) -> list[Claim]:
    """What replay saves of the old domain, and what it costs of the new one."""
    less = Contrast(f"{s.old} loss at the end, no replay less {s.recipe_replay:.0%}", rewarmed(0.0), s.recipe, s.old)
    cost = Contrast(f"{s.new} loss at the end, {s.recipe_replay:.0%} replay less none", s.recipe, rewarmed(0.0), s.new)
    saved, paid = less.pairs(table), cost.pairs(table)
    return [
        claim("Replay reduces forgetting", f"{_IBRAHIM}: loss on the old data +1.39 without, +0.16 with 25%",
              less.name, saved, s.level),
        claim("Replay saves more of the old domain than it costs of the new one", _IBRAHIM,
              "saved less paid", (saved - paid).dropna(), s.level),
    ]


def rewarming_claims(table: pd.DataFrame, s: Settings) -> list[Claim]:
    """What re-warming does to either domain soon after it and at the end."""
    def early(domain: str, replay: float) -> Contrast:
        return Contrast(f"{domain} loss after {s.dip_step} steps, re-warmed less rate held", rewarmed(replay),
                        held(replay), domain, s.dip_step)

    again = Contrast(f"{s.old} loss at the end, re-warmed less rate held", rewarmed(1.0), held(1.0), s.old)
    later = Contrast(f"{s.new} loss at the end, rate held less re-warmed", held(0.0), rewarmed(0.0), s.new)
    infinite = Contrast(f"{s.old} loss", s.recipe, {"kind": "infinite"}, s.old, s.dip_step)
    rise = by_seed(table, infinite.first, s.old, s.dip_step, "change") - by_seed(
        table, infinite.second, s.old, s.dip_step, "change")
    asked: list[tuple[str, str, Contrast]] = [
        ("Re-warming first raises the loss on the old data", _GUPTA, early(s.old, 0.0)),
        ("Re-warming first raises the loss on the new data", _GUPTA, early(s.new, 0.0)),
        ("Re-warming lowers the loss on the new data in the long run", _GUPTA, later),
        ("Re-warming first raises the loss even on the same data", f"{_GUPTA}; {_IBRAHIM}", early(s.old, 1.0)),
        ("Re-warming on the same data still hurts at the end", f"{_GUPTA}; {_IBRAHIM}", again),
    ]
    return [
        *(claim(statement, source, each.name, each.pairs(table), s.level) for statement, source, each in asked),
        claim("When re-warmed with replay, the loss on the old data rises and then recovers",
              f"{_IBRAHIM}; {_GUO}", f"smaller of the rise after {s.dip_step} steps and the fall from there to the end",
              rise_and_recovery(table, s), s.level),
        claim("The infinite schedule avoids the rise that re-warming brings", _IBRAHIM,
              f"rise of {s.old} loss from the own trunk after {s.dip_step} steps, recipe less infinite",
              rise.dropna(), s.level),
    ]


def rise_and_recovery(table: pd.DataFrame, s: Settings) -> pd.Series:
    """Of the recipe's old-domain loss, by seed: the smaller of its rise by `dip_step` and its fall after it."""
    dip = by_seed(table, s.recipe, s.old, s.dip_step, "change")
    end = by_seed(table, s.recipe, s.old, column="change")
    return (dip - end).where(end > 0, dip).dropna()  # the fall is the smaller one where the end lies above the start


def match_claims(table: pd.DataFrame, s: Settings) -> list[Claim]:
    """Whether the simple recipe is as good, on the mean of both domains, as what costs more or plans ahead."""
    all_data, matched = scratch_shares(table)
    within = f"within {s.margin:g} nats/token"
    asked: list[tuple[str, dict[str, Any]]] = [
        (f"The simple recipe matches training from scratch on as many tokens of each domain {within}",
         {"kind": "scratch", "replay": matched}),
        (f"The simple recipe matches training from scratch on all data {within}",
         {"kind": "scratch", "replay": all_data}),
        (f"The infinite schedule matches the re-warmed cosine {within}", {"kind": "infinite"}),
    ]
    return [claim(statement, _IBRAHIM, f"{MEAN}, recipe less the other",
                  Contrast("", s.recipe, other, MEAN).pairs(table), s.level, s.margin) for statement, other in asked]


def gap_claims(table: pd.DataFrame, s: Settings) -> list[Claim]:
    """What is said to shrink the stability gap."""
    passes = Contrast(f"{s.new} loss at the end, one pass less {s.epochs} passes", s.recipe, {"kind": "epochs"}, s.new)
    near = max(share for share in s.replay if share < 1)
    gap = Contrast(f"{s.old} loss after {s.dip_step} steps, no replay less {near:.0%}", rewarmed(0.0), rewarmed(near),
                   s.old, s.dip_step)
    return [
        claim(f"{s.epochs} passes over a subset of the new data end lower on it than one pass over as many tokens",
              _GUO, passes.name, passes.pairs(table), s.level),
        claim("A mixture closer to pre-training's makes the early rise on the old data smaller", _GUO, gap.name,
              gap.pairs(table), s.level),
    ]


def forgotten(found: Findings, replay: float) -> Interval:
    """Change of the old-domain loss at the end of branches re-warmed to the trunk's peak."""
    rows = found.cells
    chosen = (rows.kind == "rewarmed") & np.isclose(rows.rewarm, 1.0) & np.isclose(rows.replay, replay)
    cell, = rows[chosen & (rows.domain == found.settings.old)].to_dict("records")
    return Interval(cell["change"], cell["low"], cell["high"])


def headline(found: Findings) -> str:
    """The answer in one sentence."""
    s = found.settings
    without, kept = (said(forgotten(found, replay), "") for replay in (0.0, s.recipe_replay))
    match = next(each for each in found.claims if "as many tokens" in each.statement)
    difference = said(Interval(match.value, match.low, match.high))
    return (f"Re-warmed to its old peak, a model trained on {s.old} changes its {s.old} loss by {without} nats/token "
            f"when it goes on with {s.new} alone, and by {kept} with {s.recipe_replay:.0%} replay; against training "
            f"from scratch for as many steps that recipe differs by {difference} on the mean of both domains "
            f"(equal within {s.margin:g}: {match.verdict}; n = {match.n} seeds).")


def _not_identified(store: Store, s: Settings) -> list[str]:
    """What the design cannot tell, and runs that have no last loss."""
    runs = store.read("runs")
    ended = runs.status.value_counts()
    lost = [f"{count} runs ended as {status}; their pairs are left out" for status, count in ended.items()
            if status != "done"]
    return [
        *lost,
        f"Intervals are over {len(s.seeds)} seeds of weights and order of data ({len(s.more_seeds)} more of the recipe "
        f"and from scratch), given one pool of {s.old}, one subset of {s.new} and one set of held-out windows; "
        "they are not corrected for the number of claims",
        "One model size, one pair of domains, one length of trunk and branch: nothing here says how the answers move "
        "with any of them",
        f"'{s.epochs} passes' are of a random subset: the second strategy against the stability gap, a subset of high "
        "quality, is not tested, as no quality of a document is known here",
        "Every way has the same peak; none was tuned for the way it is used in",
    ]
