"""AlgoPerf's leaderboards, scored anew from the logged trials (Dahl et al. 2023, arXiv 2306.07179; results of the
competition in arXiv 2502.15015).
"""

import time
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.algoperf import SLOWEST, StudyTimes, counted, performance_profile, score_draws, scores, study_times
from experiments.published.row import Row, close
from scaling.figures.style import panels, ramp

_DIGITS = 5e-5 + 1e-9  # half of the last digit printed
_DRAWS = 2000


@cache
def leaderboards(data: Path) -> dict[str, StudyTimes]:
    """Times of every study, by leaderboard: "0.5, external tuning"."""
    trials = _named(pd.read_csv(data / "algoperf_trials.csv.gz"))
    return {str(board): study_times(own) for board, own in trials.groupby("board")}


@cache
def published_scores(data: Path) -> pd.DataFrame:
    """The published tables: board, submission, published_score."""
    return _named(pd.read_csv(data / "algoperf_scores.csv"))


def _named(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(board=table["version"].astype(str) + ", " + table["ruleset"].str.replace("_", " "))


def rows(data: Path) -> list[Row]:
    """Every published score against ours."""
    return [row for board, own in published_scores(data).groupby("board") for row in _board(data, str(board), own)]


def _board(data: Path, board: str, published: pd.DataFrame) -> list[Row]:
    began = time.perf_counter()
    times = leaderboards(data)[board]
    score_S = scores(times)
    low_S, high_S = np.quantile(score_draws(times, _DRAWS, seed=0), [0.025, 0.975], axis=0)
    seconds = time.perf_counter() - began
    found = []
    for submission, score in zip(published["submission"], published["published_score"].astype(float), strict=True):
        at = times.submissions.index(submission)
        found.append(
            Row(
                source=f"AlgoPerf {board}",
                quantity=f"score of {submission}",
                published=score,
                ours=float(score_S[at]),
                low=float(low_S[at]),
                high=float(high_S[at]),
                n=int(np.isfinite(times.seconds_SxWxK[at]).sum()),
                objective="area under the performance profile, tau from 1 to 4",
                verdict=close(score, float(score_S[at]), _DIGITS),
                seconds=seconds,
                note=_note(score, float(score_S[at])),
            )
        )
    return found


def _note(published: float, ours: float) -> str:
    resampled = "n: studies that reach the target; interval: studies resampled within submission and workload"
    if abs(published - ours) <= _DIGITS:
        return resampled
    return f"{resampled}; the logs give {ours:.4f}, the published table {published:.4f}: unexplained"


def figures(data: Path) -> dict[str, Figure]:
    """Performance profiles of each leaderboard with a published score."""
    boards = sorted(published_scores(data)["board"].unique())
    figure, axes = panels(len(boards), width=3.6)
    factor_T = np.linspace(1.0, SLOWEST, 301)
    for axis, board in zip(axes, boards, strict=True):
        times = leaderboards(data)[board]
        score_S = scores(times)
        share_SxT = performance_profile(counted(times, times.seconds_SxWxK), factor_T)
        order = np.argsort(-score_S)
        for place, colour in zip(order, ramp(score_S), strict=True):
            label = f"{times.submissions[place]} {score_S[place]:.3f}"
            axis.step(factor_T, share_SxT[place], where="post", color=colour, linewidth=1.2, label=label)
        axis.set_title(board, fontsize=9)
        axis.set_xlabel("tau: time as a multiple of the fastest's", fontsize=8)
        axis.legend(fontsize=4.5, loc="lower right")
    axes[0].set_ylabel("share of workloads", fontsize=8)
    return {"profiles": figure}
