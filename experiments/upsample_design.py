"""Design of the study `upsample_upweight`: which shares and weights a temperature asks for, and batches that are full
gradients.

Domains k of n_k windows; w_k ∝ n_k^(1/τ) the shares that are aimed at, p_k ∝ n_k those of the data.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from scaling import fields
from scaling.data import temperature
from scaling.fields import check, static
from scaling.sweeps.grid import Point

PLAIN_EPS = 2.0**60  # far above any gradient: AdamW without moments at rate η ε is descent at rate η, to the bit


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the configuration says of the study.

    `sizes`: windows of each domain over those of the smallest, `low`. `unit`: windows of `low` in the sweep.
    `pool_unit`: in the pool, small enough for full gradients; `pool_batch`: windows of a stochastic batch there;
    `pool_passes`: over the pool, before the state that counts as trained; `frozen_passes`: over which the variance of
    its gradient is measured; that of single windows over one. `whole`: temperatures that whole copies of the pool's
    windows give exactly. `high`, `switch`: of the Cooldown that claims are about. `slower`: peaks of scalarization at
    `high`, shares of the sweep's, beside it. `early_step`: where speed is read. `tolerance`: nats/token, of equality
    under full gradients. `factor_margin`: within which the ratio of variances over Σ w²/p is 1.
    """

    name: str = static()
    sizes: tuple[tuple[str, float], ...] = static(convert=fields.pairs)
    low: str = static()
    temperatures: tuple[float, ...] = static()
    high: float = static()
    slower: tuple[float, ...] = static()
    switches: tuple[float, ...] = static()
    switch: float = static()
    early_step: int = static()
    seeds: tuple[int, ...] = static()
    unit: int = static()
    pool_unit: int = static()
    pool_batch: int = static()
    pool_passes: int = static()
    frozen_passes: int = static()
    whole: tuple[float, ...] = static()
    descent_steps: int = static()
    descent_rate: float = static()
    tolerance: float = static()
    factor_margin: float = static()
    level: float = static()

    def __post_init__(self) -> None:
        fields.check_key(self.low, self.by_name, "study.low")
        smallest = min(self.by_name, key=self.by_name.__getitem__)
        check(self.low == smallest, "study.low", self.low, f"the smallest domain, {smallest}", "exchange them")
        check(self.high in self.temperatures and self.high > 1, "study.high", self.high,
              f"a temperature above 1 of study.temperatures = {self.temperatures}", "add it there")
        check(self.switch in self.switches, "study.switch", self.switch, f"one of study.switches = {self.switches}",
              "add it there")
        check(self.unit != self.pool_unit, "study.pool_unit", self.pool_unit, f"other than study.unit = {self.unit}",
              "make the pool smaller")
        check(self.pool_windows % self.pool_batch == 0, "study.pool_batch", self.pool_batch,
              f"a divisor of the pool's {self.pool_windows} windows", "change study.pool_unit or study.pool_batch")

    @property
    def by_name(self) -> dict[str, float]:
        """Relative sizes by domain."""
        return dict(self.sizes)

    @property
    def pool_windows(self) -> int:
        """Windows of the pool, all domains."""
        return full_batch(self, 1.0)

    @property
    def upsampled(self) -> tuple[float, ...]:
        """Temperatures at which the two ways differ."""
        return tuple(tau for tau in self.temperatures if tau != 1)

    def subset(self, unit: int, sequence: int) -> dict[str, int]:
        """`data.unique_tokens` for `unit` windows of the smallest domain."""
        return {name: int(size * unit * sequence) for name, size in self.sizes}

    @property
    def frozen_batches(self) -> dict[int, int]:
        """Passes over the pool by the windows of a batch whose gradient's variance is measured."""
        return {1: 1, self.pool_batch: self.frozen_passes}

    def steps(self, passes: int, batch: int) -> int:
        """Batches in so many passes over the pool."""
        return passes * self.pool_windows // batch


def sampled(sizes: Mapping[str, float], tau: float) -> Point:
    """Temperature sampling: shares w, every loss alike."""
    return {"data.mixture": temperature.temperature_shares(sizes, tau), "objective": _objective({})}


def scalarised(sizes: Mapping[str, float], tau: float) -> Point:
    """Shares p, the losses of domain k times w_k / p_k."""
    shares, own = (temperature.temperature_shares(sizes, t) for t in (tau, 1.0))
    return {"data.mixture": own, "objective": _objective(temperature.scalar_weights(shares, own))}


def _objective(weights: dict[str, float]) -> dict[str, Any]:
    return {"domain_weights": weights, "reweighting": "none", "temperature": None, "uniform_for": None}


def temperature_of(sizes: Mapping[str, float], aimed: Mapping[str, float]) -> float:
    """τ of shares w, from the largest and the smallest domain: ln(n_max / n_min) / ln(w_max / w_min)."""
    largest, smallest = (chosen(sizes, key=sizes.__getitem__) for chosen in (max, min))
    return round(math.log(sizes[largest] / sizes[smallest]) / math.log(aimed[largest] / aimed[smallest]), 6)


def copies(sizes: Mapping[str, float], tau: float) -> dict[str, int]:
    """How often a batch of temperature sampling shows each window of a domain, so that its gradient is the full one of
    shares w: m_k = (n_max / n_k)^(1 - 1/τ). Scalarization shows each once.

    Raises ConfigError where one is no whole number.
    """
    shown = {}
    for name, size in sizes.items():
        exact = (max(sizes.values()) / size) ** (1 - 1 / tau)
        check(abs(exact - round(exact)) < 1e-9, "study.whole", tau,
              f"a temperature that asks for whole copies of every window, not {exact:.4g} of {name}'s",
              "use sizes that are powers, such as 256, 16 and 1 with temperatures 2 and 4")
        shown[name] = round(exact)
    return shown


def full_batch(s: Settings, tau: float) -> int:
    """Windows of the batch of temperature sampling that is a full gradient; at τ = 1, all windows of the pool."""
    sizes = s.by_name
    return int(sum(count * sizes[name] for name, count in copies(sizes, tau).items()) * s.pool_unit)
