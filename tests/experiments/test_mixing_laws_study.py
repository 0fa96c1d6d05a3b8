"""The study of mixture laws against a store with a known law behind its losses: found, ranked, refused."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ml_collections import ConfigDict
from scipy.optimize import LinearConstraint, minimize

from configs import mixing_laws as configuration
from experiments import mixing_laws, mixing_laws_page, mixture_claims
from experiments.mixing_laws import BEST_FOUND, NATURAL, Compared, Findings
from experiments.mixture_accuracy import LINE, SAME_SHARES, inside, lattice_means, relative_errors
from experiments.mixture_methods import ADDITIVE, EXPONENTIAL, LINEAR, TREES, fit_term
from experiments.mixture_runs import settings_of
from scaling.config import run_from
from scaling.fields import ConfigError
from scaling.fitting import Fit
from scaling.store import Store
from scaling.sweeps.sweep import Stage, Sweep

DOMAINS = ("code", "headers", "prose")
OFFSET = {"code": 1.2, "headers": 0.9, "prose": 1.6}
SLOPES = {"code": (-2.5, 0.2, 0.4), "headers": (0.1, -3.0, 0.5), "prose": (0.3, 0.4, -2.0)}
NOISE = 0.002  # of a run, relative; half of it is shared by the runs of a seed


def config(**study: object) -> ConfigDict:
    c = configuration.get_config()
    small = {"widths": (8, 12, 16, 24), "mixtures": 14, "sized": 12, "divisions": 6, "seeds": (100, 101, 102, 103),
             "counts": (10,), "subsets": 4, "known_draws": 1, "bootstrap": 30}
    c.study.update({**small, **study})
    c.evaluation.steps = (210, 350, 600)
    return c


def loss(share_K: np.ndarray, domain: str, parameters: float, tokens: float) -> float:
    sized = 20 / parameters**0.5 + 60 / tokens**0.5
    return OFFSET[domain] + float(np.exp(share_K @ np.array(SLOPES[domain]))) + sized


def write_runs(store: Store, name: str, c: ConfigDict, stages: list[Stage]) -> None:
    """The runs of some stages as if trained, with the law's losses."""
    values = dict(c.items())
    values.pop("study")
    runs, curves = [], []
    for run in Sweep(run_from(values), tuple(stages)).runs():
        shares = dict(run.data.mixture[0][1])
        parameters = 12.0 * run.model.width**2 * run.model.depth
        runs.append({**run.flat(), "run_id": run.run_id, "status": "done", "params_non_embedding": int(parameters),
                     "tokens": 614_400, "flops": 1e9, "wall_seconds": 1.0, "device": "test"})
        common = np.random.default_rng(run.training.seed).normal(size=3)
        own = np.random.default_rng(int(run.run_id, 16)).normal(size=3)
        share_K = np.array([shares.get(domain, 0.0) for domain in DOMAINS])
        for step in run.evaluation.steps:
            tokens = step * run.data.tokens_per_step
            curves += [{"run_id": run.run_id, "step": step, "tokens": tokens, "split": "validation", "domain": domain,
                        "loss": loss(share_K, domain, parameters, tokens) * np.exp(NOISE * (a + b) / 2**0.5)}
                       for domain, a, b in zip(DOMAINS, common, own, strict=True)]
    store.write("runs", name, pd.DataFrame(runs))
    store.write("curves", name, pd.DataFrame(curves))


def best_of_law(weights: dict[str, float]) -> np.ndarray:
    def total(share_K: np.ndarray) -> float:
        return sum(weight * loss(share_K, domain, 1e4, 1e6) for domain, weight in weights.items())

    return minimize(total, np.full(3, 1 / 3), bounds=[(0, 1)] * 3, method="SLSQP", options={"ftol": 1e-14},
                    constraints=LinearConstraint(np.ones(3), 1, 1)).x


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A sweep to its end: the stages of the configuration, then what its follow-up decides on."""
    store, c = Store(tmp_path_factory.mktemp("store")), config()
    write_runs(store, "first", c, configuration.get_stages(c))
    for follow_up in configuration.FOLLOW_UPS:
        write_runs(store, "second", c, follow_up(c, store))
    return store


@pytest.fixture(scope="module")
def found(store: Store) -> Findings:
    return mixing_laws.analyse(store, config().study.to_dict())


def one(found: Findings, target: str, name: str) -> Compared:
    chosen, = (each for each in found.compared if (each.target, each.name) == (target, name))
    return chosen


def test_the_exponential_law_finds_the_best_mixture_of_every_target(found: Findings) -> None:
    for target, _ in found.settings.targets:
        truth_K = best_of_law(found.settings.weights(target))
        best = one(found, target, EXPONENTIAL).best
        for domain, share in zip(DOMAINS, truth_K, strict=True):
            assert best[domain].refusal is None
            assert best[domain].value == pytest.approx(share, abs=0.03)
            assert best[domain].low - 0.01 <= share <= best[domain].high + 0.01


def test_what_is_compared_is_trained_at_new_seeds_to_the_nearest_percent(store: Store, found: Findings) -> None:
    runs = store.read("runs")
    last = runs[runs["training.seed"].isin(found.settings.seeds)]
    assert (last["model.width"] == 8).all()
    assert (last.groupby("data.mixture")["training.seed"].nunique() == 4).all()
    for each in found.compared:
        if each.best is not None:
            for domain, share in each.shares.items():
                assert share == pytest.approx(round(share, 2), abs=1e-12)
                assert share == pytest.approx(each.best[domain].value, abs=0.011)


def test_the_laws_mixture_costs_little_and_beats_natural_shares(found: Findings) -> None:
    weights = found.settings.weights("skewed")
    mixture, least = one(found, "skewed", EXPONENTIAL), one(found, "skewed", BEST_FOUND)
    losses = [sum(w * loss(np.array([each.shares[d] for d in DOMAINS]), domain, 1.0, 1.0)
                  for domain, w in weights.items()) for each in (mixture, least)]
    assert mixture.regret.value == pytest.approx(losses[0] - losses[1], abs=0.006)  # noise of a seed, twice
    assert mixture.regret.low < losses[0] - losses[1] < mixture.regret.high
    assert mixture.gain.low > 0.05
    assert one(found, "skewed", LINEAR).regret.low > 0.1  # the corner of a plane
    claim, = (each for each in found.claims if each.statement.startswith(f"The mixture of the {LINEAR} loses"))
    assert claim.verdict == "not reproduced"


def test_the_best_of_the_lattice_has_regret_0_and_natural_shares_gain_0(found: Findings) -> None:
    for target, _ in found.settings.targets:
        assert one(found, target, BEST_FOUND).regret.value == 0
        assert one(found, target, NATURAL).gain.value == 0


def test_laws_fitted_to_smaller_sizes_predict_the_largest(found: Findings) -> None:
    errors = relative_errors(found.sizes.predictions).mean()
    assert len(found.sizes.predictions) == 3 * 12
    assert errors[ADDITIVE] < 0.005 < errors[LINE] < errors[SAME_SHARES]
    verdicts = {claim.verdict for claim in found.claims if "a larger model" in claim.statement}
    assert verdicts == {"reproduced"}


def test_the_exponential_law_explains_its_own_losses(found: Findings) -> None:
    claim, = (each for each in found.claims if "of the variance" in each.statement)
    assert claim.verdict == "reproduced"
    assert claim.value > 0.998


def test_the_last_row_of_few_has_learned_from_all_random_mixtures(found: Findings) -> None:
    table = found.table
    rows = table[(table.kind == "random") & (table.width == 8) & table["last"]]
    lattice = inside(lattice_means(table, found.settings), found.settings)
    assert len(lattice) == 10  # of 28 with steps of 1/6
    predicted = fit_term(rows, DOMAINS, 0).losses(lattice)
    error = np.mean([np.abs(predicted[f"loss_{d}"] / lattice[f"loss_{d}"] - 1).mean() for d in DOMAINS])
    assert found.few["count"].tolist() == [10] * 4 + [14]
    assert found.few.error.iloc[-1] == pytest.approx(error)


def test_the_noise_between_seeds_is_measured(found: Findings) -> None:
    """Losses near 2.5 with a relative noise of 0.2%."""
    smallest = found.noise[found.noise.width == 8].iloc[0]
    assert smallest.freedom > 28
    for domain in DOMAINS:
        assert smallest[domain] == pytest.approx(NOISE * 2.5, rel=0.45)


def test_the_record_is_json_whose_fits_predict_identically(found: Findings) -> None:
    record = json.loads(json.dumps(mixing_laws_page.record(found), allow_nan=False))
    again = Fit.from_json(record["fits"][f"{EXPONENTIAL}, code"])
    at = {"code": 0.2, "headers": 0.3, "prose": 0.5}
    assert again.predict(at) == found.methods[EXPONENTIAL].fits["code"].predict(at)
    assert len(record["claims"]) == len(found.claims)
    assert record["compared"][0]["by_seed"][0].keys() == {"seed", "regret", "gain"}


def test_the_page_is_self_contained_and_says_the_answer(store: Store, found: Findings) -> None:
    page, figures = mixing_laws_page.page(store, found)
    text = page.text()
    assert "For the target equal at width 8 the exponential law" in text
    assert text.count('src="data:image/png;base64,') == len(figures) == 5
    assert "http" not in text
    assert all(png.startswith(b"\x89PNG") for png in figures.values())
    assert all(claim.statement.split("'")[0] in text for claim in found.claims)


def test_a_store_that_lacks_runs_is_refused(tmp_path: Path) -> None:
    c = config()
    study = c.study.to_dict()
    with pytest.raises(ConfigError, match="expected finished runs of the random mixtures; run the sweep to its end"):
        mixing_laws.analyse(Store(tmp_path), study)
    write_runs(Store(tmp_path), "random", c, configuration.get_stages(c)[:1])
    with pytest.raises(ConfigError, match="expected finished runs of the lattice mixtures"):
        mixing_laws.analyse(Store(tmp_path), study)


def test_mixtures_that_were_never_trained_are_refused_or_noted(store: Store, found: Findings, tmp_path: Path) -> None:
    settings, table = found.settings, found.table
    with pytest.raises(ConfigError, match="expected runs of the best of the lattice and of natural shares"):
        mixing_laws.compare_mixtures(table[table.kind != "compared"], found.methods, settings)
    law = one(found, "equal", TREES).shares
    gone = (table.kind == "compared") & np.isclose(table[list(DOMAINS)], [law[d] for d in DOMAINS]).all(axis=1)
    _, notes = mixing_laws.compare_mixtures(table[~gone], found.methods, settings)
    assert f"{TREES}, target equal: its mixture was not trained; run the sweep again" in notes


def test_a_method_that_lacks_a_target_has_no_claim_of_its_regret(found: Findings) -> None:
    by_seed = pd.concat([one.by_seed.assign(target=one.target, name=one.name) for one in found.compared])
    sources = {method.name: method.source for method in found.methods.values()}
    lacking = by_seed[(by_seed.name != TREES) | (by_seed.target != "equal")]
    whole, left = (mixture_claims.regret_claims(rows, sources, found.settings) for rows in (by_seed, lacking))
    assert left == [claim for claim in whole if TREES not in claim.statement]
    assert 0 < len(left) < len(whole)


def test_settings_that_contradict_are_refused() -> None:
    study = config().study.to_dict()
    with pytest.raises(ConfigError, match=r"study.seeds = \(0, 100\): expected seeds that no lattice, repeat"):
        settings_of({**study, "seeds": (0, 100)})
    with pytest.raises(ConfigError, match=r"study.targets.odd = .*: expected a weight for each of code, headers"):
        settings_of({**study, "targets": {"odd": {"prose": 1.0}}})
    with pytest.raises(ConfigError, match=r"study.widths = \(8, 12, 16\): expected at least four"):
        settings_of({**study, "widths": (8, 12, 16)})
    with pytest.raises(ConfigError, match=r"study.counts = \(8, 14\): expected counts below the 14 random mixtures"):
        settings_of({**study, "counts": (8, 14)})
    with pytest.raises(ConfigError, match=r"study.few = 10: expected one of the counts 8, 11"):
        settings_of({**study, "counts": (8, 11)})
    with pytest.raises(ConfigError, match=r"study: unknown key 'tolerence'; did you mean 'tolerance'"):
        settings_of({**study, "tolerence": 0.1})


@pytest.mark.parametrize("setting", ["small", "full"])
def test_both_settings_expand_to_runs(setting: str) -> None:
    c = configuration.get_config(setting)
    values = dict(c.items())
    settings = settings_of(values.pop("study").to_dict())
    runs = Sweep(run_from(values), tuple(configuration.get_stages(c))).runs()
    kinds = pd.Series([settings.kinds[run.training.seed] for run in runs]).value_counts()
    assert kinds["random"] == settings.mixtures + settings.sized * (len(settings.widths) - 1)
    assert settings.sized >= 24
    points = (settings.divisions + 1) * (settings.divisions + 2) // 2
    assert kinds["lattice"] == points * len(settings.lattice_seeds)
    assert kinds["repeats"] == (len(settings.widths) - 1) * len(settings.repeat_seeds)
