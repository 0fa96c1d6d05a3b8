"""The vectorised pack trainer: one compiled function trains every run of a pack over a mesh of runs × data.

W lanes (places for runs) of a pack, V of them vmapped at a time within a device, C steps at most a call.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from scaling.config import Run
from scaling.data.batches import Tokens
from scaling.data.packed import PackedWindows, predicted
from scaling.optimizers.build import evaluation_params
from scaling.training.diagnosing import diagnosed, seen_values, watched
from scaling.training.losses import DATA_AXIS, token_losses
from scaling.training.mixing import mixer_of
from scaling.training.packed import window_means
from scaling.training.state import (
    Hyperparameters,
    Tables,
    TrainState,
    fresh_state,
    initial_params,
    model_of,
)
from scaling.training.step import train_step
from scaling.training.weighed import observed

RUN_AXIS = "run"
CHUNK = 128  # rows of the per-step tables handed over a call


class OutOfMemoryError(RuntimeError):
    """A device's memory does not hold what a pack takes."""


@contextlib.contextmanager
def memory_errors() -> Iterator[None]:
    """Raise OutOfMemoryError for JAX's error of that kind, whether it compiles, allocates or computes."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise OutOfMemoryError(str(error).partition("\n")[0]) from error


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a pack lies on devices: `lanes` in all, `vmap` at a time on a device, a run split over `data` devices."""

    lanes: int
    vmap: int
    devices: int
    data: int = 1

    def __post_init__(self) -> None:
        rows = self.devices // self.data
        if self.devices % self.data or self.lanes % (rows * self.vmap):
            raise ValueError(f"layout {self}: expected data to divide devices, and (devices / data) * vmap = "
                             f"{rows * self.vmap} to divide lanes; round lanes up")

    def places(self, runs: int) -> np.ndarray:
        """Lane of each of `runs` runs, int[runs]: dealt round the devices, so that a short pack keeps all busy."""
        if runs > self.lanes:
            raise ValueError(f"{runs} runs do not fit into {self.lanes} lanes; split the pack")
        rows = self.devices // self.data
        run = np.arange(runs)
        return run % rows * (self.lanes // rows) + run // rows


def _over_lanes(function: Callable, vmap: int, in_axes: tuple) -> Callable:
    """`function` over leading lane axes: `vmap` lanes at a time, the groups one after the other."""
    def mapped(*arguments: Any) -> Any:
        def one_group(lanes: list) -> Any:
            rest = iter(lanes)
            return function(*(next(rest) if axis == 0 else arg for axis, arg in zip(in_axes, arguments, strict=True)))

        lanes = [argument for axis, argument in zip(in_axes, arguments, strict=True) if axis == 0]
        return lax.map(one_group, lanes) if vmap == 1 else lax.map(one_group, lanes, batch_size=vmap)

    return mapped


def _through_lanes(function: Callable, vmap: int, in_axes: tuple) -> Callable:
    """As `_over_lanes`, of a function that gives its first argument anew: each group's is written over the old, where
    a map would gather all of them beside the old ones.
    """
    def mapped(state_W: Any, *arguments: Any) -> Any:
        def one_group(group: Array, state_W: Any) -> Any:
            def taken(whole: Array) -> Array:
                lanes = lax.dynamic_slice_in_dim(whole, group * vmap, vmap)
                return lanes[0] if vmap == 1 else lanes

            def written(whole: Array, lanes: Array) -> Array:
                lanes = lanes[None] if vmap == 1 else lanes
                return lax.dynamic_update_slice_in_dim(whole, lanes, group * vmap, axis=0)

            lanes = [jax.tree.map(taken, argument) if axis == 0 else argument
                     for axis, argument in zip(in_axes, (state_W, *arguments), strict=True)]
            return jax.tree.map(written, state_W, (function if vmap == 1 else jax.vmap(function, in_axes))(*lanes))

        return lax.fori_loop(0, len(jax.tree.leaves(state_W)[0]) // vmap, one_group, state_W)

    return mapped


class Shares(NamedTuple):
    """Where a mixer stands: its weights, their mean over the steps done, windows drawn of each domain. All [K]."""

    weights: Any
    mean_weights: Any
    drawn: Any


class Measured(NamedTuple):
    """What an evaluation measures of a run."""

    losses_KxM: Any  # mean cross-entropy of every held-out window, nats/token
    metrics: Any  # Metrics
    diverged_at: Any
    shares: Any  # Shares of a program with a mixer, else ()
    diagnostics: Any  # values by name, of a program with diagnostics, else ()


class PackTrainer:
    """Compiled functions of one program under one layout. Pure: state goes in and comes out, every array [W, ...]."""

    def __init__(
        self, program: Run, vocabulary: int, tokens: Tokens, validation_KxMxT: np.ndarray | PackedWindows,
        layout: Layout, devices: Sequence[jax.Device] | None = None, held_out_KxMxT: np.ndarray | None = None,
    ) -> None:
        self.program, self.vocabulary, self.layout = program, vocabulary, layout
        self._train: Any = None  # compiled by `prepare`
        local = list(devices if devices is not None else jax.local_devices())[: layout.devices]
        shape = (layout.devices // layout.data, layout.data)
        self.mesh = Mesh(np.array(local).reshape(shape), (RUN_AXIS, DATA_AXIS), axis_types=(AxisType.Auto,) * 2)
        self._by_run = NamedSharding(self.mesh, PartitionSpec(RUN_AXIS))
        everywhere = NamedSharding(self.mesh, PartitionSpec())
        self.tokens = jax.device_put(tokens, everywhere)
        by_window = NamedSharding(self.mesh, PartitionSpec(None, DATA_AXIS))
        self.validation = jax.device_put(validation_KxMxT, by_window)
        self.held_out = jax.device_put(held_out_KxMxT, everywhere)  # of a mixer that looks at such losses; else None

    def put(self, tree: Any) -> Any:
        """Host arrays with a leading lane axis to the mesh."""
        return jax.device_put(tree, jax.tree.map(lambda _: self._by_run, tree))

    def _jit(self, body: Callable, in_specs: tuple, out_specs: Any, **options: Any) -> Any:
        mapped = jax.shard_map(body, mesh=self.mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)
        return jax.jit(mapped, **options)

    @functools.cached_property
    def _fresh(self) -> Any:
        body = _over_lanes(functools.partial(fresh_state, self.program), self.layout.vmap, (0, 0))
        run = PartitionSpec(RUN_AXIS)
        return self._jit(body, (run, run), run, donate_argnums=0)

    def prepare(self, *lanes: Any) -> None:
        """Compile `train` for its arguments or arrays of their shapes and types; nothing is placed on the devices."""
        if self._train is None:
            lane = functools.partial(_train_lane, self.program, self.vocabulary, self.layout.data)
            body = _through_lanes(lane, self.layout.vmap, (0, 0, 0, 0, None, None, None))
            run, same = PartitionSpec(RUN_AXIS), PartitionSpec()
            jitted = self._jit(body, (run, run, run, run, same, same, same), run, donate_argnums=0)
            shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self._by_run), lanes)
            self._train = jitted.lower(*shapes, self.tokens, self.held_out, self._flag(False)).compile()

    def _flag(self, observe: bool) -> Array | None:
        """Whether mixers look at their held-out losses first; None where they never do."""
        return None if self.held_out is None else jax.device_put(observe, NamedSharding(self.mesh, PartitionSpec()))

    @functools.cached_property
    def _measure(self) -> Any:
        lane = functools.partial(_measure_lane, self.program, self.vocabulary, self.layout.data)
        body = _over_lanes(lane, self.layout.vmap, (0, 0, 0, 0, None, None, None))
        run, same = PartitionSpec(RUN_AXIS), PartitionSpec()
        specs = (run, run, run, run, PartitionSpec(None, DATA_AXIS), same, same)
        out = Measured(PartitionSpec(RUN_AXIS, None, DATA_AXIS), run, run, run, run)
        return self._jit(body, specs, out)

    def initial(self, seed_W: np.ndarray, inputs_W: Any = None) -> TrainState:
        """Fresh states from seeds, and from the inputs of mixers where the program has one."""
        params = {seed: jax.device_get(initial_params(self.program, self.vocabulary, seed))
                  for seed in set(seed_W.tolist())}
        params_W = jax.tree.map(lambda *leaves: np.stack(leaves), *(params[seed] for seed in seed_W.tolist()))
        return self._fresh(self.put(params_W), inputs_W)

    def train(
        self, state: TrainState, hyper: Hyperparameters, tables: Tables, steps_W: np.ndarray, observe: bool = False
    ) -> TrainState:
        """Advance each lane by steps_W[lane] <= CHUNK steps; `state` is donated. A diverged lane stays as it is.
        `observe`: mixers look at their held-out losses first.
        """
        arguments = (state, hyper, self.put(tables), self.put(steps_W))
        self.prepare(*arguments)
        return self._train(*arguments, self.tokens, self.held_out, self._flag(observe))

    def memory(self) -> int:
        """Bytes a device that `train` takes at its peak, from the compiled program; known once it is compiled."""
        if self._train is None:
            raise RuntimeError("memory is known once the program is compiled; call prepare or train first")
        analysis = self._train.memory_analysis()
        return int(analysis.argument_size_in_bytes + analysis.temp_size_in_bytes + analysis.output_size_in_bytes
                   - analysis.alias_size_in_bytes)

    def measure(
        self, state: TrainState, live_W: np.ndarray, hyper: Hyperparameters, following: Tables | None = None
    ) -> Measured:
        """What an evaluation measures, every array with a leading lane axis. `following`: of programs with
        diagnostics, the row of the step that follows.

        Lanes with live_W 0 are passed over (loss 0). All are copies, which the next call of `train` leaves alone.
        """
        batches = (None, None) if following is None else (self.tokens, self.held_out)
        return self._measure(state, self.put(live_W), hyper, self.put(following), self.validation, *batches)

    def fresh_metrics(self, state: TrainState) -> TrainState:
        """The state with its metrics back at zero."""
        zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), state.metrics)
        return state._replace(metrics=self.put(zeros))


def _train_lane(
    program: Run, vocabulary: int, data_shards: int, state: TrainState, hyper: Hyperparameters, tables: Tables,
    steps: Array, tokens: Tokens, held_out_KxMxT: Array | None, observe: Array | None,
) -> TrainState:
    """`steps` updates, or fewer if the run diverges. The number is traced: chunks of any length share one program.

    `observe` is common to all lanes, so that what it guards is skipped under vmap too.
    """
    if held_out_KxMxT is not None and mixer_of(program, hyper.mixing).sees == "held_out":
        look = functools.partial(observed, program, vocabulary, hyper, held_out_KxMxT)
        state = lax.cond(observe, look, lambda state: state, state)

    def going(carry: tuple[Array, TrainState]) -> Array:
        return (carry[0] < steps) & (carry[1].diverged_at < 0)

    def advance(carry: tuple[Array, TrainState]) -> tuple[Array, TrainState]:
        index, state = carry
        row = jax.tree.map(lambda table: table[index], tables)
        return index + 1, train_step(program, vocabulary, data_shards, hyper, row, tokens, held_out_KxMxT, state)

    return lax.while_loop(going, advance, (jnp.int32(0), state))[1]


def _measure_lane(
    program: Run, vocabulary: int, data_shards: int, state: TrainState, live: Array, hyper: Hyperparameters,
    following: Tables | None, validation_KxMxT: Any, tokens: Tokens | None, held_out_KxMxT: Array | None,
) -> Measured:
    """Losses of the held-out windows, diagnostics, and copies of the run's counters."""
    losses_KxM, seen_G = _held_out(program, vocabulary, state, live, validation_KxMxT)
    diagnostics: Any = ()
    if program.diagnostics is not None:
        assert following is not None
        assert tokens is not None
        diagnostics = diagnosed(program, vocabulary, data_shards, hyper, following, tokens, held_out_KxMxT, state)
        if program.diagnostics.activations:
            diagnostics |= seen_values(seen_G)
    shares: Any = ()
    if program.mixer is not None:
        steps = jnp.maximum(state.step, 1)
        shares = Shares(mixer_of(program, hyper.mixing).weights(state.mixing.mixer, state.step),
                        state.mixing.weight_sum_K / steps, jnp.copy(state.mixing.drawn_K))
    return Measured(losses_KxM, jax.tree.map(jnp.copy, state.metrics), jnp.copy(state.diverged_at), shares,
                    diagnostics)


def _held_out(
    program: Run, vocabulary: int, state: TrainState, live: Array, validation_KxMxT: Any
) -> tuple[Array, Any]:
    """Mean cross-entropy a window, [K, M], a training batch or less at a time; and what G such groups show to the
    diagnostics that look at them, else ().
    """
    params = evaluation_params(state.optimizer, state.params)

    def window_losses(windows: Any) -> Array:
        if program.packing is not None:
            return window_means(program, vocabulary, params, *windows)
        logits_NxV: Any = model_of(program, vocabulary).apply({"params": params}, windows[:, :-1])
        loss_N, _ = token_losses(logits_NxV, windows[:, 1:].reshape(-1))
        return jnp.mean(loss_N.reshape(windows.shape[0], -1), axis=1)

    domains, windows, length = jax.tree.leaves(validation_KxMxT)[0].shape
    group = next(size for size in range(min(program.data.batch, windows), 0, -1) if windows % size == 0)
    grouped = jax.tree.map(lambda x: x.reshape(-1, group, length).astype(jnp.int32), validation_KxMxT)

    def one_group(windows: Any) -> tuple[Array, Any]:
        if program.diagnostics is None or not program.diagnostics.activations:
            return window_losses(windows), ()
        counts_N = None if program.packing is None else predicted(windows[1]).reshape(-1)
        return watched(lambda: window_losses(windows), counts_N)

    def fill(index: Array, found_G: Any) -> Any:
        found = one_group(jax.tree.map(lambda x: x[index], grouped))
        return jax.tree.map(lambda filled_G, value: filled_G.at[index].set(value), found_G, found)

    groups = domains * windows // group
    shapes = jax.eval_shape(one_group, jax.tree.map(lambda x: x[0], grouped))
    zeros_G = jax.tree.map(lambda shape: jnp.zeros((groups, *shape.shape), shape.dtype), shapes)
    losses_GxB, seen_G = lax.fori_loop(0, live * groups, fill, zeros_G)
    return losses_GxB.reshape(domains, windows), seen_G
