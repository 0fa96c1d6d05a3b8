"""What to run next against a uniform grid of the same candidates: the compute that reaches the same interval.

python benchmarks/design.py [--seeds=4]
A pilot is simulated and fitted; runs are chosen with what it knows; then pilot and new runs are simulated again and
again from the truth and refitted, for the chosen runs and for a uniform grid. Widths are of 95% intervals of the
target, so found. Prints a table and ends with one JSON line.
"""

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from scaling import fitting
from scaling.fitting.design import design
from scaling.fitting.evaluate import at_each
from scaling.fitting.objectives import default_objective
from scaling.fitting.replicates import replicates
from scaling.laws.law import Law
from scaling.laws.mixture import D_CPT
from scaling.laws.size import CHINCHILLA

NOISE, REPLICATES = 0.005, 256
CASES = (("every second", 1), ("every second", 4), ("every one", 16))
"""Uniform grid, and how often the chosen design may run one candidate (with other seeds)."""


@dataclass(frozen=True)
class Study:
    """A law with its truth, a pilot, candidate values by input, and the inputs at which the loss is wanted."""

    name: str
    law: Law
    truth: Mapping[str, float]
    pilot: Mapping[str, np.ndarray]
    candidates: Mapping[str, np.ndarray]
    target: Mapping[str, float]


STUDIES = (
    Study(
        "chinchilla, 100x compute",
        CHINCHILLA,
        {"E": 1.8172, "A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3658},
        {"N": np.geomspace(2e7, 3e8, 5), "D": np.geomspace(4e8, 6e9, 5)},
        {"N": np.geomspace(5e7, 2e9, 8), "D": np.geomspace(1e9, 4e10, 8)},
        {"N": 2e10, "D": 4e11},
    ),
    Study(
        "d-cpt, 100x compute",
        D_CPT,
        {
            "E": 1.2, "A": 60.0, "B": 400.0, "C": 0.4, "alpha": 0.3,
            "beta": 0.4, "gamma": 0.5, "eta": 0.3, "eps": 0.1,
        },
        {"N": np.geomspace(1e6, 2e7, 3), "D": np.geomspace(4e6, 1e8, 3), "r": np.linspace(0, 1, 6)},
        {"N": np.geomspace(3e6, 1e8, 6), "D": np.geomspace(1e7, 6e8, 6), "r": np.linspace(0, 1, 6)},
        {"N": 1e9, "D": 6e9, "r": 0.3},
    ),
)  # fmt: skip


def grid(values: Mapping[str, np.ndarray], every: Mapping[str, int] | None = None) -> pd.DataFrame:
    """All combinations, or of so many values of each input, ends included; `cost` is 6*N*D."""
    kept = {
        name: x if every is None else x[np.linspace(0, len(x) - 1, every[name]).round().astype(int)]
        for name, x in values.items()
    }
    columns = np.meshgrid(*kept.values(), indexing="ij")
    table = pd.DataFrame({name: column.ravel() for name, column in zip(kept, columns, strict=True)})
    return table.assign(cost=6 * table["N"] * table["D"])


def width(study: Study, runs: pd.DataFrame) -> float:
    """The width of the 95% interval of the target over refits of pilot and runs."""
    rows = pd.concat([grid(study.pilot), runs])
    inputs = {name: rows[name].to_numpy(float) for name in study.law.input_names}
    objective = default_objective(study.law, known_errors=False)
    found_BxP = replicates(study.law, objective, study.truth, inputs, noise=NOISE, count=REPLICATES, seed=1)
    target_B = at_each(study.law, found_BxP, {name: np.array([value]) for name, value in study.target.items()})[:, 0]
    low, high = np.quantile(target_B, [0.025, 0.975])
    return float(high - low)


def pilot_fit(study: Study, seed: int) -> fitting.Fit:
    """The fit of a simulated pilot."""
    table = grid(study.pilot)
    truth_1xP = np.array([[study.truth[name] for name in study.law.parameter_names]])
    exact = at_each(study.law, truth_1xP, {name: table[name].to_numpy(float) for name in study.law.input_names})[0]
    noise = np.random.default_rng(seed).normal(scale=NOISE, size=len(table))
    return fitting.fit(study.law, table.assign(loss=exact * np.exp(noise)), group=None, bootstrap=100, seed=seed)


def compare(study: Study, seed: int, uniform: Mapping[str, pd.DataFrame], widths: Mapping[str, float]) -> list[dict]:
    """One pilot: for each uniform grid, half of its compute and the least compute, chosen."""
    pilot, rows = pilot_fit(study, seed), []
    for name, seeds in CASES:
        runs = uniform[name]
        prepared = design(pilot, grid(study.candidates), target=study.target, repeats=seeds)
        begin = time.perf_counter()
        half = prepared.rank(0.5 * runs["cost"].sum())
        seconds = time.perf_counter() - begin
        found = width(study, half.table)
        merged = prepared.candidates.reset_index().merge(runs, on=list(study.law.input_names))
        predicted = prepared.width_of(np.bincount(merged["index"], minlength=len(prepared.candidates)))
        least = prepared.cheapest(predicted)
        rows.append({
            "study": study.name, "pilot": seed, "grid": name, "grid_runs": len(runs), "runs_at_half": len(half.table),
            "seeds": seeds,
            "predicted_half/grid": half.width / predicted, "found_half/grid": found / widths[name],
            "predicted/found_at_half": half.width / found,
            "least_cost/grid": least.cost / runs["cost"].sum(),
            "found_least/grid": width(study, least.table) / widths[name],
            "refusals": ", ".join(refusal.kind for refusal in half.refusals) or "none", "rank_s": seconds,
        })  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=4)
    seeds = parser.parse_args().seeds
    rows = []
    for study in STUDIES:
        coarse = {name: -(-len(x) // 2) for name, x in study.candidates.items()}
        uniform = {"every second": grid(study.candidates, coarse), "every one": grid(study.candidates)}
        widths = {name: width(study, runs) for name, runs in uniform.items()}
        for seed in range(seeds):
            rows += compare(study, seed, uniform, widths)
    table = pd.DataFrame(rows)
    print(table.to_string(index=False, float_format="{:.3g}".format))
    again = table[table["seeds"] > 1]
    result = {
        "half_the_compute_width_over_grid_worst_with_seeds": round(float(again["found_half/grid"].max()), 3),
        "least_compute_over_grid_worst_with_seeds": round(float(again["least_cost/grid"].max()), 3),
        "half_the_compute_width_over_grid_worst": round(float(table["found_half/grid"].max()), 3),
        "half_the_compute_width_over_grid_mean": round(float(table["found_half/grid"].mean()), 3),
        "least_compute_over_grid_worst": round(float(table["least_cost/grid"].max()), 3),
        "least_compute_over_grid_mean": round(float(table["least_cost/grid"].mean()), 3),
        "least_compute_width_over_grid_mean": round(float(table["found_least/grid"].mean()), 3),
        "predicted_over_found_mean": round(float(table["predicted/found_at_half"].mean()), 3),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
