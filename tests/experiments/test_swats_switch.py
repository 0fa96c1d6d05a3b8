"""The study against a store with a known truth: switches, shares, verdicts, page, refusals."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic_effects
from ml_collections import ConfigDict
from scipy import stats
from synthetic_continual import runs_of
from synthetic_effects import noise

from configs import swats_switch as configuration
from experiments import swats_switch as study
from experiments import swats_switch_page
from experiments.optimizer_effects import Findings
from scaling.config import Run
from scaling.fields import ConfigError
from scaling.store import Store

GAIN, PREMISE = 0.04, 0.02


def small() -> ConfigDict:
    return synthetic_effects.configured(configuration, seeds=4)


def switch(run: Run) -> float:
    """The last step of Adam: never up to 1e-6, at 1e-4 for the lowest rate alone, at 130 for 1e-3, then earlier."""
    tolerance = run.optimizer.tolerance
    if not tolerance or tolerance < 5e-5 or (tolerance < 5e-4 and run.schedule.peak > 2e-3):
        return math.inf
    return 330 if tolerance < 5e-4 else 130 if tolerance < 5e-3 else 1


def truth(run: Run, step: int) -> float:
    """A run that has switched is GAIN lower than Adam; SGD PREMISE lower."""
    loss = 2.0 + 3 / step + 0.1 * run.training.seed + 0.1 * abs(math.log(run.schedule.peak / 9e-3, 3))
    if run.optimizer.name == "sgd":
        return 2.0 + 3 / step + 0.1 * run.training.seed - PREMISE + noise(run)
    return loss - (GAIN + noise(run)) * (step > switch(run))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return synthetic_effects.write(tmp_path_factory.mktemp("store"), configuration, small(), truth)[0]


@pytest.fixture(scope="module")
def found(store: Store) -> Findings:
    return study.analyse(store, small().study.to_dict())


def test_the_switch_is_known_to_within_the_steps_between_evaluations(found: Findings) -> None:
    table = found.table
    at = {tolerance: part.after.dropna().unique().tolist() for tolerance, part in table.groupby("tolerance")}
    assert at == {0.0: [], 1e-9: [], 1e-6: [], 1e-4: [320], 1e-3: [120], 1e-2: [0], 1e-1: [0]}
    assert any("within the 20 steps" in note for note in found.not_identified)


def test_a_switch_shows_where_curves_first_differ_or_one_ends() -> None:
    curve = pd.Series([5.0, 4.0, 3.0, 2.0], index=[0, 20, 40, 60])
    assert np.isnan(study.departure(curve, curve + 1e-7))
    assert study.departure(curve, curve.mask(curve.index >= 40, 3.5)) == 20
    assert study.departure(curve.mask(curve.index > 40), curve) == 40


def test_shares_have_exact_intervals(found: Findings) -> None:
    claims = [claim for claim in found.claims if "most runs" in claim.statement]
    assert [claim.value for claim in claims] == pytest.approx([0, 0, 0.2, 1, 1, 1])
    assert [claim.verdict for claim in claims] == ["not reproduced"] * 3 + ["reproduced"] * 3
    assert {claim.n for claim in claims} == {20}
    few = claims[2]  # 4 of 20: ends are quantiles of Beta(4, 17) and Beta(5, 16)
    assert (few.low, few.high) == pytest.approx((stats.beta.ppf(0.025, 4, 17), stats.beta.ppf(0.975, 5, 16)))


def test_the_smallest_tolerance_at_which_most_switch_is_held_against_adam_and_sgd(found: Findings) -> None:
    early, premise, gain, over = found.claims[6:]
    assert "SWATS, 0.001" in early.statement
    assert (early.value, early.verdict) == (1, "reproduced")
    assert premise.value == pytest.approx(PREMISE, abs=2e-3)
    assert gain.value == pytest.approx(GAIN, abs=2e-3)
    assert over.value == pytest.approx(GAIN - PREMISE, abs=3e-3)
    assert {claim.verdict for claim in (premise, gain, over)} == {"reproduced"}


def test_without_a_switch_there_is_nothing_to_time(found: Findings) -> None:
    never = found.table.assign(switched=False, after=np.nan)
    claim = study.early_claim(never, 1e-1, found.settings)
    assert (claim.n, claim.verdict) == (0, "inconclusive")
    shares = study.switched_shares(never, found.settings)
    assert study.working_tolerance(shares) == 1e-1
    assert set(shares.when) == {"never"}


def test_a_run_without_its_adam_is_refused(tmp_path: Path, store: Store) -> None:
    runs = store.read("runs")
    Store(tmp_path).write("runs", "all", runs[runs["optimizer.tolerance"] != 0])
    Store(tmp_path).write("curves", "all", store.read("curves"))
    with pytest.raises(ConfigError, match=r"runs of tolerance 0 = 0: expected one of seed 0 and rate 0.001; train it"):
        study.analyse(Store(tmp_path), small().study.to_dict())


def test_page_and_record_hold_the_answer(store: Store, found: Findings) -> None:
    page, figures = swats_switch_page.page(store, found)
    assert found.headline in page.text()
    assert sorted(figures) == ["loss_by_rate", "switched"]
    json.dumps(swats_switch_page.record(found), allow_nan=False)


def test_the_full_setting_expands() -> None:
    c = configuration.get_config("full")
    assert len(runs_of(c, configuration.get_stages(c))) == 320
