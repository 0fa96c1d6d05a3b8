"""Study: which optimizer reaches a tuned baseline's loss first, when all are tuned alike, and how sure are we of it?

AlgoPerf's method (Dahl et al. 2023, arXiv 2306.07179) on workloads that fit here: targets set by tuned baselines, an
external-tuning and a self-tuning ruleset, time to target, performance profiles. Beyond it: every ranking has intervals,
every pair a probability, and halves of the studies are held against each other.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from experiments import bench_runs
from experiments.algoperf import StudyTimes, median, score_draws, scores
from experiments.bench_design import EXTERNAL, SELF, Settings, retrained, scored, settings_of, trial, tuning
from experiments.bench_runs import SECONDS, STEPS
from experiments.claims import Claim, verdict
from experiments.pairwise import Speeds, across, agreement, only, pairs, resampled, speed_up, speeds
from experiments.statistics import Interval
from scaling.fields import check_key
from scaling.fitting.result import tails
from scaling.store import Store
from scaling.workloads.race import STEP_SECONDS

REFERENCE = "AdamW"
MATRIX = ("Muon", "SOAP", "Conda")  # methods that see a matrix as one
SCHEDULE_FREE, DEFAULTS = "Schedule-Free, defaults", "AdamW, defaults"
WEN, ALGOPERF = "Wen et al. 2025, arXiv 2509.02046", "Kasimbeg et al. 2025, arXiv 2502.15015"
SURE = 1 - 1e-9  # a share below it is not all


@dataclasses.dataclass(frozen=True)
class Ruleset:
    """What one ruleset gives in one unit of time. `ranking`: one row a submission, best first."""

    times: StudyTimes
    found: Speeds
    ranking: pd.DataFrame
    pairs: pd.DataFrame


@dataclasses.dataclass(frozen=True)
class Findings:
    """All that the study concludes. `rulesets` by (part, unit)."""

    settings: Settings
    targets: pd.DataFrame
    trials: pd.DataFrame
    rulesets: dict[tuple[str, str], Ruleset]
    edges: pd.DataFrame
    claims: list[Claim]
    not_identified: list[str]


def analyse(store: Store, study: Mapping[str, Any]) -> Findings:
    """Targets, times to them, rankings of both rulesets in steps and device seconds, and the claims."""
    s = settings_of(study)
    _check_names(s)
    runs = bench_runs.placed(store, s, s.workloads)
    values = bench_runs.losses(store, s, runs)
    goals = bench_runs.targets(s, values)
    table = bench_runs.trials(s, runs, values, goals.set_index("workload").target.to_dict(),
                              bench_runs.step_seconds(store, runs))
    rulesets = {(part, unit): ruleset(bench_runs.times(table, part, unit), s)
                for part in (EXTERNAL, SELF) for unit in (STEPS, SECONDS)}
    edges = at_the_edge(table, s)
    claims = [*stability(rulesets[EXTERNAL, STEPS], s), *matrix_claims(rulesets, s), tuning_claim(table, rulesets, s),
              *clock_claims(rulesets, s), *self_claims(rulesets, s)]
    return Findings(s, goals, table, rulesets, edges, claims, _not_identified(s, table, goals, rulesets, edges))


def _check_names(s: Settings) -> None:
    """The submissions that claims are about are there."""
    for wanted, ruleset_of in (((REFERENCE, *MATRIX[:2]), s.external), ((DEFAULTS, SCHEDULE_FREE), s.self_tuning)):
        for name in wanted:
            check_key(name, [submission.name for submission in ruleset_of], "study submissions, of which claims speak")


def ruleset(times: StudyTimes, s: Settings) -> Ruleset:
    """Scores and speed-ups over the reference, or the first submission where that is missing, with intervals."""
    found = speeds(times, s.draws, seed=0)
    names = times.submissions
    against = next((name for name in (REFERENCE, DEFAULTS) if name in names), names[0])
    low_S, high_S = np.quantile(score_draws(times, s.draws, seed=0), tails(s.level), axis=0)
    finite_SxWxK = np.isfinite(times.seconds_SxWxK)
    rows = []
    for place, (name, score) in enumerate(zip(names, scores(times), strict=True)):
        here, gain = speed_up(found, name, against, s.level)
        rows.append({"submission": name, "score": score, "score_low": low_S[place], "score_high": high_S[place],
                     "speed_up": gain.value, "low": gain.low, "high": gain.high, "here_low": here.low,
                     "here_high": here.high,
                     "reached": int(finite_SxWxK[place].sum()), "studies": finite_SxWxK[place].size,
                     "workloads": int(np.isfinite(median(times.seconds_SxWxK[place])).sum())})
    ranking = pd.DataFrame(rows).sort_values(["speed_up", "score"], ascending=False, ignore_index=True)
    return Ruleset(times, found, ranking, pairs(found, s.level))


def stability(own: Ruleset, s: Settings) -> list[Claim]:
    """That halves of the studies agree on every pair that is called decided, and on what the other half decides."""
    claims = []
    for column, where in (("decided", "on workloads like these"), ("decided_here", "on these workloads")):
        decided = own.pairs[own.pairs[column]]
        shares = agreement(own.times, decided)
        low, high = (float(shares.min()), float(shares.max())) if len(decided) else (math.nan, math.nan)
        whole = int(np.sum(shares > SURE))
        claims.append(Claim(
            f"Two halves of the seeds agree on the order of all pairs that the bench calls decided {where}",
            "this bench", f"{whole} of {len(shares)} splits of {s.studies} studies agree on all "
            f"{len(decided)} decided pairs of {len(own.pairs)}; the share of pairs goes from {low:.3f} to {high:.3f}",
            float(shares.mean()) if len(decided) else math.nan, low, high, len(decided), verdict(low, high, SURE)))
    count, agreed = across(own.times, s.draws, s.level)
    share = agreed / count if count else math.nan
    low, high = wilson(agreed, count, s.level)
    claims.append(Claim(
        "What one half of the seeds decides, the other half orders the same in at least the stated share of pairs",
        "this bench", f"{agreed} of {count} pairs that a half of {s.studies // 2} studies decides, "
        f"{share:.3f} [{low:.3f}, {high:.3f}], pairs taken as independent", share, low, high, count,
        verdict(low, high, s.level)))
    return claims


def wilson(hits: int, count: int, level: float) -> tuple[float, float]:
    """Wilson's interval of a share; nan for none."""
    if count == 0:
        return math.nan, math.nan
    found = stats.binomtest(hits, count).proportion_ci(level, method="wilson")
    return float(found.low), float(found.high)


def matrix_claims(rulesets: Mapping[tuple[str, str], Ruleset], s: Settings) -> list[Claim]:
    """That the fastest method of matrices beats the fastest other one, and by how much it beats AdamW."""
    claims = []
    for unit in (STEPS, SECONDS):
        own = rulesets[EXTERNAL, unit]
        language = np.isin(own.times.workloads, [task.name for task in s.language])
        for where, found in (("the language models", only(own.found, language)), ("all workloads", own.found)):
            here, gap = best_gap(found, s.level)
            claims.append(Claim(
                f"The fastest optimizer on {where}, in {unit}, is one of matrices", WEN,
                f"best of {', '.join(MATRIX)} against the best of the others: {times_as_fast(found, here, gap)}", *gap,
                int(found.log_SxSxW.shape[2]), verdict(gap.low, gap.high, 1.0)))
    own = rulesets[EXTERNAL, STEPS]
    for name in MATRIX[:2]:
        here, gain = speed_up(own.found, name, REFERENCE, s.level)
        claims.append(Claim(f"{name} needs fewer steps than {REFERENCE} tuned alike", WEN,
                            times_as_fast(own.found, here, gain), *gain, len(own.times.workloads),
                            verdict(gain.low, gain.high, 1.0)))
    return claims


def best_gap(found: Speeds, level: float) -> tuple[Interval, Interval]:
    """Speed of the best method of matrices over that of the best other, both over the reference; chosen anew in every
    draw, so that the choice is part of the intervals: for these workloads, and for workloads like these.
    """
    names = np.array(found.submissions)
    matrix_S, at = np.isin(names, MATRIX), found.submissions.index(REFERENCE)

    def gap(log_xSxS: np.ndarray) -> np.ndarray:
        over_xS = log_xSxS[..., :, at]
        return np.exp(over_xS[..., matrix_S].max(axis=-1) - over_xS[..., ~matrix_S].max(axis=-1))

    value = float(gap(found.log_SxSxW.mean(axis=-1)))
    ways = found.draws_BxSxSxW.mean(axis=-1), resampled(found, level, seed=1)
    here, like = (Interval(value, *np.quantile(gap(draws_BxSxS), tails(level)).tolist()) for draws_BxSxS in ways)
    return here, like


def tuning_claim(table: pd.DataFrame, rulesets: Mapping[tuple[str, str], Ruleset], s: Settings) -> Claim:
    """How much of the gain over a barely tuned AdamW, the first trial of each study, is left at equal tuning."""
    own = table[table.part == EXTERNAL]
    once = own[(own.submission == REFERENCE) & (own.trial == 0)].assign(submission="untuned")
    found = speeds(bench_runs.times(pd.concat([own, once], ignore_index=True), EXTERNAL, STEPS), s.draws, seed=0)
    ranking = rulesets[EXTERNAL, STEPS].ranking
    best = ranking.submission[ranking.submission != REFERENCE].iloc[0]
    a, b, c = (found.submissions.index(name) for name in (best, REFERENCE, "untuned"))

    def explained(log_xSxS: np.ndarray) -> np.ndarray:
        apparent = log_xSxS[..., a, c]  # within log 4 a workload: what is explained is, if anything, more
        return 1 - log_xSxS[..., a, b] / np.where(apparent > 0, apparent, np.nan)

    low, high = np.nanquantile(explained(resampled(found, s.level, seed=1)), tails(s.level))
    value = float(explained(found.log_SxSxW.mean(axis=-1)))
    return Claim(
        "Unequal tuning explains most of what a new optimizer seems to gain over AdamW", WEN,
        f"of the log speed-up of {best} (best of {s.trials} trials) over AdamW with one trial, tuning AdamW with "
        f"{s.trials} too explains {value:.2f} [{low:.2f}, {high:.2f}]", value, float(low), float(high),
        len(found.group_W), verdict(float(low), float(high), 0.5))


def clock_claims(rulesets: Mapping[tuple[str, str], Ruleset], s: Settings) -> list[Claim]:
    """That counting steps and counting device time give the same ranking."""
    first, second = (rulesets[EXTERNAL, unit].ranking.set_index("submission").speed_up for unit in (STEPS, SECONDS))
    names = list(first.index)
    tau = float(stats.kendalltau(first[names], second[names]).statistic)
    decided = [set(own.pairs.loc[own.pairs.decided_here, ["first", "second"]].itertuples(index=False, name=None))
               for own in (rulesets[EXTERNAL, unit] for unit in (STEPS, SECONDS))]
    turned = sum((b, a) in decided[1] for a, b in decided[0])
    both = turned + len(decided[0] & decided[1])
    share = 1 - turned / both if both else math.nan
    low, high = wilson(both - turned, both, s.level)
    return [Claim("Steps and device time rank the optimizers alike", "Dahl et al. 2023, arXiv 2306.07179, count time",
                  f"{turned} of {both} pairs decided by both are reversed (share alike {share:.2f} [{low:.2f}, "
                  f"{high:.2f}]); Kendall's tau of the speed-ups {tau:.2f}", share, low, high, both,
                  verdict(low, high, s.level))]


def self_claims(rulesets: Mapping[tuple[str, str], Ruleset], s: Settings) -> list[Claim]:
    """That Schedule-Free AdamW leads the self-tuning ruleset, as it did in the competition."""
    found = rulesets[SELF, STEPS].found
    here, gain = speed_up(found, SCHEDULE_FREE, DEFAULTS, s.level)
    ranking = rulesets[SELF, STEPS].ranking.set_index("submission")
    reached = ", ".join(f"{name} {ranking.reached[name]}" for name in (SCHEDULE_FREE, DEFAULTS))
    return [Claim("Untuned, Schedule-Free AdamW reaches the target in fewer steps than AdamW", ALGOPERF,
                  f"{times_as_fast(found, here, gain)}; of {ranking.studies.iloc[0]} runs each, at the target: "
                  f"{reached}", *gain, len(found.group_W), verdict(gain.low, gain.high, 1.0))]


def times_as_fast(found: Speeds, here: Interval, like: Interval) -> str:
    """A speed-up in words, with its interval for these workloads and for workloads like these."""
    others = "one base, so others are unknown" if len(set(found.group_W)) == 1 else (
        f"[{like.low:.2f}, {like.high:.2f}] on workloads like these")
    return f"{here.value:.2f} times as fast, [{here.low:.2f}, {here.high:.2f}] on these workloads, {others}"


def at_the_edge(table: pd.DataFrame, s: Settings) -> pd.DataFrame:
    """By submission: of the trials that won their study, the share whose rate lies in the lowest or highest fifth of
    its range, and the median of their place in it.
    """
    rows = []
    for submission in s.external:
        drawn = next(part for part in submission.space if part.field == "peak")
        own = table[(table.part == EXTERNAL) & (table.submission == submission.name) & (table.reached == 1)]
        won = own.sort_values(STEPS).drop_duplicates(["workload", "study"])
        place = np.log(won["schedule.peak"] / drawn.low) / math.log(drawn.high / drawn.low)
        rows.append({"submission": submission.name, "studies won": len(won), "lowest fifth": (place < 0.2).mean(),
                     "highest fifth": (place > 0.8).mean(), "median place": place.median()})
    return pd.DataFrame(rows)


def _not_identified(s: Settings, table: pd.DataFrame, goals: pd.DataFrame,
                    rulesets: Mapping[tuple[str, str], Ruleset], edges: pd.DataFrame) -> list[str]:
    """What the design cannot tell."""
    own = rulesets[EXTERNAL, STEPS]
    missed = [name for name, reached in zip(own.times.workloads, np.isfinite(median(own.times.seconds_SxWxK)).any(
        axis=0), strict=True) if not reached]
    skewed = edges[(edges["lowest fifth"] > 0.5) | (edges["highest fifth"] > 0.5)]
    return [
        *(f"{name}: no submission reaches the target in half of its studies; the workload tells them apart in nothing"
          for name in missed),
        *(f"{row['submission']}: most of its winning trials lie at an end of its range of rates; another range may be "
          "better for it" for row in skewed.to_dict("records")),
        f"{int((table.status == 'diverged').sum())} of {len(table)} scored trials diverged: they count as not reached",
        f"Pairs are decided together, all {len(own.pairs)} decisions right at {s.level:.0%}: an open pair may well "
        "differ by less than these seeds can show",
        f"Workloads are resampled as {len(np.unique(own.found.group_W))} bases with their variants: so few that "
        "intervals for workloads like these are wide",
        f"Times are known to {s.every} steps, {s.every / s.steps(EXTERNAL):.0%} of the budget; ties count half",
        f"Targets come from {len(s.baselines)} baselines, {', '.join(s.baselines)}; one set of targets, spaces and "
        "points: what another set would change is in no interval",
        *(f"Left out, {name}: {why}" for name, why in s.left_out),
    ]


def also(study: Mapping[str, Any]) -> set[str]:
    """Runs that belong to the bench though its sweep does not train them: experiments.optimizer_bench_trials does."""
    s = settings_of(study)
    tuned = tuning(s)
    entries = [*tuned, *scored(s), *(again for at in tuned for again in retrained(s, at))]
    return {trial(s, task.workload, at).run_id for task in s.digits for at in entries}


def kept(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """What `analyse` reads of a table of the store: held-out losses to four decimals, and times of steps."""
    if name == "curves":
        held_out = table[(table.split == "validation") & (table.step > 0)]
        return held_out[["run_id", "step", "split", "domain", "loss"]].round({"loss": 4})
    return table[table.name == STEP_SECONDS] if name == "diagnostics" else table


def headline(found: Findings) -> str:
    """The answer in one sentence."""
    own, s = found.rulesets[EXTERNAL, STEPS], found.settings
    first, last = own.ranking.iloc[0], own.ranking.iloc[-1]
    clock = found.rulesets[EXTERNAL, SECONDS].ranking.iloc[0]
    return (f"Tuned alike ({s.studies} studies of {s.trials} trials, {len(own.times.workloads)} workloads), "
            f"{first.submission} needs the fewest steps to the target, {first.speed_up:.2f} times as fast as "
            f"{REFERENCE} ([{first.here_low:.2f}, {first.here_high:.2f}] on these workloads, [{first.low:.2f}, "
            f"{first.high:.2f}] on workloads like these), and {last.submission} the most; in device time "
            f"{clock.submission} leads ({clock.speed_up:.2f}, [{clock.here_low:.2f}, {clock.here_high:.2f}] and "
            f"[{clock.low:.2f}, {clock.high:.2f}]). "
            f"{int(own.pairs.decided_here.sum())} of {len(own.pairs)} pairs are decided on these workloads, "
            f"{int(own.pairs.decided.sum())} on workloads like these.")
