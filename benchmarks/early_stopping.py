"""What predictive early stopping saves, and how often it is wrong: recorded sweeps replayed, then simulated ones.

python -m benchmarks.early_stopping [--sweeps=100] [--out=results/early_stopping]
Recorded with configs/learning_rates.py, eight rates, every run trained to its end:
  cosine_prose  as it is, four seeds; the assumptions of scaling/sweeps/forecast.py were chosen with it at hand
  wsd_prose     --config.schedule.name=wsd --config.schedule.decay.steps=100 --config.training.seed=0; so was this
  linear_code   --config.data.domains.prose=wheels:code --config.schedule.name=linear --config.schedule.floor=0.0
                --config.model.width=32 --config.model.heads=2, four seeds; recorded after they were chosen
Simulated: curves from known laws, eight contenders of which several are close; a winner is wrongly stopped where the
run that would have ended lowest was stopped. Prints tables and ends with one JSON line.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.signal import lfilter
from scipy.stats import beta

from benchmarks.common import finish, table
from scaling.laws import schedule
from scaling.sweeps.early_stopping import Contender, Contest, Question, replay

LEVELS = (0.8, 0.9, 0.95, 0.99)
STEPS, EVERY, WARMUP, RATES = 500, 25, 30, 8
RECORDED = Path(__file__).parents[1] / "results/early_stopping"
SCHEDULES: dict[str, Callable[[float], np.ndarray]] = {
    "constant": lambda peak: schedule.constant(STEPS, peak, WARMUP),
    "cosine": lambda peak: schedule.cosine(STEPS, peak, 0.1 * peak, WARMUP),
    "linear": lambda peak: schedule.wsd(STEPS, peak, 0.0, WARMUP, STEPS - WARMUP),
    "wsd": lambda peak: schedule.wsd(STEPS, peak, 0.0, WARMUP, STEPS // 5),
}


def rates(row: pd.Series) -> np.ndarray:
    """Learning rate of every step of a recorded run: warm-up from 0, then its schedule."""
    steps, peak, floor = int(row.steps), float(row["schedule.peak"]), float(row["schedule.floor"])
    warmup = int(row["schedule.warmup.steps"])
    shapes = {
        "cosine": lambda: schedule.cosine(steps, peak, floor * peak, warmup),
        "linear": lambda: schedule.wsd(steps, peak, floor * peak, warmup, steps - warmup),
        "wsd": lambda: schedule.wsd(steps, peak, floor * peak, warmup, int(row["schedule.decay.steps"])),
    }
    return shapes[row["schedule.name"]]()


def recorded(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame, list[Contender]]:
    """Runs, curves and contenders (a rate, its seeds) of a recorded sweep."""
    runs, curves = pd.read_csv(folder / "runs.csv"), pd.read_csv(folder / "curves.csv")
    found = [Contender(tuple(part.run_id), rates(part.iloc[0])) for _, part in runs.groupby("schedule.peak")]
    return runs, curves, found


def means(contenders: list[Contender], curves: pd.DataFrame) -> np.ndarray:
    """Final loss of each contender, the mean over its runs."""
    last = curves[curves.step == curves.step.max()].set_index("run_id").loss
    return np.array([last[list(contender.run_ids)].mean() for contender in contenders])


def replayed(contenders: list[Contender], curves: pd.DataFrame, domain: str, level: float) -> tuple[float, bool, float]:
    """Share of the steps saved, whether the winner was stopped, and loss of the one chosen above the winner's."""
    stops = replay(Contest(Question(domain, level), contenders, curves.step.unique().tolist(), {}), curves)
    end = int(curves.step.max())
    saved = sum(end - stop.step for stop in stops.values()) / end / sum(len(c.run_ids) for c in contenders)
    finals = means(contenders, curves)
    left = [place for place, contender in enumerate(contenders) if not set(contender.run_ids) <= stops.keys()]
    chosen = min(left, key=lambda place: finals[place])
    return saved, bool(finals.argmin() not in left), float(finals[chosen] - finals.min())


def noise(random: np.random.Generator, points: int) -> np.ndarray:
    """Scatter of a curve: a slow part, AR(1) with 0.8 a point, and an independent one, 0.1% to 0.4% each."""
    slow, fast = random.uniform(0.001, 0.004, 2)
    steady = random.normal(size=points + 50) * np.sqrt(1 - 0.8**2)
    return slow * lfilter([1.0], [1.0, -0.8], steady)[50:] + fast * random.normal(size=points)


def simulate(
    random: np.random.Generator, family: str, rate_of: Callable[[float], np.ndarray],
) -> tuple[list[Contender], pd.DataFrame]:
    """A sweep over peak rates with a best one somewhere inside, from a family of laws.

    annealing: the forecast's own law. lagged: its noise term follows the rate with a delay of 40 steps and grows with
    the peak. broken: the power of the area changes half-way as well. reversed: a decay is worth the more the higher
    the peak, up to 12% of the loss: more than the forecast assumes at two standard deviations.
    """
    peaks = 1e-3 * 2.0 ** np.arange(RATES)
    best, bend = random.uniform(1, RATES - 2), random.uniform(0.005, 0.05)
    level, alpha = random.uniform(1.5, 3.5), random.uniform(0.3, 1.0)
    steps = np.arange(EVERY, STEPS + 1, EVERY)
    found, rows = [], []
    for place, peak in enumerate(peaks):
        rate_T = rate_of(peak)
        area_T, height_T = np.cumsum(rate_T) / peak, rate_T / peak
        worth = random.uniform(0.0, 0.06)
        if family != "annealing":
            height_T = lfilter([1 / 40], [1.0, 1 / 40 - 1], height_T)
            worth = (0.12 if family == "reversed" else 0.06) * (place + random.uniform()) / RATES
        area_M = area_T[steps - 1] / area_T[-1]
        excess_M = random.uniform(0.2, 0.5) * area_M**-alpha
        if family == "broken":
            excess_M *= (1 + (area_M / random.uniform(0.3, 0.6)) ** 4) ** (-random.uniform(0.2, 0.6) / 4)
        decay_M = worth * (height_T[steps - 1] - height_T[-1])
        share_M = 1 + bend * (place - best) ** 2 / 4 + excess_M + decay_M
        loss_M = level * (share_M + noise(random, len(steps)))
        found.append(Contender((str(place),), rate_T))
        rows.append(pd.DataFrame({"run_id": str(place), "step": steps, "split": "validation", "domain": "text",
                                  "loss": loss_M, "loss_se": 0.01}))
    return found, pd.concat(rows, ignore_index=True)


def rate_of_errors(family: str, name: str, level: float, sweeps: int) -> dict:
    """How often a winner is stopped in simulated sweeps, with its exact 95% interval, and what was saved."""
    random = np.random.default_rng([ord(letter) for letter in family + name])
    results = [replayed(*simulate(random, family, SCHEDULES[name]), "text", level) for _ in range(sweeps)]
    wrong = sum(stopped for _, stopped, _ in results)
    low = beta.ppf(0.025, wrong, sweeps - wrong + 1) if wrong else 0.0
    high = beta.ppf(0.975, wrong + 1, sweeps - wrong) if wrong < sweeps else 1.0
    return {"laws": family, "schedule": name, "level": level, "sweeps": sweeps, "wrong": wrong, "rate": wrong / sweeps,
            "low": low, "high": high, "saved": np.mean([saved for saved, _, _ in results]),
            "largest_regret": max(regret for _, _, regret in results)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", type=int, default=100, help="simulated sweeps a family and schedule")
    parser.add_argument("--out", type=Path, help="folder for recorded.csv and simulated.csv")
    options = parser.parse_args()
    real = []
    for folder in sorted(path for path in RECORDED.iterdir() if path.is_dir()):
        runs, curves, contenders = recorded(folder)
        for level in LEVELS:
            saved, stopped, regret = replayed(contenders, curves, "prose", level)
            real.append({"sweep": folder.name, "runs": len(runs), "level": level, "saved": saved,
                         "decision": "changed" if stopped else "same", "regret": regret})
    table(real)
    simulated = [rate_of_errors(family, name, 0.95, options.sweeps)
                 for family in ("annealing", "lagged", "broken", "reversed") for name in SCHEDULES]
    table(simulated)
    if options.out:
        pd.DataFrame(real).to_csv(options.out / "recorded.csv", index=False)
        pd.DataFrame(simulated).to_csv(options.out / "simulated.csv", index=False)
    inside = [row for row in simulated if row["laws"] != "reversed"]
    finish({"recorded": {f"{row['sweep']} {row['level']}": [row["saved"], row["decision"]] for row in real},
            "simulated_sweeps": sum(row["sweeps"] for row in inside),
            "wrongly_stopped": sum(row["wrong"] for row in inside),
            "beyond_assumptions": {row["schedule"]: row["rate"] for row in simulated if row["laws"] == "reversed"}})


if __name__ == "__main__":
    main()
