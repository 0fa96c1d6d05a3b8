"""Study: where normalization stands in a block and of what kind it is, against loss, depth and the learning rate.

Every placement is trained at every depth and rate, every kind at one depth and every rate, all at the same seeds, so
that claims are differences within a seed. LayerNorm and RMSNorm of a centred stream, one function in real arithmetic,
are trained beside each other in float64.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from experiments.claims import Claim, verdict
from experiments.continual import claim
from experiments.lr_sensitivity import by_seed, of_arm
from experiments.rate_runs import capped, ended
from scaling import fields
from scaling.fields import check, static
from scaling.store import Store

LAYERNORM, PLACED, CENTRED = "layernorm", "rmsnorm", "centred rmsnorm"  # every placement is tried with PLACED
KINDS = (LAYERNORM, PLACED, CENTRED, "crmsnorm", "powernorm", "unified")
_XIONG, _PERI, _SCALED, _RMS, _JIANG, _POWER, _UNIFIED = (
    "Xiong et al. 2020, arXiv 2002.04745", "Kim et al. 2025, arXiv 2502.02732", "Sun et al. 2025, arXiv 2502.05795",
    "Zhang & Sennrich 2019, arXiv 1910.07467", "Jiang et al. 2023, arXiv 2305.14858",
    "Shen et al. 2020, arXiv 2003.07845", "Yang et al. 2022, arXiv 2208.01313")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the configuration says of the study. `warmup` and `exact_steps` in steps, `margin` and `rounding` in
    nats/token.
    """

    name: str = static()
    domain: str = static()
    placements: tuple[str, ...] = static()
    depths: tuple[int, ...] = static()
    kinds_depth: int = static()
    rates: tuple[float, ...] = static()
    seeds: tuple[int, ...] = static()
    warmup: int = static()
    exact_steps: int = static()
    margin: float = static()
    rounding: float = static()
    level: float = static()

    def __post_init__(self) -> None:
        check(len(self.depths) >= 2, "study.depths", self.depths, "two or more, for a slope in depth", "add one")
        check(self.kinds_depth in self.depths, "study.kinds_depth", self.kinds_depth,
              f"one of study.depths = {self.depths}, where RMSNorm is trained", "use the first")


@dataclasses.dataclass(frozen=True)
class Arm:
    """What is trained at every rate and seed."""

    depth: int
    placement: str = "pre"
    kind: str = PLACED
    warmup: bool = True

    def __str__(self) -> str:
        kind = "" if self.kind == PLACED else f" {self.kind}"
        return f"{self.placement}{kind}, depth {self.depth}{'' if self.warmup else ', no warm-up'}"


@dataclasses.dataclass(frozen=True)
class Findings:
    """`losses`: runs in float32 with arm (text), depth, placement, kind, warmup, lr, seed, initial, loss (inf where
    diverged), capped. `arms`: arm, seed, sensitivity, best (loss at the best rate of the mean over seeds), rate.
    `exact`: seed, split, step, difference of equal functions in float64.
    """

    settings: Settings
    losses: pd.DataFrame
    arms: pd.DataFrame
    exact: pd.DataFrame
    claims: list[Claim]
    not_identified: list[str]


def model_of(kind: str, norm_warmup: int) -> dict[str, Any]:
    """The fields of a model that say its kind of norm, by dotted name."""
    running = kind in ("powernorm", "unified")
    return {"model.norm": PLACED if kind == CENTRED else kind, "model.centred": kind == CENTRED,
            "model.norm_warmup": norm_warmup if running else None}


def settings_of(study: Mapping[str, Any]) -> Settings:
    """The study's settings, converted as strictly as a run's."""
    return fields.convert(Settings, study, "study")


def analyse(store: Store, study: Mapping[str, Any]) -> Findings:
    """Losses and sensitivities of every arm, equal functions against each other, the papers' claims."""
    s = settings_of(study)
    losses, exact = losses_of(store, s), differences(store)
    arms = pd.concat([of_arm(str(name), rows) for name, rows in losses.groupby("arm", sort=False)], ignore_index=True)
    claims = [*depth_claims(arms, s), *warmup_claims(losses, arms, s), *rate_claims(losses, arms, s),
              *kind_claims(arms, s), *exact_claims(exact, s)]
    return Findings(s, losses, arms, exact, claims, _not_identified(losses, arms, s))


def losses_of(store: Store, s: Settings) -> pd.DataFrame:
    """Runs in float32 by arm, rate and seed. ConfigError unless every arm has one at each."""
    runs = store.read("runs")
    facts = pd.DataFrame({
        "run_id": runs.run_id, "depth": runs["model.depth"], "placement": runs["model.placement"],
        "kind": np.where(runs["model.centred"].astype(bool), CENTRED, runs["model.norm"]),
        "warmup": runs["schedule.warmup.steps"] > 0})[runs["training.dtype"] == "float32"]
    table = facts.merge(ended(store, s.domain), on="run_id")
    names = [str(Arm(*row)) for row in zip(table.depth, table.placement, table.kind, table.warmup, strict=True)]
    counts = table.groupby(names).size()
    lacking = sorted(counts.index[counts != len(s.rates) * len(s.seeds)])
    check(not lacking, "store", lacking, f"runs at {len(s.rates)} rates and {len(s.seeds)} seeds of every arm",
          "run the sweep to its end")
    return table.assign(arm=names, capped=capped(table)).sort_values(["arm", "lr", "seed"], ignore_index=True)


def best_rate(store: Store, s: Settings, arm: Arm) -> float:
    """The rate of an arm whose mean loss over seeds is least."""
    losses = losses_of(store, s)
    return float(of_arm(str(arm), losses[losses.arm == str(arm)]).rate.iloc[0])


def differences(store: Store) -> pd.DataFrame:
    """LayerNorm's loss less that of the centred RMSNorm in float64: seed, split, step, difference in nats/token.

    ConfigError where they do not stand beside each other at every seed and step.
    """
    runs = store.read("runs")
    double = runs.loc[runs["training.dtype"] == "float64", ["run_id", "training.seed", "model.norm"]]
    rows = store.read("curves").merge(double, on="run_id")
    wide = rows.pivot(index=["training.seed", "split", "step"], columns="model.norm", values="loss")
    whole = {LAYERNORM, PLACED} == set(wide) and not wide.isna().to_numpy().any()
    check(whole, "runs in float64", sorted(wide), f"{LAYERNORM} and {PLACED} at the same seeds and steps",
          "run the sweep to its end")
    exact = (wide[LAYERNORM] - wide[PLACED]).rename("difference").reset_index()
    return exact.rename(columns={"training.seed": "seed"})


def gain(arms: pd.DataFrame, s: Settings, placement: str, column: str = "best") -> pd.DataFrame:
    """Pre less another placement, each at its own best rate: a row a seed, a column a depth."""
    def of(depth: int, placement: str) -> pd.Series:
        return by_seed(arms, str(Arm(depth, placement)), column)

    return pd.DataFrame({depth: of(depth, "pre") - of(depth, placement) for depth in s.depths})


def slope(gain_SxL: pd.DataFrame) -> pd.Series:
    """By seed, the least-squares slope against the log2 of depth, the columns."""
    z_L = np.log2(gain_SxL.columns.to_numpy(dtype=float))
    z_L = z_L - z_L.mean()
    return (gain_SxL * z_L).sum(axis=1) / (z_L**2).sum()


def at_rate(losses: pd.DataFrame, arm: Arm, rate: float) -> pd.Series:
    """Capped losses of an arm at one rate by seed."""
    return losses[(losses.arm == str(arm)) & (losses.lr == rate)].set_index("seed").capped


def above_layernorm(arms: pd.DataFrame, s: Settings, kind: str, column: str = "best") -> pd.Series:
    """A kind less LayerNorm by seed, each at its own best rate."""
    first, second = (by_seed(arms, str(Arm(s.kinds_depth, kind=name)), column) for name in (kind, LAYERNORM))
    return first - second


def depth_claims(arms: pd.DataFrame, s: Settings) -> list[Claim]:
    """What placements gain on Pre as models get deeper."""
    last, per = s.depths[-1], "nats/token a doubling of depth"
    peri, scaled, post = (gain(arms, s, name) for name in ("peri", "scaled", "post"))
    return [
        claim("What Peri gains on Pre grows with depth", _PERI, "slope of Pre less Peri", slope(peri), s.level,
              unit=per),
        claim("Peri ends lower than Pre at the largest depth", _PERI, f"depth {last}, Pre less Peri", peri[last],
              s.level),
        claim("What LayerNorm Scaling gains on Pre grows with depth", _SCALED, "slope of Pre less scaled",
              slope(scaled), s.level, unit=per),
        claim("LayerNorm Scaling ends lower than Pre at the largest depth", _SCALED, f"depth {last}, Pre less scaled",
              scaled[last], s.level),
        claim("Post falls behind Pre as depth grows", f"{_PERI}; {_SCALED}", "slope of Post less Pre", slope(-post),
              s.level, unit=per),
    ]


def warmup_claims(losses: pd.DataFrame, arms: pd.DataFrame, s: Settings) -> list[Claim]:
    """What warm-up is worth to Post and to Pre at the largest depth."""
    last = s.depths[-1]
    lost, retuned = {}, {}
    for placement in ("pre", "post"):
        warm, cold = Arm(last, placement), Arm(last, placement, warmup=False)
        best = by_seed(arms, str(warm), "best")
        rate = float(arms.rate[arms.arm == str(warm)].iloc[0])
        lost[placement] = at_rate(losses, cold, rate) - best
        retuned[placement] = by_seed(arms, str(cold), "best") - best
    what = f"depth {last}, without less with {s.warmup} steps of warm-up"
    same = f"{what}, at the rate that is best with it"
    return [
        claim("Post ends higher without warm-up", _XIONG, f"Post, {same}", lost["post"], s.level),
        claim("Warm-up is worth more to Post than to Pre", _XIONG, f"{same}, Post's less Pre's",
              lost["post"] - lost["pre"], s.level),
        claim(f"Pre needs no warm-up: without, its loss is equal within {s.margin:g} nats/token", _XIONG,
              f"Pre, {what}, each at its best rate", retuned["pre"], s.level, s.margin),
    ]


def rate_claims(losses: pd.DataFrame, arms: pd.DataFrame, s: Settings) -> list[Claim]:
    """Sensitivity to the rate of placements, and Post at the rate that Pre bears."""
    last = s.depths[-1]
    peri, post = (gain(arms, s, name, "sensitivity") for name in ("peri", "post"))
    pre = arms[arms.arm == str(Arm(last))].set_index("seed")
    there = at_rate(losses, Arm(last, "post"), float(pre.rate.iloc[0]))
    return [
        claim("Peri is less sensitive to the learning rate than Pre", _PERI,
              "sensitivity of Pre less Peri, mean over depths", peri.mean(axis=1), s.level),
        claim("Post is more sensitive to the learning rate than Pre at the largest depth", _XIONG,
              f"depth {last}, sensitivity of Post less Pre", -post[last], s.level),
        claim("At the rate that is best for Pre, Post ends higher at the largest depth", _XIONG,
              f"depth {last}, Post less Pre", there - pre.best, s.level),
    ]


def kind_claims(arms: pd.DataFrame, s: Settings) -> list[Claim]:
    """Kinds against LayerNorm, each at its best rate."""
    def equal(name: str, source: str, kind: str) -> Claim:
        return claim(f"{name} is as good as LayerNorm, within {s.margin:g} nats/token", source,
                     f"{kind} less layernorm", above_layernorm(arms, s, kind), s.level, s.margin)

    return [
        equal("RMSNorm", _RMS, PLACED),
        equal("CRMSNorm, trained from its own start,", _JIANG, "crmsnorm"),
        claim("PowerNorm ends lower than LayerNorm", _POWER, "layernorm less powernorm",
              -above_layernorm(arms, s, "powernorm"), s.level),
        equal("Unified Normalization", _UNIFIED, "unified"),
    ]


def exact_claims(exact: pd.DataFrame, s: Settings) -> list[Claim]:
    """Whether LayerNorm and the centred RMSNorm stay one function in training. Nothing varies but rounding: both ends
    of the interval are the largest difference.
    """
    largest, trained = float(exact.difference.abs().max()), int((exact.split == "train").sum())
    return [Claim(
        f"LayerNorm and RMSNorm of a centred stream train alike, to {s.rounding:g} nats/token in float64", _JIANG,
        f"largest difference {largest:.1e} nats/token in {trained} training and {len(exact) - trained} held-out losses "
        f"over {exact.step.max()} steps", largest, largest, largest, exact.seed.nunique(),
        verdict(-largest, -largest, -s.rounding))]


def _not_identified(losses: pd.DataFrame, arms: pd.DataFrame, s: Settings) -> list[str]:
    """What the design cannot tell, and how runs failed."""
    ends = sorted(set(arms.arm[arms.rate.isin([min(s.rates), max(s.rates)])]))
    notes = [f"The best rate is an end of the grid for {'; '.join(ends)}: beyond it may be better ones"] if ends else []
    diverged, worse = np.isinf(losses.loss), (losses.loss > losses.initial) & np.isfinite(losses.loss)
    return [
        *notes,
        f"{diverged.sum()} of {len(losses)} runs diverged and {worse.sum()} ended above their loss before training; "
        "each counts as untrained",
        f"Intervals are Student's over {len(s.seeds)} seeds of weights and order of data, given the text and the "
        "held-out windows; each best rate is chosen on the same seeds; no correction for the number of claims",
        f"Depths {', '.join(map(str, s.depths))} at one width and one length: LayerNorm Scaling's authors show their "
        "gain from 12 layers on",
        "Sensitivity is what other rates lose on an arm's own best one: it is low, too, where no rate trains well",
        "The claim on Post at Pre's best rate was stated after the small setting's losses were seen",
        "CRMSNorm's last entry is less the sum of the others and so starts with a variance of width - 1 times theirs: "
        "what it loses from its own start is no property of the converted model, which is LayerNorm's function",
        "PowerNorm and Unified Normalization depend on the number of tokens of a batch, which was not varied",
        "No output kernel is scaled down by depth at the start, with which Pre is often trained",
        "What single layers add (LayerNorm Scaling's test by dropping them) is not measured; conversion to CRMSNorm, "
        "exact at given parameters, is shown in tests/models/test_conversion.py, not here",
    ]
