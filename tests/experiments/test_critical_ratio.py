"""The study against a store with known laws: its answers, its page, its record, its refusals."""

import json
from pathlib import Path

import numpy as np
import pytest

import synthetic
from experiments import critical_ratio, critical_ratio_page
from experiments.branches import branches, crossing
from experiments.critical_ratio import Findings
from scaling.fields import ConfigError
from scaling.fitting import Fit
from scaling.store import Store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return synthetic.write_store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def found(store: Store) -> Findings:
    return critical_ratio.analyse(store, synthetic.STUDY)


def test_the_cmr_law_recovers_every_critical_share(found: Findings) -> None:
    for answer in found.answers:
        truth = synthetic.critical_share(answer.width)
        assert answer.cmr.refusal is None
        assert answer.cmr.value == pytest.approx(truth, abs=0.01)
        assert answer.cmr.low <= truth <= answer.cmr.high


def test_lines_between_measurements_agree_with_the_law(found: Findings) -> None:
    for answer in found.answers:
        assert list(answer.measured) == ["0", "1"]
        assert list(answer.measured.values()) == pytest.approx([answer.cmr.value] * 2, abs=0.03)


def test_losses_are_held_against_the_own_trunk(store: Store) -> None:
    table = branches(store, "code")
    prose = table[(table.domain == "prose") & (table.share == 0.5) & (table.width == 16) & table["last"]]
    expected = synthetic.ALPHA * 0.25 + synthetic.BETA
    np.testing.assert_allclose(prose.change, expected, atol=0.004)
    start = 2.0 + 30 / 6000**0.5 + 0.01  # the mean of two trunks that differ by 0.02
    np.testing.assert_allclose(prose.loss, start + prose.change, atol=1e-12)


def test_a_share_that_never_crosses_has_no_measured_answer(store: Store) -> None:
    table = branches(store, "code")
    last = table[(table.domain == "prose") & (table.width == 16) & (table.seed == 0) & table["last"]]
    assert np.isnan(crossing(last, tolerance=9.0))
    assert crossing(last, tolerance=-9.0) == 0.0


def test_growth_with_size_is_found_where_it_is(found: Findings) -> None:
    claim, = (claim for claim in found.claims if "grows" in claim.statement)
    assert claim.verdict == "reproduced"
    truth = synthetic.critical_share(48) - synthetic.critical_share(16)
    assert claim.value == pytest.approx(truth, abs=0.01)


def test_record_is_json_whose_fits_predict_identically(found: Findings) -> None:
    record = json.loads(json.dumps(critical_ratio_page.record(found), allow_nan=False))
    fit = found.fits["cmr-ratio width 16"]
    again = Fit.from_json(record["fits"]["cmr-ratio width 16"])
    np.testing.assert_array_equal(again.predict({"R": [0.2, 0.9]}), fit.predict({"R": [0.2, 0.9]}))
    assert record["answers"][0]["cmr"]["value"] == found.answers[0].cmr.value


def test_the_page_is_self_contained_and_says_the_answer(store: Store, found: Findings) -> None:
    page, figures = critical_ratio_page.page(store, found)
    text = page.text()
    assert critical_ratio_page.headline(found).split("(")[0] in text
    assert text.count('src="data:image/png;base64,') == len(figures) == 5
    assert "http" not in text
    assert all(note.split("'")[0] in text for note in found.not_identified)
    assert all(png.startswith(b"\x89PNG") for png in figures.values())


def test_the_headline_says_when_everything_is_within_the_tolerance(store: Store) -> None:
    found = critical_ratio.analyse(store, {**synthetic.STUDY, "tolerance": 5.0, "bootstrap": 20})
    assert "all may be code" in critical_ratio_page.headline(found)


def test_a_store_without_finished_branches_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected finished branches into 'code' to analyse; run the sweep"):
        critical_ratio.analyse(Store(tmp_path), synthetic.STUDY)
    running = synthetic.write_store(tmp_path, status="running")
    with pytest.raises(ConfigError, match="finished branches"):
        critical_ratio.analyse(running, synthetic.STUDY)


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"study: unknown key 'tolerence'; did you mean 'tolerance'"):
        critical_ratio.settings_of({**synthetic.STUDY, "tolerence": 0.1})
