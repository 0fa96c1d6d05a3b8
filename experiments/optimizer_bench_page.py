"""The report of the study `optimizer_bench`: who is fastest, how sure that is, targets, spaces, what is left open."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from experiments.algoperf import SLOWEST, counted, performance_profile
from experiments.bench_design import EXTERNAL, SELF, Settings, Submission
from experiments.bench_runs import SECONDS, STEPS
from experiments.continual import claims_table, claims_text, plain
from experiments.optimizer_bench import DEFAULTS, REFERENCE, Findings, Ruleset, headline
from experiments.page import Page
from scaling.figures import race
from scaling.figures.style import png
from scaling.store import Store

FACTORS = np.linspace(1.0, SLOWEST, 301)


def ranking_table(own: Ruleset, against: str) -> pd.DataFrame:
    """Speed-ups and scores with intervals, best first."""
    return pd.DataFrame([{
        "optimizer": row["submission"],
        f"times as fast as {against}": f"{row['speed_up']:.2f}",
        "on these workloads": f"[{row['here_low']:.2f}, {row['here_high']:.2f}]",
        "on workloads like these": f"[{row['low']:.2f}, {row['high']:.2f}]",
        "score": f"{row['score']:.3f} [{row['score_low']:.3f}, {row['score_high']:.3f}]",
        "workloads solved": f"{row['workloads']} of {len(own.times.workloads)}",
        "studies at the target": f"{row['reached']} of {row['studies']}",
    } for row in own.ranking.to_dict("records")])


def pairs_table(own: Ruleset) -> pd.DataFrame:
    """How sure are we that the first is faster than the second?"""
    said = {True: "decided", False: "open"}
    return pd.DataFrame([{
        "faster": row["first"], "slower": row["second"],
        "times as fast": f"{row['speed_up']:.2f} [{row['low']:.2f}, {row['high']:.2f}]",
        "sure, on these workloads": f"{row['here']:.3f}, {said[row['decided_here']]}",
        "sure, on workloads like these": f"{row['probability']:.3f}, {said[row['decided']]}",
    } for row in own.pairs.to_dict("records")])


def targets_table(found: Findings) -> pd.DataFrame:
    """Targets and where they come from."""
    speed = found.trials.groupby("workload").reached.mean()
    return pd.DataFrame([{
        "workload": row["workload"], "target": f"{row['target']:.4f}",
        "over fresh seeds": f"{row['low']:.4f} to {row['high']:.4f}", "set by": row["baseline"],
        "its rate": f"{row['peak']:.2g}", "scored trials that reach it": f"{speed[row['workload']]:.0%}",
    } for row in found.targets.to_dict("records")])


def seconds_table(found: Findings) -> pd.DataFrame:
    """Device time of a step over AdamW's, by workload."""
    rows = found.trials[found.trials.part == EXTERNAL].drop_duplicates(["workload", "submission"])
    wide = rows.pivot(index="submission", columns="workload", values="step_seconds")
    ratio = (wide / wide.loc[REFERENCE]).round(2)
    base = (wide.loc[[REFERENCE]] * 1e6).round(0).rename(index={REFERENCE: f"{REFERENCE}, microseconds"})
    return pd.concat([base.astype(int).astype(str), ratio.astype(str)]).rename_axis("optimizer").reset_index()


def spaces_table(s: Settings) -> pd.DataFrame:
    """What every submission draws, and what is fixed."""
    def drawn(of: Submission) -> str:
        return ", ".join(f"{'1 - ' if part.kind == 'log_from_1' else ''}{part.field} {part.low:.3g} to {part.high:.3g}"
                         for part in of.space) or f"nothing; peak {of.peak:g}"

    return pd.DataFrame([{
        "ruleset": "external" if of in s.external else "self-tuning", "optimizer": of.name, "schedule": of.schedule,
        "drawn, log-uniform": drawn(of),
        "fixed": ", ".join(f"{name} {value}" for name, value in vars(of.optimizer).items() if value is not None
                           and name not in ("name", "decay_on") and name not in {part.field for part in of.space}),
    } for of in (*s.external, *s.self_tuning)])


def summary(found: Findings) -> str:
    """What a person needs on the terminal."""
    own = found.rulesets[EXTERNAL, STEPS]
    return "\n".join([headline(found), "", ranking_table(own, REFERENCE).to_string(index=False), "",
                      claims_text(found.claims)])


def record(found: Findings) -> dict[str, Any]:
    """fits.json: targets, rankings, pairs, claims; the study fits no law."""
    tables = {f"{part}, {unit}": {"ranking": own.ranking.to_dict("records"), "pairs": own.pairs.to_dict("records")}
              for (part, unit), own in found.rulesets.items()}
    return {"headline": headline(found), "targets": plain(found.targets.to_dict("records")), "rulesets": plain(tables),
            "edges": plain(found.edges.to_dict("records")), "claims": plain(found.claims),
            "not_identified": found.not_identified}


def figures(found: Findings) -> dict[str, tuple[bytes, str]]:
    """PNG and caption by name."""
    s, units = found.settings, (STEPS, SECONDS)
    external = {unit: found.rulesets[EXTERNAL, unit] for unit in units}
    own = external[STEPS]
    order, level = list(own.ranking.submission), f"{s.level:.0%}"
    ranks = [own.times.submissions.index(name) for name in order]
    scored = {unit: counted(each.times, each.times.seconds_SxWxK) for unit, each in external.items()}
    score_S = {unit: each.ranking.set_index("submission").score[list(each.times.submissions)].to_numpy()
               for unit, each in external.items()}
    drawn = {
        "speed_ups": (race.speed_ups({unit: each.ranking for unit, each in external.items()}, REFERENCE),
                      f"Speed to the target over {REFERENCE}, geometric mean over {len(own.times.workloads)} "
                      f"workloads; {level} intervals, thick: of resampled studies, for these workloads; thin: of "
                      "resampled workloads too, for workloads like these. Coloured: 1 lies outside the thick one."),
        "pairs": (race.probabilities(order, own.pairs, "here", "decided_here"),
                  "How sure are we that A beats B, in steps, on these workloads? Dots: decided, all together at "
                  f"{level}."),
        "profiles": (race.profiles(FACTORS, {unit: performance_profile(scored[unit], FACTORS) for unit in units},
                                   score_S, {unit: each.times.submissions for unit, each in external.items()}),
                     "Performance profiles of the external-tuning ruleset, with the score. A base workload whose "
                     "held-out variant fails counts as failed. Lines are set a little apart."),
        "by_workload": (race.by_workload(order, own.times.workloads,
                                         own.times.seconds_SxWxK[ranks] / s.steps(EXTERNAL)),
                        f"Steps to the target of every study, the best of its {s.trials} trials."),
    }
    return {name: (png(figure), caption) for name, (figure, caption) in drawn.items()}


def page(store: Store, found: Findings) -> tuple[Page, dict[str, bytes]]:
    """The page and its figures."""
    drawn, own = figures(found), found.rulesets[EXTERNAL, STEPS]
    made = Page("Which optimizer is fastest when all are tuned alike?")
    made.paragraph(headline(found), "answer")
    made.figure(*drawn["speed_ups"])
    made.heading("External tuning, in steps")
    made.table(ranking_table(own, REFERENCE))
    made.heading("External tuning, in device time")
    made.table(ranking_table(found.rulesets[EXTERNAL, SECONDS], REFERENCE))
    made.figure(*drawn["profiles"])
    made.figure(*drawn["by_workload"])
    made.heading("Self-tuning: nothing is drawn, one run a study, half as many steps again")
    made.table(ranking_table(found.rulesets[SELF, STEPS], DEFAULTS))
    made.heading("Claims")
    made.table(claims_table(found.claims))
    made.heading("How sure are we that A beats B?")
    made.figure(*drawn["pairs"])
    made.table(pairs_table(own))
    made.heading("Targets")
    made.table(targets_table(found))
    made.heading("Device time of a step, AdamW's = 1")
    made.table(seconds_table(found))
    made.heading("What is drawn")
    made.table(spaces_table(found.settings))
    made.table(found.edges.round(2))
    made.end(found.not_identified, [cost_table(store)], method(found.settings))
    return made, {name: content for name, (content, _) in drawn.items()}


def cost_table(store: Store) -> pd.DataFrame:
    """Runs, FLOPs and seconds of the language models and of the digits."""
    runs = store.read("runs")
    kind = np.where(runs["workload.model"].isna(), "language models", "digits")
    return pd.DataFrame([{
        "kind": name, "runs": ", ".join(f"{count} {status}" for status, count in part.status.value_counts().items()),
        "steps": f"{part.steps_trained.sum():,}", "FLOPs": f"{part.flops.sum():.3g}",
        "seconds": f"{part.wall_seconds.sum():,.0f}", "device": part.device.iloc[0],
    } for name, part in runs.groupby(kind)])


def method(s: Settings) -> list[str]:
    """How the numbers came about."""
    return [
        f"Targets: {', '.join(s.baselines)}, {s.tuning_trials} points each for {s.horizon} steps; the point with the "
        f"lowest held-out loss on {s.retrained} fresh seeds; the target is the median of their lowest losses.",
        f"External tuning: {s.studies} studies of {s.trials} trials, consecutive points of a scrambled Halton sequence "
        f"in the submission's own space, a seed each, {s.steps(EXTERNAL)} steps; a study's time is that of its first "
        "trial at the target; a workload's is the median over studies. The same points on every workload.",
        f"Self-tuning: the published defaults, a run a study, {s.steps(SELF)} steps.",
        "Time to target: the first evaluation whose held-out loss is not above the target, never before. Device time: "
        "those steps times the median time of a step, of calls of all optimizers of a workload in turn, packs of one "
        "width; evaluation and compilation are not counted.",
        "Score: area under the performance profile, ratios from 1 to 4, by the code that gives the published "
        "leaderboards from their logs (results/published, python -m experiments.published). Scores are relative to "
        "this set of submissions.",
        "Speed-ups: geometric mean over workloads of the ratio of times, each within 1/4 and 4; a failure counts as 4 "
        f"times slower than a success. Bootstrap: {s.draws} draws of studies within submission and workload, and of "
        "base workloads with their variants, what these add stretched for their small number.",
        "Made again from the store alone by python -m experiments.report.",
    ]
