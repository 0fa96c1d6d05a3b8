"""Tables made from laws whose best mixture is known: do the laws find it within their interval?

The construction, for K domains i = 0..K-1, each the target of one loss, all targets weighing 1/K:
  exponential law  c_i + exp(a_i r_i + 0.3 (1 - r_i)), c_i = 1 + 0.2i, a_i = -2.5 - 0.5i
  mixture term     1 + 0.2i + 1/(sum_j C_j r_j^g_j), C_i = 1.5 and g_i = 0.3 + 0.1i, the others 0.4 and 0.5
  BiMix            r_i^-(0.10 + 0.05i) (20/S^0.5 + 1 + 0.2i), S = 300, 450, 600 steps
times exp(noise), normal, one draw a run and domain. All three sums are convex, with one minimum inside the simplex.
Letters: M mixtures, K domains.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from scipy.optimize import LinearConstraint, minimize

from experiments.mixture_design import Shares
from experiments.mixture_methods import BIMIX_NAME, EXPONENTIAL, TERM, Method, fit_bimix, fit_exponential, fit_term

_STEPS = (300.0, 450.0, 600.0)
_CROSS = 0.3


def _exponential(share_MxK: np.ndarray, i: int, steps: float) -> np.ndarray:
    own_M = share_MxK[..., i]
    return 1 + 0.2 * i + np.exp((-2.5 - 0.5 * i) * own_M + _CROSS * (1 - own_M))


def _term(share_MxK: np.ndarray, i: int, steps: float) -> np.ndarray:
    domains = np.arange(share_MxK.shape[-1])
    factor_K, power_K = np.where(domains == i, 1.5, 0.4), np.where(domains == i, 0.3 + 0.1 * i, 0.5)
    return 1 + 0.2 * i + 1 / (factor_K * share_MxK**power_K).sum(axis=-1)


def _bimix(share_MxK: np.ndarray, i: int, steps: float) -> np.ndarray:
    return share_MxK[..., i] ** -(0.1 + 0.05 * i) * (20 / steps**0.5 + 1 + 0.2 * i)


LOSSES: dict[str, Callable[[np.ndarray, int, float], np.ndarray]] = {
    EXPONENTIAL: _exponential, TERM: _term, BIMIX_NAME: _bimix}
FITS: dict[str, Callable[[pd.DataFrame, Sequence[str], int], Method]] = {
    EXPONENTIAL: fit_exponential, TERM: fit_term, BIMIX_NAME: fit_bimix}
OWN = ((EXPONENTIAL, EXPONENTIAL), (TERM, TERM), (BIMIX_NAME, BIMIX_NAME))
"""A law that makes tables, and the one fitted to them: its own."""
WRONG = ((TERM, EXPONENTIAL), (BIMIX_NAME, EXPONENTIAL))
"""The exponential law where it is not the truth."""


def mean_loss(law: str, share_MxK: np.ndarray) -> np.ndarray:
    """The target: the mean of the K losses without noise, after the last step."""
    targets = range(share_MxK.shape[-1])
    return np.mean([LOSSES[law](share_MxK, i, _STEPS[-1]) for i in targets], axis=0)


def best_shares(law: str, domains: int) -> np.ndarray:
    """Where `mean_loss` is least, by sequential quadratic programming from equal shares."""
    start_K = np.full(domains, 1 / domains)
    found = minimize(lambda share_K: float(mean_loss(law, share_K)), start_K, bounds=[(1e-6, 1)] * domains,
                     constraints=LinearConstraint(np.ones(domains), 1, 1), options={"ftol": 1e-14, "maxiter": 1000})
    return found.x


def made_table(law: str, mixtures: Sequence[Shares], noise: float, seed: int) -> pd.DataFrame:
    """One row a mixture and step, as runs leave them."""
    share_MxK, domains = np.array([list(shares.values()) for shares in mixtures]), list(mixtures[0])
    factor_MxK = np.exp(np.random.default_rng(seed).normal(scale=noise, size=share_MxK.shape))
    parts = []
    for steps in _STEPS:
        losses = {f"loss_{d}": LOSSES[law](share_MxK, i, steps) * factor_MxK[:, i] for i, d in enumerate(domains)}
        parts.append(pd.DataFrame({**dict(zip(domains, share_MxK.T, strict=True)), **losses}).assign(
            run_id=np.arange(len(mixtures)), S=steps, N=1.0, last=steps == _STEPS[-1]))
    return pd.concat(parts, ignore_index=True)


@dataclasses.dataclass(frozen=True)
class Found:
    """What a law made of one table: whether the intervals of all shares together hold the best ones (False where it
    refused to say), and the noiseless loss of its mixture above the least, nats/token.
    """

    truth: str
    law: str
    draw: int
    inside: bool
    refused: str
    regret: float


def find_known(
    pairs: Sequence[tuple[str, str]], mixtures: Sequence[Shares], noise: float, draws: int, bootstrap: int, level: float
) -> pd.DataFrame:
    """`Found` of every pair and draw. Intervals are Bonferroni's over the domains, so that all K hold at `level`.

    Mixtures that lack a domain are left out: BiMix is infinite there.
    """
    mixtures = [shares for shares in mixtures if min(shares.values()) > 0]
    domains = list(mixtures[0])
    weights, each = dict.fromkeys(domains, 1 / len(domains)), 1 - (1 - level) / len(domains)
    rows = []
    for truth, law in pairs:
        wanted_K = best_shares(truth, len(domains))
        least = float(mean_loss(truth, wanted_K))
        for draw in range(draws):
            method = FITS[law](made_table(truth, mixtures, noise, draw), domains, bootstrap)
            decisions = list(method.best(weights, each).values())
            refused = ", ".join(sorted({decision.refusal.kind for decision in decisions if decision.refusal}))
            holds = [d.low <= share <= d.high for d, share in zip(decisions, wanted_K, strict=True)]
            regret = float(mean_loss(truth, np.array([decision.value for decision in decisions]))) - least
            rows.append(Found(truth, law, draw, not refused and all(holds), refused, regret))
    return pd.DataFrame([dataclasses.asdict(row) for row in rows])
