"""The coordinate check of a configuration with model.base: standard parametrization against muP, over widths.

python -m experiments.coordinates --config=configs/coordinates.py --widths=16,32,64,128,256 --seeds=5 --figure=FILE.png
Trains training.duration steps on the run's own batches at every width, with heads of the configuration's width, and
prints by how much activations on held-out windows have moved since step 0, and the slope of its logarithm against the
width's. muP is meant to be flat; where a slope stays above 0, wider models need smaller rates.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from absl import flags

from experiments import runtime
from experiments.statistics import t_interval
from scaling.config import Run
from scaling.data.batches import device_tokens
from scaling.fields import check
from scaling.figures.coordinates import coordinates
from scaling.figures.style import png
from scaling.sweeps.workbench import Workbench, cache_folder
from scaling.training.coordinates import activation_changes
from scaling.training.tables import Stream, hyperparameters, run_tables

FLAGS = flags.FLAGS
STANDARD, MUP = "standard", "muP"


def of_width(run: Run, width: int, parametrization: str) -> Run:
    """The run at a width, heads as wide as they were; the standard one without base and its exponent of decay."""
    heads, rest = divmod(width * run.model.heads, run.model.width)
    check(rest == 0, "widths", width, f"multiples of a head's width, {run.model.width // run.model.heads}", "change it")
    if parametrization == MUP:
        return dataclasses.replace(run, model=dataclasses.replace(run.model, width=width, heads=heads))
    return dataclasses.replace(
        run, model=dataclasses.replace(run.model, width=width, heads=heads, base=None),
        optimizer=dataclasses.replace(run.optimizer, width_exponent=None))


def changes(run: Run, seeds: Sequence[int], bench: Workbench) -> pd.DataFrame:
    """Rows (seed, step, activation, change) of a run with each of some seeds: mean |h_t - h_0| on held-out windows."""
    program, corpus, windows = run.program, bench.corpus(run), bench.windows(run)
    dtype = np.dtype(jnp.promote_types(run.training.dtype, jnp.float32))
    stream = Stream.start(len(run.data.names))
    runs = [dataclasses.replace(run, training=dataclasses.replace(run.training, seed=seed)) for seed in seeds]
    hyper_R = jax.tree.map(lambda *leaves: np.stack(leaves), *(
        hyperparameters(each, windows, stream, dtype) for each in runs))
    tables = run_tables(run, windows, stream)
    steps = len(tables.learning_rate_T)
    held_out_KxMxT = corpus.validation_windows(run.data.sequence, run.evaluation.windows)
    probe_BxS = held_out_KxMxT[..., :-1].reshape(-1, run.data.sequence)
    function = functools.partial(activation_changes, program, corpus.vocabulary)
    found = jax.jit(jax.vmap(function, in_axes=(0, None, None, None)), compiler_options=_quickly_compiled())(
        hyper_R, tables.rows(0, steps, steps, dtype), device_tokens(corpus), probe_BxS)
    rows = [{"seed": seed, "step": step + 1, "activation": name, "change": float(change_RxT[i, step])}
            for name, change_RxT in jax.device_get(found).items() for i, seed in enumerate(seeds)
            for step in range(steps)]
    return pd.DataFrame(rows)


def _quickly_compiled() -> dict[str, int]:
    """Options for programs of a few steps: on CPU the time goes into compilation, of which this saves half."""
    return {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else {}


def check_coordinates(run: Run, widths: Sequence[int], seeds: Sequence[int], bench: Workbench) -> pd.DataFrame:
    """Rows (parametrization, width, seed, step, activation, change) of both parametrizations.

    Raises ConfigError for a run without model.base, or with what draws batches in another way.
    """
    check(run.model.base is not None, "model.base", None, "the width and heads at which muP is the standard model",
          "set it")
    plain = run.mixer is None and run.objective is None and run.packing is None
    check(plain, "mixer, objective, packing", (run.mixer, run.objective, run.packing), "None in a coordinate check",
          "leave them out")
    return pd.concat([
        changes(of_width(run, width, parametrization), seeds, bench).assign(
            parametrization=parametrization, width=width)
        for parametrization in (STANDARD, MUP) for width in widths], ignore_index=True)


def slopes(table: pd.DataFrame, level: float) -> pd.DataFrame:
    """Slope of log change against log width after the last step: mean over seeds and its t-interval, by activation.

    Columns parametrization, activation, slope, low, high, seeds. The interval counts seeds, not the choice of widths.
    """
    last = table[table.step == table.step.max()]
    rows = []
    for (parametrization, activation), part in last.groupby(["parametrization", "activation"], sort=False):
        fits = [np.polyfit(np.log(of_seed.width), np.log(of_seed.change), 1)[0] for _, of_seed in part.groupby("seed")]
        rows.append({"parametrization": parametrization, "activation": activation, "seeds": len(fits),
                     **dict(zip(("slope", "low", "high"), t_interval(fits, level), strict=True))})
    return pd.DataFrame(rows)


def main() -> None:
    run = runtime.load_experiment().sweep.base
    table = check_coordinates(run, [int(width) for width in FLAGS.widths], range(FLAGS.seeds),
                              Workbench(cache_folder()))
    found = slopes(table, FLAGS.level)
    means = table[table.step == table.step.max()].pivot_table(
        index=["parametrization", "activation"], columns="width", values="change", sort=False)
    print(f"mean |change| after {table.step.max()} steps, mean of {FLAGS.seeds} seeds, by width, and slopes with "
          f"{FLAGS.level:.0%} intervals over seeds")
    joined = means.reset_index().merge(found.drop(columns="seeds"), on=["parametrization", "activation"])
    print(joined.to_string(index=False, float_format=lambda value: f"{value:.3g}"))
    if FLAGS.figure:
        Path(FLAGS.figure).write_bytes(png(coordinates(table, found)))


if __name__ == "__main__":
    flags.DEFINE_list("widths", None, "Widths to train, such as 16,32,64,128,256.", required=True)
    flags.DEFINE_integer("seeds", 5, "Seeds of each width, from 0.", lower_bound=2)
    flags.DEFINE_float("level", 0.95, "Of the intervals.")
    flags.DEFINE_string("figure", None, "PNG file to write the figure to.")
    runtime.start(main)
