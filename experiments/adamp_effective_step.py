"""Study: whether momentum lengthens scale-invariant weights, so that their effective step shrinks, and whether the
projection of SGDP and AdamP slows this (Heo et al. 2021, arXiv 2006.08217).

The model's norms make the loss independent of the length of every kernel of a block: with norms after sublayers and of
queries and keys, and a homogeneous activation. The step that acts on such a w is η / ‖w‖². Length and direction come
from the diagnostics: ‖w‖ = ‖Δw‖ / effective rate, and of two evaluations one step apart
cos(w, Δw) = (‖w + Δw‖² - ‖w‖² - ‖Δw‖²) / (2 ‖w‖ ‖Δw‖), which is 0 where the step was projected.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from experiments.claims import Claim
from experiments.continual import claim, said, seeds_interval
from experiments.optimizer_effects import (
    Findings,
    diagnostic,
    less,
    limits,
    methods_table,
    outcomes,
    tuned_claim,
)
from scaling import fields
from scaling.fields import check, static
from scaling.store import Store

SOURCE = "Heo et al. 2021, arXiv 2006.08217"
BARE, SGD, SGDP, ADAM, ADAMP = "SGD, no momentum", "SGD", "SGDP", "Adam", "AdamP"
INVARIANT, OTHER = "kernels of blocks", "tables"
MATCHED = "Momentum makes scale-invariant weights grow faster at the same rate / (1 - momentum)"
CONTROL = "our control: the paper compares equal rates"
RESOLVED = 3e-4  # effective rate from which float32 leaves the cosine right to 1e-3


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the configuration says of the study. `projected`: |cos| of step and weights below which a step counts so."""

    name: str = static()
    sgd: tuple[float, ...] = static()
    adam: tuple[float, ...] = static()
    momentum: float = static()
    seeds: tuple[int, ...] = static()
    projected: float = static()
    level: float = static()


def method_of(run: Mapping[Any, Any]) -> str:
    """What a run stands for, by its row in the store."""
    if run["optimizer.name"] == "sgd":
        return SGD if run["optimizer.momentum"] > 0 else BARE
    return {"sgdp": SGDP, "adamw": ADAM, "adamp": ADAMP}[run["optimizer.name"]]


def lengths(store: Store) -> pd.DataFrame:
    """One row a run, step and matrix: run_id, step, path, `norm` ‖w‖, `update` ‖Δw‖ of the step that follows, `rate`
    ‖Δw‖ / ‖w‖, and `group`. Without rows where either is 0 or not finite.
    """
    update, rate = (diagnostic(store, quantity).rename(columns={"value": name})
                    for quantity, name in (("update_norm", "update"), ("effective_rate", "rate")))
    rows = update.merge(rate, on=["run_id", "step", "path"])
    rows = rows[(rows["rate"] > 0) & np.isfinite(rows["rate"]) & ~rows.path.str.contains("scale|bias")]
    inner = rows.path.str.startswith("block_") & rows.path.str.endswith("kernel")
    return rows.assign(norm=rows["update"] / rows["rate"], group=np.where(inner, INVARIANT, OTHER))


def cosines(rows: pd.DataFrame) -> pd.DataFrame:
    """Of `lengths`, the rows whose next step was evaluated too and whose rate is resolved, with `cosine` of step and
    weights.
    """
    after = rows[["run_id", "path", "step", "norm"]].assign(step=rows.step - 1).rename(columns={"norm": "next"})
    pairs = rows[rows["rate"] > RESOLVED].merge(after, on=["run_id", "path", "step"])
    radial = pairs.next**2 - pairs.norm**2 - pairs["update"] ** 2
    return pairs.assign(cosine=radial / (2 * pairs.norm * pairs["update"]))


def grown(store: Store) -> pd.DataFrame:
    """`outcomes` with `growth`: log ‖w‖² at the end over the start, mean over the kernels of blocks; nan for a run that
    diverged.
    """
    table = outcomes(store, {"steps": "steps"}, method_of)
    rows = lengths(store)
    rows = rows[rows.group == INVARIANT].merge(table[["run_id", "steps"]], on="run_id")
    first, last = (rows[rows.step == step].set_index(["run_id", "path"]).norm for step in (0, rows.steps))
    growth = (last / first).transform(np.log).groupby("run_id").mean() * 2
    return table.assign(growth=table.run_id.map(growth))


def contrast(table: pd.DataFrame, first: str, second: str, factor: float = 1.0) -> tuple[pd.Series, list[float]]:
    """Growth of `first` less that of `second` by seed, mean over the rates of `first` at which `second` ran at `factor`
    times the rate and no run of either failed; and these rates. ConfigError for none.
    """
    both = [table[(table.method == name) & ~table.failed].pivot(index="seed", columns="peak", values="growth")
            .dropna(axis=1) for name in (first, second)]
    rates = [part.columns.to_numpy(dtype=float) for part in both]
    pairs = [(rate, other) for rate in rates[0] for other in rates[1] if np.isclose(other, factor * rate)]
    check(bool(pairs), "rates", [part_R.tolist() for part_R in rates], f"some at which {first} and {second} both train",
          "add lower ones")
    differences = [less(both[0][rate], both[1][other]) for rate, other in pairs]
    return pd.concat(differences, axis=1).mean(axis=1), [rate for rate, _ in pairs]


def analyse(store: Store, study: Mapping[str, Any]) -> Findings:
    """The paper's claims."""
    s: Settings = fields.convert(Settings, study, "study")
    table, looks = grown(store), cosines(lengths(store))
    projections = projected(looks, table, s)
    claims = [*growth_claims(table, s), *projection_claims(projections, s), *loss_claims(table, s)]
    shown = projections.groupby(["method", "group"], sort=False).share.apply(
        lambda part: said(seeds_interval(part, s.level), "")).reset_index(name="share of steps without radial part")
    details = {"Methods": methods_table(table), "Steps without a radial part, mean over seeds": shown,
               "Growth of log ‖w‖², mean over kernels of blocks and seeds": growth_table(table)}
    return Findings(s, headline(claims), table, details, claims, limits(s.seeds, [
        "Growth is compared at rates at which no run failed; rates of one seed are averaged",
        f"A step counts as projected by its angle to the weights (|cos| < {s.projected:g}), not by the optimizer's own "
        "word: what chance gives stands beside it, for the methods without projection"]))


def growth_table(table: pd.DataFrame) -> pd.DataFrame:
    """Growth by method and rate."""
    wide = table.groupby(["method", "peak"], sort=False).agg(
        growth=("growth", "mean"), failed=("failed", "sum")).reset_index()
    return wide.assign(peak=wide.peak.map("{:.3g}".format), growth=wide.growth.map("{:+.3f}".format))


def growth_claims(table: pd.DataFrame, s: Settings) -> list[Claim]:
    """Momentum against none at one rate and at one effective rate; projection against none."""
    asked = [
        ("Momentum makes scale-invariant weights grow faster at the same rate", SGD, BARE, 1.0),
        (MATCHED, SGD, BARE, 1 / (1 - s.momentum)),
        ("SGDP's projection slows the growth of scale-invariant weights, so that their effective step shrinks less",
         SGD, SGDP, 1.0),
        ("AdamP's projection slows the growth of scale-invariant weights, so that their effective step shrinks less",
         ADAM, ADAMP, 1.0),
    ]
    claims = []
    for statement, first, second, factor in asked:
        pairs, rates = contrast(table, first, second, factor)
        what = f"growth of log ‖w‖², {first} less {second}, mean over {len(rates)} rates to {max(rates):.3g}"
        claims.append(claim(statement, CONTROL if statement == MATCHED else SOURCE, what, pairs, s.level, unit=""))
    return claims


def projected(looks: pd.DataFrame, table: pd.DataFrame, s: Settings) -> pd.DataFrame:
    """Share of matrices and looks whose step had no radial part: method, group, seed, share; of runs that trained."""
    rows = looks.merge(table.loc[~table.failed, ["run_id", "method", "seed"]], on="run_id")
    rows = rows.assign(share=rows.cosine.abs() < s.projected)
    return rows.groupby(["method", "group", "seed"]).share.mean().reset_index()


def projection_claims(projections: pd.DataFrame, s: Settings) -> list[Claim]:
    """Most steps on scale-invariant matrices are projected."""
    by_seed = projections.set_index(["method", "group", "seed"]).share
    return [claim(f"{name} projects most steps on scale-invariant matrices", SOURCE,
                  f"share of steps on {INVARIANT} without a radial part, less 1/2", by_seed[name, INVARIANT] - 0.5,
                  s.level, unit="") for name in (SGDP, ADAMP)]


def loss_claims(table: pd.DataFrame, s: Settings) -> list[Claim]:
    """Whether the projection pays."""
    return [tuned_claim(table, f"{name} ends lower than {base}, each at its best rate", f"{SOURCE}: small gains on all "
                        "tasks", base, name, s.level) for name, base in ((SGDP, SGD), (ADAMP, ADAM))]


def headline(claims: list[Claim]) -> str:
    """The answer in a sentence."""
    parts = [f"Under {base} ‖w‖² of scale-invariant kernels ends e^{each.value:.2f} [e^{each.low:.2f}, "
             f"e^{each.high:.2f}] times, and the effective step η / ‖w‖² one over that, of what it is under {name} "
             f"({each.verdict}; n = {each.n} seeds)"
             for each, (name, base) in zip(claims[2:4], ((SGDP, SGD), (ADAMP, ADAM)), strict=True)]
    return ". ".join(parts) + "."
