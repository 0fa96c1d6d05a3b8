"""The study of the CMR laws against branches whose turning points and losses follow them exactly, but for noise."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import synthetic
from configs import cmr as configuration
from experiments import cmr, cmr_claims, cmr_page
from experiments.branches import branches, sharing
from experiments.cmr import Findings
from scaling.config import run_from
from scaling.fields import ConfigError
from scaling.fitting import Fit
from scaling.store import Store
from scaling.sweeps.sweep import Sweep

STEPS = (0, 5, 10, 15, 20, 30, 40, 60, 80, 120, 160, 240, 400)
STUDY = {
    "name": "cmr", "general": "prose", "target": "code", "tolerance": 0.05, "widths": (16, 24, 48),
    "seeds": (0, 1, 2), "shares": (0.0, 0.15, 0.25, 0.35, 0.45, 0.7, 1.0), "branch_steps": 400,
    "branch_evaluations": STEPS[1:], "branch_peak": 1e-3, "answer_steps": (30, 40), "bootstrap": 20, "level": 0.95,
}
ASYMPTOTE = 0.9


def coefficient(width: int) -> float:
    return -110 * (16 / width) ** 0.15


def critical_share(width: int, tokens: float) -> float:
    return coefficient(width) * tokens**-0.5 + ASYMPTOTE


def turns_at(width: int, share: float) -> float:
    return (coefficient(width) / (share - ASYMPTOTE)) ** 2 if share < ASYMPTOTE else 1e7


def change(width: int, share: float, step: int, shift: float) -> dict[str, float]:
    """The general loss turns at T0 with 0.2 R^2 nats/token, the domain's follows a power of tokens and ratio."""
    if share == 0:
        return {"prose": -0.001 * step**0.5, "code": 0.0}
    part = step * 1024 / turns_at(width, share)
    late = (step / STEPS[-1]) ** 0.5
    return {"prose": 0.2 * share**2 * (2 * part**0.5 - part) + shift * late,
            "code": -(0.3 * share**0.3 + shift) * late}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return synthetic.write_branches(tmp_path_factory.mktemp("cmr"), STUDY, STEPS, change, noise=3e-4)


@pytest.fixture(scope="module")
def found(store: Store) -> Findings:
    return cmr.analyse(store, STUDY)


def claim_of(found: Findings, part: str) -> Any:
    claim, = (claim for claim in found.claims if part in claim.statement)
    return claim


def test_turning_points_are_recovered(found: Findings) -> None:
    for size in found.sizes:
        for share in (0.15, 0.25, 0.35, 0.45):
            assert size.curve.turning[share].value == pytest.approx(turns_at(size.width, share), rel=0.02)


def test_ratios_that_turn_too_high_or_too_late_are_left_out(found: Findings) -> None:
    for size in found.sizes:
        assert list(size.curve.left_out) == [0.7, 1.0]
        assert "more than epsilon = 0.05" in size.curve.left_out[0.7].reason
        assert "outside the measured" in size.curve.left_out[1.0].reason


def test_the_critical_ratio_is_recovered_by_tokens_and_size(found: Findings) -> None:
    for size in found.sizes:
        for tokens in (30 * 1024, 40 * 1024):
            decision = size.critical[tokens]
            assert decision.refusal is None
            assert decision.value == pytest.approx(critical_share(size.width, tokens), abs=0.005)


def test_the_law_is_not_read_beyond_its_turning_points(found: Findings) -> None:
    decision = cmr.critical_at(found.sizes[0].curve, 400 * 1024.0, 0.95)
    assert decision.refusal is not None
    assert decision.refusal.kind == "extrapolated"
    assert "add ratios that turn there" in decision.refusal.reason


def test_growth_with_tokens_and_size_is_found_where_it_is(found: Findings) -> None:
    tokens = claim_of(found, "grows with the tokens")
    rises = [critical_share(w, 40 * 1024) - critical_share(w, 30 * 1024) for w in STUDY["widths"]]
    assert tokens.value == pytest.approx(np.mean(rises), abs=0.005)
    assert tokens.verdict == "reproduced"
    size = claim_of(found, "critical ratio grows with model size")
    rise = critical_share(48, 40 * 1024) - critical_share(16, 40 * 1024)
    assert size.value == pytest.approx(rise, abs=0.01)
    assert size.verdict == "reproduced"


def test_an_unseen_ratio_is_predicted_where_the_law_holds(found: Findings) -> None:
    claim, _ = (claim for claim in found.claims if "unseen ratio within 0.05%" in claim.statement)
    assert claim.n == 3 * 4  # widths x inner ratios
    assert claim.value < 5e-4
    assert claim.verdict == "reproduced"
    assert claim_of(found, "domain loss at an unseen ratio better").verdict == "reproduced"


def test_a_law_that_does_not_hold_is_no_better_than_a_line(found: Findings) -> None:
    assert claim_of(found, "general loss at an unseen ratio better").verdict == "not reproduced"  # no power of R here


def test_the_line_between_neighbours_is_the_baseline(found: Findings) -> None:
    rows = found.unseen[(found.unseen.role == "domain") & (found.unseen.width == 16)].set_index("share")
    level = rows.loss[0.25] + 0.3 * 0.25**0.3
    expected = level - 0.3 * (0.15**0.3 + 0.35**0.3) / 2
    assert rows.line[0.25] == pytest.approx(expected, abs=2e-3)


def test_the_variance_of_means_is_that_of_the_runs() -> None:
    rng = np.random.default_rng(0)
    sd, ratios, trunks = 0.01, 40, 50
    runs_RxS = rng.normal(scale=sd, size=(ratios, trunks)) + rng.normal(size=(ratios, 1)) + rng.normal(size=trunks)
    assert cmr.variance_of_means(runs_RxS) == pytest.approx(sd**2 / trunks, rel=0.08)


def test_the_leverage_is_that_of_interpolation_through_three_ratios() -> None:
    """Through as many ratios as parameters the law passes exactly: variances add with the squared weights."""
    at_R, share = np.array([0.2, 0.5, 1.0]), 0.3
    basis_Rx3 = np.stack([at_R, at_R * np.log(at_R), np.ones(3)], axis=1)
    weight_R = np.array([share, share * np.log(share), 1.0]) @ np.linalg.inv(basis_Rx3)
    found = cmr.leverage({"alpha": 1.0, "s": 1.0, "beta": 7.0}, at_R, share)
    assert found == pytest.approx((weight_R**2).sum(), rel=1e-6)


def test_noise_is_not_counted_against_the_law() -> None:
    rng = np.random.default_rng(1)
    n = 8000
    unseen = pd.DataFrame({"role": "domain", "N": np.repeat(np.arange(20), 400), "loss": 2.0, "line": 2.1,
                           "law": 2.0 + 0.004 * rng.normal(size=n), "variance": 0.004**2})
    plain, corrected = cmr_claims.unseen_ratio(unseen, 0.95)
    assert plain.verdict == "not reproduced"  # 0.16% of noise alone
    assert corrected.verdict != "not reproduced"
    wrong = unseen.assign(law=unseen.law + 0.004)
    _, corrected = cmr_claims.unseen_ratio(wrong, 0.95)
    assert corrected.value == pytest.approx(0.002, rel=0.1)
    assert corrected.verdict == "not reproduced"


def test_sharing_is_counted_against_every_branch_with_its_own_trunk(store: Store) -> None:
    row = sharing(store).set_index("width").loc[16]
    trunk, branch, branches_a_trunk = 800 * 1e6, 400 * 1e6, len(STUDY["shares"])
    assert row.shared_flops == pytest.approx(3 * (trunk + branches_a_trunk * branch))
    assert row.scratch_flops == pytest.approx(3 * branches_a_trunk * (trunk + branch))
    assert row.scratch_seconds == pytest.approx(3 * branches_a_trunk * 12.0)


def test_a_branch_from_the_middle_of_a_trunk_owes_half_of_it(store: Store, tmp_path: Path) -> None:
    runs = store.read("runs")
    Store(tmp_path).write("runs", "all", runs.assign(parent_step=runs.parent_step / 2))
    row = sharing(Store(tmp_path)).set_index("width").loc[16]
    assert row.scratch_flops == pytest.approx(3 * len(STUDY["shares"]) * 800e6)


def test_sizes_without_a_critical_ratio_leave_the_claims_open(store: Store) -> None:
    found = cmr.analyse(store, {**STUDY, "tolerance": 0.006, "bootstrap": 5})
    assert all(size.curve.curve is None for size in found.sizes)
    assert claim_of(found, "grows with the tokens").verdict == "inconclusive"
    assert claim_of(found, "critical ratio grows with model size").verdict == "inconclusive"
    assert any("fewer than three ratios turn" in note for note in found.not_identified)
    assert "no critical share" in cmr_page.headline(found)


def test_a_claim_about_sharing_needs_a_measured_saving() -> None:
    cost = pd.DataFrame({"shared_seconds": [1.0, 2.1, 3.0], "scratch_seconds": [4.0, 8.0, 12.3],
                         "shared_flops": [1.0] * 3, "scratch_flops": [4.0] * 3})
    assert cmr_claims.sharing_saves(cost, 0.95).verdict == "reproduced"
    dear = cost.assign(shared_seconds=cost.scratch_seconds * [0.9, 0.91, 0.92])
    assert cmr_claims.sharing_saves(dear, 0.95).verdict == "not reproduced"


def test_record_is_json_and_the_page_shows_every_figure(store: Store, found: Findings) -> None:
    record = json.loads(json.dumps(cmr_page.record(found), allow_nan=False))
    fit = found.sizes[0].ratio_laws["domain"]
    again = Fit.from_json(record["sizes"][0]["fits"]["domain loss against ratio"])
    np.testing.assert_array_equal(again.predict({"R": [0.2, 0.9]}), fit.predict({"R": [0.2, 0.9]}))
    page, figures = cmr_page.page(store, found)
    text = page.text()
    assert text.count('src="data:image/png;base64,') == len(figures) == 6
    assert all(claim.verdict in cmr_page.summary(found) for claim in found.claims)
    assert "http" not in text


def test_bad_settings_and_an_empty_store_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected finished branches into 'code'"):
        cmr.analyse(Store(tmp_path), STUDY)
    with pytest.raises(ConfigError, match=r"study.answer_steps = \(7, 30\): expected two or more of the evaluated"):
        cmr.analyse(Store(tmp_path), {**STUDY, "answer_steps": (7, 30)})
    with pytest.raises(ConfigError, match=r"unknown key 'ful'; did you mean 'full'"):
        configuration.get_config("ful")


@pytest.mark.parametrize("setting", ["small", "full"])
def test_both_settings_expand_to_trunks_and_branches(setting: str) -> None:
    c = configuration.get_config(setting)
    values = {name: value for name, value in c.items() if name != "study"}
    runs = Sweep(run_from(values), tuple(configuration.get_stages(c))).runs()
    study = c.study
    trunks = len(study.widths) * len(study.seeds)
    assert len(runs) == trunks * (1 + len(study.shares))
    assert cmr.fields.convert(cmr.Settings, study.to_dict(), "study").name == "cmr"
    trunk, branch = runs[0], runs[-1]
    assert trunk.schedule.peak * trunk.schedule.floor == pytest.approx(branch.schedule.peak)  # the rate stays


def test_the_table_holds_branches_into_the_target_alone(store: Store) -> None:
    with pytest.raises(ConfigError, match="branches into 'headers'"):
        branches(store, "headers")
