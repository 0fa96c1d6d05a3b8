"""The study against a store with a known truth: norms, cosines, growth, verdicts, page, refusals."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import synthetic_effects
from ml_collections import ConfigDict
from synthetic_continual import runs_of
from synthetic_effects import KERNELS, noise

from configs import adamp_effective_step as configuration
from experiments import adamp_effective_step as study
from experiments import adamp_effective_step_page
from experiments.optimizer_effects import Findings
from scaling.config import Run
from scaling.fields import ConfigError
from scaling.store import Store

GROWTH = {study.BARE: 0.5, study.SGD: 1.5, study.SGDP: 0.7, study.ADAM: 0.9, study.ADAMP: 0.9}  # of log ‖w‖²
LENGTH, STEPS, RATE, COSINE = 3.0, 300, 0.05, 0.06
TABLE, GAIN, UNSURE = "embedding/embedding", 0.03, 0.01


def small() -> ConfigDict:
    return synthetic_effects.configured(configuration, seeds=4)


def name_of(run: Run) -> str:
    return study.method_of({"optimizer.name": run.optimizer.name, "optimizer.momentum": run.optimizer.momentum})


def truth(run: Run, step: int) -> float:
    """SGDP gains GAIN; AdamP gains and loses UNSURE in turn from seed to seed."""
    gain = {study.SGDP: GAIN, study.ADAMP: UNSURE * (-1) ** run.training.seed}.get(name_of(run), 0.0)
    return 2.0 + 0.1 * run.training.seed - gain + noise(run)


def fails(run: Run) -> bool:
    """Momentum at its highest rate."""
    return name_of(run) == study.SGD and run.schedule.peak > 0.5


def lengths(run: Run, step: int) -> dict[str, float]:
    """Kernels grow as GROWTH says, by seed a little more; at each look the step is at COSINE to the weights, or at 0
    where it is projected. The table's never is; norms' scales have no part; a kernel outside blocks has no growth.
    """
    looks = [at for at in run.evaluation.steps if at + 1 in run.evaluation.steps]
    start = step - 1 if step - 1 in looks else step
    growth = GROWTH[name_of(run)] + 0.01 * run.training.seed
    projects = name_of(run) in (study.SGDP, study.ADAMP)
    values = {}
    for path in (*KERNELS, TABLE, "head/kernel", "final_norm/scale"):
        norm = LENGTH * math.exp(growth * start / STEPS / 2) if path in KERNELS else LENGTH
        cosine = 0 if projects and path in KERNELS else COSINE
        if start < step:
            norm *= math.sqrt(1 + RATE**2 + 2 * cosine * RATE)
        values |= {f"update_norm.{path}": RATE * norm, f"effective_rate.{path}": RATE}
    return values


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    c = small()
    store, runs = synthetic_effects.write(tmp_path_factory.mktemp("store"), configuration, c, truth, fails)
    synthetic_effects.diagnose(store, runs, (0, *c.evaluation.steps), lengths)
    return store


@pytest.fixture(scope="module")
def found(store: Store) -> Findings:
    return study.analyse(store, small().study.to_dict())


def test_lengths_and_cosines_come_out_of_the_diagnostics(store: Store) -> None:
    rows = study.lengths(store)
    assert set(rows.path) == {*KERNELS, TABLE, "head/kernel"}
    assert set(rows.path[rows.group == study.INVARIANT]) == set(KERNELS)
    np.testing.assert_allclose(rows.norm[rows.step == 0], LENGTH)
    looks = study.cosines(rows)
    assert sorted(looks.step.unique()) == [15, 45, 105, 195]
    projected = looks.cosine.abs() < 1e-9
    np.testing.assert_allclose(looks.cosine[~projected], COSINE)
    assert projected.sum() == 2 * 5 * 4 * 4 * 2  # methods, rates, seeds, looks, kernels


def test_steps_too_small_for_float32_have_no_cosine(store: Store) -> None:
    rows = study.lengths(store)
    assert len(study.cosines(rows.assign(rate=study.RESOLVED / 2))) == 0


def test_growth_is_recovered_where_both_methods_train(found: Findings) -> None:
    growth = [claim for claim in found.claims if "grow" in claim.statement]
    assert [claim.value for claim in growth] == pytest.approx([1.0, 1.0, 0.8, 0.0], abs=1e-9)
    assert [claim.verdict for claim in growth[:3]] == ["reproduced"] * 3
    rates = [claim.measured.split("mean over ")[1].split(" to")[0] for claim in growth]
    assert rates == ["2 rates", "4 rates", "4 rates", "5 rates"]  # of the momentum's five one failed


def test_equal_growth_is_not_called_slower(found: Findings) -> None:
    claim, = (claim for claim in found.claims if claim.statement.startswith("AdamP's projection"))
    assert claim.verdict == "inconclusive"


def test_projections_are_counted_on_scale_invariant_matrices_alone(found: Findings) -> None:
    claims = [claim for claim in found.claims if "projects most steps" in claim.statement]
    assert [(claim.value, claim.verdict) for claim in claims] == [(0.5, "reproduced")] * 2
    shown = found.details["Steps without a radial part, mean over seeds"].set_index(["method", "group"])
    text = shown["share of steps without radial part"]
    assert text[study.SGDP, study.OTHER] == "+0.000 [+0.000, +0.000]"
    assert text[study.SGD, study.INVARIANT] == "+0.000 [+0.000, +0.000]"


def test_what_the_projection_gains_is_found(found: Findings) -> None:
    sgdp, adamp = found.claims[-2:]
    assert sgdp.value == pytest.approx(GAIN, abs=3e-3)
    assert (sgdp.verdict, adamp.verdict) == ("reproduced", "inconclusive")


def test_methods_without_a_common_rate_are_refused(found: Findings) -> None:
    with pytest.raises(ConfigError, match="expected some at which SGD and SGDP both train; add lower ones"):
        study.contrast(found.table, study.SGD, study.SGDP, factor=7.0)


def test_page_and_record_hold_the_answer(store: Store, found: Findings) -> None:
    page, figures = adamp_effective_step_page.page(store, found)
    assert found.headline in page.text()
    assert sorted(figures) == ["effective_step", "loss_by_rate"]
    json.dumps(adamp_effective_step_page.record(found), allow_nan=False)
    steps = adamp_effective_step_page.effective_steps(store, found.table)
    last = steps[(steps.method == study.SGDP) & (steps.step == STEPS)]
    np.testing.assert_allclose(last.value.max(), math.exp(-GROWTH[study.SGDP]))


def test_a_store_without_diagnostics_is_refused(tmp_path: Path) -> None:
    store, _ = synthetic_effects.write(tmp_path, configuration, small(), truth)
    with pytest.raises(ConfigError, match="diagnostics = 'update_norm': expected rows of it in the store"):
        study.analyse(store, small().study.to_dict())


def test_the_full_setting_expands() -> None:
    c = configuration.get_config("full")
    assert len(runs_of(c, configuration.get_stages(c))) == 200
