"""What studies of online mixers share: the methods with the strengths that are tried of each, what every run came to.

A method's strength is the one of its settings that is tuned. The methods of PROXIES weigh the training loss: their own
model's loss counts for nothing, but the weights that it ends with are the mixture that a final model is trained on.
The others draw by their weights, and are final themselves. Letters: K domains.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from experiments.mixture_design import Shares, lattice, rounded
from experiments.mixture_runs import label
from scaling import fields
from scaling.fields import ConfigError, check, static
from scaling.store import Store
from scaling.weighing import MIXER_SETTINGS

PROXIES = {"doremi": "mean_weights", "doge": "mean_weights", "bilevel": "weights"}  # which weights are their answer
STATIC = "static"
_SMALLEST = 5000  # an answer is rounded to multiples of 1/5000
# Reference and proxy; proxy; a model that sees as much held-out text as well, and its companion.
_COSTS = {"doremi": 2, "doge": 1, "bilevel": 3}


@dataclasses.dataclass(frozen=True)
class Method:
    """A mixer, the name of its strength, the values tried of it, its other settings."""

    name: str
    strength: str
    trials: tuple[float, ...]
    settings: tuple[tuple[str, Any], ...]

    def mixer(self, strength: float, graph: Mapping[str, Mapping[str, float]] | None) -> dict[str, Any]:
        """The section `mixer` of a run; `graph` for a method that needs one."""
        given = {"graph": graph} if "graph" in MIXER_SETTINGS[self.name] else {}
        return {"name": self.name, self.strength: strength, **dict(self.settings), **given}


def _methods(value: Any, path: str) -> tuple[Method, ...]:
    """Methods from {mixer: {setting: value}}: the setting whose value is a sequence is the strength."""
    found = []
    for name, settings in fields.nested_pairs(value, path) or ():
        fields.check_key(name, MIXER_SETTINGS, path)
        tried = [(key, item) for key, item in settings if isinstance(item, (tuple, list))]
        check(len(tried) == 1, f"{path}.{name}", dict(settings), "one setting with several values, which is tuned",
              "write those values as a tuple")
        (strength, trials), = tried
        rest = tuple((key, item) for key, item in settings if key != strength)
        found.append(Method(name, strength, tuple(map(float, trials)), rest))
    check(len({len(method.trials) for method in found}) == 1, path, value, "one or more methods with as many values "
          "tried of each", "add or drop some")
    return tuple(found)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the configuration says. `divisions` of the lattice of static mixtures; what is chosen is chosen on
    `tuning_seeds` and compared on `seeds`.
    """

    name: str = static()
    methods: tuple[Method, ...] = static(convert=_methods)
    divisions: int = static()
    tuning_seeds: tuple[int, ...] = static()
    seeds: tuple[int, ...] = static()
    level: float = static()

    def __post_init__(self) -> None:
        both = sorted(set(self.tuning_seeds) & set(self.seeds))
        check(not both, "study.seeds", both, "seeds on which nothing was chosen", "use others than study.tuning_seeds")

    def method(self, name: str) -> Method:
        """The method of that name."""
        return next(method for method in self.methods if method.name == name)


def equal_shares(domains: Sequence[str]) -> Shares:
    """Stratified sampling."""
    return {domain: 1 / len(domains) for domain in domains}


def cost(name: str, domains: int) -> int:
    """Training runs beside the final one that a method needs, tuning left out; skill_it: one on each domain."""
    return domains if name == "skill_it" else _COSTS.get(name, 0)


def weights_table(store: Store, quantity: str) -> pd.DataFrame:
    """A quantity of mixers (weights, mean_weights, drawn) at their evaluations: run_id, step, a column a domain."""
    rows = store.read("diagnostics")
    prefix = f"{quantity}."
    if len(rows):
        rows = rows[rows.name.str.startswith(prefix)]
    if not len(rows):
        raise ConfigError(f"store {store.root}: expected runs with a mixer; run the sweep to its end")
    wide = rows.assign(domain=rows.name.str.removeprefix(prefix)).pivot(
        index=["run_id", "step"], columns="domain", values="value")
    return wide.reset_index().rename_axis(columns=None)


def runs_table(store: Store, settings: Settings) -> pd.DataFrame:
    """One row a finished run: run_id, seed, steps, `method` (STATIC without a mixer) and its `strength`, `mixture` (as
    `label` writes it; where a mixer starts), `answer`, last held-out losses: `loss` (mean of domains, nats/token),
    `perplexity` (mean of exp(loss) of domains), loss_DOMAIN, and start_DOMAIN before the first step.

    `answer`: the weights that act on a mixer's last update (of doremi and doge their mean over steps), rounded, as
    `label` writes them; that update must be preceded by an evaluation.
    """
    runs, curves = store.read("runs"), store.read("curves")
    runs = runs[runs.status == "done"] if len(runs) else runs
    if not len(runs):
        raise ConfigError(f"store {store.root}: expected finished runs; run the sweep to its end")
    facts = pd.DataFrame({
        "run_id": runs.run_id, "seed": runs["training.seed"], "steps": runs.steps,
        "method": runs["mixer.name"].fillna(STATIC) if "mixer.name" in runs else STATIC,
        "mixture": [label(dict(json.loads(text)[0][1])) for text in runs["data.mixture"]]})
    facts["strength"] = np.nan
    for method in settings.methods:
        mine = facts.method == method.name
        if mine.any():
            facts.loc[mine, "strength"] = runs.loc[mine, f"mixer.{method.strength}"].astype(float)
    table = facts.merge(_losses(curves, facts), on="run_id")
    return table.merge(_answers(store, facts), on="run_id", how="left").sort_values(
        ["method", "strength", "mixture", "seed"], ignore_index=True)


def _losses(curves: pd.DataFrame, facts: pd.DataFrame) -> pd.DataFrame:
    held_out = curves[curves.split == "validation"].merge(facts[["run_id", "steps"]], on="run_id")
    last = held_out[held_out.step == held_out.steps].pivot(index="run_id", columns="domain", values="loss")
    start = held_out[held_out.step == 0].pivot(index="run_id", columns="domain", values="loss")
    return last.add_prefix("loss_").join(start.add_prefix("start_")).assign(
        loss=last.mean(axis=1), perplexity=np.exp(last).mean(axis=1)).reset_index()


def _answers(store: Store, facts: pd.DataFrame) -> pd.DataFrame:
    answers: dict[str, str] = {}
    mixed = facts[facts.method != STATIC]
    quantities = mixed.method.map(PROXIES).fillna("weights")
    for quantity in quantities.unique():
        mine = mixed.loc[quantities == quantity, ["run_id", "steps"]]
        table = weights_table(store, quantity).merge(mine, on="run_id")
        last = table[table.step == table.steps - 1].set_index("run_id").drop(columns=["step", "steps"])
        for run_id, shares_K in zip(last.index, last.to_numpy(), strict=True):
            answers[run_id] = label(rounded(dict(zip(last.columns, shares_K, strict=True)), _SMALLEST))
    missing = sorted(set(mixed.run_id) - set(answers))
    check(not missing, "evaluation.steps", f"of {missing[:3]}", "one step before the last among them", "add it")
    return pd.DataFrame({"run_id": list(answers), "answer": list(answers.values())}, dtype=object)


def shares_of(answer: str, domains: Sequence[str]) -> Shares:
    """The mixture that an `answer` names, over all domains."""
    parts = (part.rsplit(" ", 1) for part in answer.split(", "))
    found = {domain: float(share) for domain, share in parts}
    return {domain: found.get(domain, 0.0) for domain in domains}


def answers_of(table: pd.DataFrame, seeds: Sequence[int]) -> pd.DataFrame:
    """Mixtures that proxies of these seeds ask a final model for: rows of `runs_table`."""
    return table[table.method.isin(PROXIES) & table.seed.isin(seeds)]


def answers_table(
    table: pd.DataFrame, strengths: Mapping[str, float], settings: Settings, domains: Sequence[str]
) -> pd.DataFrame:
    """One row a mixer of the chosen strength and fresh seed: method, seed, and the shares of its answer by domain."""
    rows = table[table.seed.isin(settings.seeds)]
    rows = rows[rows.strength == rows.method.map(strengths)]
    shares = pd.DataFrame([shares_of(answer, domains) for answer in rows.answer], columns=list(domains))
    return rows[["method", "seed"]].reset_index(drop=True).join(shares)


def finals(table: pd.DataFrame) -> pd.DataFrame:
    """One row a method, strength and seed: the losses of its final model. For proxies, the run of as many steps on the
    static mixture that is their answer, of their own seed; none where that is not trained.
    """
    own = table[(table.method != STATIC) & ~table.method.isin(PROXIES)]
    proxies = table[table.method.isin(PROXIES)][["method", "strength", "seed", "steps", "answer"]]
    trained = table[table.method == STATIC].drop(columns=["method", "strength", "answer"])
    final = proxies.merge(trained, left_on=["seed", "steps", "answer"], right_on=["seed", "steps", "mixture"])
    return pd.concat([own, final], ignore_index=True)


def chosen(table: pd.DataFrame, settings: Settings) -> dict[str, float]:
    """Strength of each method with the least mean loss over the tuning seeds, of those whose runs all ended well.

    Raises ConfigError for a method without any.
    """
    tuned = finals(table)
    tuned = tuned[tuned.seed.isin(settings.tuning_seeds)]
    found = {}
    for method in settings.methods:
        trials = tuned[tuned.method == method.name].groupby("strength").loss.agg(["mean", "size"])
        whole = trials[trials["size"] == len(settings.tuning_seeds)]
        check(len(whole) > 0, f"study.methods.{method.name}", method.trials, "a value whose runs all ended well",
              "run the sweep to its end, or try others")
        found[method.name] = float(whole.reset_index().sort_values("mean").strength.iloc[0])
    return found


def best_static(table: pd.DataFrame, settings: Settings, domains: Sequence[str]) -> Shares:
    """The mixture of the lattice with the least mean loss over the tuning seeds."""
    by_label = {label(shares): shares for shares in lattice(domains, settings.divisions)}
    searched = table[(table.method == STATIC) & table.seed.isin(settings.tuning_seeds) & table.mixture.isin(by_label)]
    means = searched.groupby("mixture").loss.agg(["mean", "size"])
    whole = means[means["size"] == len(settings.tuning_seeds)]
    check(len(whole) > 0, "study.divisions", settings.divisions, "a lattice whose runs all ended well",
          "run the sweep to its end")
    return by_label[str(whole["mean"].idxmin())]


def single_domain_graph(table: pd.DataFrame, settings: Settings, domains: Sequence[str]) -> dict[str, dict[str, float]]:
    """Skill-It's graph, {trained on: {measured on: effect}}, from runs on one domain alone.

    A_ij = max(0, (L_j before - L_j after training on i) / L_j before), mean over the tuning seeds: the relative drop
    (Chen et al. 2024, arXiv 2411.05735, table of methods), and no edge where training on i does not help (Chen et al.
    2023, arXiv 2307.14430). ConfigError for a domain without such a run.
    """
    static = table[(table.method == STATIC) & table.seed.isin(settings.tuning_seeds)]
    graph = {}
    for source in domains:
        runs = static[static.mixture == label({source: 1.0})]
        check(len(runs) > 0, f"runs on {source} alone", 0, "one or more on the tuning seeds", "run the lattice")
        drops = {target: (1 - runs[f"loss_{target}"] / runs[f"start_{target}"]).mean() for target in domains}
        graph[source] = {target: max(0.0, float(drop)) for target, drop in drops.items()}
    return graph
