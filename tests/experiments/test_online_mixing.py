"""The study of online mixers against a store whose losses obey a law: choice, comparison, verdicts, graph, refusals."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic_mixers
from ml_collections import ConfigDict
from synthetic_continual import runs_of

from configs import mixer_rounds
from configs import online_mixing as configuration
from experiments import mixers, online_mixing, online_mixing_page
from experiments.claims import verdict
from experiments.mixer_comparison import BEST, NAMES, NATURAL, STRATIFIED, any_claim, corrected, differences
from experiments.online_mixing import Findings, others_claim
from scaling.config import Run
from scaling.fields import ConfigError
from scaling.store import Store

OPTIMUM = {"code": 0.5, "headers": 1 / 6, "prose": 1 / 3}
FAR = {"code": 0.0, "headers": 1.0, "prose": 0.0}
PULLS = {"aioli": 0.9, "skill_it": 0.6, "doremi": 0.0}  # toward the optimum; the others go the wrong way


def small(**study: object) -> ConfigDict:
    c = configuration.get_config()
    c.study.update({"seeds": (10, 11, 12, 13, 14), **study})
    return c


METHODS = {method.name: method for method in mixer_rounds.settings_of(small()).methods}
MIDDLE = {name: method.trials[1] for name, method in METHODS.items()}


def world(shares: Mapping[str, float]) -> dict[str, float]:
    """Losses whose mean is least at OPTIMUM."""
    return {name: 2.0 + (shares[name] - OPTIMUM[name]) ** 2 for name in shares}


def ends(run: Run) -> Mapping[str, float]:
    """The middle strength is the right one for all."""
    assert run.mixer is not None
    name = run.mixer.name
    right = getattr(run.mixer, METHODS[name].strength) == MIDDLE[name]
    if name in PULLS:
        return synthetic_mixers.toward(run, OPTIMUM, PULLS[name] if right else PULLS[name] / 10)
    return synthetic_mixers.toward(run, FAR, 0.3 if right else 0.8)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return synthetic_mixers.simulate(tmp_path_factory.mktemp("store"), small(), configuration, world, ends)


@pytest.fixture(scope="module")
def found(store: Store) -> Findings:
    return online_mixing.analyse(store, small().study.to_dict())


def test_the_rounds_train_what_is_compared_on_every_fresh_seed(found: Findings) -> None:
    counts = found.rows.groupby("method").seed.apply(lambda seeds: sorted(seeds.tolist()))
    assert set(counts.index) == {*NAMES, STRATIFIED, NATURAL, BEST}
    assert all(seeds == [10, 11, 12, 13, 14] for seeds in counts)


def test_what_serves_best_on_the_tuning_seeds_is_chosen(found: Findings) -> None:
    assert found.best == pytest.approx(OPTIMUM)
    assert [found.strengths[name] for name in ("aioli", "skill_it")] == [MIDDLE["aioli"], MIDDLE["skill_it"]]


def test_differences_are_the_truths_and_those_of_a_proxy_are_its_final_models(found: Findings) -> None:
    gaps = found.gaps[STRATIFIED].set_index("method")
    stratified = np.mean(list(world(dict.fromkeys(OPTIMUM, 1 / 3)).values()))
    assert gaps.value[BEST] == pytest.approx(2.0 - stratified, abs=0.002)
    at = {name: 1 / 3 + 0.45 * (OPTIMUM[name] - 1 / 3) for name in OPTIMUM}  # aioli, mean over steps
    assert gaps.value["aioli"] == pytest.approx(np.mean(list(world(at).values())) - stratified, abs=0.002)
    assert gaps.value["doremi"] == pytest.approx(0.0, abs=0.002)
    assert gaps.value["doge"] > 0.01
    for method in gaps.index:
        row = gaps.loc[method]
        assert np.mean([row[domain] for domain in OPTIMUM]) == pytest.approx(row.value)
        assert row.perplexity == pytest.approx(np.exp(2.02) * row.value, rel=0.4)
    assert found.gaps[BEST].set_index("method").value[STRATIFIED] == pytest.approx(-gaps.value[BEST])


def test_every_verdict_is_the_truths(found: Findings) -> None:
    said = {claim.statement: claim.verdict for claim in found.claims}
    assert len(said) == len(found.claims)
    lower = "ends with a lower mean held-out loss than stratified"
    assert said["Some online mixer beats stratified"] == "reproduced"
    assert said["Some online mixer beats best static"] == "not reproduced"
    assert said[f"Aioli {lower}"] == said[f"{BEST} {lower}"] == "reproduced"
    assert said[f"DoGE {lower}"] == said[f"ODM {lower}"] == "not reproduced"
    equal, = (claim for claim in found.claims if claim.statement == f"DoReMi {lower}")
    assert equal.value == pytest.approx(0, abs=3e-3)
    assert equal.verdict == verdict(equal.low, equal.high, 0.0)
    assert said["DoReMi with the tokens of its other runs counted beats stratified sampling of as many"] == (
        "not reproduced")  # the world gains 0.2 nats from three times the tokens


def test_equal_tokens_compare_with_stratified_runs_of_as_many(found: Findings) -> None:
    rows = found.same_tokens.set_index("method")
    assert rows.runs.to_dict() == {"bilevel": 4, "doge": 2, "doremi": 3, "skill_it": 4}
    stratified = np.mean(list(world(dict.fromkeys(OPTIMUM, 1 / 3)).values()))
    assert rows.value["doremi"] == pytest.approx((stratified - 1) * (1 - 3**-0.2), abs=0.003)


def test_the_graph_is_the_relative_drop_and_has_no_edge_where_training_hurts() -> None:
    table = pd.DataFrame({
        "method": "static", "seed": [0, 1, 0, 0], "mixture": ["a 1.0000", "a 1.0000", "b 1.0000", "a 0.5000, b 0.5000"],
        "start_a": [4.0, 4.0, 4.0, 4.0], "start_b": [5.0, 5.0, 5.0, 5.0],
        "loss_a": [1.0, 2.0, 6.0, 9.0], "loss_b": [4.5, 4.0, 2.0, 9.0]})
    settings = mixer_rounds.settings_of(small())
    graph = mixers.single_domain_graph(table, settings, ["a", "b"])
    assert graph["a"] == pytest.approx({"a": (3 / 4 + 2 / 4) / 2, "b": (0.1 + 0.2) / 2})
    assert graph["b"] == pytest.approx({"a": 0.0, "b": 0.6})
    with pytest.raises(ConfigError, match="runs on b alone = 0: expected one or more on the tuning seeds; run the lat"):
        mixers.single_domain_graph(table[table.mixture != "b 1.0000"], settings, ["a", "b"])


def test_a_strength_that_diverged_on_a_tuning_seed_is_not_chosen() -> None:
    settings = mixer_rounds.settings_of(small())
    whole = [(method.name, strength, seed, 2.0 + abs(strength - method.trials[1]))
             for method in settings.methods for strength in method.trials for seed in (0, 1)]
    table = pd.DataFrame(whole, columns=["method", "strength", "seed", "loss"]).assign(steps=600)
    answers = table.method + table.strength.astype(str)
    table = table.assign(answer=answers.where(table.method.isin(mixers.PROXIES)), mixture="start")
    trained = table[table.method.isin(mixers.PROXIES)]
    final = trained.assign(method="static", strength=np.nan, mixture=trained.answer, answer=np.nan)
    table.loc[table.method.isin(mixers.PROXIES), "loss"] = 99.0  # what a proxy itself came to counts for nothing
    table = pd.concat([table, final], ignore_index=True)
    assert mixers.chosen(table, settings) == {method.name: method.trials[1] for method in settings.methods}
    aioli, doge = settings.method("aioli").trials, settings.method("doge").trials
    lost = (table.method == "aioli") & (table.strength == aioli[1]) & (table.seed == 1)
    lost |= (table.method == "static") & (table.mixture == f"doge{doge[1]}") & (table.seed == 0)
    chosen = mixers.chosen(table[~lost], settings)
    assert chosen["aioli"] == aioli[0]
    assert chosen["doge"] == doge[0]
    with pytest.raises(ConfigError, match=r"study\.methods\.odm = \(0\.5, 0\.9, 0\.99\): expected a value whose runs"):
        mixers.chosen(table[table.method != "odm"], settings)


def gaps_of(values: Mapping[str, float], spread: float) -> pd.DataFrame:
    """`differences` of five seeds that scatter evenly about the given values."""
    scatter = spread * np.array([-2, -1, 0, 1, 2]) / np.sqrt(2.5)  # standard deviation `spread`
    rows = [{"method": name, "seed": seed, "loss": 2 + value + noise, "perplexity": 7.0}
            for name, value in {"stratified": 0.0, **values}.items()
            for seed, noise in enumerate(scatter if name != "stratified" else np.zeros(5))]
    return differences(pd.DataFrame(rows), "stratified", [], online_mixing.settings_of(small().study.to_dict()))


def test_intervals_are_t_and_the_correction_is_bonferronis() -> None:
    settings = online_mixing.settings_of(small().study.to_dict())
    assert corrected(settings) == pytest.approx(1 - 0.05 / 7)
    row = gaps_of({"aioli": -0.02}, 0.01).iloc[0]
    assert row.high - row.value == pytest.approx(2.776445 * 0.01 / 5**0.5, rel=1e-6)  # t at 97.5%, 4 degrees of freedom
    assert row.wide_high - row.value == pytest.approx(5.103 * 0.01 / 5**0.5, rel=0.01)  # t at 99.64%


@pytest.mark.parametrize(("values", "some", "others"), [
    ({"aioli": -0.05, "doge": 0.05}, "reproduced", "reproduced"),
    ({"aioli": 0.05, "doge": -0.05}, "reproduced", "not reproduced"),
    ({"aioli": 0.05, "doge": 0.06}, "not reproduced", "reproduced"),
    ({"aioli": -0.001, "doge": -0.012}, "inconclusive", "inconclusive"),
    ({"aioli": -0.016, "doge": 0.05}, "inconclusive", "reproduced"),  # its own interval is below 0, corrected it is not
])
def test_claims_about_all_mixers_follow_the_corrected_intervals(
    values: Mapping[str, float], some: str, others: str
) -> None:
    settings = online_mixing.settings_of(small().study.to_dict())
    gaps = gaps_of(values, 0.01)
    assert any_claim(gaps, "stratified", settings).verdict == some
    assert others_claim(gaps, settings).verdict == others
    if values == {"aioli": -0.016, "doge": 0.05}:
        alone = gaps.set_index("method").loc["aioli"]
        assert verdict(-alone.high, -alone.low, 0.0) == "reproduced"


def test_the_page_says_the_answer_and_holds_every_figure(store: Store, found: Findings) -> None:
    page, figures = online_mixing_page.page(store, found)
    text = page.text()
    assert online_mixing.headline(found).split("(")[0] in text
    assert text.count('src="data:image/png;base64,') == len(figures) == 3
    assert "beat stratified sampling (Aioli, Skill-It)" in online_mixing_page.summary(found)
    record = json.loads(json.dumps(online_mixing_page.record(found), allow_nan=False))
    assert record["claims"][0]["verdict"] == found.claims[0].verdict


def test_the_best_mixture_may_be_stratified_sampling(tmp_path: Path) -> None:
    def flat(shares: Mapping[str, float]) -> dict[str, float]:
        return {name: 2.0 + (share - 1 / 3) ** 2 for name, share in shares.items()}

    store = synthetic_mixers.simulate(tmp_path, small(), configuration, flat, ends)
    found = online_mixing.analyse(store, small().study.to_dict())
    assert any("is stratified sampling itself" in note for note in found.not_identified)
    gaps = found.gaps[STRATIFIED].set_index("method")
    assert (gaps.value[BEST], gaps.low[BEST], gaps.high[BEST]) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(("changes", "message"), [
    ({"margn": 1.0}, "study: unknown key 'margn'; did you mean 'margin'"),
    ({"seeds": (1, 10)}, r"study\.seeds = \[1\]: expected seeds on which nothing was chosen"),
    ({"methods": {"odm": {"memory": 0.9}}}, r"study\.methods\.odm = .*: expected one setting with several values"),
    ({"methods": {"odm": {"memory": (0.5, 0.9)}, "doge": {"rate": (1.0,)}}}, "as many values tried of each"),
    ({"methods": {"oddm": {"memory": (0.5, 0.9)}}}, "unknown key 'oddm'; did you mean 'odm'"),
])
def test_settings_that_do_not_fit_are_refused(changes: Mapping[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        online_mixing.settings_of({**small().study.to_dict(), **changes})


def test_a_store_without_the_evaluation_before_the_last_update_is_refused(tmp_path: Path) -> None:
    c = small()
    c.evaluation.steps = (300, 600)
    with pytest.raises(ConfigError, match=r"evaluation\.steps = .*: expected one step before the last among them"):
        synthetic_mixers.simulate(tmp_path, c, configuration, world, ends)


def test_the_full_setting_is_the_same_study() -> None:
    full = configuration.get_config("full")
    assert set(full.study) == set(small().study)
    assert len(runs_of(full, configuration.get_stages(full))) > len(runs_of(small(), configuration.get_stages(small())))
