"""The study against a store with a known truth: its averages, correlations, verdicts, page, record, refusals."""

import functools
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from synthetic_continual import runs_of, write_store

from configs import merge_proxy as configuration
from experiments import merge_proxy, merge_proxy_page
from experiments.continual import MEAN
from experiments.merge_proxy import AGAIN, CROSSED, INSIDE, LOSSES, MERGED, OUTSIDE, Findings
from scaling.config import Run
from scaling.fields import ConfigError
from scaling.store import Store

OFFSET, BROKEN = 0.1, 6.0


def small() -> ConfigDict:
    c = configuration.get_config()
    c.study.seeds, c.study.divisions, c.study.bootstrap = (0, 1, 2, 3), 6, 200
    return c


def all_runs(c: ConfigDict) -> list[Run]:
    return runs_of(c, configuration.get_stages(c))


def noise(*key: object) -> float:
    return float(np.random.default_rng([ord(letter) for letter in "".join(map(str, key))]).normal())


def truth(by_id: Mapping[str, Run], run: Run, parent: Run | None, step: int) -> Mapping[str, float]:
    """Trained: 3 - sqrt(share), so that the mean is lowest at equal shares. Averages: as trained and OFFSET more; of
    different starts: BROKEN and a normal number.
    """
    seed, shares = run.training.seed, dict(run.data.mixture[0][1])
    found = {}
    for name in run.data.names:
        trained = 3 - shares.get(name, 0.0)**0.5 + 0.1 * seed + 1e-3 * noise(name, shares, "trained")
        if parent is None:
            found[name] = 3.0 + 0.1 * seed
        elif len(run.parent_ids) == 1:
            found[name] = trained + 1e-4 * noise(run.run_id, name)
        elif len({by_id[run_id].training.seed for run_id in run.parent_ids}) == 1:
            found[name] = trained + OFFSET + 1e-4 * noise(run.run_id, name)
        else:
            found[name] = BROKEN + noise(run.run_id, name)
    return found


def written(c: ConfigDict, folder: Path, lost: str = "") -> Store:
    """The store of a configuration; a run of that id diverged."""
    runs = all_runs(c)
    by_id = {run.run_id: run for run in runs}
    store = write_store(folder, runs, functools.partial(truth, by_id), lambda run: run.run_id == lost)
    rows = store.read("runs")
    store.write("runs", "all", rows.assign(wall_seconds=np.where(rows.parent_others.isna(), 2.0, 0.25)))
    return store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return written(small(), tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def found(store: Store) -> Findings:
    return merge_proxy.analyse(store, small().study.to_dict())


def test_every_mixture_has_an_average_with_its_shares_as_weights() -> None:
    runs = all_runs(small())
    by_id = {run.run_id: run for run in runs}
    averages = [run for run in runs if len(run.parent_ids) > 1]
    assert len(averages) == 2 * 2 * 4 * (28 - 3)  # starts alike or not, lengths, seeds, mixtures
    assert len({run.run_id for run in averages}) == len(averages)
    for run in averages:
        assert run.parent is not None
        shares = {name: share for name, share in run.data.mixture[0][1] if share > 0}
        modules = {by_id[run_id]: weight for run_id, weight in run.parent.weights.items()}
        found = {next(name for name, share in module.data.mixture[0][1] if share == 1): weight
                 for module, weight in modules.items()}
        assert found == pytest.approx(shares)
        assert {module.training.duration for module in modules} == {run.parent.at}, "at the modules' end"
        assert (run.schedule.peak, run.training.duration.steps) == (0.0, 1)


def test_starts_are_all_alike_or_all_different() -> None:
    runs = all_runs(small())
    by_id = {run.run_id: run for run in runs}
    for run in (run for run in runs if len(run.parent_ids) > 1):
        seeds = {by_id[run_id].training.seed for run_id in run.parent_ids}
        starts = {by_id[run_id].parent_ids for run_id in run.parent_ids}
        assert len(seeds) == len(starts)
        assert len(seeds) == len(run.parent_ids) or seeds == {run.training.seed}


def test_modules_and_mixtures_see_as_many_tokens_from_one_checkpoint() -> None:
    runs = all_runs(small())
    by_id = {run.run_id: run for run in runs}
    branches = [run for run in runs if len(run.parent_ids) == 1]
    assert len(branches) == 2 * 4 * 28
    for run in branches:
        start = by_id[run.parent_ids[0]]
        assert (start.parent, start.training.seed) == (None, run.training.seed)
        assert start.training.duration == run.parent.at


def test_correlations_are_the_truths(found: Findings) -> None:
    rank = found.correlations.set_index(["steps", "domain", "predictor"]).spearman
    for domain in ("code", MEAN):
        assert rank[300, domain, MERGED] > 0.98
        assert rank[300, domain, AGAIN] > 0.98
        assert abs(rank[300, domain, CROSSED]) < 0.3
    assert rank[300, "code", LOSSES] > 0.95, "a domain's loss falls with its share alone"
    assert abs(rank[300, MEAN, LOSSES]) < 0.3, "all modules are as good on the mean"
    lines = found.correlations
    assert ((lines.low <= lines.spearman) & (lines.spearman <= lines.high)).all()


def test_unseen_domains_are_judged_among_mixtures_without_them(store: Store, found: Findings) -> None:
    cube = merge_proxy.Cube(merge_proxy.losses(store), 300)
    strata = cube.unseen(MERGED)
    assert [proxy.shape for proxy, _ in strata] == [(4, 5)] * 3
    for k, (_, truth_SxM) in enumerate(strata):
        assert (truth_SxM - 0.1 * np.arange(4)[:, None]).mean() == pytest.approx(3, abs=0.002), cube.domains[k]
    assert [proxy.shape for proxy, _ in cube.full(MERGED)] == [(4, 10)]
    mixtures = found.correlations.set_index(["steps", "domain", "predictor"]).mixtures
    assert (mixtures[300, OUTSIDE, MERGED], mixtures[300, INSIDE, MERGED]) == (15, 10)


def test_levels_and_choices_are_the_truths(found: Findings) -> None:
    levels = found.levels.set_index(["steps", "predictor", "domain", "against"]).value
    assert levels[300, MERGED, "prose", "trained"] == pytest.approx(OFFSET, abs=1e-3)
    assert levels[75, CROSSED, MEAN, "seed checkpoint"] == pytest.approx(BROKEN - 3, abs=0.6)
    choices = found.choices.set_index(["steps", "predictor"])
    assert choices.value[300, MERGED] < 2e-3
    best, mean = 3 - 3**-0.5, np.mean([3 - sum(share**0.5 for share in shares) / 3 for shares in LATTICE])
    assert choices.value[300, "a mixture at random"] == pytest.approx(mean - best, abs=5e-3)


LATTICE = [(i / 6, j / 6, (6 - i - j) / 6) for i in range(6) for j in range(6) if i + j <= 6 and i + j > 0]


def test_every_verdict_is_the_truths(found: Findings) -> None:
    verdicts = {claim.statement: claim.verdict for claim in found.claims}
    assert len(verdicts) == 9
    assert {name for name, verdict in verdicts.items() if verdict != "reproduced"} == {
        "The average of modules ranks mixtures by the loss of a domain outside them"}, "too few of them to tell"


def test_costs_count_what_each_way_needs(store: Store, found: Findings) -> None:
    costs = found.costs.set_index(["steps", "way"])
    runs = store.read("runs")
    per_token, tokens = runs.flops_per_token.iloc[0], 300 * 16 * 64
    assert costs.runs[300, "modules"] == 3 * 4
    assert costs.flops[300, "modules"] == pytest.approx(3 * 4 * tokens * per_token)
    assert costs.flops[300, "models trained on mixtures"] == pytest.approx(25 * 4 * tokens * per_token)
    assert costs.flops[300, "merged models, evaluated"] == pytest.approx(2 * 25 * 4 * 3 * 128 * 64 * per_token / 3)
    wanted = 25 * tokens / (3 * tokens + 25 * 128 * 64)
    assert merge_proxy.cost_ratio(found, "flops") == pytest.approx(wanted)
    assert merge_proxy.cost_ratio(found, "seconds") == pytest.approx(25 * 2 / (3 * 2 + 25 * 0.25))


def test_a_seed_that_lost_a_run_is_left_out_and_told(tmp_path: Path) -> None:
    c = small()
    lost = next(run for run in all_runs(c) if run.parent and run.training.seed == 2
                and run.training.duration.steps == 300)
    found = merge_proxy.analyse(written(c, tmp_path, lost.run_id), c.study.to_dict())
    assert found.correlations.groupby("steps").seeds.first().to_dict() == {75: 4, 300: 3}
    assert found.not_identified[:2] == [
        "1 runs ended as diverged", "Seeds 2 lack runs of 300 steps and are left out there"]


def test_the_page_says_the_answer_and_holds_every_figure(store: Store, found: Findings) -> None:
    page, figures = merge_proxy_page.page(store, found)
    text = page.text()
    assert merge_proxy.headline(found).split("(")[0] in text
    assert text.count('src="data:image/png;base64,') == len(figures) == 4
    assert all(claim.statement in text for claim in found.claims)
    record = json.loads(json.dumps(merge_proxy_page.record(found), allow_nan=False))
    assert len(record["correlations"]) == len(found.correlations) == 2 * 6 * 4
    assert "reproduced" in merge_proxy_page.summary(found)


def test_settings_and_stores_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"study: unknown key 'margn'; did you mean 'margin'"):
        merge_proxy.analyse(Store(tmp_path), {**small().study.to_dict(), "margn": 1})
    with pytest.raises(ConfigError, match=r"store = .*: expected runs that start from averages; run the sweep to"):
        merge_proxy.analyse(Store(tmp_path), small().study.to_dict())
    c = small()
    c.study.seeds = (0, 1)
    with pytest.raises(ConfigError, match=r"study\.seeds = \[0, 1\]: expected 3 or more, one a domain; add some"):
        all_runs(c)


def test_the_full_setting_is_the_same_study() -> None:
    full = configuration.get_config("full")
    assert set(full.study) == set(small().study)
    runs = all_runs(full)
    assert len(runs) == 8 * (1 + 3 * 45 + 2 * 3 * 42)
