"""The study of rates over widths against a store with a known truth: optima, shifts, costs, spectra, verdicts."""

import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ml_collections import ConfigDict
from synthetic_continual import runs_of, write_store

from configs import lr_transfer as configuration
from experiments import lr_transfer, lr_transfer_page
from experiments.lr_transfer import LAYERWISE, MUP, STANDARD, Findings, Settings, decayed
from scaling.config import Run
from scaling.fields import ConfigError
from scaling.store import Store

START, CURVATURE, GAIN, AT_BASE = 5.5, 0.05, 0.1, 1e-2
SHIFTS = {STANDARD: -0.9, MUP: 0.0, decayed(0.0): 0.5, decayed(0.5): 0.05, decayed(1.0): -0.6}
SLOPES = {0.0: 0.2, 0.5: 0.02, 1.0: -0.2}
T_OF_3_SEEDS = 4.302652729911275  # 97.5%, two degrees of freedom
MATRICES = ("block_0/attention/query", "block_1/feedforward/up")
Moved = Callable[[str, int], float]  # shift of an arm's optimum by seed


def small() -> ConfigDict:
    c = configuration.get_config()
    c.study.seeds, c.study.fresh_seeds = (0, 1, 2), (3, 4)
    return c


def settings() -> Settings:
    return lr_transfer.settings_of(small().study.to_dict())


def arm_of(run: Run) -> str:
    if run.model.base is None:
        return STANDARD
    return decayed(run.optimizer.width_exponent or 0.0) if run.optimizer.weight_decay else MUP


def moved(arm: str, seed: int) -> float:
    """Seeds of the sweep differ by 0.01, fresh ones not."""
    return SHIFTS[arm] + 0.01 * (seed - 1) * (seed < 3)


def truth(shift: Moved, run: Run, parent: Run | None, step: int) -> Mapping[str, float]:
    """A quadratic in log2 rate about an optimum that moves with width; wider is better by GAIN a doubling."""
    del parent
    if step == 0:
        return {"prose": START}
    doublings = np.log2(run.model.width / 8)
    off = np.log2(run.schedule.peak / AT_BASE) - shift(arm_of(run), run.training.seed) * doublings
    return {"prose": 2.5 - GAIN * doublings + CURVATURE * off**2 + 0.01 * run.training.seed}


def write(folder: Path, shift: Moved = moved, diverged: Callable[[Run], bool] = lambda _: False) -> Store:
    """Sweep, then what it asks for, then singular values that go as a power of width."""
    c = small()
    stages, losses = configuration.get_stages(c), functools.partial(truth, shift)
    write_store(folder / "sweep", runs_of(c, stages), losses)
    stages += configuration.transfer(c, Store(folder / "sweep"))
    runs = runs_of(c, stages)
    store = write_store(folder / "all", runs, losses, diverged)
    rows = [{"run_id": run.run_id, "step": step, "name": f"singular_value_1.{path}",
             "value": (2 + number) * run.model.width ** (
                 SLOPES[run.optimizer.width_exponent or 0.0] + 0.01 * (run.training.seed - 1)) * step}
            for run in runs for step in (240, 300)
            for number, path in enumerate([f"{name}/kernel" for name in MATRICES] + ["embedding/embedding"])]
    store.write("diagnostics", "all", pd.DataFrame(rows))
    return store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return write(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def found(store: Store) -> Findings:
    return lr_transfer.analyse(store, small().study.to_dict())


def test_every_optimum_is_the_truths(found: Findings) -> None:
    rows = found.optima
    truth_M = [AT_BASE * 2 ** (moved(row.arm, row.seed) * np.log2(row.width / 8)) for row in rows.itertuples()]
    assert len(rows) == 5 * 3 * 3
    np.testing.assert_allclose(rows.lr, truth_M, rtol=1e-6)
    assert not rows.refused.any()
    best = found.best.set_index(["arm", "width"])
    assert best.lr[STANDARD, 32] == float(f"{AT_BASE * 2**-1.8:.3g}")
    assert best.high[STANDARD, 32] == pytest.approx(AT_BASE * 2 ** (-1.8 + T_OF_3_SEEDS * 0.02 / 3**0.5), rel=1e-6)


def test_shifts_are_slopes_over_all_widths_with_students_interval_over_seeds(found: Findings) -> None:
    shifts = found.shifts.set_index("name")
    half = T_OF_3_SEEDS * 0.01 / np.sqrt(3)
    for arm, shift in SHIFTS.items():
        row = shifts.loc[arm]
        assert (row.value, row.low, row.high) == pytest.approx((shift, shift - half, shift + half), abs=1e-6)


def test_the_cost_of_transfer_is_read_from_fresh_seeds_at_both_rates(found: Findings) -> None:
    """Two doublings from the narrowest: c (2 shift)² in the truth, given that rates are kept to three digits."""
    regrets = found.regrets.set_index("name")
    for arm, shift in SHIFTS.items():
        assert regrets.value[arm] == pytest.approx(CURVATURE * (2 * shift) ** 2, abs=1e-3)
        assert regrets.n[arm] == 2


def test_every_verdict_is_the_truths(found: Findings) -> None:
    verdicts = {claim.statement: claim.verdict for claim in found.claims}
    assert len(verdicts) == len(found.claims) == 10
    assert set(verdicts.values()) == {"reproduced"}
    gain, = (claim for claim in found.claims if "wider" in claim.statement)
    assert gain.value == pytest.approx(GAIN, abs=0.02)  # the seeds' optima differ a little
    assert gain.low < GAIN < gain.high


def test_spectra_are_of_hidden_matrices_at_the_end_of_the_constant_part(found: Findings) -> None:
    assert set(found.spectra.matrix) == set(MATRICES)
    assert found.spectra.lr.unique().tolist() == [8e-3]  # the swept rate nearest 1e-2
    slopes = lr_transfer.spectral_slopes(found.spectra)
    for exponent, slope in SLOPES.items():
        own = slopes[slopes.arm == decayed(exponent)]
        assert own.slope.to_numpy() == pytest.approx(slope + 0.01 * (own.seed - 1).to_numpy(), abs=1e-9)
        assert lr_transfer.mismatch_by_seed(slopes, exponent)[0] == pytest.approx(abs(slope - 0.01), abs=1e-9)
    first = found.spectra.query("width == 8 and seed == 1 and matrix == @MATRICES[0]").value.iloc[0]
    assert first == pytest.approx(2 * 8**0.2 * 240)  # not step 300


def test_a_reversed_truth_reverses_the_verdicts(tmp_path: Path) -> None:
    swapped = {**SHIFTS, STANDARD: 0.0, MUP: -0.9}
    found = lr_transfer.analyse(write(tmp_path, lambda arm, seed: moved(arm, seed) - SHIFTS[arm] + swapped[arm]),
                                small().study.to_dict())
    verdicts = {claim.statement: claim.verdict for claim in found.claims}
    assert verdicts["The best rate moves less with width under muP than under standard"] == "not reproduced"
    assert verdicts["The narrow model's best rate costs the wide one less under muP than under standard"] == (
        "not reproduced")
    assert verdicts["In the standard parametrization the best rate falls with width"] == "inconclusive"
    assert verdicts["Under muP a wider model is better at every rate"] == "not reproduced"


def test_an_optimum_beyond_the_swept_rates_makes_its_claims_inconclusive_and_is_named(tmp_path: Path) -> None:
    found = lr_transfer.analyse(write(tmp_path, lambda arm, seed: -2.0 if (arm, seed) == (STANDARD, 1) else
                                      moved(arm, seed)), small().study.to_dict())
    assert np.isnan(found.shifts.set_index("name").value[STANDARD])
    assert found.shifts.value.notna().sum() == 4
    verdicts = {claim.statement: claim.verdict for claim in found.claims}
    assert verdicts["In the standard parametrization the best rate falls with width"] == "inconclusive"
    assert verdicts["The best rate moves less with width under muP than under standard"] == "inconclusive"
    assert any("standard, width 32: 1 of 3 seeds have no optimum within the swept rates" in note
               for note in found.not_identified)
    assert "refused" in lr_transfer_page.best_table(found).set_index("arm")["width 32"][STANDARD]


def test_the_widest_is_checked_at_two_rates_of_every_arm_and_one_where_they_agree(store: Store) -> None:
    points = pd.DataFrame(lr_transfer.check_points(store, settings()))
    assert set(points["model.width"]) == {32}
    assert set(points["training.seed"]) == {3, 4}
    rates = points.groupby(["optimizer.weight_decay", "optimizer.width_exponent"], dropna=False)["schedule.peak"]
    assert sorted(rates.nunique()) == [1, 2, 2, 2, 2]  # muP's best is one rate at all widths
    c = small()
    assert len(runs_of(c, configuration.transfer(c, store))) == 9 * 2


@pytest.mark.parametrize(("exponent", "width", "constants"), [
    (0.0, 8, 7.68), (0.0, 32, 1.92), (0.5, 32, 3.84), (1.0, 32, 7.68)])
def test_time_constants_count_how_often_decay_forgets(exponent: float, width: int, constants: float) -> None:
    """240 steps at rate 0.016/m and decay 2 m^exponent, m = width / 8."""
    assert lr_transfer.time_constants(settings(), 0.016, exponent, width) == pytest.approx(constants)


def test_matrices_that_have_not_settled_are_named(found: Findings) -> None:
    """4.8 time constants at the narrowest, 4.8 m^(exponent - 1) at m."""
    told = [note for note in found.not_identified if "time constants" in note]
    assert [note.split(":")[0] for note in told] == [decayed(0.0), decayed(0.5)]
    assert "width 16 (2.4), 32 (1.2)" in told[0]


def test_intervals_of_gains_hold_for_all_cells_at_once() -> None:
    s = settings()
    rows = [{"arm": MUP, "width": width, "lr": rate, "seed": seed, "capped": 3 - width / 8 + 0.1 * seed * (width > 8)}
            for width in s.widths for rate in s.rates for seed in s.seeds]
    cells = lr_transfer.gains(pd.DataFrame(rows), MUP, s)
    assert len(cells) == 12
    first = cells.iloc[0]
    t = 15.4435  # Student's quantile at 1 - 0.05 / 24, two degrees of freedom
    assert (first.value, first.high - first.value) == pytest.approx((0.9, t * 0.1 / np.sqrt(3)), rel=1e-4)


def test_diverged_runs_have_no_say_in_an_optimum_and_count_as_not_having_learned(tmp_path: Path) -> None:
    def gone(run: Run) -> bool:
        return arm_of(run) in (STANDARD, MUP) and run.schedule.peak > 0.06 and run.model.width > 8

    found = lr_transfer.analyse(write(tmp_path, diverged=gone), small().study.to_dict())
    assert found.shifts.set_index("name").value[STANDARD] == pytest.approx(-0.9, abs=1e-6)
    gain, = (claim for claim in found.claims if "wider" in claim.statement)
    assert gain.value == pytest.approx(2.5 + CURVATURE * np.log2(6.4) ** 2 + 0.01 - START, abs=1e-3)
    assert any(note.startswith("12 runs diverged") for note in found.not_identified)


def test_the_page_says_the_answer_and_holds_every_figure(store: Store, found: Findings) -> None:
    page, figures = lr_transfer_page.page(store, found)
    text = page.text()
    assert text.count('src="data:image/png;base64,') == len(figures) == 5
    assert "standard: -0.900" in text
    assert all(claim.statement in text for claim in found.claims)
    record = json.loads(json.dumps(lr_transfer_page.record(found), allow_nan=False))
    assert len(record["claims"]) == len(found.claims)
    assert len(record["shifts"][0]["values"]) == 3
    assert decayed(LAYERWISE) in lr_transfer_page.summary(found)


def test_settings_and_stores_that_do_not_fit_are_refused(tmp_path: Path, store: Store) -> None:
    study = small().study.to_dict()
    with pytest.raises(ConfigError, match=r"study\.fresh_seeds = \(2, 3\): expected none of study\.seeds"):
        lr_transfer.analyse(store, {**study, "fresh_seeds": (2, 3)})
    with pytest.raises(ConfigError, match=r"study\.widths = \(32, 8\): expected two or more that rise"):
        lr_transfer.settings_of({**study, "widths": (32, 8)})
    with pytest.raises(ConfigError, match=r"study\.exponents = \(0\.0, 1\.0\): expected 0\.5 among them"):
        lr_transfer.settings_of({**study, "exponents": (0.0, 1.0)})
    with pytest.raises(ConfigError, match=r"expected runs that have all ended; run the sweep to its end"):
        lr_transfer.analyse(Store(tmp_path), study)
    with pytest.raises(ConfigError, match=r"expected 3, on fresh seeds; run the sweep to its end"):
        lr_transfer.analyse(store, {**study, "fresh_seeds": (3, 4, 5)})


def test_the_full_setting_is_the_same_study() -> None:
    full = configuration.get_config("full")
    assert set(full.study) == set(small().study)
    runs = runs_of(full, configuration.get_stages(full))
    assert len(runs) == 5 * 5 * 9 * 5
    assert len({run.program for run in runs}) == 2 * 5  # with and without muP
