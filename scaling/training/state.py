"""The state of one run in training, and of a pack of them with a leading axis."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from scaling.config import Run
from scaling.models.running_norms import Training
from scaling.models.transformer import Transformer
from scaling.optimizers.build import OptimizerValues, blank_values, build, evaluation_params
from scaling.training.mixing import blank_inputs, initial_mixing

INIT, DATA, CURVATURE = 0, 1, 2  # purposes folded into a run's key
Values = Any  # a numpy array on the host, a jax array on devices


class Hyperparameters(NamedTuple):
    """Values in which runs of one program differ and that hold for a whole run; K domains."""

    seed: Values  # int32
    optimizer: OptimizerValues
    z_loss: Values
    diverged_above: Values
    windows_K: Values  # int32, training windows a domain may give
    mixing: Any = ()  # MixingInputs of a program with a mixer
    objective: Any = ()  # ObjectiveValues of a program with an objective


class Tables(NamedTuple):
    """Values that change from step to step, for C consecutive steps."""

    learning_rate_C: Values
    drawn_CxK: Values  # int32, windows each domain gave before the step
    counts_CxK: Values  # int32, windows it gives at the step; a row sums to the batch
    momentum_C: Any  # None where the optimizer has none that a schedule could move


class Metrics(NamedTuple):
    """Sums over the steps since the last log, per run."""

    steps: Array
    loss: Array  # nats/token
    deviations: Array  # sum of (loss - mean of the losses)^2
    gradient_norm: Array


class PackedMetrics(NamedTuple):
    """The same of a program with packing, and the share of a batch's targets that count."""

    steps: Array
    loss: Array
    deviations: Array
    gradient_norm: Array
    predicted: Array


def zero_metrics(program: Run) -> Metrics | PackedMetrics:
    """Nothing summed yet."""
    dtype = jnp.promote_types(program.training.dtype, jnp.float32)
    kind = Metrics if program.packing is None else PackedMetrics
    return kind(*(jnp.zeros((), dtype) for _ in kind._fields))


def counted_step(metrics: Metrics | PackedMetrics, loss: Array, *values: Array) -> Metrics | PackedMetrics:
    """The sums with one step more; `values`: of the fields after the deviations, in their order.

    Deviations grow by (loss - mean before)^2 n/(n + 1), n the steps before (Welford 1962): in float32 the difference of
    a sum of squares and a square would lose a spread far below the loss itself.
    """
    steps, total, deviations, *totals = metrics
    deviation = jnp.square(loss - total / jnp.maximum(steps, 1)) * steps / (steps + 1)
    return type(metrics)(steps + 1, total + loss, deviations + deviation,
                         *(total + value for total, value in zip(totals, values, strict=True)))


class TrainState(NamedTuple):
    """All that a run carries from step to step. Randomness needs no state: it is folded from seed, purpose and step."""

    params: Any
    optimizer: Any
    step: Array  # int32, updates done in this run
    diverged_at: Array  # int32, the step whose loss or gradient was refused; -1 while the run is sound
    metrics: Metrics | PackedMetrics
    mixing: Any = ()  # MixingState of a program with a mixer


def model_of(program: Run, vocabulary: int, training: Training = None) -> Transformer:
    """The Flax module of a program; `training`: the mesh axes that share a batch, None in an evaluation."""
    return Transformer(program.model, vocabulary, jnp.dtype(program.training.dtype), training)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _initial_params(model: Transformer, sequence: int, seed: Array) -> Any:
    key = jax.random.fold_in(jax.random.key(seed), INIT)
    return model.init(key, jnp.zeros((1, sequence), jnp.int32))["params"]


def initial_params(program: Run, vocabulary: int, seed: Any) -> Any:
    """Fresh parameters from a run's seed: one compiled program a model, whatever else the runs of it are."""
    return _initial_params(model_of(program, vocabulary), program.data.sequence, jnp.asarray(seed, jnp.int32))


def fresh_state(program: Run, params: Any, inputs: Any = None) -> TrainState:
    """The state at step 0 with these parameters; `inputs` of its mixer, None for blank ones."""
    return _begun(program, params, initial_optimizer_state(program, params),
                  blank_inputs(program) if inputs is None else inputs)


def initial_state(program: Run, vocabulary: int, seed: Array, inputs: Any = None) -> TrainState:
    """Fresh parameters from the run's seed, fresh optimizer state, step 0."""
    return fresh_state(program, initial_params(program, vocabulary, seed), inputs)


def branch_state(program: Run, parent: TrainState, reset_optimizer: bool, inputs: Any) -> TrainState:
    """The parent's parameters with its optimizer's state, or those that it is evaluated at with a fresh optimizer;
    counters at zero, a fresh mixer.
    """
    if reset_optimizer:
        return fresh_state(program, evaluation_params(parent.optimizer, parent.params), inputs)
    return _begun(program, parent.params, parent.optimizer, inputs)


def referred_state(program: Run, vocabulary: int, seed: Array, inputs: Any, reference: TrainState) -> TrainState:
    """A fresh state whose mixer measures against a reference."""
    state = initial_state(program, vocabulary, seed, inputs)
    return state._replace(mixing=state.mixing._replace(companion=evaluation_params(
        reference.optimizer, reference.params)))


def _begun(program: Run, params: Any, optimizer: Any, inputs: Any) -> TrainState:
    """Counters at zero and a fresh mixer; its companion, where it has one, starts as the model does."""
    state = TrainState(params, optimizer, jnp.int32(0), jnp.int32(-1), zero_metrics(program))
    if program.mixer is None:
        return state
    companions = {"doremi": params, "bilevel": (params, initial_optimizer_state(program, params))}
    return state._replace(mixing=initial_mixing(program, inputs, companions.get(program.mixer.name, ())))


def initial_optimizer_state(program: Run, params: Any) -> Any:
    """Optimizer state of `params`; it does not depend on the optimizer's values."""
    return build(program.optimizer, blank_values(program.optimizer), jnp.zeros(()), program.model).init(params)
