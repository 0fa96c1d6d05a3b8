"""The study against a store with a known truth: its differences, verdicts, page, record, refusals."""

import functools
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ml_collections import ConfigDict
from synthetic_continual import runs_of, write_store

from configs import rewarm_replay as configuration
from experiments import rewarm_replay, rewarm_replay_page
from experiments.claims import verdict
from experiments.continual import MEAN
from experiments.rewarm_replay import Findings
from scaling.config import Run
from scaling.fields import ConfigError
from scaling.store import Store

FORGETTING, RISE, REPLAYED = 0.4, 0.2, 0.25


def small() -> ConfigDict:
    c = configuration.get_config()
    c.study.seeds, c.study.more_seeds = (0, 1, 2), (3, 4)
    c.study.replay = (0.0, REPLAYED, 0.5, 1.0)
    return c


def noise(run: Run, name: str) -> float:
    return float(np.random.default_rng([int(run.run_id, 16) % 2**31, len(name)]).normal(scale=0.002))


def truth(c: ConfigDict, run: Run, parent: Run | None, step: int) -> Mapping[str, float]:
    """Forgetting FORGETTING (1 - replay) of the old domain at the end; before it a rise of RISE times the re-warm peak;
    from scratch the recipe's losses, 0.01 better on either domain; the infinite schedule 0.2 worse without a rise.
    """
    seed = 0.1 * run.training.seed
    start = {"prose": 2.0 + seed, "code": 3.0 + seed}
    if parent is None and run.training.duration.steps == c.training.duration.steps:
        return start
    recipe = {"prose": 2.0 + seed + FORGETTING * (1 - REPLAYED), "code": 2.5 + seed}
    if parent is None:
        return {name: loss - 0.01 + noise(run, name) for name, loss in recipe.items()}
    if step == 0:
        return start
    end = step == c.study.branch_steps
    peak = run.schedule.peak / parent.schedule.peak
    replay = dict(run.data.mixture[0][1])["prose"]
    change = {"prose": FORGETTING * (1 - replay), "code": -0.5 - 0.2 * (peak - 1) + 0.1 * (replay - REPLAYED)}
    if run.schedule.name == "infinite":
        change = {"prose": change["prose"] + 0.2, "code": -0.3}
    if not end and run.schedule.name == "cosine":
        change = {"prose": change["prose"] + RISE * peak, "code": -0.1 + 0.1 * peak}
    if not end and run.schedule.name == "constant":
        change["code"] = -0.2
    return {name: start[name] + change[name] + noise(run, name) for name in start}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    c = small()
    runs = runs_of(c, configuration.get_stages(c))
    return write_store(tmp_path_factory.mktemp("store"), runs, functools.partial(truth, c))


@pytest.fixture(scope="module")
def found(store: Store) -> Findings:
    return rewarm_replay.analyse(store, small().study.to_dict())


def test_the_design_has_every_kind_of_run_with_its_labels(store: Store) -> None:
    table = rewarm_replay.labelled(store, settings())
    last = table[table["last"] & (table.domain == MEAN)]
    assert last.groupby("kind").size().to_dict() == {
        "trunk": 5, "held trunk": 3, "scratch": 10, "held": 12, "rewarmed": 38, "epochs": 3, "reset": 3, "infinite": 3}
    assert sorted(last.rewarm[last.kind == "rewarmed"].unique()) == pytest.approx([0.25, 0.5, 1.0])
    assert last.rewarm[last.kind == "held"].unique() == pytest.approx([0.1])
    ends = last[last.parent_id.notna()].lr.groupby(last.kind).agg(["min", "max"])
    assert ends.loc["held"].tolist() == pytest.approx([8e-4, 8e-4])
    assert ends.loc["rewarmed", "max"] < 8.1e-4  # all decay to where the trunk ended
    assert ends.loc["infinite", "max"] < 8.2e-4


def settings() -> rewarm_replay.Settings:
    return rewarm_replay.Settings(**{**small().study.to_dict()})


def test_replay_is_of_windows_that_the_trunk_saw() -> None:
    c = small()
    pool = dict(c.data.unique_tokens)["prose"]
    for run in runs_of(c, configuration.get_stages(c)):
        assert dict(run.data.unique_tokens)["prose"] == pool == 1000 * 1024


def test_from_scratch_has_the_steps_and_the_tokens_of_trunk_and_branch() -> None:
    c = small()
    scratch = [run for run in runs_of(c, configuration.get_stages(c))
               if run.parent is None and run.training.duration.steps == 1600]
    prose = sorted({round(1600 * dict(run.data.mixture[0][1])["prose"], 6) for run in scratch})
    assert prose == [1000, 1000 + REPLAYED * 600]


def test_changes_and_contrasts_are_the_truth(found: Findings) -> None:
    cells = found.cells.query("domain == 'prose' and kind == 'rewarmed'")
    assert cells.change.to_numpy() == pytest.approx(FORGETTING * (1 - cells.replay.to_numpy()), abs=0.006)
    assert ((cells.low < cells.change) & (cells.change < cells.high)).all()
    effects = found.effects.set_index(["contrast", "domain"]).value
    assert effects["recipe less no replay", "prose"] == pytest.approx(-FORGETTING * REPLAYED, abs=0.006)
    assert effects["recipe less from scratch, all data", "code"] == pytest.approx(0.01, abs=0.006)
    assert effects["recipe less infinite schedule", MEAN] == pytest.approx(-0.2, abs=0.006)


def test_every_verdict_is_the_truths(found: Findings) -> None:
    verdicts = {claim.statement: claim.verdict for claim in found.claims}
    assert len(verdicts) == len(found.claims) == 14
    expected = {
        "Replay reduces forgetting": "reproduced",
        "Re-warming first raises the loss on the old data": "reproduced",
        "Re-warming first raises the loss on the new data": "reproduced",
        "Re-warming lowers the loss on the new data in the long run": "reproduced",
        "When re-warmed with replay, the loss on the old data rises and then recovers": "reproduced",
        "The simple recipe matches training from scratch on all data within 0.05 nats/token": "reproduced",
        "The infinite schedule matches the re-warmed cosine within 0.05 nats/token": "not reproduced",
    }
    assert {name: verdicts[name] for name in expected} == expected


def test_where_the_truth_has_no_difference_none_is_found(found: Findings) -> None:
    """Of runs on the same data at the end; of the two schedules' rises, 0.2 each."""
    equal = [claim for claim in found.claims if claim.statement in (
        "Re-warming on the same data still hurts at the end",
        "The infinite schedule avoids the rise that re-warming brings")]
    assert [claim.value for claim in equal] == pytest.approx([0, 0], abs=0.008)
    assert [claim.verdict for claim in equal] == [verdict(claim.low, claim.high, 0.0) for claim in equal]


def test_the_recipe_is_held_against_scratch_on_every_seed(found: Findings) -> None:
    pairs = found.effects.groupby("contrast").n.max()
    assert pairs["recipe less from scratch, all data"] == 5
    assert pairs["recipe less rate held"] == 3


def test_the_dip_is_the_smaller_of_rise_and_recovery(store: Store) -> None:
    dip = rewarm_replay.rise_and_recovery(rewarm_replay.labelled(store, settings()), settings())
    assert dip.to_numpy() == pytest.approx(RISE, abs=0.02)  # the rise is FORGETTING * 0.75 higher


@pytest.mark.parametrize(("dip", "end", "expected"), [(0.3, 0.1, 0.2), (0.3, -0.1, 0.3), (0.1, 0.4, -0.3)])
def test_neither_rise_nor_recovery_alone_is_a_dip(dip: float, end: float, expected: float) -> None:
    s = settings()
    table = pd.DataFrame({"kind": "rewarmed", "rewarm": 1.0, "replay": REPLAYED, "domain": "prose", "seed": 0,
                          "step": [s.dip_step, s.branch_steps], "last": [False, True], "change": [dip, end]})
    assert rewarm_replay.rise_and_recovery(table, s).tolist() == pytest.approx([expected])


def test_a_diverged_run_costs_its_pair_and_is_told(tmp_path: Path) -> None:
    c = small()
    runs = runs_of(c, configuration.get_stages(c))
    gone = next(run for run in runs if run.parent and run.schedule.name == "infinite" and run.training.seed == 1)
    store = write_store(tmp_path, runs, functools.partial(truth, c), lambda run: run is gone)
    found = rewarm_replay.analyse(store, c.study.to_dict())
    assert found.effects.query("contrast == 'recipe less infinite schedule'").n.tolist() == [2, 2, 2]
    assert "1 runs ended as diverged; their pairs are left out" in found.not_identified


def test_the_page_says_the_answer_and_holds_every_figure(store: Store, found: Findings) -> None:
    page, figures = rewarm_replay_page.page(store, found)
    text = page.text()
    assert rewarm_replay.headline(found).split("(")[0] in text
    assert text.count('src="data:image/png;base64,') == len(figures) == 4
    assert all(claim.statement in text for claim in found.claims)
    record = json.loads(json.dumps(rewarm_replay_page.record(found), allow_nan=False))
    assert len(record["cells"]) == len(found.cells)
    assert record["claims"][0]["verdict"] == "reproduced"
    assert "inconclusive" in rewarm_replay_page.summary(found)


def test_settings_and_stores_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"study: unknown key 'margn'; did you mean 'margin'"):
        rewarm_replay.analyse(Store(tmp_path), {**small().study.to_dict(), "margn": 1})
    c = small()
    runs = [run for run in runs_of(c, configuration.get_stages(c)) if run.parent or run.training.duration.steps != 1600]
    with pytest.raises(ConfigError, match=r"shares of old data in runs from scratch = \[\]: expected two"):
        rewarm_replay.analyse(write_store(tmp_path, runs, functools.partial(truth, c)), c.study.to_dict())


def test_the_full_setting_is_the_same_study() -> None:
    full = configuration.get_config("full")
    runs = runs_of(full, configuration.get_stages(full))
    assert set(full.study) == set(small().study)
    table = pd.Series([run.schedule.name for run in runs]).value_counts()
    assert table.to_dict() == {"cosine": 296, "constant": 56, "infinite": 16}
