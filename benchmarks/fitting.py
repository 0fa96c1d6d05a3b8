"""Speed of fitting against SciPy doing the same work, as ratios in one run.

    python benchmarks/fitting.py [--published-starts=150]

1. Chinchilla's law on the 240 published points: the default fit (1024 starts screened, 64 polished), and all 4,500
   starts of the published grid polished, against the published procedure: SciPy's L-BFGS-B with finite differences from
   every start of the grid. SciPy takes minutes, so a random sample of the grid is timed and scaled up.
2. 4,000 bootstrap resamples against warm-started SciPy BFGS with exact gradients (timed on a sample).
3. The data mixing law on 22 validation domains at once, against SciPy's L-BFGS-B from the best 64 of the same screened
   starts, with exact gradients.

Without the published tables it simulates tables of the same shape and says so.
"""

import json
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
from absl import app, flags
from scipy.optimize import minimize

from experiments.reference import AbsentDataError, reference_data
from scaling import fitting
from scaling.fitting.problem import Problem
from scaling.fitting.tables import read_points
from scaling.laws.mixing import data_mixing
from scaling.laws.size import CHINCHILLA

_SAMPLE = flags.DEFINE_integer("published-starts", 150, "Starts of the published grid that SciPy is timed on.")
_RESAMPLES = flags.DEFINE_integer("scipy-resamples", 100, "Resamples that SciPy is timed on.")
DELTA = 1e-3


def main(_: list[str]) -> None:
    """Time the three, print a table, end with one JSON line."""
    rows = [chinchilla_starts(), bootstrap(), domains()]
    print(pd.DataFrame(rows).to_string(index=False, float_format=lambda x: f"{x:.6g}"))
    print(json.dumps({row["what"]: round(row["ratio"], 2) for row in rows}))


def timed(work: Callable[[], object]) -> tuple[float, object]:
    """Seconds, and what the work returned."""
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def points() -> pd.DataFrame:
    """The 240 published points, or as many simulated ones."""
    try:
        table = pd.read_csv(reference_data() / "chinchilla_epoch.csv").query("used_in_epoch_fit == 1")
        return table.rename(columns={"N_params": "N", "D_tokens": "D", "loss_nats": "loss"})
    except AbsentDataError as error:
        print(f"{error}; simulated points instead")
    rng = np.random.default_rng(0)
    n, d = 10 ** rng.uniform(7.5, 10, 240), 10 ** rng.uniform(9, 11.5, 240)
    loss = (1.8 + 480 / n**0.35 + 2100 / d**0.37) * np.exp(0.004 * rng.standard_t(3, 240))
    return pd.DataFrame({"N": n, "D": d, "loss": loss})


def published_grid() -> np.ndarray:
    """The 4,500 starts (a, b, e, alpha, beta) of Hoffmann et al."""
    axes = [np.arange(0, 30, 5.0), np.arange(0, 30, 5.0), np.arange(-1, 1.5, 0.5), *[np.arange(0, 2.5, 0.5)] * 2]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 5)


def log_sum_exp(theta: np.ndarray, n: np.ndarray, d: np.ndarray, log_loss: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Residual and jacobian [M, 5] of the published parametrisation."""
    terms = np.stack([theta[0] - theta[3] * n, theta[1] - theta[4] * d, np.full_like(n, theta[2])])
    top = terms.max(axis=0)
    parts = np.exp(terms - top)
    total = parts.sum(axis=0)
    share = parts / total
    jacobian = np.stack([share[0], share[1], share[2], -share[0] * n, -share[1] * d], axis=1)
    return top + np.log(total) - log_loss, jacobian


def objective(theta: np.ndarray, weights: np.ndarray, *data: np.ndarray) -> float:
    """The summed Huber objective."""
    size = np.abs(log_sum_exp(theta, *data)[0])
    return float(weights @ np.where(size <= DELTA, size**2 / 2, DELTA * (size - DELTA / 2)))


def gradient(theta: np.ndarray, weights: np.ndarray, *data: np.ndarray) -> np.ndarray:
    """Its gradient."""
    residual, jacobian = log_sum_exp(theta, *data)
    return jacobian.T @ (weights * np.clip(residual, -DELTA, DELTA))


def chinchilla_starts() -> dict[str, object]:
    """All 4,500 starts polished here, against L-BFGS-B from each; and what the default fit takes."""
    table = points()
    data, ones = (np.log(table["N"]), np.log(table["D"]), np.log(table["loss"])), np.ones(len(table))
    arrays = tuple(x.to_numpy() for x in data)
    problem, grid = problem_of(table), published_grid()
    natural = np.column_stack([np.exp(grid[:, 2]), np.exp(grid[:, :2]), np.maximum(grid[:, 3:], 1e-3)])
    first, _ = timed(lambda: problem.solve(0))
    default, minimum = timed(lambda: problem.solve(0))
    starts = problem.coordinates(natural)
    ours, (_, values) = timed(lambda: problem.minimise(starts, None, steps=300, tolerance=1e-12))
    sample = grid[np.random.default_rng(0).choice(len(grid), _SAMPLE.value, replace=False)]
    scipy, found = timed(
        lambda: min(minimize(objective, s, args=(ones, *arrays), method="L-BFGS-B").fun for s in sample)
    )
    scaled = scipy * len(grid) / len(sample)
    print(
        f"chinchilla: first fit {first:.2f} s ({first - default:.2f} s of it compilation), default fit {default:.3f} s,"
        f" objective {minimum.value:.13f}; 4,500 starts {ours:.2f} s, {values.min():.13f};"
        f" SciPy {scaled:.0f} s (from {len(sample)} starts), best of them {found:.13f}"
    )
    return {
        "what": "chinchilla_default_fit",
        "ours_s": default,
        "scipy_s": scaled,
        "ratio": scaled / default,
        "ours": minimum.value,
        "scipy": found,
        "ratio_all_4500_starts": scaled / ours,
        "compile_s": first - default,
    }


def problem_of(table: pd.DataFrame) -> Problem:
    """Chinchilla's law on a table of single runs."""
    law, loss = CHINCHILLA, fitting.huber(DELTA)
    plain = {"columns": None, "target": "loss", "group": None, "stratum": None}
    return Problem(law, loss, read_points(table, law, loss, **plain, weights=None, error=None, holdout=None))


def bootstrap() -> dict[str, object]:
    """4,000 resamples from the estimate, against BFGS with exact gradients from the same estimate."""
    table = points()
    problem, arrays = problem_of(table), tuple(np.log(table[name]).to_numpy() for name in ("N", "D", "loss"))
    minimum = problem.solve(0)
    rng, rows = np.random.default_rng(0), len(table)
    counts = rng.multinomial(rows, np.full(rows, 1 / rows), size=4000).astype(np.float64)
    problem.resample(minimum.u_P, counts[:64])
    ours, u = timed(lambda: problem.resample(minimum.u_P, counts))
    best = problem.natural(minimum.u_P[None])[0]
    start = np.array([np.log(best[1]), np.log(best[2]), np.log(best[0]), best[3], best[4]])
    few = counts[: _RESAMPLES.value]
    scipy, ends = timed(
        lambda: [minimize(objective, start, args=(c, *arrays), jac=gradient, method="BFGS") for c in few]
    )
    mine = [objective(in_logs(p), c, *arrays) for p, c in zip(problem.natural(u[: len(few)]), few, strict=True)]
    better = float(np.mean([m <= end.fun * (1 + 1e-6) for m, end in zip(mine, ends, strict=True)]))
    scaled = scipy * len(counts) / len(few)
    print(
        f"bootstrap: {len(counts)} resamples {ours:.2f} s; SciPy BFGS {scaled:.1f} s (from {len(few)});"
        f" objective no worse in {better:.0%} of those"
    )
    return {"what": "bootstrap_4000", "ours_s": ours, "scipy_s": scaled, "ratio": scaled / ours, "no_worse": better}


def in_logs(parameters: np.ndarray) -> np.ndarray:
    """(E, A, B, alpha, beta) as (a, b, e, alpha, beta)."""
    return np.array([*np.log(parameters[[1, 2, 0]]), *parameters[3:]])


def domains() -> dict[str, object]:
    """The data mixing law on 22 targets at once, against L-BFGS-B with exact gradients from as many starts."""
    table, shares, targets = mixtures()
    law = data_mixing(shares)
    options = {"targets": targets, "group": None, "bootstrap": 0, "objective": fitting.huber(0.02, "raw")}
    first, _ = timed(lambda: fitting.fit_each(law, table, **options))
    ours, fits = timed(lambda: fitting.fit_each(law, table, **options))
    x = table[shares].to_numpy()
    rng = np.random.default_rng(0)
    starts = np.column_stack([rng.uniform(-2, 1.5, 64), rng.uniform(-5, 2, (64, len(shares)))])

    def one(y: np.ndarray) -> float:
        def value(theta: np.ndarray) -> tuple[float, np.ndarray]:
            excess = np.exp(np.clip(x @ theta[1:], -700, 700))
            residual = np.clip(np.exp(theta[0]) + excess - y, -1e9, 1e9)  # a line search may overflow
            size, score = np.abs(residual), np.clip(residual, -0.02, 0.02)
            slope = np.concatenate([[np.exp(theta[0]) * score.sum()], x.T @ (score * excess)])
            return float(np.sum(np.where(size <= 0.02, size**2 / 2, 0.02 * (size - 0.01)))), slope

        return min(minimize(value, s, jac=True, method="L-BFGS-B").fun for s in starts)

    scipy, best = timed(lambda: [one(table[target].to_numpy()) for target in targets])
    no_worse = float(np.mean([fits[t].value <= b * (1 + 1e-6) for t, b in zip(targets, best, strict=True)]))
    print(
        f"mixing law: {len(targets)} domains {ours:.2f} s ({first:.2f} s with compilation); SciPy {scipy:.1f} s from 64"
        f" starts each; objective no worse in {no_worse:.0%} of domains"
    )
    return {
        "what": "mixing_22_domains",
        "ours_s": ours,
        "scipy_s": scipy,
        "ratio": scipy / ours,
        "no_worse": no_worse,
        "compile_s": first - ours,
    }


def mixtures() -> tuple[pd.DataFrame, list[str], list[str]]:
    """26 mixtures of five domains with 22 losses, published or simulated."""
    try:
        table = pd.read_csv(reference_data() / "mixinglaws_5mix.csv")
        table = table.query("model_size == '70M' and step == 30000 and in_fit == 1")
        names = list(pd.read_csv(reference_data() / "mixinglaws_valid_weight.csv")["pile_domain"])
        shares = [column for column in table if column.startswith("p_") and column != "p_sum"]
        return table, shares, [f"loss_{name}" for name in names]
    except AbsentDataError as error:
        print(f"{error}; simulated mixtures instead")
    rng, shares = np.random.default_rng(0), [f"p_{i}" for i in range(5)]
    x = rng.dirichlet(np.ones(5), 26)
    t = rng.uniform(-4, 1, (22, 5))
    losses = {f"loss_{i}": 2 + np.exp(x @ t[i]) + 0.002 * rng.normal(size=26) for i in range(22)}
    return pd.DataFrame(dict(zip(shares, x.T, strict=True)) | losses), shares, list(losses)


if __name__ == "__main__":
    app.run(main)
