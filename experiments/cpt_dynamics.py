"""Study: do the dynamics of continual pre-training follow one law, whatever the schedule?

Trunks on the old domain are annealed to several loss potentials at two ages and go on with the new domain, alone or
with replay, under several schedules. The law (Wang et al. 2025, arXiv 2505.07796) is fitted to the whole curves of some
schedules and predicts those of the others. Each seed is a replication: its own runs, fits and errors.

How the paper counts re-warming is not recorded. Two readings compete on the seen curves: two recursions, in which each
phase has areas of its own and re-warming counts as its peak, and one recursion through both phases, in which it undoes
annealing.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from experiments.claims import Claim, verdict
from experiments.continual import claim, losses, seeds_interval
from scaling import fields, fitting
from scaling.config import Schedule
from scaling.duration import Duration
from scaling.fields import check, static
from scaling.fitting import Fit
from scaling.laws.annealing import CPT, CPT_REPLAY_NEW, CPT_REPLAY_OLD
from scaling.laws.schedule import areas, phase_areas
from scaling.optimizers.schedules import multipliers
from scaling.store import Store

_WANG = "Wang et al. 2025, arXiv 2505.07796"
PUBLISHED_R2 = {"old": 0.9944, "new": 0.9993}  # of whole curves, 106M parameters, pre-training and CPT set
PURE, REPLAY = "new domain alone", "with replay"
TWO, ONE = "two recursions", "one recursion"
WHOLE, EARLY, ALIKE = "whole curve", "its first tenth", "logged points alike"  # ALIKE: each counted once
CELL = ["seed", "start", "potential", "peak", "r", "domain", "step"]


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the configuration says of the study; `shift_margin` as a share of the shift, `shares` of the new domain."""

    name: str = static()
    old: str = static()
    new: str = static()
    seeds: tuple[int, ...] = static()
    early: int = static()
    anneal: int = static()
    potentials: tuple[float, ...] = static()
    between: float = static()
    branch_steps: int = static()
    evaluations: tuple[int, ...] = static()
    rewarm_steps: int = static()
    low_peak: float = static()
    shares: tuple[float, ...] = static()
    seen: tuple[str, ...] = static()
    unseen: tuple[str, ...] = static()
    momenta: tuple[float, ...] = static()
    shift_margin: float = static()
    level: float = static()

    def __post_init__(self) -> None:
        both = sorted({*self.seen} & {*self.unseen})
        check(not both, "study.unseen", both, "schedules that are not in study.seen", "drop them from one of the two")


@dataclasses.dataclass(frozen=True)
class Findings:
    """All that the study concludes.

    `choices`: objective on the seen curves by domain, reading and momentum, and which was `chosen`. `scores`: errors on
    unseen schedules, one row a part, form, domain and seed. `held_out`: the curves behind them. `potentials`,
    `shifts`: last losses by potential, and what the new domain changes against going on with the old one.
    """

    settings: Settings
    choices: pd.DataFrame
    scores: pd.DataFrame
    held_out: pd.DataFrame
    potentials: pd.DataFrame
    shifts: pd.DataFrame
    fits: dict[str, Fit]
    claims: list[Claim]
    not_identified: list[str]


def rates(row: Mapping[Any, Any]) -> np.ndarray:
    """Learning rate of every step of a run from its row, float64[T]. ConfigError where its schedule is not in steps."""
    warmup, decay = row["schedule.warmup.steps"], row.get("schedule.decay.steps")
    check(not pd.isna(warmup), "schedule.warmup", warmup, "a duration in steps", "give the study's durations in steps")
    last = None if decay is None or pd.isna(decay) else Duration(steps=int(decay))
    schedule = Schedule(row["schedule.name"], row["schedule.peak"], Duration(steps=int(warmup)), row["schedule.floor"],
                        last)
    length = 0 if last is None else last.in_steps(1)
    return schedule.peak * multipliers(schedule, int(warmup), length, int(row["steps"]))


@dataclasses.dataclass(frozen=True, eq=False)
class Branch:
    """A continual pre-training: its rates after those of trunk and annealing, and where these end."""

    facts: dict[str, Any]
    rates_T: np.ndarray
    start: int
    warmup: int
    rewarmup: int

    def areas(self, reading: str, momentum: float) -> dict[str, np.ndarray]:
        """S1pt, S2pt, S1cpt, S2cpt after 0, 1, ... updates of the branch, in learning rate x steps."""
        here = slice(self.start - 1, None)  # a loss after s updates has seen the first s rates
        if reading == TWO:
            found = phase_areas(self.rates_T, self.start, warmup=self.warmup, rewarmup=self.rewarmup,
                                momentum=momentum)
            return {name: area_T[here] for name, area_T in found.items()}
        s1_T, s2_T = (area_T[here] for area_T in areas(self.rates_T, warmup=self.warmup, momentum=momentum))
        return {"S1pt": np.full_like(s1_T, s1_T[0]), "S1cpt": s1_T - s1_T[0],
                "S2pt": np.full_like(s2_T, s2_T[0]), "S2cpt": s2_T - s2_T[0]}


def branch_of(run: Mapping[Any, Any], by_id: Mapping[Any, Mapping[Any, Any]]) -> Branch:
    """From the rows of a run, of the annealing that it starts from and of that one's trunk."""
    annealed = by_id[run["parent_id"]]
    trunk = by_id[annealed["parent_id"]]
    before_T = np.concatenate([rates(trunk)[:int(annealed["parent_step"])],
                               rates(annealed)[:int(run["parent_step"])]])
    facts = {"run_id": run["run_id"], "start": len(before_T), "potential": float(annealed["schedule.floor"]),
             "peak": run["schedule.peak"] / trunk["schedule.peak"]}
    warmups = int(trunk["schedule.warmup.steps"]), int(run["schedule.warmup.steps"])
    return Branch(facts, np.concatenate([before_T, rates(run)]), len(before_T), *warmups)


def curves(store: Store, s: Settings) -> tuple[pd.DataFrame, dict[str, Branch]]:
    """Logged points of every branch into the new domain, and the branches by run_id.

    Columns: run_id, CELL (start: steps of pre-training; peak over the trunk's; r: share of the new domain), schedule,
    lr, loss, last, `weight`: the steps for which a point stands, halfway to its neighbours, over their mean, so that a
    curve counts as if logged at equal distances. Raises ConfigError where a logged rate is not as configured.
    """
    table = losses(store, s.old)
    runs = store.read("runs").set_index("run_id", drop=False)
    second = runs[runs.parent_id.isin(runs.index[runs.parent_id.notna()]) & (runs.status == "done")]
    by_id: dict[Any, dict[Any, Any]] = runs.to_dict("index")
    branches = {run_id: branch_of(by_id[run_id], by_id) for run_id in second.index}
    facts = pd.DataFrame([branch.facts for branch in branches.values()])
    table = table[table.domain.isin([s.old, s.new])].drop(columns="peak").merge(facts, on="run_id")
    table["r"] = 1 - table.share
    for run_id, rows in table[table.step > 0].groupby("run_id"):
        acted = branches[run_id].rates_T[branches[run_id].start + rows.step.to_numpy() - 1]
        right = np.allclose(acted, rows.lr, rtol=1e-4, atol=1e-9)
        check(right, f"lr of run {run_id}", rows.lr.tolist()[:3], f"{acted.tolist()[:3]}, as its schedule gives",
              "analyse with the code that trained it")
    table = table.sort_values(["run_id", "domain", "step"], ignore_index=True)
    table["weight"] = table.groupby(["run_id", "domain"]).step.transform(_spacing)
    return table[["run_id", *CELL, "schedule", "lr", "loss", "last", "weight"]], branches


def _spacing(step: pd.Series) -> np.ndarray:
    """Steps nearest to each of the rising steps, over their mean."""
    step_M = step.to_numpy(float)
    edges = np.concatenate([step_M[:1], (step_M[1:] + step_M[:-1]) / 2, step_M[-1:]])
    return np.diff(edges) * len(step_M) / (step_M[-1] - step_M[0])


def with_areas(table: pd.DataFrame, branches: Mapping[str, Branch], reading: str, momentum: float) -> pd.DataFrame:
    """The table with S1pt, S2pt, S1cpt, S2cpt of every point, in a reading and at a momentum of the annealing area."""
    parts = []
    for run_id, rows in table.groupby("run_id"):
        found = branches[str(run_id)].areas(reading, momentum)
        parts.append(rows.assign(**{name: area_T[rows.step.to_numpy()] for name, area_T in found.items()}))
    return pd.concat(parts, ignore_index=True)


def analyse(store: Store, study: Mapping[str, Any]) -> Findings:
    """Fit the law to the seen schedules of every seed, predict the unseen ones, test the paper's claims."""
    s: Settings = fields.convert(Settings, study, "study")
    table, branches = curves(store, s)
    choices = choose(table, branches, s)
    fits, held_out = fit_all(table, branches, choices, s)
    scores = score(held_out, s.branch_steps)
    potentials, shifts = by_potential(table), shifts_of(table)
    claims = [*prediction_claims(scores, s), potential_claim(potentials, s), *shift_claims(shifts, s)]
    notes = _not_identified(store, fits, scores, s)
    return Findings(s, choices, scores, held_out, potentials, shifts, fits, claims, notes)


def choose(table: pd.DataFrame, branches: Mapping[str, Branch], s: Settings) -> pd.DataFrame:
    """Objective of the law on the seen schedules' mean curves over seeds, on the new domain alone, by domain, reading
    and momentum; `chosen` is the least of a domain. Never looks at an unseen schedule.
    """
    seen = table[table.schedule.isin(s.seen) & (table.r == 1)]
    design = [name for name in CELL if name not in ("seed", "step")] + ["schedule"]
    rows = []
    for reading, momentum in itertools.product((TWO, ONE), s.momenta):
        with_all = with_areas(seen, branches, reading, momentum)
        mean = with_all.groupby([*design, "step"], as_index=False)[["loss", "weight", *CPT.input_names]].mean()
        mean["run"] = mean.groupby(design).ngroup()
        for domain, points in mean.groupby("domain"):
            fit = fitting.fit(CPT, points, group="run", weights="weight", bootstrap=0)
            rows.append({"domain": domain, "reading": reading, "momentum": momentum, "objective": fit.value})
    choices = pd.DataFrame(rows)
    return choices.assign(chosen=choices.objective == choices.groupby("domain").objective.transform("min"))


def fit_all(
    table: pd.DataFrame, branches: Mapping[str, Branch], choices: pd.DataFrame, s: Settings
) -> tuple[dict[str, Fit], pd.DataFrame]:
    """The fit of each form, domain and seed in the chosen reading, and what it predicts of the unseen schedules."""
    laws = {(PURE, s.old): CPT, (PURE, s.new): CPT, (REPLAY, s.old): CPT_REPLAY_OLD, (REPLAY, s.new): CPT_REPLAY_NEW}
    chosen = choices[choices.chosen].set_index("domain")
    fits, held_out = {}, []
    for (form, domain), law in laws.items():
        own = with_areas(table[(table.domain == domain) & ((form == REPLAY) | (table.r == 1))], branches,
                         str(chosen.reading[domain]), float(chosen.momentum[domain]))
        for seed, rows in own.groupby("seed"):
            rows = rows.reset_index(drop=True)
            fit = fitting.fit(law, rows, weights="weight", bootstrap=0,
                              holdout=rows.schedule.isin(s.unseen).to_numpy())
            fits[f"{form}, {domain}, seed {seed}"] = fit
            held_out.append(predictions(rows, fit, s).assign(form=form))
    return fits, pd.concat(held_out, ignore_index=True)


def predictions(rows: pd.DataFrame, fit: Fit, s: Settings) -> pd.DataFrame:
    """Unseen schedules after the first step: `loss`, as `predicted`, and as the `mean` of the seen schedules there."""
    held = rows[rows.schedule.isin(s.unseen) & (rows.step > 0)]
    guess = rows[rows.schedule.isin(s.seen)].groupby(CELL).loss.mean().rename("mean")
    return held.assign(predicted=fit.predict(held)).join(guess, on=CELL)


def score(held_out: pd.DataFrame, steps: int) -> pd.DataFrame:
    """Errors over the unseen curves of a form, domain and seed: mean relative error of the `law` and of the `mean`
    curve, R2 of either; weighted but for the part ALIKE.
    """
    rows = []
    parts = {WHOLE: held_out, EARLY: held_out[held_out.step <= steps / 10], ALIKE: held_out.assign(weight=1.0)}
    grouped = pd.concat(parts, names=["part"]).groupby(["part", "form", "domain", "seed"], sort=False)
    for (part, form, domain, seed), points in grouped:
        average = functools.partial(np.average, weights=points.weight)
        spread = average((points.loss - average(points.loss)) ** 2)
        row = {"part": part, "form": form, "domain": domain, "seed": seed, "runs": points.run_id.nunique()}
        for name, guess in (("law", points.predicted), ("mean", points["mean"])):
            row |= {name: average(np.abs(guess / points.loss - 1)),
                    f"{name}_r2": 1 - average((guess - points.loss) ** 2) / spread}
        rows.append(row)
    return pd.DataFrame(rows)


def by_potential(table: pd.DataFrame) -> pd.DataFrame:
    """Last losses on the new domain alone after the longer pre-training, at the trunk's peak, by schedule."""
    chosen = table["last"] & (table.r == 1) & np.isclose(table.peak, 1.0) & (table.start == table.start.max())
    return table.loc[chosen, ["seed", "domain", "potential", "schedule", "loss"]].reset_index(drop=True)


def shifts_of(table: pd.DataFrame) -> pd.DataFrame:
    """Loss on the new domain alone less loss on the old domain alone, at a constant rate, point by point: `shift`."""
    rows = table[(table.schedule == "constant") & np.isclose(table.peak, 1.0) & table.r.isin([0.0, 1.0])]
    wide = rows.pivot_table(index=["seed", "domain", "start", "potential", "step", "last"], columns="r", values="loss")
    return (wide[1.0] - wide[0.0]).dropna().rename("shift").reset_index()


def prediction_claims(scores: pd.DataFrame, s: Settings) -> list[Claim]:
    """How well whole curves of unseen schedules are predicted, against the mean curve of the seen ones."""
    claims = []
    for role, domain in (("old", s.old), ("new", s.new)):
        r2 = scores[(scores.part == WHOLE) & (scores.form == PURE) & (scores.domain == domain)].set_index("seed").law_r2
        interval, bound = seeds_interval(r2, s.level), PUBLISHED_R2[role]
        claims.append(Claim(
            f"The law predicts whole curves of unseen schedules on the {role} domain with R2 above {bound}", _WANG,
            f"{domain}, R2 {interval.value:.4f} [{interval.low:.4f}, {interval.high:.4f}]", *interval, len(r2),
            verdict(interval.low, interval.high, bound)))
    for (form, name), rows in scores[scores.part == WHOLE].groupby(["form", "domain"], sort=False):
        errors = rows.set_index("seed")
        claims.append(claim(
            f"The law predicts unseen schedules better than the mean curve of the seen ones: {name}, {form}",
            _WANG, f"error {errors['law'].mean():.2%} against {errors['mean'].mean():.2%}, gain",
            100 * (errors["mean"] - errors["law"]), s.level, unit="points"))
    return claims


def potential_claim(potentials: pd.DataFrame, s: Settings) -> Claim:
    """Last loss on the new domain, lowest potential less highest, mean over schedules, by seed."""
    low, high = (potentials[(potentials.domain == s.new) & np.isclose(potentials.potential, p)]
                 .groupby("seed").loss.mean() for p in (min(s.potentials), max(s.potentials)))
    return claim("A model of higher loss potential ends lower on the new domain", _WANG,
                 f"{s.new} loss at the end, potential {min(s.potentials):g} less {max(s.potentials):g}, mean over "
                 "schedules", (low - high).dropna(), s.level)


def shift_claims(shifts: pd.DataFrame, s: Settings) -> list[Claim]:
    """Shift at the end from the later transfer point over that from the earlier one, mean over potentials, less 1."""
    claims = []
    for domain in (s.old, s.new):
        last = shifts[shifts["last"] & (shifts.domain == domain)]
        means = last.groupby(["seed", "start"])["shift"].mean().unstack()
        change = (means[means.columns.max()] / means[means.columns.min()] - 1).dropna()
        claims.append(claim(
            f"The shift of the {domain} loss does not depend on the transfer point, within {s.shift_margin:.0%}",
            _WANG, f"shift from step {means.columns.max()} over that from step {means.columns.min()}, less 1",
            change, s.level, s.shift_margin, unit=""))
    return claims


def _not_identified(store: Store, fits: Mapping[str, Fit], scores: pd.DataFrame, s: Settings) -> list[str]:
    """Refusals by parameter, and what the design cannot tell."""
    refused: dict[tuple[str, str, str], int] = {}
    for name, fit in fits.items():
        form = name.rsplit(", ", 1)[0]
        for refusal in fit.refusals:
            key = form, refusal.kind, ", ".join(refusal.parameters)
            refused[key] = refused.get(key, 0) + 1
    lost = int((store.read("runs").status != "done").sum())
    early, alike = (scores[scores.part == part][["law", "mean"]].mean() for part in (EARLY, ALIKE))
    return [
        f"In the first tenth of a branch the law misses by {early['law']:.1%} on average: the loss's rise and fall "
        "while the rate warms up is no part of its form. Points there count little, as each stands for few steps; with "
        f"every logged point counted alike it misses by {alike['law']:.2%}, the mean curve of the seen schedules by "
        f"{alike['mean']:.2%}",
        *(f"{form}: {kind} {parameters} in {count} of {len(s.seeds)} fits; the errors on unseen curves are measured, "
          "the parameters are not known" for (form, kind, parameters), count in refused.items()),
        *([f"{lost} runs did not end; they are left out"] if lost else []),
        f"Intervals are over {len(s.seeds)} seeds, each with its own runs and fits, given one set of held-out windows",
        "The reading of re-warming and the momentum of the annealing area are chosen on the seen schedules, for all "
        "seeds together; the paper's momentum of 0.999 spans more steps than a branch has",
        "One size; the law's form over sizes is not tested",
    ]
