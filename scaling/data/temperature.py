"""Mixtures made from the sizes of domains, and what a mixture costs: variance of the gradient, epochs of a domain.

All take and return mappings by domain name, as `data.mixture` of a configuration does. w shares that are aimed at,
p shares that are sampled, K domains.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from scaling.data import mixing
from scaling.data.mixing import Mixture
from scaling.fields import check

Phases = tuple[tuple[float, dict[str, float]], ...]


def temperature_shares(sizes: Mapping[str, float], tau: float) -> dict[str, float]:
    """Shares w_k = |D_k|^(1/τ) / Σ_j |D_j|^(1/τ): τ = 1 in proportion to size, τ = ∞ all equal, τ < 1 sharper.

    Args:
      sizes: tokens (or windows, or bytes) of each domain; only their ratios matter.
      tau: positive; `math.inf` is allowed.

    Raises:
      ConfigError: no domain, a size that is not positive and finite, or τ that is not positive.

    Source: Li et al. 2024, Upsample or upweight?, arXiv 2410.04579.
    """
    check(len(sizes) > 0, "sizes", dict(sizes), "at least one domain", "name the domains with their tokens")
    for name, size in sizes.items():
        check(0 < size < math.inf, f"sizes.{name}", size, "positive and finite", "correct it or leave the domain out")
    check(tau > 0, "tau", tau, "positive", "use 1 for shares in proportion to size, more for flatter ones")
    log_K = np.log(list(sizes.values()))
    weight_K = np.exp((log_K - log_K.max()) / tau)
    return _named(sizes, weight_K / weight_K.sum())


def stratified(names: Iterable[str]) -> dict[str, float]:
    """The same share for every domain, whatever its size: small ones are cycled (see `epochs`).

    The baseline that learned mixtures rarely beat (Chen et al. 2024, Aioli, arXiv 2411.05735).

    Raises:
      ConfigError: no names, or one of them twice.
    """
    listed = list(names)
    check(len(listed) > 0, "names", listed, "at least one domain", "name the domains")
    check(len(set(listed)) == len(listed), "names", listed, "each domain once", "drop the second mention")
    return dict.fromkeys(listed, 1 / len(listed))


def cooldown(sizes: Mapping[str, float], high: float, low: float, switch: float) -> Phases:
    """Phases ((0, shares at τ = high), (switch, shares at τ = low)): flat while learning is fast, then by size.

    Args:
      high, low: temperatures, high >= low (equal: no switch happens, the control).
      switch: fraction of the run after which `low` holds, between 0 and 1.

    Raises:
      ConfigError: as `temperature_shares`, or low above high, or a switch outside the run.

    Source: Cooldown of arXiv 2410.04579, which goes from τ = 5 to τ = 1 with one switch at a tuned step.
    """
    check(high >= low, "high", high, f"at least low = {low}", "exchange them")
    check(0 < switch < 1, "switch", switch, "a fraction of the run between 0 and 1", "use 0.5")
    return (0.0, temperature_shares(sizes, high)), (switch, temperature_shares(sizes, low))


def annealed(sizes: Mapping[str, float], high: float, low: float, phases: int) -> Phases:
    """`cooldown` in P equal steps: phase i begins at i / P with τ = high^(1 - i/(P-1)) low^(i/(P-1)).

    The abstract of arXiv 2410.04579 speaks of lowering the temperature gradually; the steps are ours.

    Raises:
      ConfigError: as `temperature_shares`, or low above high, or temperatures or phases that leave nothing to anneal.
    """
    check(phases >= 2, "phases", phases, "2 or more", "use temperature_shares for one phase")
    check(high >= low > 0, "high", high, f"at least low = {low}, both positive", "exchange or correct them")
    check(high < math.inf, "high", high, "finite, to be lowered in equal ratios", "use 100 for nearly equal shares")
    taus = np.geomspace(high, low, phases).tolist()
    return tuple((i / phases, temperature_shares(sizes, tau)) for i, tau in enumerate(taus))


def scalar_weights(shares: Mapping[str, float], sampled: Mapping[str, float]) -> dict[str, float]:
    """Scalarization: weights w_k / p_k of the domains' losses which, sampling p, give the expected gradient of w.

    `sampled` names all domains; `shares` may leave out some, as mixtures may, which then have share and weight 0.

    Raises:
      ValueError: shares of unknown domains, negative or not summing to 1; a domain aimed at that is never sampled.

    Source: arXiv 2410.04579; see `second_moment` for what it costs.
    """
    w_K, p_K = _aligned(shares, sampled)
    return _named(sampled, np.divide(w_K, p_K, out=np.zeros_like(w_K), where=w_K > 0))


def second_moment(shares: Mapping[str, float], sampled: Mapping[str, float]) -> float:
    """Mean square of the weights of scalarization, Σ_k w_k² / p_k: 1 when p = w (sampling by w), else more.

    So many times the second moment of the stochastic gradient of one window, if it is alike in all domains
    (2410.04579). Refuses what `scalar_weights` does.
    """
    w_K, p_K = _aligned(shares, sampled)
    return math.fsum(np.divide(w_K**2, p_K, out=np.zeros_like(w_K), where=w_K > 0))


def epochs(mixture: Mixture, windows: Mapping[str, int], steps: int, batch: int) -> dict[str, float]:
    """How often a run passes over each domain: batch × Σ_t share_k(t) / windows_k.

    `mixing.allocate` gives whole windows, less than one from this.

    Args:
      mixture: shares, or phases of them (`cooldown`).
      windows: training windows that each domain may show, all domains of the run.
      steps: of the run.
      batch: windows a step.

    Raises:
      ValueError: a mixture that `mixing.shares` refuses, or a domain without a window.
    """
    for name, count in windows.items():
        check(count >= 1, f"windows.{name}", count, "1 or more", "give the domain more text or leave it out")
    shares_TxK = mixing.shares(mixture, steps, tuple(windows))
    return _named(windows, batch * shares_TxK.sum(axis=0) / np.array(list(windows.values())))


def replay(shares_old: Mapping[str, float], domain_new: str, share_new: float) -> dict[str, float]:
    """The mixture of continual pre-training: share_new of a new domain, the rest old data in its old proportions.

    The replay ratio ρ of the literature is 1 - share_new: .05 for a mild shift, .25 for a strong one (Ibrahim et al.
    2024, arXiv 2403.08763). At share_new = 1 this is fine-tuning; tokens of the new domain go down with share_new.

    Raises:
      ValueError: a share outside [0, 1], old shares that do not sum to 1, or a new domain among the old ones.
    """
    check(domain_new not in shares_old, "domain_new", domain_new, "a domain that is not in shares_old",
          "leave it out of shares_old and divide the others by their sum")
    check(0 <= share_new <= 1, "share_new", share_new, "a share from 0 to 1", "correct it")
    old_K = mixing.shares(shares_old, 1, tuple(shares_old))[0]
    return {**_named(shares_old, (1 - share_new) * old_K), domain_new: float(share_new)}


def _aligned(shares: Mapping[str, float], sampled: Mapping[str, float]) -> tuple[np.ndarray, np.ndarray]:
    names = tuple(sampled)
    w_K, p_K = (mixing.shares(given, 1, names)[0] for given in (shares, sampled))
    for name, w, p in zip(names, w_K.tolist(), p_K.tolist(), strict=True):
        check(p > 0 or w == 0, f"sampled.{name}", p, f"positive, since its share is {w}", "sample the domain")
    return w_K, p_K


def _named(names: Iterable[str], values_K: np.ndarray) -> dict[str, float]:
    return dict(zip(names, values_K.tolist(), strict=True))
