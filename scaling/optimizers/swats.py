"""SWATS: Adam until the rate of the SGD that would take the same steps has settled, then SGD at that rate."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from scaling.optimizers.parts import Mask, decaying, scalar, widened


class SwatsState(NamedTuple):
    """Adam's moments, of which `mu` is SGD's momentum after the switch; the average of γ; the switch.

    `switch_step`: the last step of Adam, counted from 1, 0 before; `sgd_rate`: Λ of the switch; `adam_rate`: η then.
    """

    adam: optax.ScaleByAdamState
    average: Array
    switch_step: Array
    sgd_rate: Array
    adam_rate: Array

    @property
    def switched(self) -> Array:
        """The phase: False Adam, True SGD."""
        return self.switch_step > 0


def swats(learning_rate: Any, b1: Any, b2: Any, eps: Any, tolerance: Any, weight_decay: Any,
          mask: Mask = None) -> optax.GradientTransformation:
    """SWATS: p += s_k, s_k = -η √(1-β₂^k)/(1-β₁^k) m / (√v + ε) of Adam, until the switch; then p -= Λ (1-β₁) b.

    γ_k = ⟨s_k, s_k⟩ / -⟨s_k, g_k⟩ over all parameters together; Λ_k is its average with memory β₂, bias-corrected.
    The switch: k > 1, Λ_k > 0 and |Λ_k - γ_k| < `tolerance` (absolute, in units of η; 0: never). b = β₁ b + g from 0.
    Both phases decay decoupled, p -= η λ p. Keskar & Socher 2017, arXiv 1712.07628. Differs: after the switch Λ follows
    the schedule, times η / η of the switch; the paper has no decay.
    """
    def init(params: Any) -> SwatsState:
        zero = scalar(params)
        return SwatsState(optax.scale_by_adam(b1, b2, eps).init(params), zero, jnp.int32(0), zero, zero)

    def update(gradients: Any, state: SwatsState, params: Any) -> tuple[Any, SwatsState]:
        correction = -jnp.expm1((state.adam.count + 1) * jnp.log(b2))  # 1 - β₂^k
        scaled = optax.scale_by_adam(b1, b2, eps / jnp.sqrt(correction))  # ε beside √v, not √v̂
        steps, moments = scaled.update(gradients, state.adam)
        steps = jax.tree.map(lambda u: -learning_rate * u, steps)
        switched = state.switched
        state, switches = _observed(state._replace(adam=moments), steps, gradients, learning_rate, b2, correction,
                                    tolerance)
        rate = state.sgd_rate * learning_rate / jnp.where(switched, state.adam_rate, 1)

        def one(p: Array, s: Array, m: Array, decays: bool) -> Array:
            return jnp.where(switched, -rate * m, s) - learning_rate * weight_decay * decays * p

        updates = jax.tree.map(one, params, steps, moments.mu, decaying(mask, params))
        # from zero, m = β₁ m + (1-β₁) g is (1-β₁) b: Adam's first moment goes on as SGD's momentum
        momentum = jax.tree.map(lambda m: jnp.where(switches, 0, m), moments.mu)
        return updates, state._replace(adam=moments._replace(mu=momentum))

    return widened(optax.GradientTransformation(init, update))


def _observed(state: SwatsState, steps: Any, gradients: Any, learning_rate: Any, b2: Any, correction: Array,
              tolerance: Any) -> tuple[SwatsState, Array]:
    """The state with γ of one more step of Adam, and whether that step is the last; frozen after the switch."""
    along = -optax.tree.vdot(steps, gradients)
    gamma = optax.tree.vdot(steps, steps) / jnp.where(along == 0, 1, along)
    counts = ~state.switched & (along != 0)
    average = jnp.where(counts, b2 * state.average + (1 - b2) * gamma, state.average)
    rate, step = average / correction, state.adam.count
    switches = counts & (step > 1) & (rate > 0) & (jnp.abs(rate - gamma) < tolerance)
    return state._replace(
        average=average, switch_step=jnp.where(switches, step, state.switch_step),
        sgd_rate=jnp.where(switches, rate, state.sgd_rate),
        adam_rate=jnp.where(switches, learning_rate, state.adam_rate)), switches
