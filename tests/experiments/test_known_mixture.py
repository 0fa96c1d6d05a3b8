"""The study of a known best mixture against a store whose losses obey a law: found, moved to, refused."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import synthetic_mixers
from ml_collections import ConfigDict
from synthetic_continual import runs_of

from configs import known_mixture as configuration
from experiments import known_mixture, known_mixture_page
from experiments.known_mixture import KNOWN, Findings
from experiments.mixer_comparison import NAMES
from scaling.config import Run
from scaling.fields import ConfigError
from scaling.store import Store

BEST = {"lower": 0.5, "noise": 0.0, "upper": 0.5}
BAD = {"lower": 0.1, "noise": 0.8, "upper": 0.1}
GOOD_STRENGTH = {"doremi": 0.1, "doge": 4.0, "skill_it": 2.5, "aioli": 1.0, "bilevel": 0.5}  # of the three tried


def small(**study: object) -> ConfigDict:
    c = configuration.get_config()
    c.study.update({"seeds": (10, 11, 12, 13), "bootstrap": 60, **study})
    return c


def world(shares: Mapping[str, float]) -> dict[str, float]:
    """Symmetric in the languages and convex; the noise is learnt everywhere."""
    return {name: 2.8 if name == "noise" else 1.7 + float(np.exp(-2.5 * shares[name])) for name in shares}


def ends(run: Run) -> Mapping[str, float]:
    """Bandits go to the noise; the others to the best mixture, all the way at one strength and little at the others."""
    assert run.mixer is not None
    if run.mixer.name not in GOOD_STRENGTH:
        return synthetic_mixers.toward(run, BAD, 0.5)
    right = run.mixer.rate == GOOD_STRENGTH[run.mixer.name]
    return synthetic_mixers.toward(run, BEST, 0.9 if right else 0.2)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return synthetic_mixers.simulate(tmp_path_factory.mktemp("store"), small(), configuration, world, ends)


@pytest.fixture(scope="module")
def found(store: Store) -> Findings:
    return known_mixture.analyse(store, small().study.to_dict())


def verdicts(found: Findings) -> dict[str, str]:
    return {claim.statement: claim.verdict for claim in found.claims}


def test_the_laws_find_the_mixture_and_equal_shares_are_outside(found: Findings) -> None:
    best = found.best["exponential law"]
    for domain, share in BEST.items():
        assert best[domain].value == pytest.approx(share, abs=0.02)
    assert verdicts(found)["The exponential law finds the best mixture within its interval"] == "reproduced"


def test_the_strength_that_serves_best_is_chosen(found: Findings) -> None:
    assert {name: found.strengths[name] for name in GOOD_STRENGTH} == GOOD_STRENGTH


def test_who_moves_toward_the_best_mixture_is_told_from_who_moves_away(found: Findings) -> None:
    said = {name: verdicts(found)[f"{NAMES[name]} moves toward the best mixture"] for name in NAMES}
    assert said == {name: "reproduced" if name in GOOD_STRENGTH else "not reproduced" for name in NAMES}
    means = found.answers.groupby("method").distance.mean()
    assert means["aioli"] == pytest.approx(0.1 / 3, abs=0.01)  # nine tenths of the way from 1/3
    assert means["doremi"] == pytest.approx(0.55 / 3, abs=0.01)  # its answer is the mean over steps, 0.45 of the way
    assert means["odm"] > 1 / 3 + 0.1


def test_final_losses_are_those_of_models_trained_on_a_proxys_answer(found: Findings) -> None:
    gaps = found.differences.set_index("method")
    assert (gaps.n == 4).all()
    truth = np.mean(list(world(BEST).values())) - np.mean(list(world(dict.fromkeys(BEST, 1 / 3)).values()))
    assert gaps.value[KNOWN] == pytest.approx(truth, abs=0.002)
    answer = {"lower": 1 / 3 + 0.45 / 6, "noise": 1 / 3 - 0.45 / 3, "upper": 1 / 3 + 0.45 / 6}
    proxy = np.mean(list(world(answer).values())) - np.mean(list(world(dict.fromkeys(BEST, 1 / 3)).values()))
    assert gaps.value["doremi"] == pytest.approx(proxy, abs=0.004)
    assert (gaps.wide_low < gaps.low).all()
    assert verdicts(found)["Some online mixer beats stratified"] == "reproduced"
    assert verdicts(found)["ODM ends with a lower mean held-out loss than stratified"] == "not reproduced"


def test_the_assumptions_are_measured(found: Findings) -> None:
    said = verdicts(found)
    assert said["The known best mixture beats stratified sampling"] == "reproduced"
    assert said["The mean loss is convex between the languages"] == "reproduced"
    assert said["The languages are equally hard: their shares can be swapped within half of that gain"] == "reproduced"
    row = found.lattice.loc[found.lattice.loss.idxmin()]
    assert [row.lower, row.noise, row.upper] == [0.5, 0.0, 0.5]


def test_a_task_whose_languages_differ_is_told(tmp_path: Path) -> None:
    def unequal(shares: Mapping[str, float]) -> dict[str, float]:
        return world(shares) | {"upper": 1.7 + float(np.exp(-6 * shares["upper"]))}

    store = synthetic_mixers.simulate(tmp_path, small(), configuration, unequal, ends)
    found = known_mixture.analyse(store, small().study.to_dict())
    said = verdicts(found)
    assert said["The languages are equally hard: their shares can be swapped within half of that gain"] != "reproduced"
    assert said["The exponential law finds the best mixture within its interval"] == "not reproduced"


def test_the_page_says_the_answer_and_holds_every_figure(store: Store, found: Findings) -> None:
    page, figures = known_mixture_page.page(store, found)
    text = page.text()
    assert known_mixture.headline(found).split("(")[0] in text
    assert text.count('src="data:image/png;base64,') == len(figures) == 4
    assert "5 of 7 online mixers move toward it" in known_mixture_page.summary(found)
    record = json.loads(json.dumps(known_mixture_page.record(found), allow_nan=False))
    assert record["best"]["exponential law"]["noise"]["value"] == found.best["exponential law"]["noise"].value


def test_settings_and_stores_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"study: unknown key 'best_'; did you mean 'best'"):
        known_mixture.settings_of({**small().study.to_dict(), "best_": {}})
    with pytest.raises(ConfigError, match=r"study\.best = .*: expected two domains at 0\.5 and one at 0"):
        known_mixture.settings_of({**small().study.to_dict(), "best": {"lower": 0.6, "noise": 0.0, "upper": 0.4}})
    with pytest.raises(ConfigError, match="expected finished runs; run the sweep to its end"):
        known_mixture.analyse(Store(tmp_path), small().study.to_dict())


def test_the_full_setting_is_the_same_study() -> None:
    full = configuration.get_config("full")
    assert set(full.study) == set(small().study)
    assert len(runs_of(full, configuration.get_stages(full))) > len(runs_of(small(), configuration.get_stages(small())))
