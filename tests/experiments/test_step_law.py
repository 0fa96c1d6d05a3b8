"""The study of the best rate and batch against sweeps whose optimum follows a known law."""

import dataclasses
import json
import math
import zlib
from pathlib import Path

import numpy as np
import pytest
import synthetic_rates

from configs import step_law as configuration
from experiments import step_law, step_law_page
from experiments.claims import Claim
from experiments.step_law import BATCH_D, BATCH_N, BEST, COMPUTE, LAW, RATE_D, RATE_N, SMALLER, Findings
from scaling.config import Run
from scaling.fields import ConfigError
from scaling.fitting import Fit
from scaling.store import Store

A, B, BATCH = 0.7, 0.3, 0.5
BENT = 0.006  # relative excess of a factor of e off the best rate; half of it off the best batch


def best_rate(n: float, d: float) -> float:
    return 0.016 * (n / 2000) ** -A * (d / 2**17) ** B


def best_batch(d: float) -> float:
    return 128 * (d / 2**17) ** BATCH


def loss_of(run: Run) -> float:
    n, d = 12.0 * run.model.width**2, run.training.duration.in_steps(1) * run.data.tokens_per_step
    if run.schedule.peak > 0.2:
        return math.inf
    off = math.log(run.schedule.peak / best_rate(n, d)), math.log(run.data.tokens_per_step / best_batch(d))
    level = 2.0 + 3 / n**0.3 + 20 / d**0.4
    noise = np.random.default_rng(zlib.crc32(run.run_id.encode())).normal(scale=2e-4)
    return level * (1 + BENT * off[0] ** 2 + BENT / 2 * off[1] ** 2) * (1 + noise) + 0.01 * run.training.seed % 1


@pytest.fixture(scope="module")
def config():
    c = configuration.get_config()
    c.study.widths, c.study.tokens = (8, 12, 16, 24, 32), (2**15, 2**17, 2**19)
    c.study.batches = (2, 4, 8, 16, 32)
    c.study.rates = tuple(1e-3 * 2 ** (k / 2) for k in range(17))
    c.study.seeds, c.study.fresh_seeds, c.study.bootstrap = (0, 1, 2), (7, 8, 9, 10), 60
    return c


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, config) -> Store:
    store = Store(tmp_path_factory.mktemp("step_law"))
    runs = synthetic_rates.expanded(config, configuration.get_stages(config))
    synthetic_rates.write_runs(store, "grid", runs, loss_of)
    stages = configuration.transfer(config, store)
    synthetic_rates.write_runs(store, "transfer", synthetic_rates.expanded(config, stages), loss_of)
    return store


@pytest.fixture(scope="module")
def found(store: Store, config) -> Findings:
    return step_law.analyse(store, config.study.to_dict())


def claim_of(found: Findings, part: str) -> Claim:
    claim, *_ = (claim for claim in found.claims if part in claim.statement)
    return claim


def test_the_exponents_are_recovered_within_their_intervals(found: Findings) -> None:
    exponents = {each.name: each for each in found.exponents}
    for name, truth in ((RATE_N, -A), (RATE_D, B), (BATCH_D, BATCH), (BATCH_N, 0.0)):
        assert exponents[name].value == pytest.approx(truth, abs=0.06), name
        assert exponents[name].low <= truth <= exponents[name].high, name
        assert len(exponents[name].seeds) == 3
    for part in ("falls with model size", "rises with tokens", "best batch rises", "does not depend"):
        assert claim_of(found, part).verdict == "reproduced", part


def test_an_exponent_of_the_other_sign_is_not_reproduced(found: Findings) -> None:
    swapped = [dataclasses.replace(each, low=-each.high, high=-each.low) for each in found.exponents]
    claims = step_law.exponent_claims(swapped, found.settings)
    assert [claim.verdict for claim in claims] == ["not reproduced"] * 3 + ["reproduced"]
    moved = [dataclasses.replace(each, low=1.0, high=1.5) for each in found.exponents]
    assert step_law.exponent_claims(moved, found.settings)[-1].verdict == "not reproduced"


def test_quadratics_find_the_optimum_of_every_setting(found: Findings) -> None:
    assert len(found.optima) == 15
    inside = 0
    for (n, d), rows in found.cells.groupby(["N", "D"]):
        at = found.optima[rows.setting.iloc[0]].at
        if not any(decision.refusal for decision in at.values()):
            assert at["lr"].value == pytest.approx(best_rate(n, d), rel=0.15)
            assert at["batch"].value == pytest.approx(best_batch(d), rel=0.2)
            inside += 1
    assert inside >= 12


def test_the_trials_at_the_largest_size_are_what_each_way_says(found: Findings) -> None:
    n = 12.0 * 32**2
    for d in found.settings.tokens:
        trials = {trial.way: trial for trial in found.trials if trial.tokens == d}
        assert {LAW, SMALLER, BEST} <= set(trials) <= {LAW, SMALLER, BEST, COMPUTE}
        assert {trial.width for trial in trials.values()} == {32}
        assert trials[LAW].rate == pytest.approx(best_rate(n, d), rel=0.15)
        assert trials[LAW].batch == min((2, 4, 8, 16, 32), key=lambda b: abs(math.log(16 * b / best_batch(d))))
        below = best_rate(12.0 * 24**2, d)
        assert abs(math.log(trials[SMALLER].rate / below)) < math.log(2) / 2, "a step of the grid"


def test_regret_is_held_against_the_run_of_the_same_seed_at_the_best_of_the_grid(found: Findings) -> None:
    rows = found.regrets.set_index(["way", "tokens", "seed"]).sort_index()
    assert (rows.regret[BEST] == 0).all()
    d = 2**17
    expected = rows.loss[LAW, d, 8] / rows.loss[BEST, d, 8] - 1
    assert rows.regret[LAW, d, 8] == pytest.approx(expected, rel=1e-12)
    below, own = (math.log(trial.rate / best_rate(12.0 * 32**2, d)) for way in (SMALLER, LAW)
                  for trial in found.trials if trial.tokens == d and trial.way == way)
    gain = rows.regret[SMALLER, d].mean() - rows.regret[LAW, d].mean()
    assert gain == pytest.approx(BENT * (below**2 - own**2), abs=4e-4)
    assert claim_of(found, "less than 0.25%").verdict == "reproduced"
    assert claim_of(found, f"better than: {SMALLER}").n == 4


def test_a_run_that_diverged_counts_as_untrained_and_enters_no_law(found: Findings) -> None:
    high = found.cells[found.cells.lr > 0.2]
    assert len(high) > 0
    assert np.isinf(high.loss).all()
    assert found.diverged == 3 * len(high)
    assert all(optimum.dropped == 3 * 5 for optimum in found.optima.values())


def test_the_page_and_the_record_hold_the_answers(store: Store, found: Findings) -> None:
    record = json.loads(json.dumps(step_law_page.record(found), allow_nan=False))
    again = Fit.from_json(record["fits"]["step-law"])
    inputs = {"N": [1e3], "D": [1e6]}
    np.testing.assert_array_equal(again.predict(inputs), found.fits["step-law"].predict(inputs))
    page, figures = step_law_page.page(store, found)
    assert set(figures) == {"excess", "best_rates", "regret"}
    assert step_law_page.headline(found).split("^")[0] in page.text()
    assert all(claim.measured in step_law_page.summary(found) for claim in found.claims)


def test_a_sweep_that_lacks_runs_is_refused(tmp_path: Path, config) -> None:
    study, stages = config.study.to_dict(), configuration.get_stages(config)
    runs = synthetic_rates.expanded(config, stages)
    with pytest.raises(ConfigError, match="expected runs that have all ended; run the sweep to its end"):
        step_law.analyse(Store(tmp_path / "none"), study)
    running = Store(tmp_path / "running")
    synthetic_rates.write_runs(running, "grid", runs, loss_of, status="running")
    with pytest.raises(ConfigError, match="expected runs that have all ended"):
        step_law.analyse(running, study)
    short = Store(tmp_path / "short")
    synthetic_rates.write_runs(short, "grid", runs[1:], loss_of)
    with pytest.raises(ConfigError, match=rf"{len(runs) - 1} runs of the grid.*expected {len(runs)}, one a size"):
        step_law.analyse(short, study)
    grid = Store(tmp_path / "grid")
    synthetic_rates.write_runs(grid, "grid", runs, loss_of)
    with pytest.raises(ConfigError, match=r"0 runs at Trial.*expected one a fresh seed, 4"):
        step_law.analyse(grid, study)
    with pytest.raises(ConfigError, match="domain = 'code': expected held-out losses at the start and the end"):
        step_law.to_check(grid, {**study, "domain": "code"})


@pytest.mark.parametrize(("changes", "message"), [
    ({"fresh_seeds": (2, 3)}, r"study.fresh_seeds = \(2, 3\): expected seeds that the grid does not have"),
    ({"widths": (8, 12)}, r"study.widths = \(8, 12\): expected 3 or more different values"),
    ({"flor": 1.0}, "unknown key 'flor'; did you mean 'floor'"),
])
def test_settings_that_answer_nothing_are_refused(config, changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        step_law.settings_of({**config.study.to_dict(), **changes})


def test_every_run_ends_at_the_floor_whatever_its_peak_and_has_the_tokens_asked_for() -> None:
    for setting in ("small", "full"):
        c = configuration.get_config(setting)
        runs = synthetic_rates.expanded(c, configuration.get_stages(c))
        s = c.study
        assert len(runs) == math.prod(map(len, (s.widths, s.tokens, s.batches, s.rates, s.seeds)))
        assert {run.training.duration.in_steps(1) * run.data.tokens_per_step for run in runs} == set(s.tokens)
        np.testing.assert_allclose([run.schedule.floor * run.schedule.peak for run in runs], s.floor, rtol=1e-12)
    with pytest.raises(ConfigError, match=r"study.tokens = 1000: expected a multiple of \d+, those of a step"):
        configuration._point(c, 128, 1000, 32, 1e-3)
    with pytest.raises(ConfigError, match=r"study.floor = 1e-05: expected below every rate, such as 1e-06"):
        configuration._point(c, 128, 2**26, 32, 1e-6)
