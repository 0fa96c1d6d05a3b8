"""Finding a rate: a known edge and optimum recovered from a store; the command trains, goes on, and trains nothing."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from experiments import rate, rate_page
from experiments.recommended_schedule import section
from helpers import small_run, write_text
from scaling.config import Run
from scaling.fields import ConfigError
from scaling.fitting.range_test import growing_rates
from scaling.store import Store
from scaling.sweeps.sweep import Sweep

HERE = Path(__file__).parent
EDGE, BEST = 0.05, 0.011
STUDY: dict[str, Any] = {
    "name": "rate", "lowest": 1e-4, "highest": 1.0, "steps": 200, "growth": "exponential", "rates": 8,
    "seeds": (0, 1, 2), "range_runs": ("range0", "range1", "range2"), "sweep_runs": (),
}


def settings(**changes: Any) -> rate.Settings:
    return rate.Settings(**{**STUDY, **changes})


def write(store: Store, name: str, runs: list[dict], curves: list[dict]) -> None:
    store.write("runs", name, pd.DataFrame(runs))
    store.write("curves", name, pd.DataFrame(curves))


def write_tests(store: Store, diverges: bool = True) -> None:
    """A range test a seed: the loss falls, and explodes from a rate about EDGE on, where the run diverges at last."""
    given = section(growing_rates(1e-4, 1.0, 200, "exponential"))
    rate_T = given["peak"] * np.array(given["values"])
    for seed in STUDY["seeds"]:
        edge = EDGE * 1.1 ** (seed - 1)
        loss_T = 2 + np.exp(-rate_T / 1e-3) + np.where(rate_T > edge, (rate_T / edge) ** 8 - 1, 0) * diverges
        kept = loss_T < 20
        write(store, f"range{seed}",
              [{"run_id": f"range{seed}", "training.seed": seed, "schedule.values": json.dumps(given["values"]),
                "schedule.peak": given["peak"], "status": "done" if kept.all() else "diverged"}],
              [{"run_id": f"range{seed}", "split": "train", "domain": "mixture", "step": step + 1, "loss": loss_T[step]}
               for step in range(200) if kept[step]])


def write_sweep(store: Store, runs: list[Run]) -> None:
    """Held-out losses of two domains, whose mean by the last shares has its least at BEST; the highest diverge."""
    rng, top = np.random.default_rng(0), max(run.schedule.peak for run in runs)
    for run in runs:
        loss = 2 + 0.02 * np.log(run.schedule.peak / BEST) ** 2 + rng.normal(scale=2e-4)
        status = "done" if run.schedule.peak < top else "diverged"
        write(store, run.run_id,
              [{"run_id": run.run_id, "training.seed": run.training.seed, "schedule.peak": run.schedule.peak,
                "status": status, "steps": 20,
                "data.mixture": json.dumps([[0.0, [["prose", 1.0]]], [0.5, [["code", 0.25], ["prose", 0.75]]]])}],
              [{"run_id": run.run_id, "split": "validation", "domain": domain, "step": step,
                "loss": loss + shift + wait}
               for step, wait in ((0, 3.0), (20, 0.0)) if status == "done"
               for domain, shift in (("code", 0.3), ("prose", -0.1))])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("store"))
    write_tests(store)
    return store


@pytest.fixture(scope="module")
def found(store: Store) -> rate.Findings:
    runs = Sweep(small_run(), tuple(rate.sweep_stages(settings(), store))).runs()
    write_sweep(store, runs)
    return rate.analyse(store, {**STUDY, "sweep_runs": tuple(run.run_id for run in runs)})


def test_the_edge_of_every_seed_is_found_and_their_interval(found: rate.Findings) -> None:
    step, lag = 1e4 ** (1 / 199), 10
    for seed, test in found.tests.items():
        assert test.refusal is None
        assert EDGE * 1.1 ** (seed - 1) / step <= test.highest <= EDGE * 1.1 ** (seed - 1) * step**lag
    assert found.highest.low < found.highest.value < found.highest.high
    logs = np.log([test.highest for test in found.tests.values()])
    assert np.log(found.highest.value) == pytest.approx(logs.mean(), rel=1e-12)


def test_the_sweep_lies_around_the_edge_and_gives_the_optimum(found: rate.Findings) -> None:
    rates = np.unique(found.sweep.lr)
    assert len(rates) == 8
    assert rates[-1] == pytest.approx(2 * found.highest.value, rel=0.05)
    np.testing.assert_allclose(rates[1:] / rates[:-1], 2.0, rtol=0.1)  # two digits are kept
    best = found.optimum.at["lr"]
    assert best.refusal is None
    assert best.low <= BEST <= best.high
    assert best.value == pytest.approx(BEST, rel=0.05)
    assert found.optimum.dropped == 3
    assert found.optimum.loss.value == pytest.approx(2.0, abs=1e-3), "shares 1/4 and 3/4 of the last phase cancel"


def test_the_page_and_the_record_hold_both_answers(store: Store, found: rate.Findings) -> None:
    record = json.loads(json.dumps(rate_page.record(found), allow_nan=False))
    assert record["optimum"]["value"] == found.optimum.at["lr"].value
    assert [record["range_tests"][str(seed)]["highest"] for seed in (0, 1, 2)] == [
        test.highest for test in found.tests.values()]
    page, figures = rate_page.page(store, found)
    assert set(figures) == {"range_test", "rate_sweep"}
    assert rate_page.headline(found) in page.text()
    assert "24 runs, 3 diverged" in rate_page.summary(found)


def test_a_range_that_never_breaks_is_refused_before_any_sweep(tmp_path: Path) -> None:
    write_tests(Store(tmp_path), diverges=False)
    with pytest.raises(ConfigError, match=r"--lowest, --highest = \(0\.0001, 1\.0\): .* does not rise again up to the l"
                                          r"ast rate, 1; go higher; widen the range"):
        rate.sweep_stages(settings(), Store(tmp_path))


def test_a_range_run_grows_its_rate_and_keeps_every_training_loss() -> None:
    runs = Sweep(small_run(), (rate.range_stage(settings(steps=30)),)).runs()
    assert [run.training.seed for run in runs] == [0, 1, 2]
    assert runs[0].evaluation.steps == tuple(range(1, 31))
    rate_T = runs[0].schedule.peak * np.array(runs[0].schedule.values)
    np.testing.assert_allclose(rate_T[1:] / rate_T[:-1], 1e4 ** (1 / 29))


@pytest.mark.parametrize(("changes", "message"), [
    ({"lowest": 2.0}, r"--lowest, --highest = \(2\.0, 1\.0\): expected rates with 0 < lowest < highest; use 1e-6"),
    ({"rates": 2}, r"--rates = 2: expected 3 or more, for a quadratic; use 8"),
    ({"seeds": (0, 0)}, r"--seeds = \(0, 0\): expected different seeds, one or more; use 0,1,2"),
])
def test_a_command_that_finds_no_rate_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(**changes)


def test_seeds_that_are_no_numbers_are_refused() -> None:
    given = SimpleNamespace(lowest=1e-5, highest=1.0, range_steps=300, growth="linear", rates=8, seeds=["4", "5"])
    assert rate.asked(given).seeds == (4, 5)
    given.seeds = ["a", "b"]
    with pytest.raises(ConfigError, match=r"--seeds = a,b: expected whole numbers; use 0,1,2"):
        rate.asked(given)


@pytest.mark.parametrize("seconds", [math.nan, math.inf])
def test_checkpoints_that_never_come_are_refused_first(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    given = SimpleNamespace(lowest=1e-5, highest=1.0, range_steps=300, growth="linear", rates=8, seeds=["0"],
                            workdir="none", checkpoint_seconds=seconds)
    monkeypatch.setattr(rate, "FLAGS", given)
    with pytest.raises(ConfigError, match=rf"--checkpoint_seconds = {seconds}: expected a finite number"):
        rate.main()


def test_the_command_trains_both_parts_once(tmp_path: Path) -> None:
    write_text(tmp_path / "texts" / "prose")
    environment = {**os.environ, "TINY_TEXTS": str(tmp_path / "texts"), "SCALING_CACHE": str(tmp_path / "cache"),
                   "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    command = [sys.executable, "-m", "experiments.rate", f"--config={HERE / 'following.py'}", "--highest=10",
               "--range_steps=60", "--rates=5", "--seeds=0", f"--workdir={tmp_path / 'work'}"]

    def run() -> subprocess.CompletedProcess:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done

    assert "Range test: the largest rate borne is" in run().stdout
    kept = {path: path.read_bytes() for path in sorted((tmp_path / "work").rglob("*.parquet"))}
    runs = Store(tmp_path / "work" / "store").read("runs")
    assert len(runs) == 6
    again = run()
    assert "0/0 runs" in again.stderr
    assert "compiling" not in again.stderr
    assert {path: path.read_bytes() for path in sorted((tmp_path / "work").rglob("*.parquet"))} == kept
    record = json.loads((tmp_path / "work" / "fits.json").read_text())
    assert len(record["sweep"]) == 5
    assert {path.name for path in (tmp_path / "work" / "figures").iterdir()} == {"range_test.png", "rate_sweep.png"}
    assert "python -m experiments.rate" in (tmp_path / "work" / "experiment.json").read_text()
