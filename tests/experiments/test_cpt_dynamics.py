"""The study against a store whose losses follow the law: rates, areas, predictions, verdicts, page, refusals."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ml_collections import ConfigDict
from synthetic_continual import runs_of, write_store

from configs import cpt_dynamics as configuration
from experiments import cpt_dynamics, cpt_dynamics_page
from experiments.cpt_dynamics import ALIKE, EARLY, ONE, PURE, REPLAY, TWO, WHOLE, Findings, Settings
from scaling.config import Run
from scaling.fields import ConfigError
from scaling.laws.annealing import CPT_REPLAY_NEW, CPT_REPLAY_OLD
from scaling.store import Store

MOMENTUM = 0.97
OLD = {"L0": 1.9, "A": 0.6, "alpha": 0.4, "C1": 0.5, "C2": 0.3, "B": 0.35, "E": 5.0, "beta": 0.4, "a1": 0.1, "a2": 1.5}
NEW = {"L0": 1.6, "A": 1.2, "alpha": 0.3, "C1": 0.4, "C2": 0.5, "B": -0.25, "E": 40.0, "beta": 0.3, "a1": 0.2,
       "a2": 0.9}


def small() -> ConfigDict:
    c = configuration.get_config()
    c.study.seeds, c.study.momenta = (0, 1), (MOMENTUM, 0.999)
    c.study.evaluations = (2, 25, 100, 250, 350, 400)
    return c


class Truth:
    """Losses by the replay laws at areas of one recursion through both phases, written out without the study's code."""

    def __init__(self, runs: list[Run]) -> None:
        self.by_id, self.tables = {run.run_id: run for run in runs}, {}

    def areas(self, run: Run) -> tuple[np.ndarray, np.ndarray]:
        """S1 and S2 after 0, 1, ... updates of a branch, step by step."""
        if run.run_id not in self.tables:
            annealed = self.by_id[run.parent.run_id]
            before = np.full(annealed.parent.at.steps, 8e-3)  # its warm-up counts as the peak
            down = 8e-3 * (1 - (1 - annealed.schedule.floor) * np.arange(200) / 200)
            s1, s2 = _sums(np.concatenate([before, down, _branch_rates(run)]))
            start = len(before) + len(down) - 1
            self.tables[run.run_id] = s1[start:], s2[start:]
        return self.tables[run.run_id]

    def __call__(self, run: Run, parent: Run | None, step: int) -> Mapping[str, float]:
        if parent is None or parent.parent is None:
            return {"prose": 3.0, "code": 3.0}
        s1, s2 = self.areas(run)
        r = dict(run.data.mixture[0][1])["code"]
        found = {}
        for name, p in (("prose", OLD), ("code", NEW)):
            share, of_r = (1 - r, 1 - np.exp(-p["a2"] * r)) if name == "prose" else (r, np.exp(p["a2"] * r) - 1)
            shift = p["B"] * (1 - (1 + p["E"] * (s1[step] - s1[0])) ** -p["beta"]) * of_r
            after = p["C2"] * (s2[step] - s2[0]) * np.exp(p["a1"] * share)
            found[name] = (p["L0"] + 0.05 * run.training.seed + p["A"] * s1[step] ** -p["alpha"] - p["C1"] * s2[0]
                           - after + shift)
        return found


def _sums(rate_T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    momentum, total, sums = 0.0, 0.0, []
    for before, now in zip(np.concatenate([rate_T[:1], rate_T]), rate_T, strict=False):
        momentum = MOMENTUM * momentum + before - now
        total += momentum
        sums.append(total)
    return np.cumsum(rate_T), np.array(sums)


def _branch_rates(run: Run) -> np.ndarray:
    """Rates of the 400 steps, the first ten from 0 up."""
    t, peak, floor = np.arange(400), run.schedule.peak, run.schedule.floor
    part = (t - 10) / 390
    shape = {"constant": np.ones(400), "cosine": 0.5 * (1 + np.cos(np.pi * part)), "linear": 1 - part,
             "wsd": 1 - np.maximum(t - 280, 0) / 120}[run.schedule.name]
    return peak * np.where(t < 10, t / 10, floor + (1 - floor) * shape)


def settings() -> Settings:
    return Settings(**small().study.to_dict())


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    c = small()
    return runs_of(c, configuration.get_stages(c))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, runs: list[Run]) -> Store:
    return write_store(tmp_path_factory.mktemp("store"), runs, Truth(runs))


@pytest.fixture(scope="module")
def found(store: Store) -> Findings:
    return cpt_dynamics.analyse(store, small().study.to_dict())


def test_areas_of_the_store_are_those_of_the_definitions(store: Store, runs: list[Run]) -> None:
    table, branches = cpt_dynamics.curves(store, settings())
    table = cpt_dynamics.with_areas(table, branches, ONE, MOMENTUM)
    truth, by_id = Truth(runs), {run.run_id: run for run in runs}
    for row in table[table.step.isin([0, 2, 250, 400])].sample(60, random_state=0).itertuples():
        s1, s2 = truth.areas(by_id[row.run_id])
        expected = s1[0], s2[0], s1[row.step] - s1[0], s2[row.step] - s2[0]
        np.testing.assert_allclose([row.S1pt, row.S2pt, row.S1cpt, row.S2cpt], expected, rtol=1e-9, atol=1e-12)


def test_in_two_recursions_the_phases_are_apart_and_re_warming_is_the_peak(store: Store) -> None:
    _, branches = cpt_dynamics.curves(store, settings())
    flat = next(branch for branch in branches.values()
                if branch.facts["potential"] == 0 and branch.rates_T[-1] == pytest.approx(8e-3))
    found = flat.areas(TWO, 0.9)
    assert found["S1cpt"][:4] == pytest.approx(8e-3 * np.arange(4))
    assert found["S2cpt"] == pytest.approx(np.zeros(401))
    apart = flat.areas(ONE, 0.9)
    assert apart["S2pt"][0] == pytest.approx(found["S2pt"][0])
    assert apart["S2cpt"][-1] < -0.07  # undone: 8e-3 / (1 - 0.9), and what the momentum still owed


def test_a_point_weighs_the_steps_for_which_it_stands(store: Store) -> None:
    table, _ = cpt_dynamics.curves(store, settings())
    one = table[(table.run_id == table.run_id[0]) & (table.domain == "code")]
    assert one.step.tolist() == [0, 2, 25, 100, 250, 350, 400]
    spans = np.array([1, 12.5, 49, 112.5, 125, 75, 25])
    assert one.weight.tolist() == pytest.approx(spans / spans.mean())


def test_the_design_crosses_what_it_says(store: Store) -> None:
    table, _ = cpt_dynamics.curves(store, settings())
    last = table[table["last"] & (table.domain == "code") & (table.seed == 0)]
    assert len(last) == 48
    assert last.groupby("start").potential.unique().map(sorted).to_dict() == {500: [0.0, 1.0], 1000: [0.0, 0.3, 1.0]}
    assert sorted(last.r.unique()) == pytest.approx([0, 0.25, 0.6, 1])
    assert last.groupby("schedule").size().to_dict() == {"constant": 15, "cosine": 11, "linear": 11, "wsd": 11}
    assert set(last.peak.round(9)) == {0.5, 1.0}


def test_curves_of_unseen_schedules_are_predicted_where_the_law_holds(found: Findings) -> None:
    chosen = found.choices[found.choices.chosen]
    assert chosen[["domain", "reading", "momentum"]].to_numpy().tolist() == [["code", ONE, MOMENTUM],
                                                                             ["prose", ONE, MOMENTUM]]
    whole = found.scores[found.scores.part == WHOLE]
    assert whole.law.max() < 1e-4
    assert whole["mean"].min() > 1e-3
    assert whole.law_r2.min() > 0.9999
    assert set(found.held_out.schedule) == {"linear", "wsd"}
    assert whole.groupby("form").runs.first().to_dict() == {PURE: 14, REPLAY: 22}


def test_errors_by_hand() -> None:
    held = pd.DataFrame({"form": PURE, "domain": "code", "seed": 0, "run_id": "a", "step": [5, 10, 50, 100],
                         "loss": [2.0, 1.0, 1.0, 1.0], "predicted": [2.2, 1.0, 1.0, 1.1], "mean": [2.0, 1.0, 1.5, 1.0],
                         "weight": [1.0, 1.0, 2.0, 4.0]})
    scores = cpt_dynamics.score(held, steps=100).set_index("part")
    assert scores["law"].to_dict() == pytest.approx({WHOLE: 0.5 / 8, EARLY: 0.05, ALIKE: 0.05})
    assert scores["mean"].to_dict() == pytest.approx({WHOLE: 1 / 8, EARLY: 0.0, ALIKE: 0.125})
    spread = (0.875**2 + 7 * 0.125**2) / 8  # about the weighted mean, 1.125
    assert scores.law_r2[WHOLE] == pytest.approx(1 - (0.04 + 4 * 0.01) / 8 / spread)
    assert scores.mean_r2[EARLY] == 1.0


def test_fits_never_see_the_unseen_schedules(found: Findings) -> None:
    for fit in found.fits.values():
        assert fit.points.held_M.any()
        assert fit.held_out.relative < 1e-4
    fit = found.fits[f"{REPLAY}, prose, seed 0"]
    assert fit.law is CPT_REPLAY_OLD
    assert found.fits[f"{REPLAY}, code, seed 1"].law is CPT_REPLAY_NEW
    assert int((~fit.points.held_M).sum()) == 26 * 7  # 26 runs of seen schedules, 6 evaluations and the start


def test_every_verdict_is_the_truths(found: Findings, runs: list[Run]) -> None:
    verdicts = {claim.statement: claim.verdict for claim in found.claims}
    assert len(verdicts) == len(found.claims) == 9
    potential = next(claim for claim in found.claims if "potential" in claim.statement)
    assert potential.value == pytest.approx(lost_by_annealing(runs), abs=1e-9)
    assert potential.verdict == "reproduced"
    predicted = [name for name in verdicts if "predicts" in name]
    assert len(predicted) == 6
    assert {verdicts[name] for name in predicted} == {"reproduced"}
    assert all(math.isfinite(claim.value) for claim in found.claims)


def lost_by_annealing(runs: list[Run]) -> float:
    """Of the truth's last code loss: potential 0 less 1, mean over schedules, longer pre-training, full peak."""
    truth, by_id = Truth(runs), {run.run_id: run for run in runs}
    by_potential: dict[float, list[float]] = {0.0: [], 1.0: []}
    for run in runs:
        parent = by_id.get(run.parent.run_id) if run.parent else None
        if (parent and parent.parent and run.training.seed == 0 and parent.parent.at.steps == 800
                and dict(run.data.mixture[0][1])["code"] == 1 and np.isclose(run.schedule.peak, 8e-3)
                and parent.schedule.floor in by_potential):
            by_potential[parent.schedule.floor].append(truth(run, parent, 400)["code"])
    assert [len(losses) for losses in by_potential.values()] == [4, 4]
    return float(np.mean(by_potential[0.0]) - np.mean(by_potential[1.0]))


def shifts(late: float) -> pd.DataFrame:
    """Last shifts of five seeds: 0.4 from step 500, `late` times that from step 1000, and a little noise."""
    noise = np.random.default_rng(0)
    rows = [(seed, domain, start, 0.0, 400, True, 0.4 * (late if start == 1000 else 1) + noise.normal(scale=0.004))
            for seed in range(5) for domain in ("prose", "code") for start in (500, 1000)]
    return pd.DataFrame(rows, columns=["seed", "domain", "start", "potential", "step", "last", "shift"])


@pytest.mark.parametrize(("late", "expected"), [(1.03, "reproduced"), (1.3, "not reproduced"), (1.1, "inconclusive")])
def test_a_shift_is_the_same_within_the_margin(late: float, expected: str) -> None:
    claims = cpt_dynamics.shift_claims(shifts(late), settings())
    assert [claim.value for claim in claims] == pytest.approx([late - 1] * 2, abs=0.03)
    assert [claim.verdict for claim in claims] == [expected] * 2


def test_the_page_and_the_record_hold_every_answer(store: Store, found: Findings) -> None:
    page, figures = cpt_dynamics_page.page(store, found)
    text = page.text()
    assert text.count('src="data:image/png;base64,') == len(figures) == 4
    assert all(claim.statement in text for claim in found.claims)
    assert cpt_dynamics_page.headline(found) in cpt_dynamics_page.summary(found)
    record = json.loads(json.dumps(cpt_dynamics_page.record(found), allow_nan=False))
    assert len(record["fits"]) == 8
    assert record["claims"][0]["verdict"] == "reproduced"


def test_rates_that_are_not_the_configurations_are_refused(store: Store, tmp_path: Path) -> None:
    other = Store(tmp_path)
    other.write("runs", "all", store.read("runs"))
    other.write("curves", "all", store.read("curves").assign(lr=lambda table: 1.01 * table.lr))
    with pytest.raises(ConfigError, match=r"lr of run .* as its schedule gives; analyse with the code that trained it"):
        cpt_dynamics.analyse(other, small().study.to_dict())


def test_a_schedule_is_either_seen_or_not() -> None:
    with pytest.raises(ConfigError, match=r"study.unseen = \['cosine'\]: expected schedules that are not in study"):
        cpt_dynamics.analyse(Store("nowhere"), {**small().study.to_dict(), "unseen": ("linear", "cosine")})


def test_durations_must_be_steps() -> None:
    with pytest.raises(ConfigError, match=r"schedule.warmup = nan: expected a duration in steps"):
        cpt_dynamics.rates({"schedule.warmup.steps": float("nan")})


def test_the_full_setting_is_the_same_study() -> None:
    full = configuration.get_config("full")
    assert set(full.study) == set(small().study)
    assert len(runs_of(full, configuration.get_stages(full))) == 8 * 54
