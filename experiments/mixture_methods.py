"""Ways to predict the losses of a mixture and the best mixture, learned from runs at random mixtures.

A table of runs has one row a run and logged step: run_id, N, D, S, a share a domain under the domain's name, its
validation loss under "loss_DOMAIN", and `last`. Letters: M mixtures, K domains.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from experiments.mixture_design import dirichlet
from experiments.published.regmix import ExtraError, Split, linear
from scaling import fitting
from scaling.fitting import Decision, Fit
from scaling.laws.additive import mixture_additive, mixture_joint, mixture_term
from scaling.laws.law import Law
from scaling.laws.mixing import BIMIX, data_mixing

YE, SHUKOR, GE, LIU = (
    "Ye et al. 2024, arXiv 2403.16952", "Shukor et al. 2025, arXiv 2507.09404", "Ge et al. 2024, arXiv 2405.14908",
    "Liu et al. 2024, arXiv 2407.01492")
EXPONENTIAL, ADDITIVE, JOINT, TERM, BIMIX_NAME, LINEAR, TREES = (
    "exponential law", "additive law", "joint law", "mixture term", "BiMix law", "linear regression", "RegMix trees")
_SEARCHED, _AVERAGED = 20_000, 128  # mixtures drawn to search (RegMix, of 17 domains: 100,000), the best averaged


@dataclasses.dataclass(frozen=True, eq=False)
class Method(abc.ABC):
    """`fits`: one a domain where the method is a law, else empty."""

    name: str
    source: str
    fits: dict[str, Fit]

    @abc.abstractmethod
    def losses(self, shares: pd.DataFrame) -> pd.DataFrame:
        """Predicted losses in columns "loss_DOMAIN", for shares in columns by domain; nan where there is none."""

    @abc.abstractmethod
    def best(self, weights: Mapping[str, float], level: float) -> dict[str, Decision]:
        """The shares that minimise the weighted sum of the domains' losses."""


@dataclasses.dataclass(frozen=True, eq=False)
class ByLaw(Method):
    """A law over all shares, read at `inputs`, its other ones."""

    inputs: dict[str, float]

    def losses(self, shares: pd.DataFrame) -> pd.DataFrame:
        at = shares.assign(**self.inputs)
        return pd.DataFrame({f"loss_{domain}": fit.predict(at) for domain, fit in self.fits.items()})

    def best(self, weights: Mapping[str, float], level: float) -> dict[str, Decision]:
        return fitting.best_mixture(self.fits, weights, self.inputs, level=level).shares


@dataclasses.dataclass(frozen=True, eq=False)
class ByBiMix(Method):
    """BiMix, read after `steps`: a domain's loss by its own share alone, infinite at share 0 and so nan here."""

    steps: float

    def losses(self, shares: pd.DataFrame) -> pd.DataFrame:
        columns = {}
        for domain, fit in self.fits.items():
            own_M = shares[domain].to_numpy(dtype=np.float64)
            loss_M = fit.predict({"r": np.where(own_M > 0, own_M, 1.0), "S": self.steps})
            columns[f"loss_{domain}"] = np.where(own_M > 0, loss_M, np.nan)
        return pd.DataFrame(columns)

    def best(self, weights: Mapping[str, float], level: float) -> dict[str, Decision]:
        return fitting.best_bimix(self.fits, weights, self.steps, level=level).shares


@dataclasses.dataclass(frozen=True, eq=False)
class ByRegression(Method):
    """A regression from shares to losses; `draws` are the mixtures among which RegMix looks for the best."""

    predict: Callable[[pd.DataFrame], pd.DataFrame]
    draws: pd.DataFrame

    @functools.cached_property
    def _searched(self) -> pd.DataFrame:
        return self.predict(self.draws)

    def losses(self, shares: pd.DataFrame) -> pd.DataFrame:
        return self.predict(shares)

    def best(self, weights: Mapping[str, float], level: float) -> dict[str, Decision]:
        """The mean of the best 128 of the draws, without an interval: the regression gives none."""
        chosen_M = np.argsort(weighted(self._searched, weights), kind="stable")[:_AVERAGED]
        mean = self.draws.iloc[chosen_M].mean()
        return {domain: Decision(float(mean[domain]), math.nan, math.nan, level) for domain in weights}


def weighted(losses: pd.DataFrame, weights: Mapping[str, float]) -> np.ndarray:
    """Sum of weights[domain]*loss_DOMAIN, a value a row."""
    return np.asarray(sum(weight * losses[f"loss_{domain}"].to_numpy() for domain, weight in weights.items()))


def fit_exponential(table: pd.DataFrame, domains: Sequence[str], bootstrap: int) -> ByLaw:
    """The data mixing law on the last losses of one size."""
    return ByLaw(EXPONENTIAL, YE, _fits(data_mixing(domains), table[table["last"]], domains, bootstrap), {})


def fit_term(table: pd.DataFrame, domains: Sequence[str], bootstrap: int) -> ByLaw:
    """The mixture term of the additive law on the last losses of one size."""
    return ByLaw(TERM, SHUKOR, _fits(mixture_term(domains), table[table["last"]], domains, bootstrap), {})


def fit_bimix(table: pd.DataFrame, domains: Sequence[str], bootstrap: int) -> ByBiMix:
    """BiMix on one size at several steps; a row whose own share is 0 is left out."""
    fits = {}
    for domain in domains:
        rows = table[table[domain] > 0]
        fits[domain] = fitting.fit(BIMIX, rows, columns={"r": domain}, target=f"loss_{domain}", bootstrap=bootstrap)
    return ByBiMix(BIMIX_NAME, GE, fits, float(table.S.max()))


def fit_sized(name: str, table: pd.DataFrame, domains: Sequence[str], bootstrap: int) -> ByLaw:
    """The additive or joint law on all sizes and steps, read at the smallest size and the last step."""
    law = {ADDITIVE: mixture_additive, JOINT: mixture_joint}[name](domains)
    fits = _fits(law, table, domains, bootstrap)
    return ByLaw(name, SHUKOR, fits, {"N": float(table.N.min()), "D": float(table.D.max())})


def _fits(law: Law, table: pd.DataFrame, domains: Sequence[str], bootstrap: int) -> dict[str, Fit]:
    return {d: fitting.fit(law, table, target=f"loss_{d}", stratum="N", bootstrap=bootstrap) for d in domains}


def fit_regression(
    name: str, table: pd.DataFrame, prior: Mapping[str, float], strengths: tuple[float, float]
) -> ByRegression:
    """Least squares, or RegMix's boosted trees, on the last losses of one size. ExtraError without LightGBM."""
    rows, domains = table[table["last"]].reset_index(drop=True), list(prior)
    learn = {LINEAR: _by_least_squares, TREES: _by_trees}[name]
    predictors = {domain: learn(rows, domains, f"loss_{domain}") for domain in domains}

    def predict(shares: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({f"loss_{domain}": predictor(shares) for domain, predictor in predictors.items()})

    draws = pd.DataFrame(dirichlet(prior, _SEARCHED, strengths, seed=0), columns=domains)
    return ByRegression(name, LIU if name == TREES else f"baseline in {LIU}", {}, predict, draws)


def _by_least_squares(rows: pd.DataFrame, domains: list[str], target: str) -> Callable[[pd.DataFrame], np.ndarray]:
    def predict(shares: pd.DataFrame) -> np.ndarray:
        return linear(Split(rows, {"asked": shares}, domains), target.removeprefix("loss_")).by_size["asked"]

    return predict


def _by_trees(rows: pd.DataFrame, domains: list[str], target: str) -> Callable[[pd.DataFrame], np.ndarray]:
    """1000 rounds at rate 0.01, as RegMix; leaves of 3 runs, where its 20 would hardly split a table of 30, and no
    early stopping, which it takes from the test set.
    """
    try:
        import lightgbm
    except ImportError as error:
        raise ExtraError("lightgbm is absent: install the extra with pip install '.[regmix]'") from error
    settings = {"objective": "regression", "learning_rate": 0.01, "min_data_in_leaf": 3, "min_data_in_bin": 1,
                "seed": 0, "num_threads": 1, "verbosity": -1}
    model = lightgbm.train(settings, lightgbm.Dataset(rows[domains].to_numpy(), rows[target].to_numpy()), 1000)
    return lambda shares: np.asarray(model.predict(shares[domains].to_numpy()))
