"""Every method of scaling.optimizer.SETTINGS from a run's values: p -= η (step + λ p), λ on the masked parameters.

Where the paper has decay elsewhere so does ours: within the trust ratio of lars and lamb, at the interpolated point of
schedule_free, times the estimated distance of prodigy, 1 / (1-μ) larger in sgdp, of p after the step in conda, galore,
gradnormlorp and soap, and none of the kernels of layca.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import optax
from jax import Array
from optax import contrib
from optax.contrib import MuonDimensionNumbers

from scaling.optimizer import Optimizer
from scaling.optimizers.adamp import adamp, sgdp
from scaling.optimizers.conda import conda
from scaling.optimizers.galore import galore
from scaling.optimizers.gradnormlorp import gradnormlorp
from scaling.optimizers.layca import layca
from scaling.optimizers.parts import Mask
from scaling.optimizers.prodigy import prodigy
from scaling.optimizers.radam import radam
from scaling.optimizers.schedule_free import schedule_free
from scaling.optimizers.soap import soap
from scaling.optimizers.sophia import sophia
from scaling.optimizers.swats import swats
from scaling.optimizers.values import OptimizerValues

MOONLIGHT_RMS = 0.2
Method = Callable[[Optimizer, OptimizerValues, Any, Any, Mask], optax.GradientTransformation]


def _decoupled(step: optax.GradientTransformation, rate: Any, decay: Any, mask: Mask) -> optax.GradientTransformation:
    return optax.chain(step, optax.add_decayed_weights(decay, mask), optax.scale_by_learning_rate(rate))


def _given(value: int | None) -> int:
    """A setting that the section has checked to be there."""
    assert value is not None
    return value


def _adafactor(spec: Optimizer, v: OptimizerValues, rate: Any, decay: Any, mask: Mask) -> optax.GradientTransformation:
    """u = g / √V̂ clipped to RMS 1, V̂ of rank one for every matrix with β̂_t = 1 - t^-memory; times max(10⁻³, RMS(p)) if
    `scaled`. Shazeer & Stern 2018, arXiv 1804.04235. Differs from optax's: matrices of any size are factored, and
    decay is times the rate.
    """
    def memory(step: Array, exponent: Any) -> Array:
        return 1 - (step + 1) ** -exponent

    step = [optax.scale_by_factored_rms(decay_rate=v.memory, min_dim_size_to_factor=1, decay_rate_fn=memory),
            optax.clip_by_block_rms(1.0)]
    scaled = [optax.scale_by_param_block_rms()] if spec.form == "scaled" else []
    return _decoupled(optax.chain(*step, *scaled), rate, decay, mask)


def _adamw(spec: Optimizer, v: OptimizerValues, rate: Any, decay: Any, mask: Mask) -> optax.GradientTransformation:
    """u = m̂ / (√v̂ + ε). Loshchilov & Hutter 2019, arXiv 1711.05101."""
    return optax.adamw(rate, v.b1, v.b2, v.eps, weight_decay=decay, mask=mask)


def _ademamix(spec: Optimizer, v: OptimizerValues, rate: Any, decay: Any, mask: Mask) -> optax.GradientTransformation:
    """u = (m̂ + α m₃) / (√v̂ + ε), m₃ with β₃. Pagliardini et al. 2024, arXiv 2409.03137; α and β₃ are constant here."""
    return contrib.ademamix(rate, v.b1, v.b2, v.b3, v.alpha, v.eps, weight_decay=decay, mask=mask)


def _adopt(spec: Optimizer, v: OptimizerValues, rate: Any, decay: Any, mask: Mask) -> optax.GradientTransformation:
    """m of g_t / max(√v_{t-1}, ε) clipped to t^¼; the first gradient starts v alone. Taniguchi et al. 2024, 2411.02853.
    """
    return _decoupled(contrib.scale_by_adopt(v.b1, v.b2, v.eps), rate, decay, mask)


def _lamb(spec: Optimizer, v: OptimizerValues, rate: Any, decay: Any, mask: Mask) -> optax.GradientTransformation:
    """u = m̂ / (√v̂ + ε) + λ p of each tensor, times ‖p‖ / ‖u‖. You et al. 2020, arXiv 1904.00962."""
    return optax.lamb(rate, v.b1, v.b2, v.eps, weight_decay=decay, mask=mask)


def _lars(spec: Optimizer, v: OptimizerValues, rate: Any, decay: Any, mask: Mask) -> optax.GradientTransformation:
    """b = μ b + η scale ‖p‖ / ‖u‖ u, u = g + λ p of each tensor; p -= b. You et al. 2017, arXiv 1708.03888.

    The rate is within the momentum, as in the paper: steps after a change of rate still carry the old one.
    """
    return optax.lars(rate, decay, True if mask is None else mask, v.scale, momentum=v.momentum)


def _layca(spec: Optimizer, v: OptimizerValues, rate: Any, decay: Any, mask: Mask) -> optax.GradientTransformation:
    inner = optax.trace(v.momentum) if spec.form == "sgd" else optax.scale_by_adam(v.b1, v.b2, v.eps)
    return layca(inner, rate)


def _lion(spec: Optimizer, v: OptimizerValues, rate: Any, decay: Any, mask: Mask) -> optax.GradientTransformation:
    """u = sign(β₁ m + (1-β₁) g), then m with β₂. Chen et al. 2023, arXiv 2302.06675."""
    return optax.lion(rate, v.b1, v.b2, weight_decay=decay, mask=mask)


def _muon(spec: Optimizer, v: OptimizerValues, rate: Any, decay: Any, mask: Mask) -> optax.GradientTransformation:
    """u = 5 Newton-Schulz steps on the Nesterov momentum M, near U Vᵀ; times √max(1, fan out / fan in) in the original,
    0.2 √max(fan in, fan out) in moonlight (Jordan 2024; Liu et al. 2025, arXiv 2502.16982). Differs from `optax.muon`:
    groups say what is orthogonalized, not the number of dimensions, and decay reaches all groups.
    """
    def axes(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), leaf.ndim - 1), tree)

    def scaled(update: Array) -> Array:
        fan_in, fan_out = math.prod(update.shape[:-1]), update.shape[-1]
        original = spec.form == "original"
        return update * math.sqrt(max(1, fan_out / fan_in) if original else MOONLIGHT_RMS**2 * max(fan_in, fan_out))

    orthogonal = contrib.scale_by_muon(beta=v.momentum, eps=v.eps, weight_dimension_numbers=axes)
    shaped = optax.stateless(lambda updates, params: jax.tree.map(scaled, updates))
    return _decoupled(optax.chain(orthogonal, shaped), rate, decay, mask)


def _sgd(spec: Optimizer, v: OptimizerValues, rate: Any, decay: Any, mask: Mask) -> optax.GradientTransformation:
    """b = μ b + g; u = b, or g + μ b with nesterov."""
    return _decoupled(optax.trace(v.momentum, spec.form == "nesterov"), rate, decay, mask)


METHODS: dict[str, Method] = {
    "adafactor": _adafactor,
    "adamp": lambda spec, v, rate, decay, mask: adamp(rate, v.b1, v.b2, v.eps, decay, v.delta, v.decay_ratio, mask),
    "adamw": _adamw,
    "ademamix": _ademamix,
    "adopt": _adopt,
    "conda": lambda spec, v, rate, decay, mask: conda(rate, v.b1, v.b2, v.eps, v.scale, _given(spec.every), decay,
                                                      mask),
    "galore": lambda spec, v, rate, decay, mask: galore(
        rate, v.b1, v.b2, v.eps, _given(spec.rank), _given(spec.every), v.scale, decay, spec.form == "long", mask),
    "gradnormlorp": lambda spec, v, rate, decay, mask: gradnormlorp(
        rate, v.b1, v.b2, v.eps, _given(spec.rank), _given(spec.every), v.scale, decay, spec.form == "released", mask),
    "lamb": _lamb,
    "lars": _lars,
    "layca": _layca,
    "lion": _lion,
    "muon": _muon,
    "prodigy": lambda spec, v, rate, decay, mask: prodigy(rate, v.b1, v.b2, v.eps, v.scale, decay, mask),
    "radam": lambda spec, v, rate, decay, mask: radam(rate, v.b1, v.b2, v.eps, decay, spec.form == "released", mask),
    "schedule_free": lambda spec, v, rate, decay, mask: schedule_free(rate, v.b1, v.b2, v.eps, decay, mask),
    "sgd": _sgd,
    "sgdp": lambda spec, v, rate, decay, mask: sgdp(rate, v.momentum, spec.form == "nesterov", v.eps, decay, v.delta,
                                                    v.decay_ratio, mask),
    "soap": lambda spec, v, rate, decay, mask: soap(rate, v.b1, v.b2, v.eps, _given(spec.every), decay, mask),
    "sophia": lambda spec, v, rate, decay, mask: sophia(rate, v.b1, v.b2, v.eps, v.scale, _given(spec.every), decay,
                                                        mask),
    "swats": lambda spec, v, rate, decay, mask: swats(rate, v.b1, v.b2, v.eps, v.tolerance, decay, mask),
}
