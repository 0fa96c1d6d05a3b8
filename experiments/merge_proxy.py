"""Study: parameter averages of models trained on single domains, as a proxy for models trained on mixtures of them.

From a seed checkpoint one module a domain is trained; a mixture's proxy is the average of the modules with its shares
as weights (Na et al. 2024, arXiv 2410.15661). It is held against a model trained on the mixture from the same
checkpoint for as many tokens as one module. Beside it: modules from checkpoints of other seeds, the average of the
modules' losses, and models trained on the mixtures once more with another seed.

Letters: S seeds, M mixtures of two or more domains, K domains.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from experiments.claims import Claim, verdict
from experiments.continual import MEAN, claim, said, seeds_interval
from experiments.correlation import Pair, correlation_interval, gain_interval
from experiments.statistics import Interval
from scaling import fields
from scaling.config import Run
from scaling.fields import ConfigError, check, static
from scaling.store import Store
from scaling.sweeps.grid import Point

MERGED, CROSSED, LOSSES, AGAIN = (
    "merged modules", "modules of different starts", "mean of modules' losses", "trained with another seed")
OUTSIDE, INSIDE = "a domain outside", f"{MEAN}, none outside"
PREDICTORS = (MERGED, LOSSES, CROSSED, AGAIN)
_NA = "Na et al. 2024, arXiv 2410.15661"
_FRANKLE = "Frankle et al. 2020, arXiv 1912.05671"


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the configuration says of the study; `strong`: a rank correlation, `margin` in nats/token."""

    name: str = static()
    seeds: tuple[int, ...] = static()
    branch_steps: tuple[int, ...] = static()
    divisions: int = static()
    strong: float = static()
    margin: float = static()
    bootstrap: int = static()
    level: float = static()

    @property
    def longest(self) -> int:
        """Steps of the branches that the claims are about."""
        return max(self.branch_steps)


@dataclasses.dataclass(frozen=True)
class Findings:
    """All that the study concludes.

    `correlations`: as from `correlations`; `choices`: what the mixture that each predictor likes best loses; `levels`:
    losses of merged models less those of trained ones and of the seed checkpoint; `costs`: of either way.
    """

    settings: Settings
    correlations: pd.DataFrame
    choices: pd.DataFrame
    levels: pd.DataFrame
    costs: pd.DataFrame
    claims: list[Claim]
    not_identified: list[str]


def merges(branches: Sequence[Run], crossed: bool) -> list[Point]:
    """Points of averages as they are: for each branch on two or more domains, that of the branches of its seed and
    length on each domain alone, its shares as weights.

    `crossed`: each domain's branch from another seed, so that no two share a start. ConfigError where seeds are fewer
    than domains.
    """
    seeds = sorted({run.training.seed for run in branches})
    domains = branches[0].data.names
    check(not crossed or len(seeds) >= len(domains), "study.seeds", seeds, f"{len(domains)} or more, one a domain",
          "add some")
    modules = {_place(run): run.run_id for run in branches if len(_shares(run)) == 1}
    points = []
    for run in branches:
        shares, at, first = _shares(run), run.training.duration, seeds.index(run.training.seed)
        if len(shares) > 1:
            sources = {domain: seeds[(first + crossed * k) % len(seeds)] for k, domain in enumerate(domains)}
            (run_id, _), *others = [(modules[sources[domain], at, domain], share) for domain, share in shares.items()]
            points.append({
                "parent.run_id": run_id, "parent.others": dict(others), "parent.at": at, "parent.optimizer": "reset",
                "training.seed": run.training.seed, "data.mixture": run.data.mixture, "schedule.peak": 0.0,
                "training.duration": {"steps": 1}})
    return points


def _shares(run: Run) -> dict[str, float]:
    return {domain: share for domain, share in run.data.mixture[0][1] if share > 0}


def _place(run: Run) -> tuple:
    return run.training.seed, run.training.duration, next(iter(_shares(run)))


def losses(store: Store) -> pd.DataFrame:
    """One row a run of the study and held-out domain; the mean of the domains stands as one more domain.

    Columns: `kind` (seed checkpoint, trained, merged, crossed), `seed`, `steps` of the modules or the branch, `mixture`
    (shares by domain as JSON), `domain`, `loss` in nats/token: of merged models before their first step, of others
    after the last. Raises ConfigError where the store holds no averages.
    """
    runs, curves = store.read("runs"), store.read("curves")
    check(len(runs) > 0 and bool(runs.parent_others.notna().any()), "store", str(store.root), "runs that start from "
          "averages", "run the sweep to its end")
    runs = runs.set_index("run_id")
    averages = runs.parent_others.notna()
    facts = pd.DataFrame({
        "kind": [_kind(run, runs["training.seed"]) for run in runs.itertuples()], "seed": runs["training.seed"],
        "steps": np.where(averages, runs.parent_step, runs.steps).astype(int),
        "read_at": np.where(averages, 0, runs.steps),
        "mixture": [json.dumps(dict(json.loads(text)[0][1])) for text in runs["data.mixture"]]})
    facts = facts[averages | (runs.status == "done")]  # an average may be too bad to be trained
    table = curves[curves.split == "validation"].merge(facts, left_on="run_id", right_index=True)
    table = table.loc[table.step == table.read_at, [*facts.columns.drop("read_at"), "domain", "loss"]]
    keys = ["kind", "seed", "steps", "mixture"]
    mean = table.groupby(keys, as_index=False).loss.mean().assign(domain=MEAN)
    return pd.concat([table, mean], ignore_index=True)


def _kind(run: Any, seed_of: pd.Series) -> str:
    """`run`: a row of the table of runs."""
    if isinstance(run.parent_others, str):
        seeds = {seed_of[run_id] for run_id in [run.parent_id, *json.loads(run.parent_others)]}
        return "merged" if len(seeds) == 1 else "crossed"
    return "trained" if isinstance(run.parent_id, str) else "seed checkpoint"


def analyse(store: Store, study: Mapping[str, Any]) -> Findings:
    """Correlations of every predictor, choices, levels, costs, and the paper's claims."""
    s: Settings = fields.convert(Settings, study, "study")
    table = losses(store)
    cubes = {steps: Cube(table, steps) for steps in s.branch_steps}
    main = cubes[s.longest]
    return Findings(
        s, pd.concat([correlations(cube, s) for cube in cubes.values()], ignore_index=True),
        pd.concat([choices(cube, s) for cube in cubes.values()], ignore_index=True),
        pd.concat([levels(cube, s) for cube in cubes.values()], ignore_index=True),
        costs(store, s), claims(main, s), _not_identified(store, main, s))


class Cube:
    """Losses of modules, merged and trained models of one length, of the seeds of which nothing is missing."""

    def __init__(self, table: pd.DataFrame, steps: int) -> None:
        rows = table[(table.steps == steps) & (table.kind != "seed checkpoint")]
        wide = rows.pivot_table(index=["seed", "domain"], columns=["kind", "mixture"], values="loss")
        self.steps, self._start = steps, table[table.kind == "seed checkpoint"].set_index(["seed", "domain"]).loss
        self.mixtures = sorted(set(rows.mixture[rows.kind == "merged"]))
        single = sorted(set(rows.mixture[rows.kind == "trained"]) - set(self.mixtures))
        wanted = [("trained", mixture) for mixture in [*single, *self.mixtures]]
        wanted += [(kind, mixture) for kind in ("merged", "crossed") for mixture in self.mixtures]
        self._wide = wide.reindex(columns=pd.MultiIndex.from_tuples(wanted))
        complete = self._wide.notna().all(axis=1).groupby("seed").all()
        self.seeds = [int(seed) for seed in complete.index[complete]]
        if len(self.seeds) < 2:
            raise ConfigError(f"store: {len(self.seeds)} seeds with every run of {steps} steps ended; expected 2 or "
                              "more; run the sweep to its end")
        self.shares_MxK = np.array([list(json.loads(mixture).values()) for mixture in self.mixtures])
        self.domains = list(json.loads(self.mixtures[0]))
        self.single = [next(mixture for mixture in single if json.loads(mixture)[domain] == 1)
                       for domain in self.domains]

    def _of(self, kind: str, domain: str, mixtures: Sequence[str]) -> np.ndarray:
        rows = self._wide.xs(domain, level="domain").loc[self.seeds]
        return rows[[(kind, mixture) for mixture in mixtures]].to_numpy()

    def truth(self, domain: str) -> np.ndarray:
        """Loss of the models trained on the mixtures, [S, M]."""
        return self._of("trained", domain, self.mixtures)

    def start(self, domain: str) -> np.ndarray:
        """Loss of the seed checkpoints, [S]."""
        return self._start.xs(domain, level="domain").loc[self.seeds].to_numpy()

    def predicted(self, predictor: str, domain: str) -> np.ndarray:
        """What a predictor says of `truth`, [S, M]."""
        if predictor == LOSSES:
            return self._of("trained", domain, self.single) @ self.shares_MxK.T
        if predictor == AGAIN:
            return np.roll(self.truth(domain), 1, axis=0)
        return self._of({MERGED: "merged", CROSSED: "crossed"}[predictor], domain, self.mixtures)

    def pair(self, predictor: str, domain: str) -> list[Pair]:
        """All mixtures as one stratum."""
        return [(self.predicted(predictor, domain), self.truth(domain))]

    def full(self, predictor: str) -> list[Pair]:
        """The mixtures that hold every domain, for the mean of domains."""
        full_M = (self.shares_MxK > 0).all(axis=1)
        return [(proxy_SxM[:, full_M], truth_SxM[:, full_M]) for proxy_SxM, truth_SxM in self.pair(predictor, MEAN)]

    def unseen(self, predictor: str) -> list[Pair]:
        """A stratum a domain: its loss for the mixtures without it."""
        return [(proxy_SxM[:, without_M], truth_SxM[:, without_M])
                for k, domain in enumerate(self.domains) for without_M in [self.shares_MxK[:, k] == 0]
                for proxy_SxM, truth_SxM in self.pair(predictor, domain)]


def correlations(cube: Cube, s: Settings) -> pd.DataFrame:
    """One row a predictor and domain: rank and linear correlation with the truth, mean over seeds, with intervals.

    The domain OUTSIDE is the mean over domains of the correlation among the mixtures without it, INSIDE the mean of
    domains among the mixtures that hold all.
    """
    strata = {(predictor, domain): cube.pair(predictor, domain)
              for domain in [*cube.domains, MEAN] for predictor in PREDICTORS}
    strata |= {(predictor, INSIDE): cube.full(predictor) for predictor in PREDICTORS}
    strata |= {(predictor, OUTSIDE): cube.unseen(predictor) for predictor in PREDICTORS}
    rows = []
    for (predictor, domain), pairs in strata.items():
        rank, linear = (correlation_interval(pairs, ranks, s.bootstrap, s.level) for ranks in (True, False))
        rows.append({"steps": cube.steps, "domain": domain, "predictor": predictor,
                     "mixtures": sum(proxy.shape[1] for proxy, _ in pairs), "seeds": len(cube.seeds),
                     "spearman": rank.value, "low": rank.low, "high": rank.high,
                     "pearson": linear.value, "pearson_low": linear.low, "pearson_high": linear.high})
    return pd.DataFrame(rows)


def regrets(cube: Cube, predictor: str) -> pd.Series:
    """By seed: what the mixture that a predictor likes best loses on the mean of domains against the best one, nats per
    token, both by the models trained with the other seeds.
    """
    proxy_SxM, truth_SxM = cube.pair(predictor, MEAN)[0]
    others_SxM = (truth_SxM.sum(axis=0) - truth_SxM) / (len(truth_SxM) - 1)
    if predictor == AGAIN:  # the choice by the seed's own run
        proxy_SxM = truth_SxM
    chosen_S = others_SxM[np.arange(len(truth_SxM)), proxy_SxM.argmin(axis=1)]
    return pd.Series(chosen_S - others_SxM.min(axis=1), index=cube.seeds)


def choices(cube: Cube, s: Settings) -> pd.DataFrame:
    """One row a predictor: mean regret of its choice with the interval over seeds; last, of a mixture at random."""
    truth_SxM = cube.truth(MEAN)
    blind = pd.Series(truth_SxM.mean(axis=1) - truth_SxM.min(axis=1), index=cube.seeds)
    found = {**{predictor: regrets(cube, predictor) for predictor in PREDICTORS}, "a mixture at random": blind}
    return pd.DataFrame([{"steps": cube.steps, "predictor": name, **seeds_interval(values, s.level)._asdict()}
                         for name, values in found.items()])


def levels(cube: Cube, s: Settings) -> pd.DataFrame:
    """One row a kind of average and domain: its loss, mean over mixtures, less that of the trained models and less that
    of the seed checkpoint, with intervals over seeds.
    """
    rows = []
    for predictor in (MERGED, CROSSED):
        for domain in [*cube.domains, MEAN]:
            mean_S = cube.predicted(predictor, domain).mean(axis=1)
            for against, other_S in (("trained", cube.truth(domain).mean(axis=1)),
                                     ("seed checkpoint", cube.start(domain))):
                found = seeds_interval(pd.Series(mean_S - other_S), s.level)
                rows.append({"steps": cube.steps, "predictor": predictor, "domain": domain, "against": against,
                             **found._asdict()})
    return pd.DataFrame(rows)


def costs(store: Store, s: Settings) -> pd.DataFrame:
    """One row a way and length: runs, FLOPs and seconds of what is trained after the seed checkpoint, and of evaluating
    merged models, a third of a training step's FLOPs a token (forward pass only), whose seconds are all of theirs.
    """
    runs = store.read("runs")
    shares = runs["data.mixture"].map(lambda text: max(dict(json.loads(text)[0][1]).values()))
    domains = runs["data.domains"].map(lambda text: len(json.loads(text)))
    evaluation = domains * runs["evaluation.windows"] * runs["data.sequence"] * runs.flops_per_token / 3
    rows = []
    for steps in s.branch_steps:
        branch = runs.parent_id.notna() & runs.parent_others.isna() & (runs.steps == steps)
        average = runs.parent_others.notna() & (runs.parent_step == steps)
        for way, chosen, flops in (("modules", branch & (shares == 1), runs.flops),
                                   ("merged models, evaluated", average, evaluation),
                                   ("models trained on mixtures", branch & (shares < 1), runs.flops)):
            rows.append({"steps": steps, "way": way, "runs": int(chosen.sum()), "flops": float(flops[chosen].sum()),
                         "seconds": float(runs.wall_seconds[chosen].sum())})
    return pd.DataFrame(rows)


def claims(cube: Cube, s: Settings) -> list[Claim]:
    """The paper's claims, and what they take for granted, at one length."""
    count, level = s.bootstrap, s.level
    found = [_strong(f"The average of modules ranks mixtures by {domain} loss as trained models do",
                     cube.pair(MERGED, domain), s) for domain in [*cube.domains, MEAN]]
    found.append(_strong("The average of modules ranks mixtures by the loss of a domain outside them",
                         cube.unseen(MERGED), s))
    for other, statement, source in (
            (LOSSES, "Averaging the modules' parameters ranks mixtures better than averaging their losses",
             f"what the procedure of {_NA} must beat"),
            (CROSSED, "Modules from one seed checkpoint rank mixtures better than modules from different starts", _NA)):
        gain = gain_interval(cube.pair(MERGED, MEAN), cube.pair(other, MEAN), count, level)
        found.append(Claim(statement, source, f"{MEAN}, difference of rank correlations: {said(gain, '')}", *gain,
                           len(cube.mixtures), verdict(gain.low, gain.high, 0.0)))
    worse = cube.predicted(CROSSED, MEAN).mean(axis=1) - cube.start(MEAN)
    found.append(claim("The average of modules from different starts is worse than any of those starts", _FRANKLE,
                       f"{MEAN}, mean over mixtures, average less seed checkpoint", pd.Series(worse), level))
    regret = seeds_interval(regrets(cube, MERGED), level)
    found.append(Claim(
        f"The mixture that the averages like best is within {s.margin:g} nats/token of the best mixture",
        f"the use that {_NA} proposes",
        f"{MEAN}, loss given away: {said(regret)}", *regret, len(cube.seeds),
        verdict(-regret.high, -regret.low, -s.margin)))
    return found


def _strong(statement: str, strata_P: Sequence[Pair], s: Settings) -> Claim:
    rank, linear = (correlation_interval(strata_P, ranks, s.bootstrap, s.level) for ranks in (True, False))
    return Claim(statement, f"{_NA}: strongly correlated, here a Spearman correlation above {s.strong:g}",
                 f"Spearman {said(rank, '')}, Pearson {said(linear, '')}, {len(strata_P[0][0])} seeds", *rank,
                 sum(proxy.shape[1] for proxy, _ in strata_P), verdict(rank.low, rank.high, s.strong))


def cost_ratio(found: Findings, what: str) -> float:
    """FLOPs or seconds of training every mixture over those of the modules and of one evaluation a mixture."""
    rows = found.costs[found.costs.steps == found.settings.longest].set_index("way")
    cost, runs = rows[what].to_dict(), rows.runs.to_dict()
    trained = cost["models trained on mixtures"]
    evaluated = cost["merged models, evaluated"] / runs["merged models, evaluated"] * runs["models trained on mixtures"]
    return trained / (cost["modules"] + evaluated)


def headline(found: Findings) -> str:
    """The answer in one sentence."""
    s = found.settings
    rows = found.correlations[(found.correlations.steps == s.longest) & (found.correlations.domain == MEAN)]
    rank = {row.predictor: said(Interval(row.spearman, row.low, row.high), "")
            for row in rows.to_records(index=False)}
    first = rows.iloc[0]
    return (f"Over {first.mixtures} mixtures and {first.seeds} seeds, the loss of averaged modules (mean of domains) "
            f"has a rank correlation of {rank[MERGED]} with that of models trained on the mixtures for {s.longest} "
            f"steps, against {rank[LOSSES]} for the average of the modules' losses, {rank[AGAIN]} for training the "
            f"mixtures with another seed and {rank[CROSSED]} for modules of different starts, at "
            f"{1 / cost_ratio(found, 'flops'):.0%} of the FLOPs of training every mixture.")


def _not_identified(store: Store, cube: Cube, s: Settings) -> list[str]:
    """What the design cannot tell, and runs that have no last loss."""
    ended = store.read("runs").status.value_counts()
    lost = [f"{count} runs ended as {status}" for status, count in ended.items() if status != "done"]
    gone = sorted(set(s.seeds) - set(cube.seeds))
    if gone:
        lost.append(f"Seeds {', '.join(map(str, gone))} lack runs of {cube.steps} steps and are left out there")
    return [
        *lost,
        "Three partitions, one a domain, where the paper's are parts of one corpus (S2ORC, Wikipedia): "
        f"{len(cube.mixtures)} mixtures differ in their weights, not in what they are made of, and more widely than "
        "subsets of one corpus would",
        "A mixture's model sees as many tokens as one module; the modules together saw three times as many",
        "Intervals draw seeds and mixtures again; they are given the text, the held-out windows and the lattice, whose "
        "mixtures are no random sample, and are not corrected for the number of claims",
        "One model size, one seed checkpoint's age, one rate: nothing here says how the answers move with any of them",
    ]
