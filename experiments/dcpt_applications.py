"""The three applications of the D-CPT law: what it recommends, and what training the recommendation showed.

Decided from the trunks that the law was fitted to; checked on trunks of fresh seeds, whose losses are held against
their own trunk's and put on the level of the fitted trunks' mean.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from experiments.claims import Claim, verdict
from experiments.continual import equivalent
from experiments.dcpt_runs import ROLES, Settings, late, of_role, starts
from experiments.statistics import Interval, t_interval
from scaling import fitting
from scaling.fitting import Decision, Fit, Refusal
from scaling.laws.mixture import D_CPT

PAPER = "Que et al. 2024"
SHARE_APART = {"trade-off": 0.1, "limited tokens": 0.2}  # of the neighbours that are trained beside a ratio
MARGIN = 0.005  # ours: of a loss; the paper's checks lie within 0.05% (trade-off) and 0.26% (limited tokens)


@dataclasses.dataclass(frozen=True, order=True)
class Trial:
    """A branch to train: of which width, at which share of the target, for how many steps."""

    width: int
    share: float
    steps: int


@dataclasses.dataclass(frozen=True)
class Application:
    """A question, what the law answers (a share, or N), and the branches that check it, the recommended one first."""

    name: str
    question: str
    decision: Decision
    trials: tuple[Trial, ...]
    limit: float | None = None  # of the general loss, nats/token


def fit_laws(table: pd.DataFrame, settings: Settings) -> dict[str, Fit]:
    """D-CPT by role, through the later part of every branch from a trunk that is not fresh."""
    return {role: fitting.fit(D_CPT, late(of_role(table[~table.fresh], role, settings), settings), group="trunk",
                              stratum="N", bootstrap=settings.bootstrap) for role in ROLES}


def decide(table: pd.DataFrame, laws: Mapping[str, Fit], settings: Settings) -> list[Application]:
    """What the law says to the three questions."""
    table = table[~table.fresh]
    per_step = float((table.D / table.step).iloc[0])
    width, sizes = settings.check_width, table.groupby("width").N.first()
    size, start = float(sizes[width]), float(starts(table)[sizes[width], settings.general])
    limit = (1 + settings.rise) * start
    trade = fitting.critical_ratio(laws["general"], limit, {"N": size, "D": settings.branch_steps * per_step},
                                   level=settings.level)
    limited = fitting.ratio_for_limited_tokens(laws["domain"], settings.limited_steps * per_step, {"N": size},
                                               level=settings.level)
    best = _within(fitting.compute_optimal(laws["domain"], settings.budget, inputs={"r": settings.allocation_share},
                                           level=settings.level).parameters, sizes)
    return [
        Application("trade-off", f"the largest share of {settings.target} that lets the {settings.general} loss rise "
                    f"by at most {settings.rise:.0%} in {settings.branch_steps * per_step:,.0f} tokens", trade,
                    tuple(Trial(width, share, settings.branch_steps)
                          for share in neighbours(trade.value, SHARE_APART["trade-off"])), limit),
        Application("limited tokens", f"the share at which {settings.limited_steps * per_step:,.0f} tokens of "
                    f"{settings.target}, seen once, make its loss least", limited,
                    tuple(Trial(width, share, round(settings.limited_steps / share))
                          for share in neighbours(limited.value, SHARE_APART["limited tokens"]))),
        Application("allocation", f"the size N whose {settings.target} loss is least after {settings.budget:.3g} FLOPs "
                    f"at a share of {settings.allocation_share:.0%}", best,
                    tuple(Trial(each, settings.allocation_share, round(settings.budget / (6 * sizes[each] * per_step)))
                          for each in nearest_widths(best.value, sizes))),
    ]


def _within(best: Decision, sizes: pd.Series) -> Decision:
    """A size refused where it lies beyond those that were trained."""
    low, high = float(sizes.min()), float(sizes.max())
    if best.refusal is not None or low <= best.value <= high:
        return best
    reason = f"N = {best.value:,.0f} lies beyond the sizes trained, {low:,.0f} to {high:,.0f}: the nearest is tried"
    return dataclasses.replace(best, refusal=Refusal("extrapolated", reason))


def neighbours(share: float, apart: float) -> list[float]:
    """A recommended share, to two digits and 0.05 or more, and one on either side; two below where it is 1; none where
    there is no recommendation.
    """
    if math.isnan(share):
        return []
    own = min(max(round(share, 2), 0.05), 1.0)
    above = min(own + apart, 1.0) if own < 1 else own - 2 * apart
    return [own, round(max(own - apart, own / 2), 2), round(above, 2)]


def nearest_widths(parameters: float, sizes: pd.Series) -> list[int]:
    """The trained width nearest in log N, then those next to it; at an end the next two."""
    widths = list(sizes.sort_values().index)
    best = int(np.argmin(np.abs(np.log(sizes.sort_values()) - math.log(parameters))))
    first = min(max(best - 1, 0), max(len(widths) - 3, 0))
    shown = widths[first:first + 3]
    return [widths[best], *(width for width in shown if width != widths[best])]


@dataclasses.dataclass(frozen=True)
class Check:
    """Runs of one application. `trials`: one row a trial and role with width, share, steps, N, D, n and, in nats/token
    on the level of the fitted trunks, `predicted`, `predicted_low`, `predicted_high`, `measured`, `low`, `high`.
    `runs`: one row a run, trial and role, with seed, loss and `rise` (over the own trunk's loss, as a share of it).
    """

    application: Application
    trials: pd.DataFrame
    runs: pd.DataFrame


def check(application: Application, table: pd.DataFrame, laws: Mapping[str, Fit], settings: Settings) -> Check:
    """What the trials of an application showed on fresh trunks; a trial that was not trained has n = 0."""
    sizes = table[~table.fresh].groupby("width").N.first()
    per_step = float((table.D / table.step).iloc[0])
    last = table[table.fresh & table["last"]]
    trials, runs = [], []
    for trial in application.trials:
        rows = last[(last.width == trial.width) & np.isclose(last.share, trial.share) & (last.step == trial.steps)]
        size, tokens = float(sizes[trial.width]), trial.steps * per_step
        for role in ROLES:
            own = of_role(rows, role, settings)
            own = own.assign(role=role, rise=own.change / own.start, trial_share=trial.share)
            runs.append(own[["width", "trial_share", "step", "role", "seed", "loss", "rise"]])
            inputs = {"N": size, "D": tokens, "r": 1 - trial.share if role == "general" else trial.share}
            low, high = laws[role].interval(inputs, settings.level)
            seen = t_interval(own.loss, settings.level) if len(own) else Interval(*[math.nan] * 3)
            trials.append({**dataclasses.asdict(trial), "role": role, "N": size, "D": tokens, "n": len(own),
                           "predicted": float(laws[role].predict(inputs)), "predicted_low": float(low),
                           "predicted_high": float(high), "measured": seen.value, "low": seen.low, "high": seen.high})
    return Check(application, pd.DataFrame(trials), pd.concat(runs, ignore_index=True) if runs else pd.DataFrame())


def claims(checks: Sequence[Check], settings: Settings) -> list[Claim]:
    """Does the recommendation do what it is for, and is its loss the predicted one?"""
    by_name = {each.application.name: each for each in checks}
    made = [_limit_met(by_name["trade-off"], settings)]
    for name in ("limited tokens", "allocation"):
        made.append(_least(by_name[name], settings))
    return made + [_as_predicted(each, settings) for each in checks]


def _limit_met(found: Check, settings: Settings) -> Claim:
    """Rise of the general loss at the recommended ratio, each fresh trunk against itself."""
    statement = f"Trained at the recommended ratio, the general loss rises by the tolerated {settings.rise:.0%}"
    source = f"{PAPER}, application 1: 2.9445 against a limit of 2.9460"
    if found.application.decision.refusal or not _trained(found):
        return _open(statement, source, found)
    rows = _runs_of(found, found.application.trials[0], "general")
    rise = t_interval(rows.rise - settings.rise, settings.level)
    return Claim(statement, source, f"share {found.application.trials[0].share:.0%}: rises by {rows.rise.mean():.2%}, "
                 f"apart by {_percent(rise)}, within ±{MARGIN:.1%} asked", *rise, len(rows), equivalent(rise, MARGIN))


def _least(found: Check, settings: Settings) -> Claim:
    """The recommended trial's domain loss against the better neighbour's, fresh trunk by fresh trunk."""
    statement = f"What the law recommends ({found.application.name}) has the lowest domain loss of what was trained"
    source = f"{PAPER}, application {2 if found.application.name == 'limited tokens' else 3}"
    if not _trained(found):
        return _open(statement, source, found)
    own, *others = found.application.trials
    best = _runs_of(found, own, "domain").loss
    gaps = {other: (_runs_of(found, other, "domain").loss - best).dropna() for other in others}
    rival, gap = min(gaps.items(), key=lambda item: item[1].mean())
    interval = t_interval(gap, settings.level)
    return Claim(statement, source, f"{_said(own)} below {_said(rival)}, the next best, by {interval.value:+.4f} "
                 f"[{interval.low:+.4f}, {interval.high:+.4f}] nats/token{_but(found)}", *interval, len(gap),
                 verdict(interval.low, interval.high, 0.0))


def _as_predicted(found: Check, settings: Settings) -> Claim:
    """log predicted - log measured of the recommended trial's domain loss: seeds and the law's draws, added as
    independent.
    """
    statement = f"The law predicts the domain loss of what it recommends ({found.application.name}) within {MARGIN:.1%}"
    source = f"{PAPER}: 0.7328 predicted, 0.7309 observed"
    if not _trained(found):
        return _open(statement, source, found)
    row = found.trials[found.trials.role == "domain"].iloc[0]
    off = math.log(row.predicted / row.measured)
    low = off - math.hypot(math.log(row.predicted / row.predicted_low), math.log(row.high / row.measured))
    high = off + math.hypot(math.log(row.predicted_high / row.predicted), math.log(row.measured / row.low))
    interval = Interval(off, low, high)
    return Claim(statement, source, f"{row.predicted:.4f} predicted, {row.measured:.4f} measured, apart by "
                 f"{_percent(interval)}", *interval, int(row.n), equivalent(interval, MARGIN))


def _trained(found: Check) -> bool:
    """Whether every trial was trained on two trunks or more."""
    return len(found.trials) > 0 and bool((found.trials.n > 1).all())


def _runs_of(found: Check, trial: Trial, role: str) -> pd.DataFrame:
    runs = found.runs
    chosen = (runs.width == trial.width) & (runs.trial_share == trial.share) & (runs.step == trial.steps)
    return runs[chosen & (runs.role == role)].set_index("seed")


def _open(statement: str, source: str, found: Check) -> Claim:
    refusal = found.application.decision.refusal
    return Claim(statement, source, f"refused, {refusal}" if refusal else "not trained", *(math.nan,) * 3, 0,
                 "inconclusive")


def _but(found: Check) -> str:
    refusal = found.application.decision.refusal
    return f" (the law's answer is at the end of its range: {refusal.kind})" if refusal else ""


def _said(trial: Trial) -> str:
    return f"width {trial.width} at {trial.share:.0%} for {trial.steps} steps"


def _percent(interval: Interval) -> str:
    return f"{interval.value:+.2%} [{interval.low:+.2%}, {interval.high:+.2%}]"
