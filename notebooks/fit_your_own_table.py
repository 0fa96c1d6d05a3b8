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
# # Fit your own table
#
# A table of runs, a law, a decision. Here the table is simulated, with the truth known, so that you can see what is
# recovered: eight sizes up to 3.2B parameters, six token counts, one run each. Read yours with
# `pd.read_csv` instead.

# %%
# %matplotlib inline
import numpy as np
import pandas as pd

from scaling import fitting, laws
from scaling.figures import fit as figures
from scaling.figures.contour import contour
from scaling.fitting.compute_optimal import compute_optimal
from scaling.fitting.design import design

rng = np.random.default_rng(0)
sizes, tokens = (x.ravel() for x in np.meshgrid(np.geomspace(2e7, 3.2e9, 8), np.geomspace(1e9, 1e11, 6)))
truth = 1.8 + 480 / sizes**0.35 + 2100 / tokens**0.37
runs = pd.DataFrame({"params": sizes, "tokens": tokens, "val_loss": truth * np.exp(rng.normal(0, 0.004, sizes.size))})

# %% [markdown]
# ## From the table to a decision

# %%
columns = {"N": "params", "D": "tokens"}
fit = fitting.fit(
    laws.CHINCHILLA, runs, columns=columns, target="val_loss", group=None, holdout="N > 1e9", bootstrap=300
)
print(compute_optimal(fit, 1e22))

# %% [markdown]
# Each number comes with a 95% interval, and with a refusal where it should not be acted on. `holdout` took the largest
# models out: they were predicted, never fitted, and the summary says how well. `group=None` says that every row is a
# run of its own. With several logged points a run, name the column of the run: points of one run share its noise.

# %%
print(fit.summary())

# %% [markdown]
# ## Look before you bet
#
# The law with its band through the data, held-out runs hollow. Then what is left over: no trend against any input, if
# the law is right.

# %%
figures.curves(fit, "D", "N")

# %%
figures.residuals(fit)

# %%
figures.predicted(fit)

# %% [markdown]
# Loss over size and tokens, with the compute-optimal path and its interval:

# %%
contour(fit)

# %% [markdown]
# ## A prediction
#
# `interval` is where the mean curve lies; `prediction_interval` is where the next run will land, its own noise
# included.

# %%
target = {"N": 7e9, "D": 1.4e11}
print("predicted", fit.predict(target), "truth", 1.8 + 480 / 7e9**0.35 + 2100 / 1.4e11**0.37)
print("mean curve", fit.interval(target), "new run", fit.prediction_interval(target))

# %% [markdown]
# ## What to run next
#
# Which of the affordable runs would narrow that prediction most for their compute?

# %%
candidates = pd.DataFrame(
    [(n, d, 6 * n * d) for n in (1e8, 1e9, 4e9) for d in (1e10, 3e10, 1e11)], columns=["N", "D", "cost"]
)
print(design(fit, candidates, target=target).rank(budget=5e21))

# %% [markdown]
# ## A fit is kept as JSON, and predicts the same when it is read back

# %%
again = fitting.Fit.from_json(fit.to_json())
assert (again.predict(target) == fit.predict(target)).all()

# %% [markdown]
# ## A bad table is told what is wrong: column, row, cure

# %%
for change in ({"tokens": np.nan}, {"params": -1.0}, {"val_loss": 0.0}):
    broken = runs.copy()
    broken.loc[3, list(change)] = list(change.values())
    try:
        fitting.fit(laws.CHINCHILLA, broken, columns=columns, target="val_loss", group=None)
    except laws.TableError as error:
        print(error)

# %% [markdown]
# The same from a shell: `python -m experiments.fit --table=runs.csv --law=chinchilla
# --map N=params,D=tokens,loss=val_loss --holdout 'N > 1e9' --out=fit/ --target 'N=7e9,D=1.4e11'`.
