"""The study against a store with a known truth: gaps, ratios of variances, epochs, rises, verdicts, page, refusals."""

import functools
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ml_collections import ConfigDict
from synthetic_continual import runs_of, write_store

from configs import upsample_upweight as configuration
from experiments import upsample_upweight, upsample_upweight_page
from experiments.continual import MEAN
from experiments.upsample_design import Settings
from experiments.upsample_upweight import Findings, rise
from scaling.config import Run
from scaling.data.temperature import second_moment, temperature_shares
from scaling.fields import ConfigError
from scaling.store import Store

SIZES = {"prose": 256.0, "code": 16.0, "headers": 1.0}
LAST, EARLY = 819, 120
EXCESS = {"initial": 1.1, "trained": 2.0}  # of the ratio of variances over the second moment
UNIT = 16  # windows of headers in the sweep
RISE, LEAD = 0.3, 0.2


def small() -> ConfigDict:
    c = configuration.get_config()
    c.study.seeds, c.study.frozen_passes, c.study.descent_steps = (0, 1, 2), 1, 3
    return c


def settings() -> Settings:
    return upsample_upweight.settings_of(small().study.to_dict())


def noise(run: Run, step: int, name: str) -> float:
    return float(np.random.default_rng([int(run.run_id, 16) % 2**31, step, len(name)]).normal(scale=0.002))


def aimed(run: Run) -> dict[str, float]:
    """Shares times weights, of the first phase."""
    assert run.objective is not None
    weights = dict(run.objective.domain_weights)
    return {name: share * weights.get(name, 1.0) for name, share in run.data.mixture[0][1]}


def truth(run: Run, parent: Run | None, step: int) -> Mapping[str, float]:
    """Full descents part by 4e-7, batches by 0.01. In the sweep sampling leads by LEAD early; its headers loss at
    τ = 16 rises by RISE after step 410; scalarization ends 0.1 higher, Cooldown 0.05 below temperature 1.
    """
    seed = 0.1 * run.training.seed
    weighed = bool(run.objective and run.objective.domain_weights)
    start = {"prose": 3.0 + seed, "code": 2.8 + seed, "headers": 3.2 + seed}
    if run.optimizer.eps > 1:
        apart = (4e-7 if run.data.batch != 42 else 0.01) * weighed * step / 3
        return {name: loss + apart for name, loss in start.items()}
    if dict(run.data.unique_tokens)["headers"] != UNIT * run.data.sequence:
        return start
    loss = {name: value - step / LAST for name, value in start.items()}
    hot = aimed(run)["headers"] > 0.25
    if weighed:
        loss = {name: value + (LEAD if step == EARLY else 0.1) for name, value in loss.items()}
    elif len(run.data.mixture) == 2:
        loss = {name: value - 0.05 for name, value in loss.items()}
    elif hot:
        loss["headers"] = start["headers"] - min(step, 410) / LAST + RISE * max(step - 410, 0) / (LAST - 410)
    return {name: value + noise(run, step, name) for name, value in loss.items()}


def norms(run: Run) -> list[float]:
    """Gradient norms after each step of a frozen run: |G|² = 4, variance 2 under sampling and, times Σ w²/p and EXCESS,
    under scalarization, half a unit more and less in turn.
    """
    if run.data.batch == 546:
        return [2.0]
    weighed = bool(run.objective and run.objective.domain_weights)
    own = temperature_shares(SIZES, 1.0)
    state = "initial" if run.parent is None else "trained"
    spread = 2.0 * (EXCESS[state] * second_moment(aimed(run), own) if weighed else 1.0)
    steps = int(run.training.duration.steps or 0)
    wave = np.where(np.arange(steps) < steps // 2, 0.5, -0.5)
    wave[steps // 2 * 2:] = 0.0
    return np.sqrt(4.0 + spread * (1 + 0.01 * (run.training.seed - 1)) + wave).tolist()


def made_store(folder: Path, runs: list[Run], diverged: Callable[[Run], bool] = lambda _: False) -> Store:
    store = write_store(folder, runs, truth, diverged)
    rows = [{"run_id": run.run_id, "step": step, "name": "gradient_norm", "value": value}
            for run in runs if run.schedule.peak == 0 for step, value in enumerate(norms(run), 1)]
    rows += [{"run_id": run.run_id, "step": step, "name": "gradient_norm",
              "value": 1 + 2e-7 * bool(run.objective and run.objective.domain_weights)}
             for run in runs if run.optimizer.eps > 1 for step in (1, 2, 3)]
    store.write("diagnostics", "all", pd.DataFrame(rows))
    return store


@functools.cache
def small_runs() -> list[Run]:
    return runs_of(small(), configuration.get_stages(small()))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return made_store(tmp_path_factory.mktemp("store"), small_runs())


@pytest.fixture(scope="module")
def found(store: Store) -> Findings:
    return upsample_upweight.analyse(store, small().study.to_dict())


def test_the_design_has_every_part_with_its_labels(store: Store) -> None:
    runs = upsample_upweight.labelled(store, settings())
    assert runs.groupby("part").size().to_dict() == {"sweep": 39, "descent": 24, "frozen": 90, "pool": 3}
    sweep = runs[(runs.part == "sweep") & (runs.seed == 0)]
    assert sorted(zip(sweep.way, sweep.tau, sweep.switch, sweep.rate, strict=True)) == [
        *(("cooldown", 16.0, switch, 1.0) for switch in (0.125, 0.25, 0.5, 0.75)),
        *(("sampling", tau, 1.0, 1.0) for tau in (1.0, 2.0, 4.0, 16.0)),
        ("scalarization", 2.0, 1.0, 1.0), ("scalarization", 4.0, 1.0, 1.0),
        *(("scalarization", 16.0, 1.0, rate) for rate in (0.25, 0.5, 1.0))]
    frozen = runs[runs.part == "frozen"]
    assert frozen.groupby(["state", "batch"]).size().tolist() == [18, 18, 9] * 2
    assert frozen.whole.tolist() == (frozen.batch == 546).tolist()


def test_epochs_of_the_smallest_domain(found: Findings) -> None:
    """819 steps of 16 windows are 3 passes over 273 × 16; at τ = 4, a seventh of them are of 16 windows: 117 passes."""
    epochs = found.ways[found.ways.rate == 1].set_index(["way", "tau", "switch"]).epochs
    assert epochs["sampling", 1.0, 1.0] == pytest.approx(3.0)
    assert epochs["scalarization", 16.0, 1.0] == pytest.approx(3.0)
    assert epochs["sampling", 4.0, 1.0] == pytest.approx(117.0)
    hot = 819 / (1 + 2**0.25 + 2**0.5)
    assert epochs["sampling", 16.0, 1.0] == pytest.approx(hot)
    assert epochs["cooldown", 16.0, 0.25] == pytest.approx((hot * 205 + 3 * 614) / 819)


def test_gaps_are_the_truth(found: Findings) -> None:
    table = found.equality.set_index(["whole", "tau"])
    assert table.loc[True, 2.0].tolist() == pytest.approx([3, 4e-7, 2e-7], rel=1e-6)
    assert table.loc[False, 4.0].tolist() == pytest.approx([3, 0.01, 2e-7], rel=1e-6)


def test_ratios_of_variances_are_the_truth(found: Findings) -> None:
    for row in found.variance.to_dict("records"):
        factor = second_moment(temperature_shares(SIZES, row["tau"]), temperature_shares(SIZES, 1.0))
        assert row["factor"] == pytest.approx(factor)
        assert row["ratio"] == pytest.approx(EXCESS[row["state"]] * factor, rel=1e-3)
        assert row["low"] <= row["ratio"] <= row["high"]
        assert row["n"] == 3
    assert found.variance.batch.tolist() == [1, 1, 1, 42, 42, 42] * 2
    assert found.variance.factor[found.variance.tau == 4].tolist() == pytest.approx([273 / 49 * 21 / 16] * 4)


def test_rises_and_leads_are_the_truth(store: Store, found: Findings) -> None:
    ways = found.ways.set_index(["way", "tau", "switch", "rate"])
    hot = ways.loc["sampling", 16.0, 1.0, 1.0]
    assert hot.rise == pytest.approx(RISE, abs=0.01)
    assert hot.best_step == 410
    rows = upsample_upweight.labelled(store, settings()).query("part == 'sweep' and way == 'sampling' and tau == 16")
    assert len(rows) == 3
    noises = [noise(run, LAST, "headers") - noise(run, 410, "headers")
              for run in small_runs() if run.run_id in set(rows.run_id)]
    half = 4.3027 * np.std(noises, ddof=1) / math.sqrt(3)  # Student's t of two degrees of freedom, 95%
    assert [hot.rise, hot.low, hot.high] == pytest.approx([RISE + np.mean(noises) + part for part in (0, -half, half)])
    assert ways.loc["scalarization", 16.0, 1.0, 1.0].rise == 0
    leads = found.speed.set_index(["tau", "domain"]).value
    assert leads[4.0, MEAN] == pytest.approx(LEAD, abs=0.01)
    assert leads[16.0, "headers"] == pytest.approx(LEAD, abs=0.01)


def test_every_verdict_is_the_truths(found: Findings) -> None:
    verdicts = {claim.statement: claim.verdict for claim in found.claims}
    assert len(verdicts) == len(found.claims) == 15
    assert {name for name, verdict in verdicts.items() if verdict != "reproduced"} == {
        "The ratio of variances is Σ w²/p within 25%: trained state"}
    assert verdicts["The ratio of variances is Σ w²/p within 25%: trained state"] == "not reproduced"


def test_full_gradients_that_part_by_more_than_the_tolerance_are_told(store: Store) -> None:
    study = {**small().study.to_dict(), "tolerance": 1e-7}
    claim = upsample_upweight.analyse(store, study).claims[0]
    assert claim.verdict == "inconclusive"  # some differences are within, the largest is not
    assert claim.value == pytest.approx(4e-7, rel=1e-6)
    assert claim.n == 6


def test_noise_alone_gives_no_rise() -> None:
    rng = np.random.default_rng(0)
    loss_GxT = 2.0 + 0.1 * rng.normal(size=(400, 12))
    rows = [{"seed": seed, "step": step, "loss": loss, "domain": "headers"}
            for seed, row in enumerate(loss_GxT) for step, loss in enumerate(row)]
    groups = [pd.DataFrame(rows[i:i + 60]) for i in range(0, len(rows), 60)]  # five seeds each
    found = np.concatenate([rise(group, {}, "headers").to_numpy() for group in groups])
    naive = loss_GxT[:, -1] - loss_GxT.min(axis=1)
    assert abs(found.mean()) < 4 * 0.1 * math.sqrt(2 / 400)
    assert naive.mean() > 0.1
    assert rise(groups[0][groups[0].seed == 0], {}, "headers").empty


def test_a_diverged_run_costs_its_pair_and_is_told(tmp_path: Path) -> None:
    gone = next(run for run in small_runs() if run.training.seed == 1 and len(run.data.mixture) == 2
                and run.data.mixture[1][0] == 0.25)
    store = made_store(tmp_path, small_runs(), lambda run: run is gone)
    found = upsample_upweight.analyse(store, small().study.to_dict())
    assert [claim.n for claim in found.claims[-4:]] == [2] * 4
    assert "1 runs ended as diverged; their pairs are left out" in found.not_identified


def test_the_page_says_the_answer_and_holds_every_figure(store: Store, found: Findings) -> None:
    page, figures = upsample_upweight_page.page(store, found)
    text = page.text()
    assert "losses differ by 4e-07 nats/token at most" in text
    assert text.count('src="data:image/png;base64,') == len(figures) == 4
    record = json.loads(json.dumps(upsample_upweight_page.record(found), allow_nan=False))
    assert len(record["claims"]) == 15
    assert len(record["ways"]) == 13
    assert "reproduced" in upsample_upweight_page.summary(found)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"swich": 0.5}, r"study: unknown key 'swich'; did you mean 'switch'"),
        ({"low": "code"}, r"study\.low = 'code': expected the smallest domain, headers"),
        ({"low": "header"}, r"study\.low: unknown key 'header'; did you mean 'headers'"),
        ({"high": 5.0}, r"study\.high = 5\.0: expected a temperature above 1 of study\.temperatures"),
        ({"switch": 0.3}, r"study\.switch = 0\.3: expected one of study\.switches"),
        ({"pool_unit": 16}, r"study\.pool_unit = 16: expected other than study\.unit = 16; make the pool smaller"),
        ({"pool_batch": 40}, r"study\.pool_batch = 40: expected a divisor of the pool's 546 windows"),
    ],
)
def test_settings_that_do_not_fit_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        upsample_upweight.settings_of({**small().study.to_dict(), **change})


def test_a_store_without_finished_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected finished runs; run the sweep to its end"):
        upsample_upweight.analyse(Store(tmp_path), small().study.to_dict())


def test_the_full_setting_is_the_same_study() -> None:
    full = configuration.get_config("full")
    runs = runs_of(full, configuration.get_stages(full))
    assert set(full.study) == set(small().study)
    assert len(runs) == 8 * (13 + 8 + 15 + 1 + 15)
    trunk = next(run for run in runs if run.data.batch == 42 and run.schedule.name == "cosine")
    assert trunk.training.duration.steps == 20 * 546 / 42
