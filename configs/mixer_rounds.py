"""What studies of online mixers share: the rounds of their runs. Everything starts from equal shares of the domains.

First the static mixtures and every strength of the mixers that need no other run; then Skill-It, whose graph comes from
runs on one domain alone, and the final models of the proxies; then what was chosen, on fresh seeds; then the final
models of those proxies. A study gives its stages as `opening(c)` and more, its FOLLOW_UPS as `FOLLOW_UPS`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
from ml_collections import ConfigDict

from experiments import mixers
from experiments.mixers import Method, Settings
from experiments.mixture_design import Shares, lattice
from scaling import fields
from scaling.store import Store
from scaling.sweeps import grid
from scaling.sweeps.grid import Point
from scaling.sweeps.sweep import Stage

Graph = Mapping[str, Mapping[str, float]]


def methods(every: int, windows: int) -> dict[str, dict[str, Any]]:
    """The mixers that are compared; of each, the setting with three values is tuned. `every`: steps of a round."""
    held_out = {"windows": windows}
    return {
        "doremi": {"rate": (0.02, 0.1, 0.5), "smoothing": 1e-3},
        "doge": {"rate": (4.0, 20.0, 100.0)},
        "skill_it": {"rate": (0.1, 0.5, 2.5), "every": every, "window": 3, **held_out},
        "odm": {"memory": (0.5, 0.9, 0.99)},
        "odm_released": {"memory": (0.5, 0.9, 0.99)},
        "aioli": {"rate": (0.2, 1.0, 5.0), "memory": 1.0, "own": 0.75, "every": every, "interval": every // 16,
                  "passes": 1, **held_out},
        "bilevel": {"rate": (0.02, 0.1, 0.5), "penalty": 10.0, **held_out},
    }


def sized(c: ConfigDict, size: Mapping[str, Any]) -> dict[str, Any]:
    """Set the size of a configuration's runs, which start from equal shares; the settings that all such studies have.

    Evaluated are the last step of every second round, when Aioli does not probe, and the last two steps of all.
    """
    steps, every = size["steps"], size["steps"] // size["rounds"]
    c.model.update(size["model"])
    c.data.sequence, c.data.batch = size["sequence"], size["batch"]
    del c.data.mixture
    c.data.mixture = equal(c)
    c.training.duration = {"steps": steps}
    c.schedule.peak = size["peak"]
    c.schedule.warmup = {"steps": steps // 25}
    c.evaluation.points = None
    c.evaluation.steps = (*range(every - 1, steps, 2 * every), steps - 1, steps)
    c.evaluation.windows = size["windows"]
    return {
        "methods": methods(every, windows=32), "divisions": size["divisions"],
        "tuning_seeds": (0, 1),  # on which strengths and the best static mixture are chosen
        "seeds": tuple(range(10, 10 + size["seeds"])),  # on which what was chosen is compared
        "level": 0.95,
    }


def settings_of(c: ConfigDict) -> Settings:
    """The part of a study's settings that its rounds need."""
    common = fields.names(Settings)
    return fields.convert(Settings, {key: value for key, value in c.study.items() if key in common}, "study")


def domains_of(c: ConfigDict) -> list[str]:
    """The names of the domains, sorted."""
    return sorted(c.data.domains)


def equal(c: ConfigDict) -> Shares:
    """Stratified sampling."""
    return mixers.equal_shares(domains_of(c))


def static(mixtures: Sequence[Shares], seeds: Sequence[int]) -> list[Point]:
    """Static mixtures, each on every seed."""
    return grid.product({"data.mixture": mixtures, "training.seed": seeds})


def opening(c: ConfigDict) -> list[Stage]:
    """The lattice of static mixtures, stratified sampling, and every strength of the mixers that need no graph."""
    settings = settings_of(c)
    seeds = (*settings.tuning_seeds, *settings.seeds)
    return [
        Stage("lattice", static(lattice(domains_of(c), settings.divisions), settings.tuning_seeds)),
        Stage("stratified", static([equal(c)], seeds)),
        *_trials(c, "trials", {m: m.trials for m in settings.methods if m.name != "skill_it"}, settings.tuning_seeds),
    ]


def _prepared(c: ConfigDict, store: Store) -> list[Stage]:
    """Every strength of Skill-It under the estimated graph, and the final models of the proxies' trials."""
    settings = settings_of(c)
    table = mixers.runs_table(store, settings)
    skill_it = {method: method.trials for method in settings.methods if method.name == "skill_it"}
    graph = mixers.single_domain_graph(table, settings, domains_of(c))
    return [*_trials(c, "trials", skill_it, settings.tuning_seeds, graph),
            *_final_models(c, "final models of trials", table, settings.tuning_seeds)]


def _fresh(c: ConfigDict, store: Store) -> list[Stage]:
    """What was chosen, on the seeds that are compared."""
    settings, domains = settings_of(c), domains_of(c)
    table = mixers.runs_table(store, settings)
    strengths = mixers.chosen(table, settings)
    graph = mixers.single_domain_graph(table, settings, domains)
    best = mixers.best_static(table, settings, domains)
    return [Stage("best static", static([best], settings.seeds)),
            *_trials(c, "chosen", {m: [strengths[m.name]] for m in settings.methods}, settings.seeds, graph)]


def _finished(c: ConfigDict, store: Store) -> list[Stage]:
    """The final models of the chosen proxies."""
    settings = settings_of(c)
    return _final_models(c, "final models", mixers.runs_table(store, settings), settings.seeds)


FOLLOW_UPS = (_prepared, _fresh, _finished)


def _trials(
    c: ConfigDict, name: str, strengths: Mapping[Method, Iterable[float]], seeds: Sequence[int],
    graph: Graph | None = None,
) -> list[Stage]:
    """A stage a method; doremi starts from references of its own seeds, which are stratified runs."""
    stages = []
    for method, values in strengths.items():
        mixer = {"mixer": [method.mixer(value, graph) for value in values]}
        if method.name == "doremi":
            reference = f"{name}: references"
            branch = {"parent.at": [c.training.duration], "parent.optimizer": ["reset"]}
            stages += [Stage(reference, static([equal(c)], seeds)),
                       Stage(f"{name}: {method.name}", grid.product(branch, mixer), parent=reference)]
        else:
            stages.append(Stage(f"{name}: {method.name}", grid.product(mixer, static([equal(c)], seeds))))
    return stages


def _final_models(c: ConfigDict, name: str, table: pd.DataFrame, seeds: Sequence[int]) -> list[Stage]:
    """Static runs on the answers of the proxies of these seeds."""
    answers = mixers.answers_of(table, seeds)
    points = [{"data.mixture": mixers.shares_of(answer, domains_of(c)), "training.seed": seed}
              for answer, seed in zip(answers.answer, answers.seed.tolist(), strict=True)]
    return [Stage(name, points)] if points else []
