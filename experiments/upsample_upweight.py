"""Study: showing a small domain more often against weighing its loss up (Li et al. 2024, arXiv 2410.04579).

Temperature sampling draws domains by shares w; scalarization draws by the shares p of the data and multiplies losses by
w / p. Over all windows both have the same gradient; in batches they differ in its variance, which is measured at states
that stay fixed. A sweep of temperatures then asks what that does to training, and whether Cooldown, which ends at
temperature 1, gets the best of both.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from experiments.claims import Claim, verdict
from experiments.continual import MEAN, by_seed, claim, equivalent, said, seeds_interval
from experiments.statistics import Interval
from experiments.upsample_design import PLAIN_EPS, Settings, temperature_of
from scaling import fields
from scaling.data import temperature
from scaling.fields import check
from scaling.store import Store

_LI = "Li et al. 2024, arXiv 2410.04579"
NEVER = 1.0  # switch of a run whose temperature stays
KEYS = ["way", "tau", "switch", "rate"]
WAYS = ("sampling", "scalarization", "cooldown")


@dataclasses.dataclass(frozen=True)
class Findings:
    """All that the study concludes; the tables are those of the functions of their names."""

    settings: Settings
    equality: pd.DataFrame
    variance: pd.DataFrame
    ways: pd.DataFrame
    speed: pd.DataFrame
    claims: list[Claim]
    not_identified: list[str]


def settings_of(study: Mapping[str, Any]) -> Settings:
    """The study's settings, converted as strictly as a run's."""
    return fields.convert(Settings, study, "study")


def analyse(store: Store, study: Mapping[str, Any]) -> Findings:
    """Equality under full gradients, variance under stochastic ones, and what temperatures do to training."""
    s = settings_of(study)
    runs = labelled(store, s)
    table, ratios = losses(store, runs), variance_ratios(store, runs, s)
    gap, by_way = gaps(table), ways(table, s)
    claims = [*gradient_claims(gap, s), *variance_claims(ratios, s), *training_claims(table, s),
              *cooldown_claims(table, by_way, s)]
    return Findings(s, equality(gap, norm_gaps(store, runs)), variance(ratios, s), by_way, speed(table, s), claims,
                    _not_identified(store, s))


def labelled(store: Store, s: Settings) -> pd.DataFrame:
    """One row a finished run: run_id, `seed`, `part` of the design (sweep, descent, pool, frozen), `state` (initial,
    trained), `way`, `tau`, `switch`, `rate` (its peak over the sweep's), `batch`, `whole` (that batch is a full
    gradient), `epochs` of the smallest domain.

    Raises ConfigError where the store holds no finished run.
    """
    runs = store.read("runs")
    runs = runs[runs.status == "done"] if len(runs) else runs
    check(len(runs) > 0, f"store {store.root}", 0, "finished runs", "run the sweep to its end")
    table = pd.DataFrame([_labels(row, s) for row in runs.to_dict("records")])
    return table.assign(rate=(table.peak / table.peak[table.part == "sweep"].max()).round(9))


def _labels(row: Mapping[Any, Any], s: Settings) -> dict[str, Any]:
    phases, weights = json.loads(row["data.mixture"]), dict(json.loads(row["objective.domain_weights"]))
    windows = {name: count // row["data.sequence"] for name, count in json.loads(row["data.unique_tokens"])}
    tau = temperature_of(s.by_name, {name: share * weights.get(name, 1.0) for name, share in phases[0][1]})
    kinds = {"sweep": windows[s.low] == s.unit, "frozen": row["schedule.peak"] == 0,
             "descent": row["optimizer.eps"] == PLAIN_EPS}
    passed = temperature.epochs(phases, windows, row["steps"], row["data.batch"])
    return {
        "run_id": row["run_id"], "seed": row["training.seed"], "peak": row["schedule.peak"], "tau": tau,
        "part": next((kind for kind, found in kinds.items() if found), "pool"),
        "state": "initial" if pd.isna(row["parent_id"]) else "trained",
        "way": "scalarization" if weights else "sampling" if len(phases) == 1 else "cooldown",
        "switch": NEVER if len(phases) == 1 else phases[1][0],
        "batch": row["data.batch"], "whole": row["data.batch"] not in s.frozen_batches, "epochs": passed[s.low]}


def losses(store: Store, runs: pd.DataFrame) -> pd.DataFrame:
    """Held-out losses of the sweep and the descents: labels, domain (their mean is one more), step, loss, last."""
    curves = store.read("curves")
    table = curves.loc[curves.split == "validation", ["run_id", "step", "domain", "loss"]].merge(
        runs[runs.part.isin(["sweep", "descent"])], on="run_id")
    mean = table.groupby([name for name in table if name not in ("domain", "loss")], as_index=False).loss.mean()
    table = pd.concat([table, mean.assign(domain=MEAN)], ignore_index=True)
    return table.assign(last=table.step == table.groupby("run_id").step.transform("max"))


def gaps(table: pd.DataFrame) -> pd.DataFrame:
    """Loss under scalarization less that under sampling, plain descent: whole, tau, seed, step, domain, gap."""
    rows = table[(table.part == "descent") & (table.domain != MEAN)]
    wide = rows.set_index(["whole", "tau", "seed", "step", "domain", "way"]).loss.unstack("way")
    return (wide.scalarization - wide["sampling"]).rename("gap").dropna().reset_index()


def _norms(store: Store, runs: pd.DataFrame, part: str) -> pd.DataFrame:
    """Norm of the gradient at every step of one part of the design, with the labels."""
    rows = store.read("diagnostics")
    rows = rows.loc[rows.name == "gradient_norm", ["run_id", "step", "value"]]
    return rows.merge(runs[runs.part == part], on="run_id")


def norm_gaps(store: Store, runs: pd.DataFrame) -> pd.DataFrame:
    """The same of the gradient's norm, relative to it: whole, tau, seed, step, gap."""
    rows = _norms(store, runs, "descent").set_index(["whole", "tau", "seed", "step", "way"])
    wide = rows.value.unstack("way")
    return (wide.scalarization / wide["sampling"] - 1).rename("gap").dropna().reset_index()


def equality(gap: pd.DataFrame, norms: pd.DataFrame) -> pd.DataFrame:
    """Largest differences in plain descent: whole, tau, `n` pairs of runs, loss (nats/token), norm (relative)."""
    keys = ["whole", "tau"]
    found = gap.assign(size=gap.gap.abs()).groupby(keys).agg(n=("seed", "nunique"), loss=("size", "max"))
    found["norm"] = norms.gap.abs().groupby([norms[key] for key in keys]).max()
    return found.reset_index()


def gradient_claims(gap: pd.DataFrame, s: Settings) -> list[Claim]:
    """Equal over all windows, apart in batches."""
    whole, batches = gap[gap.whole], gap[~gap.whole]
    extent = Interval(whole.gap.abs().max(), whole.gap.min(), whole.gap.max())
    largest = batches.gap.abs().groupby(batches.seed).max()
    apart = seeds_interval(largest, s.level)
    count = len(whole.drop_duplicates(["tau", "seed"]))
    return [
        Claim(f"Under full gradient descent the two ways give the same losses, within {s.tolerance:g} nats/token", _LI,
              f"largest of {len(whole)} differences over {s.descent_steps} steps: {extent.value:.1e} nats/token, in "
              f"float64; all lie in [{extent.low:.1e}, {extent.high:.1e}]", *extent, count,
              equivalent(extent, s.tolerance)),
        Claim("Under stochastic gradient descent they part", _LI,
              f"largest difference of a seed's losses over {s.descent_steps} steps: {apart.value:.3f} "
              f"[{apart.low:.3f}, {apart.high:.3f}] nats/token", *apart, len(largest),
              verdict(apart.low, apart.high, s.tolerance)),
    ]


def variance_ratios(store: Store, runs: pd.DataFrame, s: Settings) -> pd.DataFrame:
    """Variance of a batch's gradient under scalarization over that under sampling: state, tau, seed, batch, ratio,
    factor.

    Variance: E|g|² - |G|², total over parameters, with E over the batches of whole passes at a fixed state and G the
    gradient over all windows there. `factor`: Σ w_k² / p_k, the ratio of E|g|² for one window, were it alike in all
    domains.
    """
    rows = _norms(store, runs, "frozen").assign(square=lambda rows: rows.value**2)
    keys = ["state", "tau", "seed"]
    moment = rows[~rows.whole].groupby([*keys, "batch", "way"]).square.mean().unstack("way").reset_index("batch")
    full = rows[rows.whole].groupby(keys).square.mean().rename("full")
    found = moment.join(full, how="inner").dropna()
    own = temperature.temperature_shares(s.by_name, 1.0)
    factors = {tau: temperature.second_moment(temperature.temperature_shares(s.by_name, tau), own)
               for tau in s.upsampled}
    found["ratio"] = (found.scalarization - found.full) / (found["sampling"] - found.full)
    return found.reset_index().assign(factor=lambda rows: rows.tau.map(factors))[[*keys, "batch", "ratio", "factor"]]


def _geometric(values: pd.Series, level: float) -> Interval:
    """Geometric mean over seeds with Student's interval in logarithms."""
    return Interval(*np.exp(seeds_interval(np.log(values), level)).tolist())


def variance(ratios: pd.DataFrame, s: Settings) -> pd.DataFrame:
    """`variance_ratios` over seeds, geometric means: state, batch, tau, n, factor, ratio, low, high."""
    keys, rows = ["state", "batch", "tau"], []
    for key, part in ratios.groupby(keys):
        found = _geometric(part.ratio, s.level)
        rows.append({**dict(zip(keys, key, strict=True)), "n": len(part), "factor": part.factor.iloc[0],
                     "ratio": found.value, "low": found.low, "high": found.high})
    return pd.DataFrame(rows)


def variance_claims(ratios: pd.DataFrame, s: Settings) -> list[Claim]:
    """That sampling has the lower variance in batches, and for one window by the second moment of the weights."""
    claims = []
    for state, part in ratios.groupby("state"):
        batches, single = part[part.batch != 1], part[part.batch == 1]
        lower = _over_temperatures(batches.ratio, batches, s)
        excess = _over_temperatures(single.ratio / single.factor, single, s)
        beyond = Interval(*(end - 1 for end in excess))
        count, temperatures = part.seed.nunique(), ", ".join(f"{tau:g}" for tau in s.upsampled)
        claims += [
            Claim(f"Temperature sampling has the lower gradient variance: {state} state", _LI,
                  f"batches of {s.pool_batch}, scalarization over sampling, geometric mean over τ = {temperatures}: "
                  f"{lower.value:.2f} [{lower.low:.2f}, {lower.high:.2f}]",
                  *lower, count, verdict(lower.low, lower.high, 1.0)),
            Claim(f"The ratio of variances is Σ w²/p within {s.factor_margin:.0%}: {state} state", _LI,
                  f"single windows, ratio over Σ w²/p, geometric mean over τ = {temperatures}: {excess.value:.2f} "
                  f"[{excess.low:.2f}, {excess.high:.2f}]",
                  *beyond, count, equivalent(beyond, s.factor_margin)),
        ]
    return claims


def _over_temperatures(values: pd.Series, rows: pd.DataFrame, s: Settings) -> Interval:
    """Geometric mean over temperatures within a seed, then over seeds."""
    return _geometric(np.exp(np.log(values).groupby(rows.seed).mean()), s.level)


def _run(way: str, tau: float, switch: float = NEVER, rate: float = 1.0) -> dict[str, Any]:
    return {"part": "sweep", "way": way, "tau": tau, "switch": switch, "rate": rate}


def _mean(series: Iterable[pd.Series]) -> pd.Series:
    """Mean over series, for the seeds that all have."""
    return pd.concat(series, axis=1, join="inner").mean(axis=1)


def ahead(table: pd.DataFrame, s: Settings, tau: float, domain: str, rate: float = 1.0) -> pd.Series:
    """By how much sampling is ahead of scalarization at that rate after `early_step` steps, by seed, nats/token."""
    slow = by_seed(table, _run("scalarization", tau, rate=rate), domain, s.early_step)
    return (slow - by_seed(table, _run("sampling", tau), domain, s.early_step)).dropna()


def speed(table: pd.DataFrame, s: Settings) -> pd.DataFrame:
    """`ahead` over seeds, by temperature and domain: tau, domain, n, value, low, high."""
    rows = []
    for tau in s.upsampled:
        for domain in (*s.by_name, MEAN):
            pairs = ahead(table, s, tau, domain)
            rows.append({"tau": tau, "domain": domain, "n": len(pairs), **seeds_interval(pairs, s.level)._asdict()})
    return pd.DataFrame(rows)


def rise(table: pd.DataFrame, labels: Mapping[str, Any], domain: str) -> pd.Series:
    """Loss at the end less that at its minimum, by seed; a seed's minimum stands where the other seeds' mean has it, so
    that noise alone gives no rise.
    """
    chosen = table.domain == domain
    for name, value in labels.items():
        chosen &= table[name] == value
    wide = table[chosen].pivot(index="seed", columns="step", values="loss")
    if len(wide) < 2:
        return pd.Series(dtype=float)
    loss_GxT = wide.to_numpy()
    lowest_G = np.argmin(loss_GxT.sum(axis=0) - loss_GxT, axis=1)
    return pd.Series(loss_GxT[:, -1] - loss_GxT[np.arange(len(wide)), lowest_G], wide.index)


def training_claims(table: pd.DataFrame, s: Settings) -> list[Claim]:
    """What the difference does to training: speed, and over-fitting of the smallest domain."""
    names = f"mean of τ = {', '.join(f'{tau:g}' for tau in s.upsampled)}"
    fast = [claim(f"Temperature sampling converges faster than scalarization: {domain}", _LI,
                  f"{domain} loss after {s.early_step} steps, scalarization less sampling, {names}",
                  _mean(ahead(table, s, tau, domain) for tau in s.upsampled), s.level) for domain in (MEAN, s.low)]
    risen, other = (rise(table, _run(way, s.high), s.low) for way in ("sampling", "scalarization"))
    what = f"{s.low} loss at the end less its minimum, τ = {s.high:g}"
    lead = {rate: ahead(table, s, s.high, MEAN, rate) for rate in (1.0, *s.slower)}
    best = min(lead, key=lambda rate: lead[rate].mean())
    return [
        *fast,
        claim("Temperature sampling converges faster than scalarization at the rate that suits scalarization best", _LI,
              f"{MEAN}, loss after {s.early_step} steps at τ = {s.high:g}, scalarization at {best:g} of the peak less "
              "sampling", lead[best], s.level),
        claim("Temperature sampling over-fits the small domain at a high temperature", _LI, what, risen, s.level),
        claim("Temperature sampling over-fits the small domain more than scalarization does", _LI,
              f"{what}, sampling less scalarization", (risen - other).dropna(), s.level),
    ]


def cooldown_claims(table: pd.DataFrame, by_way: pd.DataFrame, s: Settings) -> list[Claim]:
    """Cooldown against what it starts as, what it ends as, the other way, and the best temperature that stays."""
    cooled = _run("cooldown", s.high, s.switch)
    constant = by_way[by_way.way != "cooldown"]
    best = constant.sort_values(MEAN).iloc[0]

    def less(labels: Mapping[str, Any], domain: str) -> pd.Series:
        return (by_seed(table, labels, domain) - by_seed(table, cooled, domain)).dropna()

    held, start = _run("sampling", s.high), _run("sampling", 1.0)
    asked = [
        ("Cooldown ends lower on the small domain than the temperature it starts at", held, s.low),
        ("Cooldown ends lower on the small domain than temperature 1", start, s.low),
        ("Cooldown ends lower than scalarization at the temperature it starts at", _run("scalarization", s.high), MEAN),
        ("Cooldown ends lower than every temperature that stays", _run(best.way, best.tau, rate=best.rate), MEAN),
    ]
    return [claim(statement, _LI, f"{domain} loss at the end, {labels['way']} at τ = {labels['tau']:g} less Cooldown "
                  f"from {s.high:g} at {s.switch:.1%} of the run", less(labels, domain), s.level)
            for statement, labels, domain in asked]


def ways(table: pd.DataFrame, s: Settings) -> pd.DataFrame:
    """One row a way of the sweep: way, tau, switch, n, epochs of the smallest domain, loss at the end by domain and in
    the mean, `best_step` (where the smallest domain's mean curve is lowest), `rise` with low and high.
    """
    sweep, rows = table[table.part == "sweep"], []
    for key, part in sweep.groupby(KEYS):
        labels: dict[str, Any] = dict(zip(KEYS, key, strict=True))
        risen = seeds_interval(rise(sweep, labels, s.low), s.level)
        curve = part[part.domain == s.low].groupby("step").loss.mean()
        rows.append({**labels, "n": part.seed.nunique(), "epochs": part.epochs.iloc[0],
                     **part[part["last"]].groupby("domain").loss.mean(), "best_step": curve.index[int(curve.argmin())],
                     "rise": risen.value, "low": risen.low, "high": risen.high})
    found = pd.DataFrame(rows)
    return found.sort_values(KEYS, key=lambda column: column.map(WAYS.index) if column.name == "way" else column,
                             ignore_index=True)


def way_text(row: Any) -> str:
    """A way of the sweep in words, from its row of `ways`."""
    if row.way == "cooldown":
        return f"Cooldown from {row.tau:g} at {row.switch:.1%}"
    return f"{row.way}, τ = {row.tau:g}" + (f", {row.rate:g} of the peak" if row.rate < 1 else "")


def headline(found: Findings) -> str:
    """The answer in one sentence."""
    s = found.settings
    whole = found.equality[found.equality.whole].loss.max()
    at = found.variance[(found.variance.tau == s.high) & (found.variance.batch != 1)].set_index("state")
    fast = found.speed[(found.speed.tau == s.high) & (found.speed.domain == MEAN)].iloc[0]
    held = found.ways[(found.ways.way == "sampling") & (found.ways.tau == s.high)].iloc[0]
    last = found.claims[-1]
    return (f"Over all windows at once the two ways train alike (losses differ by {whole:.0e} nats/token at most); in "
            f"batches, at τ = {s.high:g}, scalarization's gradient has {at.ratio['initial']:.1f} times the variance at "
            f"the start and {at.ratio['trained']:.1f} times later, and is behind by "
            f"{said(Interval(fast.value, fast.low, fast.high))} after {s.early_step} steps; sampling then shows "
            f"{s.low} {held.epochs:.0f} times and its loss there rises by "
            f"{said(Interval(held.rise, held.low, held.high))} from its minimum. Cooldown against the best temperature "
            f"that stays: {last.verdict} ({said(Interval(last.value, last.low, last.high))}; n = {last.n} seeds).")


def _not_identified(store: Store, s: Settings) -> list[str]:
    """What the design cannot tell, and runs that have no last loss."""
    ended = store.read("runs").status.value_counts()
    lost = [f"{count} runs ended as {status}; their pairs are left out" for status, count in ended.items()
            if status != "done"]
    return [
        *lost,
        f"Intervals are over {len(s.seeds)} seeds of weights and order of data, given one subset of each domain and "
        "one set of held-out windows; they are not corrected for the number of claims",
        "All ways have one peak rate, tuned for none of them: scalarization, whose gradient is noisier, may want a "
        "lower one",
        "Batches are not independent draws: domains share each as evenly as whole windows can, which takes the "
        "difference between domains out of the variance under sampling, but not of rare windows that are weighed up",
        "One model size, one set of domains and sizes, one length of training",
        "The best temperature that stays was chosen on the seeds that it is compared on, which favours it over "
        "Cooldown",
    ]
