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
# # Which mixture?
#
# Two questions, two laws: which shares of many domains minimise what I care about, and how much of a new domain can
# continual pre-training take before the old skills suffer.

# %%
# %matplotlib inline
import os
from pathlib import Path

import numpy as np
import pandas as pd

from scaling import fitting, laws
from scaling.figures import fit as figures
from scaling.fitting.mixture_optimum import best_mixture

# %% [markdown]
# ## Many domains: the data mixing law
#
# Thirty small runs on random mixtures of three domains, and the loss on three targets. Simulated: the truth is known.

# %%
domains = ["web", "code", "math"]
rng = np.random.default_rng(0)
shares = rng.dirichlet([1.0, 1.0, 1.0], 30)
slope = {"loss_prose": [-1.4, 0.4, 0.2], "loss_code": [0.3, -1.8, -0.2], "loss_math": [0.4, 0.1, -2.0]}
runs = pd.DataFrame(shares, columns=domains).assign(
    **{name: (1.5 + np.exp(shares @ t)) * np.exp(rng.normal(0, 0.002, 30)) for name, t in slope.items()}
)

# %% [markdown]
# From the table to the mixture in four lines: one fit a target, then the shares that minimise a weighted sum.

# %%
law = laws.data_mixing(domains)
fits = fitting.fit_each(law, runs, targets=list(slope), group=None, bootstrap=200)
best = best_mixture(fits, {"loss_prose": 0.4, "loss_code": 0.3, "loss_math": 0.3})
print(best)

# %%
figures.shares(fits["loss_code"])

# %% [markdown]
# A share that no run tried is refused as extrapolated rather than recommended. The parameters of the law are less well
# known than its predictions; the summary names those that the data leave open.

# %%
print(fits["loss_code"].summary())

# %% [markdown]
# ## Continual pre-training: the critical share
#
# The ratio law `alpha*R^s + beta` of the general loss, R the share of the new domain, and the largest share at which
# the general loss is no worse than before (here a loss of 2.87).

# %%
ratios = np.array([0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.75, 0.9])
general = pd.DataFrame({"R": np.repeat(ratios, 2)})
general["loss"] = (2.80 + 0.25 * general["R"] ** 1.3) * np.exp(rng.normal(0, 0.001, 16))
ratio_fit = fitting.fit(laws.CMR_RATIO, general, group=None, bootstrap=300)
print("critical share:", fitting.critical_ratio(ratio_fit, limit=2.87))
print("truth:", ((2.87 - 2.80) / 0.25) ** (1 / 1.3))

# %%
figures.curves(ratio_fit, "R")

# %% [markdown]
# ## The same on published runs
#
# Pythia-70M, continued on the Pile and Python code (Ye et al. 2024). With four mixtures and three parameters there is
# no honest interval, and the fit says so; the critical share is where the Pile loss is what it was at step 0.

# %%
default = Path("../../shared/reference/data")
path = Path(os.environ.get("SCALING_REFERENCE_DATA", default)) / "mixinglaws_ct_70m.csv"
if path.exists():
    table = pd.read_csv(path)
    start = table[table["step"] == 0]["loss_pile_weighted"].iloc[0]
    end = table[(table["step"] == 10000) & (table["critical_point_run"] == 0)]
    law = laws.DATA_MIXING_TWO
    options = {"columns": {"r": "p_pile"}, "target": "loss_pile_weighted", "objective": fitting.huber(0.02, "log")}
    pile = fitting.fit(law, end, group=None, bootstrap=0, **options)
    grid = np.linspace(0.05, 0.95, 9001)
    print("Pile share at which its loss is unchanged:", grid[np.argmin(abs(pile.predict({"r": grid}) - start))])
    print(
        "the authors chose 0.285 and measured", table[table["critical_point_run"] == 1]["loss_pile_weighted"].iloc[-1]
    )
    print("against", start, "before")
    print(pile.summary())
else:
    print(f"skipped: the published table is not at {path}; set SCALING_REFERENCE_DATA to its folder")
