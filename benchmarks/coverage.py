"""How often nominal 95% intervals hold the truth, by simulation, for parameters, predictions and new runs.

    python benchmarks/coverage.py [--simulations=200] [--studies=chinchilla,d-cpt]

Each study is a design with a known truth and realistic noise: heavier tails than the normal, noise that a run's points
share, noise that falls with size. Every simulated table goes through the whole of `fitting.fit_points` with the law's
default objective. Beside the default weights two rivals: pairs (runs drawn with replacement) and the Bayesian bootstrap
(exponential weights, no allowance for few runs). `width` is the median interval over the central 95% of the estimates;
`error` the median standard error over their standard deviation (half the central 68%). Prints a row a quantity, with
the 95% binomial interval of each coverage, and ends with one JSON line: least, mean and greatest coverage.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from absl import app, flags
from scipy import stats

from scaling.fitting.estimate import fit_points
from scaling.fitting.evaluate import at_each
from scaling.fitting.objectives import default_objective
from scaling.fitting.points import Points
from scaling.fitting.problem import Problem
from scaling.fitting.result import Fit
from scaling.laws.law import Law
from scaling.laws.mixing import data_mixing
from scaling.laws.mixture import CMR_DOMAIN_CHANGE, CMR_RATIO, D_CPT
from scaling.laws.size import CHINCHILLA

_SIMULATIONS = flags.DEFINE_integer("simulations", 200, "Tables simulated a study.")
_DRAWS = flags.DEFINE_integer("draws", 200, "Bootstrap draws a fit.")
_STUDIES = flags.DEFINE_list("studies", [], "Studies to run; all by default.")
LEVEL = 0.95
Noise = Callable[[np.random.Generator, "Study"], np.ndarray]


@dataclass(frozen=True, eq=False)
class Study:
    """A law with a truth, the inputs and runs of a design, the noise of a table on the scale of the law's residuals,
    and where to predict.
    """

    name: str
    law: Law
    truth: Mapping[str, float]
    inputs: dict[str, np.ndarray]
    group_M: np.ndarray
    noise: Noise
    at: dict[str, np.ndarray]

    @property
    def truth_1xP(self) -> np.ndarray:
        """The true parameters in the law's order."""
        return np.array([[self.truth[name] for name in self.law.parameter_names]])

    def noisy(self, values_M: np.ndarray, noise_M: np.ndarray) -> np.ndarray:
        """Values with noise."""
        return values_M * np.exp(noise_M) if self.law.scale == "log" else values_M + noise_M

    def points(self, rng: np.random.Generator) -> Points:
        """One simulated table."""
        rows = len(self.group_M)
        target_M = self.noisy(at_each(self.law, self.truth_1xP, self.inputs)[0], self.noise(rng, self))
        none_M = np.zeros(rows, dtype=np.int64)
        unknown_M, held_M = np.full(rows, np.nan), none_M.astype(bool)
        return Points(self.inputs, target_M, np.ones(rows), unknown_M, self.group_M, none_M, held_M)


def normal(size: float) -> Noise:
    """Independent normal noise."""
    return lambda rng, study: size * rng.normal(size=len(study.group_M))


def student(size: float, freedom: float) -> Noise:
    """Independent noise of standard deviation `size`, Student's t."""
    scale = size * np.sqrt(1 - 2 / freedom)
    return lambda rng, study: scale * rng.standard_t(freedom, size=len(study.group_M))


def falling(small: float, large: float) -> Noise:
    """Student's t noise whose size falls with N from that of small models to that of large ones."""

    def noise(rng: np.random.Generator, study: Study) -> np.ndarray:
        log_M = np.log(study.inputs["N"])
        place_M = (log_M - log_M.min()) / np.ptp(log_M)
        return small ** (1 - place_M) * large**place_M * student(1.0, 5)(rng, study)

    return noise


def shared(run: float, point: float) -> Noise:
    """Noise that all points of a run share, Student's t, and a point's own, normal."""

    def noise(rng: np.random.Generator, study: Study) -> np.ndarray:
        run_G = run * np.sqrt(3 / 5) * rng.standard_t(5, size=study.group_M.max() + 1)
        return run_G[study.group_M] + point * rng.normal(size=len(study.group_M))

    return noise


def sizes(name: str, models: int, ratios: tuple[float, ...], noise: Noise) -> Study:
    """A grid of models (50M to 3B) and tokens a parameter; predicted at 10 and 100 times the largest model."""
    grid = np.meshgrid(np.geomspace(5e7, 3e9, models), ratios, indexing="ij")
    n_M, ratio_M = (axis.ravel() for axis in grid)
    at = {"N": np.array([3e10, 3e11]), "D": np.array([6e11, 6e12])}
    truth = {"E": 1.8, "A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37}
    return Study(name, CHINCHILLA, truth, {"N": n_M, "D": n_M * ratio_M}, np.arange(n_M.size), noise, at)


def ratios() -> Study:
    """16 runs at 8 domain shares; predicted at a tenth of the smallest share and between two."""
    share_M = np.repeat([0.05, 0.1, 0.2, 0.33, 0.5, 0.67, 0.8, 1.0], 2)
    truth, at = {"alpha": -0.45, "s": 0.25, "beta": 2.3}, {"R": np.array([0.005, 0.3])}
    return Study("cmr-ratio", CMR_RATIO, truth, {"R": share_M}, np.arange(16), student(0.004, 4), at)


def changes() -> Study:
    """24 runs of 2 to 60 units of tokens, least squares on the raw scale; predicted at 10 and 100 times the longest."""
    tokens_M = np.geomspace(2.0, 60.0, 24)
    truth, at = {"alpha1": -0.35, "s1": 0.3, "beta1": 0.2}, {"T": np.array([600.0, 6000.0])}
    return Study("cmr-domain-change", CMR_DOMAIN_CHANGE, truth, {"T": tokens_M}, np.arange(24), student(0.01, 5), at)


def curves() -> Study:
    """28 curves (4 sizes, 7 shares) of 10 points; predicted at 10 and 100 times the largest size and most tokens."""
    axes = np.meshgrid(
        (1e6, 3e6, 1e7, 3e7), (0.0, 0.1, 0.33, 0.5, 0.67, 0.9, 1.0), np.geomspace(2e6, 2e8, 10), indexing="ij"
    )
    inputs = dict(zip(("N", "r", "D"), (axis.ravel() for axis in axes), strict=True))
    truth = {"E": 1.2, "A": 60.0, "B": 400.0, "C": 0.4} | {"alpha": 0.3, "beta": 0.4, "gamma": 0.5, "eta": 0.3}
    at = {"N": np.array([3e8, 3e9]), "D": np.array([2e9, 2e10]), "r": np.array([0.33, 0.33])}
    group_M = np.repeat(np.arange(28), 10)
    return Study("d-cpt", D_CPT, truth | {"eps": 0.1}, inputs, group_M, shared(0.002, 0.002), at)


def mixtures() -> Study:
    """32 random mixtures of four domains; predicted at the even mixture and at two pure ones."""
    names = ["prose", "code", "web", "books"]
    share_MxJ = np.random.default_rng(5).dirichlet(np.ones(4), 32)
    truth = {"c": 1.5} | {f"t[{name}]": t for name, t in zip(names, (-0.2, 0.6, -1.5, 0.9), strict=True)}
    at_KxJ = np.concatenate([np.full((1, 4), 0.25), np.eye(4)[:2]])
    inputs, at = (dict(zip(names, rows.T, strict=True)) for rows in (share_MxJ, at_KxJ))
    return Study("data-mixing", data_mixing(names), truth, inputs, np.arange(32), student(0.01, 4), at)


def studies() -> dict[str, Study]:
    """All studies by name."""
    tokens = (5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0)
    every = (
        sizes("chinchilla", 6, tokens, falling(0.006, 0.002)),
        sizes("chinchilla-normal", 8, tokens, normal(0.004)),
        ratios(),
        changes(),
        curves(),
        mixtures(),
    )
    return {study.name: study for study in every}


def pairs(fit: Fit, draws: int) -> np.ndarray:
    """Draws of runs with replacement."""
    each = np.full(fit.groups, 1 / fit.groups)
    return refits(fit, np.random.default_rng(0).multinomial(fit.groups, each, size=draws))


def bayesian(fit: Fit, draws: int) -> np.ndarray:
    """Draws under exponential weights of runs."""
    return refits(fit, np.random.default_rng(0).exponential(size=(draws, fit.groups)))


def refits(fit: Fit, weights_BxG: np.ndarray) -> np.ndarray:
    """Parameters refitted under weights of the groups."""
    problem = Problem(fit.law, fit.objective, fit.points)
    u_P = problem.coordinates(np.array([list(fit.parameters.values())]))[0]
    return problem.natural(problem.resample(u_P, weights_BxG[:, fit.points.group_M]))


PROCEDURES = {"default": lambda fit, draws: fit.draws_BxP, "pairs": pairs, "bayesian": bayesian}


def measure(study: Study, simulations: int, draws: int, procedures: tuple[str, ...], seed: int = 0) -> pd.DataFrame:
    """A row a procedure and quantity: n, the share of simulations in which the interval held the truth, its 95%
    binomial interval, width and standard error against the spread of the estimates.

    Quantities: parameters, the law at each place of `study.at`, and (default only) the loss of a new run there, whose
    noise is that of a random point of the design.
    """
    quantile = partial(np.quantile, q=[(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    truth_P, at_K = study.truth_1xP[0], at_each(study.law, study.truth_1xP, study.at)[0]
    found: dict[tuple[str, str], list[tuple[float, ...]]] = {}
    for simulation in range(simulations):
        rng = np.random.default_rng((seed, simulation))
        fit = fit_points(study.law, default_objective(study.law, False), study.points(rng), bootstrap=draws)
        estimate_K = fit.predict(study.at)
        for name in procedures:
            draws_BxP = PROCEDURES[name](fit, draws)
            ends = (*zip(*quantile(draws_BxP), strict=True),)
            for p, end in zip(fit.parameters, ends, strict=True):
                where = list(fit.parameters).index(p)
                keep = (fit.parameters[p], truth_P[where], *end, fit.standard_errors[p])
                found.setdefault((name, p), []).append(keep)
            low_K, high_K = quantile(at_each(study.law, draws_BxP, study.at))
            for k, value in enumerate(estimate_K):
                found.setdefault((name, f"at {k}"), []).append((value, at_K[k], low_K[k], high_K[k], np.nan))
        new_K = study.noisy(at_K, rng.choice(study.noise(rng, study), len(at_K)))
        low_K, high_K = fit.prediction_interval(study.at)
        for k, value in enumerate(estimate_K):
            found.setdefault(("default", f"new run at {k}"), []).append((value, new_K[k], low_K[k], high_K[k], np.nan))
    return pd.DataFrame([_row(study.name, *key, np.array(rows)) for key, rows in found.items()])


def _row(study: str, procedure: str, quantity: str, found_Sx5: np.ndarray) -> dict[str, object]:
    value_S, true_S, low_S, high_S, error_S = found_Sx5.T
    hits, n = int(np.sum((low_S <= true_S) & (true_S <= high_S))), len(found_Sx5)
    sure = stats.binomtest(hits, n).proportion_ci(0.95)
    spread = np.ptp(np.quantile(value_S - true_S, [0.025, 0.975]))
    deviation = np.ptp(np.quantile(value_S, stats.norm.cdf([-1, 1]))) / 2
    return {
        "study": study,
        "procedure": procedure,
        "quantity": quantity,
        "n": n,
        "covered": hits / n,
        "low": sure.low,
        "high": sure.high,
        "width": float(np.median(high_S - low_S) / spread),
        "error": float(np.median(error_S) / deviation),
    }


def main(_: list[str]) -> None:
    """Run the studies, print the table, end with one JSON line."""
    every, tables = studies(), []
    for name in _STUDIES.value or every:
        began = time.perf_counter()
        tables.append(measure(every[name], _SIMULATIONS.value, _DRAWS.value, tuple(PROCEDURES)))
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
    table = pd.concat(tables, ignore_index=True)
    print(table.to_string(index=False, float_format=lambda x: f"{x:.3f}", na_rep=""))
    kind = table["quantity"].str.extract(r"^(new run|at )")[0].map({"new run": "new run", "at ": "prediction"})
    by = table.groupby(["study", "procedure", kind.fillna("parameter").rename("kind")], sort=False)["covered"]
    record = {"/".join(map(str, key)): np.round([c.min(), c.mean(), c.max()], 3).tolist() for key, c in by}
    print(json.dumps({"simulations": _SIMULATIONS.value, "level": LEVEL, "covered_min_mean_max": record}))


if __name__ == "__main__":
    app.run(main)
