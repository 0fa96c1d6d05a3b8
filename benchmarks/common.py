"""What the benchmarks share: a table and one JSON line at the end, alternating timings, the measured matrix peak."""

from __future__ import annotations

import functools
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax import Array, lax
from jax.sharding import AxisType, Mesh, PartitionSpec

PEAK_SIZES = {"cpu": (256, 512, 1024, 2048)}  # sides of square matrices, by backend
ACCELERATOR_SIZES = (2048, 4096, 8192)
PEAK_FLOPS = {"cpu": 2e10}  # of one timed call and device, by backend
ACCELERATOR_FLOPS = 2e13
PEAK_ROUNDS = 5


def table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows as aligned columns, numbers to four digits."""
    print(pd.DataFrame(list(rows)).to_string(index=False, float_format=lambda value: f"{value:.4g}"), flush=True)


def finish(result: Mapping[str, Any]) -> None:
    """Print the result as one JSON line, floats to four significant digits; the last line of a benchmark."""
    print(json.dumps(_rounded(result)), flush=True)


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    return float(f"{value:.4g}") if isinstance(value, (float, np.floating)) else value


def seconds(function: Callable[[], object]) -> float:
    """Seconds that a call takes, its arrays awaited."""
    begin = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - begin


def interleaved(functions: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each function, run in turn `rounds` times, so that a change of the machine's pace hits all."""
    took: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            took[name].append(seconds(function))
    return {name: statistics.median(values) for name, values in took.items()}


def matmul_peak(dtype: Any, devices: Sequence[jax.Device]) -> float:
    """FLOP/s of square matrix products on all the devices at once, in JAX's default precision: best of several sizes.

    The fastest call of each size counts: what else runs on the machine must not lower the bar.
    """
    backend = devices[0].platform
    sizes = PEAK_SIZES.get(backend, ACCELERATOR_SIZES)
    work = PEAK_FLOPS.get(backend, ACCELERATOR_FLOPS)
    mesh = Mesh(np.array(devices), ("device",), axis_types=(AxisType.Auto,))
    return max(_flops_per_second(mesh, size, max(1, int(work / (2 * size**3))), dtype) for size in sizes)


def _flops_per_second(mesh: Mesh, size: int, products: int, dtype: Any) -> float:
    """Of `products` products in a row of size x size matrices on every device of the mesh."""
    spec = PartitionSpec("device")

    @jax.jit
    @functools.partial(jax.shard_map, mesh=mesh, in_specs=(spec, spec), out_specs=spec)
    def chain(left_1xSxS: Array, right_1xSxS: Array) -> Array:
        right_SxS = right_1xSxS[0]
        return lax.fori_loop(0, products, lambda _, x_SxS: x_SxS @ right_SxS, left_1xSxS[0])[None]

    shape = (mesh.size, size, size)
    random = np.random.default_rng(0)  # scaled so that products keep their norm: no overflow, no denormals
    left, right = (jnp.asarray(random.standard_normal(shape) / size**0.5, dtype) for _ in range(2))
    jax.block_until_ready(chain(left, right))
    took = min(seconds(lambda: chain(left, right)) for _ in range(PEAK_ROUNDS))
    return mesh.size * products * 2 * size**3 / took
