"""The mixture ratio when the domain's tokens are limited: few steps on much of them, or many steps on little.

Letters: B draws with the estimate in front, K grid points, P parameters.
"""

from collections.abc import Mapping

import numpy as np

from scaling.fitting.evaluate import at_own
from scaling.fitting.inversions import Decision, decide, extrapolated, lowest, read_ratio, with_estimate
from scaling.fitting.result import Fit, Refusal

_SMALLEST = 1e-3


def ratio_for_limited_tokens(
    fit: Fit,
    domain_tokens: float,
    inputs: Mapping[str, float] | None = None,
    *,
    reach: float = 3.0,
    level: float = 0.95,
    tolerated: float = 0.1,
) -> Decision:
    """The domain share r that minimises the domain loss when all `domain_tokens` are used once: D = domain_tokens/r.

    argmin_r L(N, D_d/r, r) over r in [0.001, 1] (Que et al. 2024, arXiv 2406.01375, application 2). For the D-CPT law
    the minimum satisfies (eta + beta)*B*r^(eta+beta-1)/D_d^beta = gamma*C/(r + eps)^(gamma+1). `fit` is of the *domain*
    loss, so that its ratio is the domain's share; `inputs` are the law's others less D (N).

    A draw without a minimum inside counts as the end at which it is least. Refusals: "no_interior_minimum" (least at an
    end of the range), "extrapolated" (r outside the fitted shares, or D beyond `reach` times the fitted tokens),
    "unstable" (more than `tolerated` of the draws have no minimum inside), "few_groups" (no draws). ValueError for a
    law without a ratio or without D, missing or extra inputs, or tokens that are not positive.
    """
    if not domain_tokens > 0:
        raise ValueError(f"domain_tokens: {domain_tokens} must be > 0: the tokens of the domain corpus, in D's unit")
    if "D" not in fit.law.input_names:
        raise ValueError(
            f"fit: law {fit.law.name!r} has no tokens D among {fit.law.input_names}; the ratio trades them against the"
            " share: use d-cpt"
        )
    given = dict(inputs or {})
    ratio = read_ratio(fit, {**given, "D": domain_tokens}).name
    parameters_BxP = with_estimate(fit)

    def loss(log_share_BxK: np.ndarray) -> np.ndarray:
        share_BxK = np.exp(log_share_BxK)
        return at_own(fit.law, parameters_BxP, {**given, "D": domain_tokens / share_BxK, ratio: share_BxK})

    grid_K = np.linspace(np.log(_SMALLEST), 0.0, 513)
    log_share_B, _, end_B = lowest(loss, grid_K, len(parameters_BxP))
    share_B = np.exp(log_share_B)
    refusal = _refusal(end_B[0]) or extrapolated(
        fit, {**given, "D": domain_tokens / share_B[0], ratio: share_B[0]}, reach
    )
    inside_B = np.where(end_B == 0, share_B, np.nan)
    inside_B[0] = share_B[0]
    return decide(inside_B, refusal, share_B[1:], level, tolerated, fit.refusals)


def _refusal(end: int) -> Refusal | None:
    if end == 0:
        return None
    if end > 0:
        return Refusal(
            "no_interior_minimum", "the predicted domain loss falls all the way to a share of 1: use the domain alone"
        )
    return Refusal(
        "no_interior_minimum",
        f"the predicted domain loss is least at the smallest share looked at, {_SMALLEST:g}: the law says that more"
        " general tokens always help, which no fit shows; check its exponents eta and beta",
    )
