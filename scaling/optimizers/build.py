"""Optimizers by name, built inside the compiled step from traced values: a new rate or decay never recompiles."""

from __future__ import annotations

import functools
from typing import Any

import jax
import optax
from jax import Array

from scaling.model import Model
from scaling.models.running import apart
from scaling.optimizer import MATRIX_METHODS, Optimizer
from scaling.optimizers.groups import Group, groups, labels
from scaling.optimizers.methods import METHODS
from scaling.optimizers.schedule_free import evaluation_params
from scaling.optimizers.sophia import shared
from scaling.optimizers.values import OptimizerValues, blank_values, optimizer_values

__all__ = ["OptimizerValues", "blank_values", "build", "decay_mask", "evaluation_params", "optimizer_values"]


def decay_mask(decay_on: str, params: Any) -> Any:
    """Which parameters decay: all of them, or the kernels of dense layers."""
    def decays(path: tuple, _: Array) -> bool:
        return decay_on == "all" or path[-1].key == "kernel"

    return jax.tree_util.tree_map_with_path(decays, params)


def build(
    spec: Optimizer, values: OptimizerValues, learning_rate: Any, model: Model | None,
) -> optax.GradientTransformationExtraArgs:
    """Clipping by the global norm of all gradients, then the method: p -= lr (step + w p), w on the masked parameters.

    `coupled` decay, w = λ, is what optax and PyTorch call AdamW; `independent`, w = λ / peak, is that of Loshchilov and
    Hutter (2019, arXiv 1711.05101): it follows the schedule's shape and not its height. scaling/optimizers/methods.py
    says which methods decay otherwise. Every group of parameters has a transformation of its own, with lr and w times
    its factors and those of its parameters' role in `model`, None for a network without roles. The method sees its
    group alone. `update` of sophia takes `diagonal`; every `update` takes params.
    Raises ConfigError, once it sees parameters, for groups that do not fit them.
    """
    if spec.groups is None and spec.name not in MATRIX_METHODS and (model is None or model.width_ratio == 1):
        method = _method(spec, values, learning_rate, values.weight_decay, "named")
    else:
        method = _grouped(spec, values, learning_rate, model)
    method = optax.chain(optax.clip_by_global_norm(values.clip_norm), method)
    return method if model is None or model.norm_warmup is None else apart(method)


def _method(spec: Optimizer, values: OptimizerValues, rate: Any, decay: Any, treatment: str
            ) -> optax.GradientTransformation:
    if treatment == "frozen":
        return optax.set_to_zero()
    method = METHODS[spec.name if treatment == "named" else treatment]
    return method(spec, values, rate, decay, functools.partial(decay_mask, spec.decay_on))


def _grouped(
    spec: Optimizer, values: OptimizerValues, learning_rate: Any, model: Model | None,
) -> optax.GradientTransformationExtraArgs:
    """A transformation a group, known once there are parameters."""
    def one(group: Group) -> optax.GradientTransformation:
        rate, decay = learning_rate * group.width.rate, values.weight_decay
        if spec.groups is not None:
            rate, decay = rate * values.rates_G[group.place], decay * values.decays_G[group.place]
        if group.width.decay != 1:
            decay = decay * group.width.decay**(values.width_exponent - group.width.less)
        return _method(spec, values, rate, decay, group.treatment)

    def partition(params: Any) -> optax.GradientTransformationExtraArgs:
        found = groups(spec, model, params)
        return optax.partition({label: one(group) for label, group in found.items()}, labels(found, params))

    def update(gradients: Any, state: Any, params: Any, **extra: Any) -> Any:
        if spec.name == "sophia":
            assert spec.every is not None
            extra["diagonal"] = shared(extra["diagonal"], spec.every, state, params)
        return partition(params).update(gradients, state, params, **extra)

    return optax.GradientTransformationExtraArgs(lambda params: partition(params).init(params), update)
