"""The claims of the study `cmr`: what Gu et al. 2024 (arXiv 2407.17467) say, and what our branches say to it.

Letters: S sizes, B draws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from experiments.claims import Claim, verdict
from experiments.statistics import Interval, grouped_mean_interval, t_interval
from scaling.fitting import Decision
from scaling.fitting.result import tails

if TYPE_CHECKING:
    from experiments.cmr import Size

PAPER = "Gu et al. 2024"
UNSEEN_RATIO_ERROR = 5e-4  # table 2: the loss at an unseen ratio within 0.05%
DOMAIN_R2, GENERAL_R2 = 0.995, 0.87  # table 3: the least over sizes and domains
SHARING_COST = 0.5  # our aim


def unseen_ratio(unseen: pd.DataFrame, level: float) -> list[Claim]:
    """Mean error of the domain loss at ratios that the ratio law was not fitted to, as it is and beyond what the noise
    of our means makes of a perfect law: sqrt(mean(error^2 - variance)). Sizes are drawn whole.
    """
    rows = unseen[unseen.role == "domain"]
    error_M, variance_M = rows.law / rows.loss - 1, rows.variance / rows.loss**2
    error = grouped_mean_interval(np.abs(error_M), rows.N, level)
    noise = float(np.sqrt(2 / math.pi * variance_M).mean())
    excess = Interval(*(math.sqrt(max(end, 0.0)) for end in grouped_mean_interval(error_M**2 - variance_M, rows.N,
                                                                                  level)))
    statement = "The ratio law predicts the domain loss at an unseen ratio within 0.05%"
    return [
        Claim(statement, f"{PAPER}, table 2", f"mean error {_interval(error, '.3%')}; a perfect law would show "
              f"{noise:.3%}, the noise of our means", *error, len(rows),
              verdict(-error.high, -error.low, -UNSEEN_RATIO_ERROR)),
        Claim(f"{statement}, beyond the noise of our means", f"{PAPER}, table 2",
              f"root mean square error {_interval(excess, '.3%')} once the noise is taken off", *excess, len(rows),
              verdict(-excess.high, -excess.low, -UNSEEN_RATIO_ERROR)),
    ]


def better_than_lines(unseen: pd.DataFrame, level: float) -> list[Claim]:
    """Gain of the ratio law over the straight line between the neighbouring ratios, by loss; sizes are drawn whole."""
    claims = []
    for role, rows in unseen.groupby("role"):
        law, line = (np.abs(rows[way] / rows.loss - 1) for way in ("law", "line"))
        gain = grouped_mean_interval(line - law, rows.N, level)
        claims.append(Claim(
            f"The ratio law predicts the {role} loss at an unseen ratio better than a straight line between its "
            "neighbours", "our baseline", f"error {law.mean():.3%} against {line.mean():.3%}, gain "
            f"{_interval(gain, '+.3%')}", *gain, len(rows), verdict(gain.low, gain.high, 0.0)))
    return claims


def laws_in_tokens(quality: pd.DataFrame, level: float) -> list[Claim]:
    """Mean R^2 of the laws in tokens, by loss; sizes are drawn whole."""
    claims = []
    for role, least in (("domain", DOMAIN_R2), ("general", GENERAL_R2)):
        rows = quality[quality.role == role]
        r2 = grouped_mean_interval(rows.r2, rows.N, level)
        claims.append(Claim(f"The {role} loss's change follows its law in tokens, R^2 of {least:g} or more",
                            f"{PAPER}, table 3", f"mean {_interval(r2, '.4f')}, least {rows.r2.min():.4f}", *r2,
                            len(rows), verdict(r2.low, r2.high, least)))
    return claims


def feasible(sizes: Sequence[Size], least: float) -> Claim:
    """The least over sizes of the largest ratio within the tolerance at the end, against the smallest one trained."""
    decisions = {size.width: size.within[max(size.within)] for size in sizes}
    width, worst = min(decisions.items(), key=lambda item: item[1].value)
    refused = any(decision.refusal and decision.refusal.kind != "unbounded" for decision in decisions.values())
    said = "inconclusive" if refused else verdict(worst.low, worst.high, least)
    return Claim("A feasible mixture exists for every size: the domain's loss falls and the general loss stays within "
                 "the tolerance", PAPER, f"least for width {width}: any ratio up to {_share(worst)}", worst.value,
                 worst.low, worst.high, len(sizes), said)


def grows_with_tokens(sizes: Sequence[Size], level: float) -> Claim:
    """Critical ratio at the last tokens asked less that at the first, mean over the sizes where both are known."""
    pairs = []
    for size in sizes:
        known = sorted(tokens for tokens, decision in size.critical.items() if decision.refusal is None)
        if len(known) > 1:
            pairs.append((known[0], known[-1], size.critical[known[0]], size.critical[known[-1]]))
    statement, source = "The critical ratio grows with the tokens of the branch", f"{PAPER}, figures of CMR against T"
    if not pairs:
        return Claim(statement, source, "no size has it at two token counts", *(math.nan,) * 3, 0, "inconclusive")
    rise = _mean_of([_difference(late, early) for _, _, early, late in pairs], level)
    spans = f"{min(pair[0] for pair in pairs):,.0f} to {max(pair[1] for pair in pairs):,.0f} tokens"
    return Claim(statement, source, f"{spans}: {_interval(rise, '+.3f')}, mean of {len(pairs)} sizes", *rise,
                 len(pairs), verdict(rise.low, rise.high, 0.0))


def grows_with_size(sizes: Sequence[Size], level: float) -> list[Claim]:
    """Rise from the smallest size to the largest along a line in log N, by the turning points and by the tolerance."""
    ways = (("critical ratio", "critical"), ("ratio within the tolerance", "within"))
    return [_rise_claim(name, _most_answers(sizes, field), level) for name, field in ways]


def _most_answers(sizes: Sequence[Size], field: str) -> tuple[float, dict[float, Decision]]:
    """The tokens at which most sizes have an answer (the latest such), and the answers by parameters."""
    known: dict[float, dict[float, Decision]] = {}
    for size in sizes:
        for tokens, decision in getattr(size, field).items():
            if decision.refusal is None:
                known.setdefault(tokens, {})[size.parameters] = decision
    return max(known.items(), key=lambda item: (len(item[1]), item[0]), default=(math.nan, {}))


def _rise_claim(name: str, answers: tuple[float, dict[float, Decision]], level: float) -> Claim:
    statement, source = f"The {name} grows with model size", f"{PAPER}: 29.8% at 460M to 47.8% at 3.1B"
    tokens, decisions = answers
    if len(decisions) < 3:
        return Claim(statement, source, f"known for {len(decisions)} sizes, 3 are needed", *(math.nan,) * 3,
                     len(decisions), "inconclusive")
    log_S = np.log(list(decisions))
    weight_S = (log_S - log_S.mean()) / ((log_S - log_S.mean()) ** 2).sum() * np.ptp(log_S)
    draws_BxS = _paired(list(decisions.values()))
    value = float(weight_S @ [decision.value for decision in decisions.values()])
    low, high = np.quantile(draws_BxS @ weight_S, tails(level)).tolist()
    shares = ", ".join(f"{decision.value:.0%}" for decision in decisions.values())
    return Claim(statement, source, f"at {tokens:,.0f} tokens {shares} by size; line in log N rises by "
                 f"{_interval(Interval(value, low, high), '+.3f')}", value, low, high, len(decisions),
                 verdict(low, high, 0.0))


def sharing_saves(cost: pd.DataFrame, level: float) -> Claim:
    """Seconds of the sweep over seconds of each branch from scratch, mean over sizes."""
    ratio = t_interval(cost.shared_seconds / cost.scratch_seconds, level)
    flops = cost.shared_flops.sum() / cost.scratch_flops.sum()
    return Claim("With shared trunks the sweep costs less than half of training each branch from scratch",
                 "our aim", f"{_interval(ratio, '.2f')} of the seconds, {flops:.2f} of the FLOPs", *ratio, len(cost),
                 verdict(-ratio.high, -ratio.low, -SHARING_COST))


def _paired(decisions: Sequence[Decision]) -> np.ndarray:
    """Draws of several decisions side by side, [B, S]: draw b of each comes from the same weights of the seeds."""
    draws = min(len(decision.draws_B) for decision in decisions)
    return np.stack([decision.draws_B[:draws] for decision in decisions], axis=1)


def _difference(late: Decision, early: Decision) -> np.ndarray:
    """Difference of two decisions, the estimate in front of the draws."""
    draws_Bx2 = _paired([late, early])
    return np.concatenate([[late.value - early.value], draws_Bx2[:, 0] - draws_Bx2[:, 1]])


def _mean_of(values: Sequence[np.ndarray], level: float) -> Interval:
    shortest = min(len(value_B) for value_B in values)
    mean_B = np.mean([value_B[:shortest] for value_B in values], axis=0)
    low, high = np.quantile(mean_B[1:], tails(level)).tolist()
    return Interval(float(mean_B[0]), low, high)


def _interval(interval: Interval, form: str) -> str:
    return f"{interval.value:{form}} [{interval.low:{form}}, {interval.high:{form}}]"


def _share(decision: Decision) -> str:
    return _interval(Interval(decision.value, decision.low, decision.high), ".0%")
