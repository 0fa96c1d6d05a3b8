"""Study: how far the loss depends on the learning rate, and what lowers that.

Paper: Wortsman et al. 2023, arXiv 2309.14322. Sensitivity: over a grid of peak rates the mean of min(loss, loss before
training) less the least loss. Every intervention is held against the same model without it, seed by seed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from experiments.claims import Claim, verdict
from experiments.continual import equivalent
from experiments.rate_runs import capped, ended
from experiments.statistics import Interval, t_interval
from scaling import fields
from scaling.fields import check, static
from scaling.laws.learning_rate import sensitivity
from scaling.store import Store

PAPER, PERI = "Wortsman et al. 2023", "Kim et al. 2025"
FACTS = {"qk_norm": "model.qk_norm", "placement": "model.placement", "z_loss": "training.z_loss",
         "warmup": "schedule.warmup.steps", "decay": "optimizer.decay_convention"}  # columns of the runs


@dataclasses.dataclass(frozen=True)
class Arm:
    """What a model has: norms of queries and keys, a z-loss, a warm-up, a convention of decay, a placement of norms."""

    qk_norm: bool = False
    z_loss: bool = False
    warmup: bool = True
    decay: str = "independent"
    placement: str = "pre"


ARMS = {
    "plain": Arm(),
    "qk-norm": Arm(qk_norm=True),
    "z-loss": Arm(z_loss=True),
    "both": Arm(qk_norm=True, z_loss=True),
    "no warm-up": Arm(warmup=False),
    "both, no warm-up": Arm(qk_norm=True, z_loss=True, warmup=False),
    "coupled decay": Arm(decay="coupled"),
    "both, coupled decay": Arm(qk_norm=True, z_loss=True, decay="coupled"),
    "peri": Arm(placement="peri"),
}


@dataclasses.dataclass(frozen=True)
class Contrast:
    """An intervention: the arm that has it, the same without it."""

    name: str
    source: str
    having: str
    without: str


CONTRASTS = (
    Contrast("qk-norm", PAPER, "qk-norm", "plain"),
    Contrast("z-loss", PAPER, "z-loss", "plain"),
    Contrast("z-loss beside qk-norm", PAPER, "both", "qk-norm"),
    Contrast("warm-up", PAPER, "plain", "no warm-up"),
    Contrast("warm-up beside qk-norm and z-loss", PAPER, "both", "both, no warm-up"),
    Contrast("independent decay", PAPER, "plain", "coupled decay"),
    Contrast("independent decay beside qk-norm and z-loss", PAPER, "both", "both, coupled decay"),
    Contrast("peri placement", PERI, "peri", "plain"),
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the configuration says of the study. `floor`: an absolute rate. `loss_margin`: share of the best loss by
    which equal ones differ.
    """

    name: str = static()
    domain: str = static()
    rates: tuple[float, ...] = static()
    floor: float = static()
    warmup: float = static()
    z_loss: float = static()
    agreeing_rate: float = static()
    seeds: tuple[int, ...] = static()
    loss_margin: float = static()
    level: float = static()

    def __post_init__(self) -> None:
        apart = np.diff(np.log(self.rates))
        check(len(self.rates) >= 3 and bool((apart > 0).all()) and apart.max() < 1.2 * apart.min(), "study.rates",
              self.rates, "3 or more rising rates, equally far apart in their logarithm", "use a geometric grid")
        check(len(set(self.seeds)) == len(self.seeds) >= 2, "study.seeds", self.seeds, "2 or more different seeds",
              "add some")


@dataclasses.dataclass(frozen=True, eq=False)
class Findings:
    """All that the study concludes. `losses`: arm, lr, seed, initial, loss (inf where diverged), capped. `arms`: arm,
    seed, sensitivity (nats/token), best (loss at the best rate of the mean over seeds), rate (that rate).
    """

    settings: Settings
    losses: pd.DataFrame
    arms: pd.DataFrame
    claims: list[Claim]
    notes: list[str]


def settings_of(study: Mapping[str, Any]) -> Settings:
    """The study's settings, converted as strictly as a run's."""
    return fields.convert(Settings, study, "study")


def analyse(store: Store, study: Mapping[str, Any]) -> Findings:
    """Sensitivities of every arm, the contrasts between arms, the papers' claims."""
    s = settings_of(study)
    losses = losses_of(store, s)
    parts: list[pd.DataFrame] = [of_arm(str(name), rows) for name, rows in losses.groupby("arm", sort=False)]
    arms = pd.concat(parts, ignore_index=True)
    claims = [*(lower_claim(each, arms, s) for each in CONTRASTS), *(equal_claim(each, arms, s) for each in CONTRASTS
                                                                     if each.name in ("qk-norm", "z-loss"))]
    return Findings(s, losses, arms, claims, _notes(losses, s))


def losses_of(store: Store, s: Settings) -> pd.DataFrame:
    """Runs of the arms by arm, rate and seed. ConfigError where one is missing."""
    table = ended(store, s.domain).merge(store.read("runs")[["run_id", *FACTS.values()]], on="run_id")
    known = {arm: name for name, arm in ARMS.items()}
    names = [known.get(Arm(bool(run[FACTS["qk_norm"]]), bool(run[FACTS["z_loss"]] > 0), bool(run[FACTS["warmup"]] > 0),
                           str(run[FACTS["decay"]]), str(run[FACTS["placement"]])), "")
             for run in table.to_dict("records")]
    table = table.assign(arm=pd.Categorical(names, list(ARMS)), capped=capped(table))
    table = table[table.seed.isin(s.seeds)].sort_values(["arm", "lr", "seed"], ignore_index=True)
    counts = table.groupby("arm", observed=False).run_id.count()
    missing = sorted(counts.index[counts != len(s.rates) * len(s.seeds)])
    check(not missing, "store", f"runs of {', '.join(missing)}", f"{len(s.rates)} rates x {len(s.seeds)} seeds an arm",
          "run the sweep to its end")
    return table[["arm", "lr", "seed", "initial", "loss", "capped"]].assign(arm=table.arm.astype(str))


def of_arm(name: str, losses: pd.DataFrame) -> pd.DataFrame:
    """Sensitivity and loss at the best rate of one arm, a row a seed."""
    rate = losses.groupby("lr").capped.mean().idxmin()
    rows = []
    for seed, runs in losses.groupby("seed"):
        rows.append({"arm": name, "seed": seed, "sensitivity": sensitivity(runs.loss, float(runs.initial.iloc[0])),
                     "best": float(runs.capped[runs.lr == rate].iloc[0]), "rate": rate})
    return pd.DataFrame(rows)


def by_seed(arms: pd.DataFrame, arm: str, column: str) -> pd.Series:
    """A column of one arm by seed."""
    return arms[arms.arm == arm].set_index("seed")[column].sort_index()


def change(contrast: Contrast, arms: pd.DataFrame, column: str) -> pd.Series:
    """What an intervention adds to a column, by seed."""
    return by_seed(arms, contrast.having, column) - by_seed(arms, contrast.without, column)


def lower_claim(contrast: Contrast, arms: pd.DataFrame, s: Settings) -> Claim:
    """That an intervention lowers the sensitivity."""
    interval = t_interval(change(contrast, arms, "sensitivity"), s.level)
    before, after = (by_seed(arms, arm, "sensitivity").mean() for arm in (contrast.without, contrast.having))
    return Claim(
        f"{contrast.name[0].upper()}{contrast.name[1:]} lowers the sensitivity to the learning rate", contrast.source,
        f"sensitivity {before:.3f} to {after:.3f}, change {interval.value:+.3f} [{interval.low:+.3f}, "
        f"{interval.high:+.3f}] nats/token, by seed", *interval, len(s.seeds),
        verdict(-interval.high, -interval.low, 0.0))


def equal_claim(contrast: Contrast, arms: pd.DataFrame, s: Settings) -> Claim:
    """That an intervention leaves the loss at the best rate as it is."""
    shares = change(contrast, arms, "best") / by_seed(arms, contrast.without, "best")
    interval = t_interval(shares, s.level)
    rates = [by_seed(arms, arm, "rate").iloc[0] for arm in (contrast.without, contrast.having)]
    return Claim(
        f"{contrast.name[0].upper()}{contrast.name[1:]} leaves the loss at the best rate equal (±{s.loss_margin:.0%})",
        contrast.source, f"change {interval.value:+.2%} [{interval.low:+.2%}, {interval.high:+.2%}], best swept rates "
        f"{rates[0]:g} and {rates[1]:g}", *interval, len(s.seeds),
        equivalent(Interval(*interval), s.loss_margin))


def _notes(losses: pd.DataFrame, s: Settings) -> list[str]:
    """How runs failed, and what the intervals do not count."""
    notes = []
    for arm, runs in losses.groupby("arm", sort=False):
        diverged, worse = np.isinf(runs.loss).sum(), ((runs.loss > runs.initial) & np.isfinite(runs.loss)).sum()
        if diverged or worse:
            notes.append(f"{arm}: of {len(runs)} runs {diverged} diverged and {worse} ended above the loss before "
                         "training; all count as untrained")
    notes.append("Independent decay has the paper's product of decay and steps, 10, whatever the rate: in runs as "
                 "short as these it takes the weights away faster than low rates bring them, so that its claims are "
                 "about this setting; both conventions are one at study.agreeing_rate")
    return [*notes, f"Intervals count {len(s.seeds)} seeds (initial weights and order of data), not the held-out "
            "windows, nor the choice of rates: sensitivities are to be compared within one grid of rates.",
            f"{len(CONTRASTS) + 2} claims at {s.level:.0%} each, without correction for their number."]
