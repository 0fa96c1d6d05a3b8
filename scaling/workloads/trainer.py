"""Trials of one program trained together: one compiled step over lanes, which are spread over the devices.

W lanes, places for trials, B images a batch, C steps of a call.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from scaling.optimizers.build import OptimizerValues, build, evaluation_params
from scaling.workloads.digits import Digits, Images
from scaling.workloads.models import initial_params, loss
from scaling.workloads.trial import Trial, Workload

INIT = 0  # purpose folded into a trial's key
LANES = "lane"


class Lane(NamedTuple):
    """Values in which trials of one program differ."""

    seed: Any  # int32
    values: OptimizerValues


class LaneState(NamedTuple):
    """All that a trial carries from step to step; its data and randomness follow from seed and step."""

    params: Any
    optimizer: Any
    step: Array  # int32, updates done
    diverged_at: Array  # int32, the step whose gradient was not finite; -1 while the trial is sound


class Steps(NamedTuple):
    """What acts at C consecutive steps of a trial: its rates and the places of its images."""

    learning_rate_C: Any
    chosen_CxB: Any  # int32


def steps_of(trial: Trial, images: int, evaluation: int) -> Steps:
    """The steps that lead up to evaluation 1, 2, ... of a trial: every image once an epoch, each epoch in an order of
    its own, which follows from the trial's seed and the epoch alone.
    """
    every, size = trial.every, trial.workload.batch
    at_T = np.arange((evaluation - 1) * every, evaluation * every)
    place_CxB = at_T[:, None] * size + np.arange(size)
    first, last = place_CxB[0, 0] // images, place_CxB[-1, -1] // images
    orders = np.concatenate([_order(trial.seed, epoch, images) for epoch in range(first, last + 1)])
    return Steps(trial.learning_rates()[at_T].astype(np.float32), orders[place_CxB - first * images])


@functools.lru_cache(maxsize=4096)
def _order(seed: int, epoch: int, images: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(images).astype(np.int32)


def step(program: Trial, images: Images, lane: Lane, now: Steps, state: LaneState) -> LaneState:
    """One update, from one row of `Steps`; a gradient that is not finite marks the trial, which then stays as it is."""
    drawn = Images(images.pixels_Nx64[now.chosen_CxB], images.labels_N[now.chosen_CxB])
    grads = jax.grad(loss, argnums=1)(program.workload, state.params, *drawn)
    updates, optimizer = build(program.optimizer, lane.values, now.learning_rate_C, None).update(
        grads, state.optimizer, state.params)
    sound = jnp.isfinite(optax.tree.norm(grads)) & (state.diverged_at < 0)
    new = LaneState(optax.apply_updates(state.params, updates), optimizer, state.step + 1, state.diverged_at)
    marked = state._replace(diverged_at=jnp.where(state.diverged_at < 0, state.step + 1, state.diverged_at))
    return jax.tree.map(lambda after, before: jnp.where(sound, after, before), new, marked)


def over_lanes(function: Callable, mesh: Mesh, shared: int, **options: Any) -> Any:
    """`function` of `shared` common arguments and then any number by lane, which are spread over the mesh; compiled."""
    by_lane, same = PartitionSpec(LANES), PartitionSpec()

    def over(*arguments: Any) -> Any:
        lanes = len(arguments) - shared
        at_once = jax.vmap(function, in_axes=(None,) * shared + (0,) * lanes)
        return jax.shard_map(at_once, mesh=mesh, in_specs=(same,) * shared + (by_lane,) * lanes, out_specs=by_lane,
                             check_vma=False)(*arguments)

    return jax.jit(over, **options)


@functools.cache
def _initial(workload: Workload, mesh: Mesh) -> Any:
    """Seeds -> parameters: one program for all optimizers."""
    return over_lanes(lambda seed: initial_params(workload, jax.random.fold_in(jax.random.key(seed), INIT)), mesh, 0)


@functools.cache
def _validation_loss(workload: Workload, mesh: Mesh) -> Any:
    return over_lanes(lambda images, params: loss(workload, params, *images), mesh, 1)


class TrialTrainer:
    """Compiled functions of one program on the devices at hand. State goes in and comes out, every array [W, ...]."""

    def __init__(self, program: Trial, data: Digits, trials: int) -> None:
        self.program = program
        devices = jax.local_devices()
        self.mesh = Mesh(np.array(devices), (LANES,), axis_types=(AxisType.Auto,))
        self.lanes = trials + -trials % len(devices)  # for as many trials, the same number on every device
        everywhere = NamedSharding(self.mesh, PartitionSpec())
        self.training, self.validation = (jax.device_put(Images(*map(np.asarray, images)), everywhere)
                                          for images in (data.training, data.validation))

    def put(self, rows: Sequence[Any]) -> Any:
        """One pytree of numbers a trial as one of arrays [W, ...] on the devices; spare lanes repeat the last trial.

        Raises ValueError for more trials than lanes.
        """
        if len(rows) > self.lanes:
            raise ValueError(f"{len(rows)} trials do not fit into {self.lanes} lanes; split the pack")
        filled = [*rows, *[rows[-1]] * (self.lanes - len(rows))]
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *filled)
        return jax.device_put(stacked, NamedSharding(self.mesh, PartitionSpec(LANES)))

    def initial(self, lanes: Lane) -> LaneState:
        """Fresh parameters from the trials' seeds, fresh optimizer states."""
        params = _initial(self.program.workload, self.mesh)(lanes.seed)
        return self._start(lanes, params)

    @functools.cached_property
    def _start(self) -> Any:
        def start(lane: Lane, params: Any) -> LaneState:
            optimizer = build(self.program.optimizer, lane.values, jnp.zeros(()), None).init(params)
            return LaneState(params, optimizer, jnp.int32(0), jnp.int32(-1))

        return over_lanes(start, self.mesh, 0)

    @functools.cached_property
    def _advance(self) -> Any:
        def advance(images: Images, lane: Lane, steps: Steps, state: LaneState) -> LaneState:
            def one(state: LaneState, now: Steps) -> tuple[LaneState, None]:
                return step(self.program, images, lane, now, state), None

            return lax.scan(one, state, steps)[0]

        return over_lanes(advance, self.mesh, 1, donate_argnums=3)

    def advance(self, lanes: Lane, steps: Steps, state: LaneState) -> LaneState:
        """C updates of every lane; `state` is donated."""
        return self._advance(self.training, lanes, steps, state)

    def evaluate(self, state: LaneState) -> Array:
        """Loss on all validation images of the parameters that each trial is judged by, [W]."""
        params = jax.vmap(evaluation_params)(state.optimizer, state.params)
        return _validation_loss(self.program.workload, self.mesh)(self.validation, params)
