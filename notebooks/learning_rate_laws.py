# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Which learning rate, which schedule?
#
# The optimum of a sweep, how it moves with size and tokens, and what a schedule will end at before it is run.

# %%
# %matplotlib inline
import numpy as np
import pandas as pd

from scaling import fitting, laws
from scaling.figures import fit as figures
from scaling.fitting.best_schedule import best_schedule
from scaling.fitting.optimum import optimal_rate, sweep_optimum
from scaling.laws import schedule
from scaling.tidy import tidy

rng = np.random.default_rng(0)

# %% [markdown]
# ## One sweep
#
# A quadratic in the logarithm of the rate, weighted towards the minimum; a run that diverged is counted and dropped.
# The optimum comes with an interval, and with what missing it costs.

# %%
rates = np.repeat(np.geomspace(1e-4, 1e-2, 9), 2)
sweep = pd.DataFrame({"lr": rates})
sweep["loss"] = 2.6 * (1 + 0.02 * np.log(rates / 1.2e-3) ** 2) * np.exp(rng.normal(0, 0.001, rates.size))
sweep.loc[17, "loss"] = np.nan
optimum = sweep_optimum(sweep, ("lr",))
print("best rate", optimum.at["lr"])
print("diverged:", optimum.dropped, "runs; within 0.1% of the best:", optimum.basin(0.001)["lr"])
print("cost of 3e-3:", optimum.regret({"lr": 3e-3}).fitted)

# %% [markdown]
# ## A sweep that was trained here
#
# `tidy` makes of the two tables of a store one row a run: its held-out loss at the end beside its configuration. Rate
# and batch of 1,764 parameters trained on 65,536 tokens, 60 runs of the study `step_law`:

# %%
runs, curves = (pd.read_parquet(f"../results/step_law/{name}.parquet") for name in ("runs", "curves"))
ends = tidy(runs, curves)
trained = ends[(ends["params_non_embedding"] == 1764) & (ends["tokens"] == 65536)]
found = sweep_optimum(trained, ("schedule.peak", "data.batch"))
print(f"{len(trained)} runs:", "; ".join(f"{name} {decision}" for name, decision in found.at.items()))
print("least loss", found.loss)

# %% [markdown]
# ## Across sizes and tokens: the Step Law
#
# Best rates of twelve sweeps, fitted as c N^-a D^b, and the rate of a run ten times larger.

# %%
grid = [(n, d) for n in (6e7, 1.2e8, 2.5e8, 5e8) for d in (2e9, 8e9, 3e10)]
best = pd.DataFrame(grid, columns=["N", "D"])
best["lr"] = 1.79 * best["N"] ** -0.713 * best["D"] ** 0.307 * np.exp(rng.normal(0, 0.05, len(best)))
step_law = fitting.fit(laws.STEP_LAW, best, target="lr", group=None, bootstrap=300)
print(optimal_rate(step_law, {"N": 1e9, "D": 1e11}))
print("truth", 1.79 * 1e9**-0.713 * 1e11**0.307)

# %%
figures.curves(step_law, "N", "D")

# %% [markdown]
# ## Schedules: the annealing law
#
# A loss curve follows the area under the schedule (S1) and the area annealed away (S2). Fit it on a constant and a
# cosine run; predict a warm-up-stable-decay run that was never fitted.

# %%
steps, warmup = 20_000, 500
schedules = {
    "constant": schedule.constant(steps, 3e-4, warmup),
    "cosine": schedule.cosine(steps, 3e-4, 3e-5, warmup),
    "wsd": schedule.wsd(steps, 3e-4, 3e-5, warmup, 4000),
}
logged = np.arange(2000, steps, 500)
curves = pd.DataFrame([(name, step) for name in schedules for step in logged], columns=["schedule", "step"])
curves = schedule.with_areas(curves, schedules, warmup=warmup)
curves["loss"] = 2.6 + 0.6 * curves["S1"] ** -0.5 - 0.4 * curves["S2"] + rng.normal(0, 0.003, len(curves))

# %%
annealing = fitting.fit(laws.ANNEALING, curves, group=None, holdout="schedule == 'wsd'", bootstrap=200)
print(annealing.summary())

# %%
figures.curves(annealing, "S1", "S2")

# %% [markdown]
# Points of one run share its noise. With three runs there are too few for a bootstrap by run, so every point stands for
# itself here, and the intervals are too narrow: name the run with `group=` once you have six or more.
#
# ## The best schedule
#
# This law rewards a drop whatever its shape, so its own optimum is a sudden drop; the answer carries that refusal, and
# the gain over a cosine is not one to bet on. The multi-power law (`laws.multi_power(schedules)`) is smoother.

# %%
print(best_schedule(annealing, steps=steps, peak=3e-4, floor=3e-5, warmup=warmup))
