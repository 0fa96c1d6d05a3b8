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
# # Published laws, refitted
#
# Three published tables and what they do and do not say. The tables are not part of the project: set
# `SCALING_REFERENCE_DATA` to their folder. Where they are absent, each cell says what it skipped.
# `python -m experiments.published` refits all of them.

# %%
# %matplotlib inline
import os
from pathlib import Path

import pandas as pd

from scaling import fitting, laws
from scaling.figures import fit as figures
from scaling.figures.profiles import profiles
from scaling.fitting.compute_optimal import compute_optimal
from scaling.fitting.profile import profile
from scaling.laws.repetition import DATA_CONSTRAINED_PUBLISHED

data = Path(os.environ.get("SCALING_REFERENCE_DATA", "../../shared/reference/data"))


def published(name):
    """The table, or None with a word on what is skipped."""
    if (data / name).exists():
        return pd.read_csv(data / name)
    print(f"skipped: the published table {name} is not at {data}; set SCALING_REFERENCE_DATA to its folder")
    return None


# %% [markdown]
# ## Chinchilla, approach 3, on the points that Epoch read off the figure
#
# Besiroglu et al. 2024 reach the objective 0.0010182741 with E = 1.8172, A = 482, B = 2085.43, alpha = 0.3478,
# beta = 0.3658.

# %%
points = published("chinchilla_epoch.csv")
if points is not None:
    points = points[points["used_in_epoch_fit"] == 1]
    options = {"columns": {"N": "N_params", "D": "D_tokens"}, "target": "loss_nats", "group": None}
    chinchilla = fitting.fit(laws.CHINCHILLA, points, bootstrap=300, **options)
    print(chinchilla.summary())
    print(compute_optimal(chinchilla, 5.76e23))

# %%
figures.curves(chinchilla, "D", "N") if points is not None else None

# %% [markdown]
# ## How much is repeated data worth?
#
# Muennighoff et al. 2023 hold E, A, B and alpha at what they fitted without repeats, and quote R_D* = 15.39 and
# R_N* = 5.31 (Q_D and Q_N here) at the objective 0.015826. Done the same way, the best fit lies elsewhere, and the
# profile shows how much the table says about that one number: read the interval, not the point.

# %%
repeated = published("datablations_c4.csv")
if repeated is not None:
    repeated = repeated[repeated["in_published_fit"] == 1]
    held = {name: DATA_CONSTRAINED_PUBLISHED[name] for name in ("E", "A", "B", "alpha")}
    columns = {"N": "N_params", "D": "D_tokens", "U": "U_unique_tokens"}
    options = {"columns": columns, "target": "val_loss_c4", "group": None, "bootstrap": 0}
    constrained = fitting.fit(laws.with_fixed(laws.DATA_CONSTRAINED, held), repeated, **options)
    print(constrained.summary())
    worth = profile(constrained, "Q_D")
    print(worth)

# %%
profiles(constrained, [worth]) if repeated is not None else None

# %% [markdown]
# ## A learning curve with a bend
#
# Four-digit addition (Caballero et al. 2023): a broken law fitted to the first 14 points, the last three predicted.

# %%
addition = published("bnsl_addition.csv")
if addition is not None:
    options = {"columns": {"x": "train_examples"}, "target": "loss_nats", "group": None, "bootstrap": 0}
    bent = fitting.fit(laws.bnsl(1), addition, holdout="training == 0", **options)
    print(bent.summary())

# %%
figures.curves(bent, "x") if addition is not None else None
