"""The study against a store whose losses follow the multi-power law: predictions, recommendation, contest, refusals."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ml_collections import ConfigDict
from synthetic_continual import runs_of, write_store

from configs import lr_annealing as configuration
from experiments import lr_annealing, lr_annealing_page, schedule_runs
from experiments.lr_annealing import Findings
from experiments.schedule_laws import ANNEALED, AREA, LAWS, MEAN, MULTI
from helpers import windows_of
from scaling.config import Run
from scaling.fields import ConfigError
from scaling.laws.schedule import wsd
from scaling.store import Store
from scaling.sweeps.sweep import Stage
from scaling.training.tables import learning_rates

STEPS, PEAK = 120, 8e-3
TRUTH = {"L0": 2.2, "A": 0.35, "alpha": 0.6, "B": 40.0, "C": 60.0, "beta": 0.5, "gamma": 0.3}


def small() -> ConfigDict:
    c = configuration.get_config()
    c.training.duration, c.schedule.warmup = {"steps": STEPS}, {"steps": 8}
    c.evaluation.steps = tuple(range(8, STEPS + 1, 8))
    c.study.steps, c.study.warmup, c.study.fit_from = STEPS, 8, 16
    c.study.seeds, c.study.check_seeds, c.study.peaks = (0, 1), (100, 101), (PEAK,)
    c.study.momenta = (0.8, 0.95)
    return c


def law(lr_T: np.ndarray, updates: int) -> float:
    """The multi-power law after some updates, term by term, without the study's code."""
    p, seen = TRUTH, lr_T[:max(updates, 2)]
    bonus = 0.0
    for k in range(1, len(seen)):
        gap = seen[k:].sum()
        bonus += (seen[k - 1] - seen[k]) * (1 - (1 + p["C"] * seen[k] ** -p["gamma"] * gap) ** -p["beta"])
    return p["L0"] + p["A"] * seen.sum() ** -p["alpha"] - p["B"] * bonus


def losses(run: Run, parent: Run | None, step: int) -> Mapping[str, float]:
    """On the law, but for a level of each seed, which the fits of a seed find in L0."""
    return {"prose": law(learning_rates(run, STEPS, windows_of(run)), step) + 1e-3 * (run.training.seed % 100)}


def written(folder: Path, c: ConfigDict, stages: list[Stage]) -> Store:
    return write_store(folder, runs_of(c, stages), losses)


@pytest.fixture(scope="module")
def rounds(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, list[list[Stage]]]:
    """The store after all rounds, and the stages that each follow-up asked for."""
    folder, c = tmp_path_factory.mktemp("lr_annealing"), small()
    stages = configuration.get_stages(c)
    store, asked = written(folder, c, stages), []
    for follow_up in configuration.FOLLOW_UPS:
        asked.append(follow_up(c, store))
        stages += asked[-1]
        store = written(folder, c, stages)
    return store, asked


@pytest.fixture(scope="module")
def found(rounds: tuple[Store, list[list[Stage]]]) -> Findings:
    return lr_annealing.analyse(rounds[0], small().study.to_dict())


def test_the_law_that_is_true_predicts_every_unseen_schedule(found: Findings) -> None:
    error = found.scores.groupby("predictor").error.mean()
    assert error[MULTI] < 2e-4
    assert error[ANNEALED] > 3 * error[MULTI]
    assert min(error[MEAN], error[AREA]) > 20 * error[MULTI]
    assert set(found.held_out.schedule) == set(small().study.unseen)
    assert len(found.held_out) == 2 * 6 * 14  # seeds x schedules x evaluated steps from fit_from on
    assert found.fits[f"{MULTI}, seed 0"].parameters["L0"] < found.fits[f"{MULTI}, seed 1"].parameters["L0"]


def test_baselines_by_hand(found: Findings) -> None:
    rows = found.held_out[(found.held_out.seed == 1) & (found.held_out.schedule == "drop to 0.3")].set_index("updates")
    own = schedule_runs.sections(STEPS, 8, 0.02)
    flat, fall = (PEAK * schedule_runs.shape(own[name], STEPS) for name in ("constant", "cosine"))
    assert rows[MEAN][96] == pytest.approx((law(flat, 96) + law(fall, 96)) / 2 + 1e-3)
    area = PEAK * (3.5 + 52 + 0.3 * 36)  # warm-up of 8, the peak up to step 60, then 36 at less
    at = np.interp(area, [flat[:64].sum(), flat[:72].sum()], [law(flat, 64), law(flat, 72)])
    assert rows[AREA][96] == pytest.approx(at + 1e-3)


def test_what_is_recommended_beats_every_rival_where_the_law_is_true(
    rounds: tuple[Store, list[list[Stage]]], found: Findings,
) -> None:
    recommended, checks = rounds[1]
    assert len(recommended[0].points) == len(LAWS) * 2
    assert len(checks[0].points) == (len(LAWS) + 4) * 2
    asked = {each.law: each.best.lr_T for each in found.recommendations}
    own = schedule_runs.sections(STEPS, 8, 0.02)
    rivals = [law(PEAK * schedule_runs.shape(own[name], STEPS), STEPS) for name in small().study.rivals]
    assert law(asked[MULTI], STEPS) < min(rivals)
    assert law(asked[MULTI], STEPS) < law(asked[ANNEALED], STEPS)
    falls = [law(wsd(STEPS, PEAK, 0.02 * PEAK, 8, decay, shape), STEPS)
             for decay in range(5, 110, 5) for shape in ("linear", "cosine", "1-sqrt")]
    assert law(asked[MULTI], STEPS) < min(falls)
    finals = found.finals.groupby("schedule").loss.mean()
    assert finals[MULTI] == pytest.approx(law(asked[MULTI], STEPS) + 5e-4)
    assert sorted(finals.index) == sorted([*small().study.rivals, *LAWS])


def test_every_verdict_is_the_truths(found: Findings) -> None:
    verdicts = {claim.statement: claim.verdict for claim in found.claims}
    assert len(verdicts) == len(found.claims) == 14
    for statement, verdict in verdicts.items():
        if MULTI in statement.split(" predicts")[0] and "recommends" not in statement:
            assert verdict == "reproduced", statement
        if f"{MULTI} law recommends" in statement:
            assert verdict == "reproduced", statement
    promise = found.promises[(found.promises.law == MULTI) & (found.promises.rival == "cosine")].iloc[0]
    assert promise.foretold == pytest.approx(promise.measured.mean(), rel=0.05)


def test_a_peak_at_which_a_run_was_lost_is_not_chosen() -> None:
    s = lr_annealing.settings_of({**small().study.to_dict(), "peaks": (PEAK, 2 * PEAK)})
    rows = [("wsd", peak, seed, loss) for peak, loss in ((PEAK, 2.1), (2 * PEAK, 2.0)) for seed in (0, 1)]
    tuning = pd.DataFrame(rows, columns=["schedule", "peak", "seed", "loss"])
    assert lr_annealing.best_peaks(tuning, s) == {"wsd": 2 * PEAK}
    assert lr_annealing.best_peaks(tuning[:-1], s) == {"wsd": PEAK}


def test_the_page_and_the_record_hold_every_answer(rounds: tuple[Store, list[list[Stage]]], found: Findings) -> None:
    page, figures = lr_annealing_page.page(rounds[0], found)
    text = page.text()
    assert text.count('src="data:image/png;base64,') == len(figures) == 5
    assert all(claim.statement in text for claim in found.claims)
    assert lr_annealing_page.headline(found) in lr_annealing_page.summary(found)
    record = json.loads(json.dumps(lr_annealing_page.record(found), allow_nan=False))
    assert len(record["fits"]) == 4
    assert [each["law"] for each in record["recommendations"]] == list(LAWS)


@pytest.mark.parametrize(("changes", "message"), [
    ({"unseen": ("wsd", "cosine")}, r"study.unseen = \['cosine'\]: expected schedules that are not in study.seen"),
    ({"seen": ("cosine",)}, r"study.seen = .*: expected constant among them"),
    ({"check_seeds": (1, 7)}, r"study.check_seeds = \[1\]: expected seeds that are not in study.seeds"),
    ({"peak": 1e-3}, r"study.peak = 0.001: expected one of study.peaks"),
    ({"rivals": ("cosin",)}, r"study.seen, study.unseen, study.rivals.*cosin.*cosine"),
])
def test_settings_that_make_no_study_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        lr_annealing.settings_of({**small().study.to_dict(), **changes})


def test_the_full_setting_is_the_same_study() -> None:
    full = configuration.get_config("full")
    assert set(full.study) == set(small().study)
    assert len(runs_of(full, configuration.get_stages(full))) == 6 * (5 * 5 + 3)


def test_rates_are_read_back_as_they_acted() -> None:
    """Every kind of section, against the table that a run trains by."""
    c = small()
    runs = runs_of(c, configuration.get_stages(c))
    for run in runs:
        row = {f"schedule.{name}": getattr(run.schedule, name) for name in ("name", "peak", "floor", "shape")}
        given = run.schedule.points
        row |= {"schedule.warmup.steps": run.schedule.warmup.steps, "steps": STEPS,
                "schedule.points": None if given is None else json.dumps(given),
                "schedule.decay.steps": run.schedule.decay and run.schedule.decay.steps}
        np.testing.assert_allclose(schedule_runs.rates(row), learning_rates(run, STEPS, windows_of(run)))
    with pytest.raises(ConfigError, match=r"schedule.warmup = nan: expected a duration in steps"):
        schedule_runs.rates({**row, "schedule.warmup.steps": float("nan")})


def test_what_is_recommended_never_passes_for_a_schedule_that_laws_are_fitted_to() -> None:
    """A constant rate with a drop at the last step, as the annealing law asks for, is no constant schedule."""
    s = lr_annealing.settings_of(small().study.to_dict())
    known = lr_annealing.known(s, [])
    assert "constant" in known({"schedule.values": float("nan"), "schedule.peak": PEAK})
    assert schedule_runs.name_of(np.append(np.ones(STEPS - 1), 0.02),
                                 known({"schedule.values": "[1.0]", "schedule.peak": PEAK})) is None


def test_schedules_are_what_they_are_called() -> None:
    """Shares of the peak by hand: 100 steps, 10 of warm-up, to a fifth."""
    at = {name: schedule_runs.shape(values, 100)[[5, 50, 75, 90]].tolist()
          for name, values in schedule_runs.sections(100, 10, 0.2).items()}
    assert at["constant"] == [0.5, 1, 1, 1]
    assert at["wsd"] == pytest.approx([0.5, 1, 1, 0.6])
    assert at["wsd, 1-sqrt"] == pytest.approx([0.5, 1, 1, 0.2 + 0.8 * (1 - 0.5**0.5)])
    assert at["wsd, half"] == pytest.approx([0.5, 1, 0.6, 0.2 + 0.8 * 0.2])
    assert at["linear"] == pytest.approx([0.5, 1 - 0.8 * 40 / 90, 1 - 0.8 * 65 / 90, 1 - 0.8 * 80 / 90])
    assert at["inverse sqrt"] == pytest.approx([0.5, *(10 / np.array([50, 75, 90])) ** 0.5])
    for name, floor in (("cosine", 0.2), ("cosine to a tenth", 0.1)):
        assert at[name][2] == pytest.approx(floor + (1 - floor) * (1 + np.cos(np.pi * 65 / 90)) / 2)


def test_a_schedule_is_known_by_its_rates_or_not_at_all() -> None:
    known = {name: schedule_runs.shape(values, 400) for name, values in schedule_runs.sections(400, 20, 0.0).items()}
    assert [schedule_runs.name_of(shape_T, known) for shape_T in known.values()] == list(known)
    assert schedule_runs.name_of(np.linspace(1, 0.5, 400), known) is None


def test_a_store_without_finished_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"store = .*: expected finished runs to analyse; run the sweep to its end"):
        lr_annealing.analyse(Store(tmp_path), small().study.to_dict())
