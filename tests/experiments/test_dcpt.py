"""The study of the D-CPT law against branches that follow it exactly, but for noise and what comes before the law."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import optimize

import synthetic
from configs import dcpt as configuration
from experiments import dcpt, dcpt_applications, dcpt_cross_domain, dcpt_held_out, dcpt_page, dcpt_runs
from experiments.dcpt import Findings
from experiments.dcpt_applications import Trial, nearest_widths, neighbours
from scaling.config import run_from
from scaling.fields import ConfigError
from scaling.fitting import Fit
from scaling.store import Store
from scaling.sweeps.sweep import Sweep

STEPS = (0, 10, 80, 140, 220, 300, 400)
PER_STEP = 1024
STUDY = {
    "name": "dcpt", "general": "prose", "target": "code", "third": "headers", "rise": 0.03,
    "widths": (16, 24, 32, 40, 48), "seeds": (0, 1), "shares": (0.0, 0.2, 0.5, 0.8, 1.0), "third_shares": (0.5, 1.0),
    "branch_steps": 400, "branch_evaluations": STEPS[1:], "branch_peak": 1e-3, "early_step": 10, "fit_from": 0.2,
    "held_share": 0.5, "held_from": 0.8, "check_width": 32, "check_seeds": (2, 3, 4), "limited_steps": 100,
    "budget": 3.2e10, "allocation_share": 0.5, "bootstrap": 10, "level": 0.95,
}  # a fifth of the rows is held out each time, so that every fit has one shape and compiles once
GENERAL = {"E": 1.8, "A": 30.0, "alpha": 0.5, "B": 3.0, "eta": 0.5, "beta": 0.3, "C": 0.05, "eps": 0.1, "gamma": 1.0}
DOMAIN = {"E": 1.4, "A": 30.0, "alpha": 0.5, "B": 40.0, "eta": 0.3, "beta": 0.35, "C": 0.5, "eps": 0.3, "gamma": 0.8}
EARLY_FALL = {"prose": 2e-4, "code": 3e-2, "headers": 5e-2}  # nats/token at the early step


def d_cpt(p: dict[str, float], n: float, d: float, r: float) -> float:
    return (p["E"] + p["A"] / n ** p["alpha"] + p["B"] * r ** p["eta"] / d ** p["beta"]
            + p["C"] / (r + p["eps"]) ** p["gamma"])


def into(target: str, seeds: tuple[int, ...]):
    """Changes that put the mean over trunks of these seeds on the law; headers lie above code by a constant."""

    def change(width: int, share: float, step: int, shift: float) -> dict[str, float]:
        if step in (0, 10):
            return {domain: -EARLY_FALL[domain] * (step > 0) for domain in EARLY_FALL}
        n, d = synthetic.PARAMETERS[width], step * PER_STEP
        start = synthetic.starts(width, np.mean(seeds))
        own = d_cpt(DOMAIN, n, d, share) + (0.0 if target == "code" else start["headers"] - start["code"])
        found = {"prose": d_cpt(GENERAL, n, d, 1 - share) - start["prose"] + shift, target: own - start[target] + shift}
        return {"code": 0.0, "headers": 0.0, **found}

    return change


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder, seeds = tmp_path_factory.mktemp("dcpt"), STUDY["seeds"]
    synthetic.write_branches(folder, STUDY, STEPS, into("code", seeds), noise=5e-4)
    third = {**STUDY, "shares": STUDY["third_shares"]}
    return synthetic.write_branches(folder, third, STEPS, into("headers", seeds), 5e-4, target="headers", name="third")


@pytest.fixture(scope="module")
def asked(store: Store) -> dict[int, list[Trial]]:
    return dcpt.to_check(store, STUDY)


@pytest.fixture(scope="module")
def found(store: Store, asked: dict[int, list[Trial]]) -> Findings:
    for width, trials in asked.items():
        for trial in trials:
            study = {"widths": (width,), "seeds": STUDY["check_seeds"], "shares": (trial.share,)}
            synthetic.write_branches(store.root, study, (0, trial.steps // 2, trial.steps),
                                     into("code", STUDY["seeds"]), 1e-4,
                                     name=f"check-{width}-{trial.share}-{trial.steps}")
    return dcpt.analyse(store, STUDY)


def claim_of(found: Findings, *parts: str):
    claim, *_ = (claim for claim in found.claims if all(part in claim.statement for part in parts))
    return claim


def check_of(found: Findings, name: str):
    check, = (check for check in found.checks if check.application.name == name)
    return check


def test_the_trade_off_is_where_the_law_meets_the_limit(found: Findings) -> None:
    n, d = synthetic.PARAMETERS[32], 400 * PER_STEP
    limit = 1.03 * synthetic.starts(32, 0.5)["prose"]
    truth = optimize.brentq(lambda share: d_cpt(GENERAL, n, d, 1 - share) - limit, 0.1, 1)
    decision = check_of(found, "trade-off").application.decision
    assert decision.refusal is None
    assert decision.value == pytest.approx(truth, abs=0.01)


def test_limited_tokens_are_best_used_where_the_laws_minimum_is(found: Findings) -> None:
    n = synthetic.PARAMETERS[32]
    truth = optimize.minimize_scalar(lambda r: d_cpt(DOMAIN, n, 100 * PER_STEP / r, r), bounds=(0.05, 1)).x
    assert check_of(found, "limited tokens").application.decision.value == pytest.approx(truth, abs=0.06)


def test_the_allocation_minimises_the_loss_at_the_budget(found: Findings) -> None:
    truth = np.exp(optimize.minimize_scalar(
        lambda log_n: d_cpt(DOMAIN, np.exp(log_n), 3.2e10 / 6 / np.exp(log_n), 0.5), bounds=(7, 14)).x)
    decision = check_of(found, "allocation").application.decision
    assert decision.value == pytest.approx(truth, rel=0.15)


def test_follow_ups_ask_for_the_recommendation_and_its_neighbours(
    asked: dict[int, list[Trial]], found: Findings
) -> None:
    trials = [trial for check in found.checks for trial in check.application.trials]
    assert sorted(set(trials)) == sorted(trial for group in asked.values() for trial in group)
    for check in found.checks:
        assert len(check.application.trials) == 3
    for trial in check_of(found, "limited tokens").application.trials:
        assert trial.steps * trial.share == pytest.approx(100, rel=0.01)
    for trial in check_of(found, "allocation").application.trials:
        assert 6 * synthetic.PARAMETERS[trial.width] * trial.steps * PER_STEP == pytest.approx(3.2e10, rel=0.01)


def test_recommendations_that_hold_are_found_to_hold(found: Findings) -> None:
    for name in ("trade-off", "limited tokens", "allocation"):
        assert claim_of(found, "predicts the domain loss of what it recommends", name).verdict == "reproduced"
    assert claim_of(found, "rises by the tolerated 3%").verdict == "reproduced"
    assert claim_of(found, "allocation", "lowest").verdict == "reproduced"
    assert {check.trials.n.min() for check in found.checks} == {3}


def test_a_recommendation_that_was_not_trained_leaves_its_claims_open(store: Store, found: Findings) -> None:
    settings = dcpt.settings_of(STUDY)
    table = dcpt_runs.read(store, "code", settings)
    checks = [dcpt_applications.check(check.application, table[~table.fresh], found.laws, settings)
              for check in found.checks]
    for claim in dcpt_applications.claims(checks, settings):
        assert claim.verdict == "inconclusive"
        assert claim.n == 0


def test_a_size_beyond_the_trained_ones_is_refused_and_the_nearest_tried(store: Store, found: Findings) -> None:
    settings = dcpt.settings_of({**STUDY, "budget": 2e12})
    *_, best = dcpt_applications.decide(dcpt_runs.read(store, "code", settings), found.laws, settings)
    assert best.decision.refusal is not None
    assert best.decision.refusal.kind == "extrapolated"
    assert best.trials[0].width == 48


def test_a_limit_that_no_share_meets_asks_for_no_training(store: Store, found: Findings) -> None:
    settings = dcpt.settings_of({**STUDY, "rise": -0.3})
    table = dcpt_runs.read(store, "code", settings)
    trade, *_ = dcpt_applications.decide(table, found.laws, settings)
    assert trade.trials == ()
    check = dcpt_applications.check(trade, table, found.laws, settings)
    met, *_ = dcpt_applications.claims([check, *found.checks[1:]], settings)
    assert met.verdict == "inconclusive"
    assert "exceeds the limit" in met.measured


def test_a_recommendation_that_misses_is_found_to_miss(found: Findings) -> None:
    settings = dcpt.settings_of(STUDY)
    trade = check_of(found, "trade-off")
    off = dcpt_applications.Check(trade.application, trade.trials, trade.runs.assign(rise=trade.runs.rise + 0.02))
    others = [check for check in found.checks if check is not trade]
    met, *_ = dcpt_applications.claims([off, *others], settings)
    assert met.value == pytest.approx(0.02, abs=0.003)
    assert met.verdict == "not reproduced"


def test_the_law_beats_the_guesses_where_it_holds(found: Findings) -> None:
    for role in ("domain", "general"):
        for kind in ("a size not seen", "tokens not seen", "a ratio not seen"):
            claim = claim_of(found, f"predicts the {role} loss of", kind, "than a law without the share")
            assert claim.verdict == "reproduced", claim
    assert claim_of(found, "domain loss of a size not seen", "next smaller").verdict == "reproduced"
    size = next(each for each in found.held_out if each.kind == "size" and each.role == "domain")
    assert set(size.rows.width) == {48}
    assert size.r2 > 0.99


def test_guesses_are_what_was_seen_nearest() -> None:
    seen = pd.DataFrame([(n, share, d, f"{n}-{share}", n + 10 * share + d)
                         for n in (1.0, 2.0) for share in (0.2, 0.6) for d in (100.0, 200.0)],
                        columns=["N", "share", "D", "run_id", "loss"])
    held = seen[seen.N == 2].assign(N=3.0)
    np.testing.assert_allclose(dcpt_held_out.guesses(seen, held, "size"), held.loss)
    held = seen.assign(D=seen.D + 200)
    expected = seen.groupby("run_id").loss.transform("max")
    np.testing.assert_allclose(dcpt_held_out.guesses(seen, held, "data"), expected)
    held = seen[seen.share == 0.6].assign(share=0.55)
    np.testing.assert_allclose(dcpt_held_out.guesses(seen, held, "ratio"), held.loss)


def test_a_gain_counts_trunks_and_refits() -> None:
    rng = np.random.default_rng(0)
    trunk_H = np.repeat(np.arange(40), 5)
    of_trunk = rng.normal(0.1, 0.02, 40)[trunk_H]
    exact = np.zeros((200, 200))
    alone = dcpt_held_out.gain(of_trunk[None], exact, trunk_H, 0.95)
    assert alone.value == pytest.approx(of_trunk.mean())
    assert (alone.high - alone.low) / 2 == pytest.approx(1.96 * 0.02 / np.sqrt(40), rel=0.25)
    refits = rng.normal(0, 0.05, (200, 1)) * np.ones((1, 200))
    refits[0] = 0
    both = dcpt_held_out.gain(of_trunk[None], refits, trunk_H, 0.95)
    assert (both.high - both.low) / 2 == pytest.approx(1.96 * 0.05, rel=0.25)


@pytest.mark.parametrize(("share", "apart", "expected"), [
    (0.634, 0.1, [0.63, 0.53, 0.73]), (0.97, 0.1, [0.97, 0.87, 1.0]), (1.0, 0.2, [1.0, 0.8, 0.6]),
    (0.001, 0.1, [0.05, 0.03, 0.15]), (np.nan, 0.1, []),
])
def test_neighbours_lie_on_either_side(share: float, apart: float, expected: list[float]) -> None:
    assert neighbours(share, apart) == expected


@pytest.mark.parametrize(("parameters", "expected"), [
    (13_000, [24, 16, 32]), (1e3, [16, 24, 32]), (1e9, [48, 32, 40]), (26_000, [32, 24, 40]),
])
def test_the_nearest_width_comes_first(parameters: float, expected: list[int]) -> None:
    assert nearest_widths(parameters, pd.Series(synthetic.PARAMETERS)) == expected


def test_coefficients_of_a_domain_are_its_first_loss_and_decline(store: Store) -> None:
    settings = dcpt.settings_of(STUDY)
    table = dcpt_runs.read(store, "headers", settings)
    rows = dcpt_cross_domain.coefficients(table[~table.fresh], "headers", 1.0, settings).set_index("N")
    assert rows.k1[6_000.0] == pytest.approx(synthetic.starts(16, 0.5)["headers"])
    np.testing.assert_allclose(rows.k2, rows.k1 / (rows.k1 - 5e-2))
    np.testing.assert_allclose(rows.fall, 5e-2 / (10 * PER_STEP) * 1e6)


def test_the_guesses_for_a_new_domain_move_and_scale_the_seen_one(found: Findings) -> None:
    """Headers lie above code by the difference of the trunk's losses here, so that the moved law is right."""
    rows = found.cross.rows
    np.testing.assert_allclose(rows.moved, rows.loss, rtol=5e-3)
    first, moved = rows.k1, rows.k1 - rows.moved
    np.testing.assert_allclose(first - rows.scaled, moved * EARLY_FALL["headers"] / EARLY_FALL["code"])
    claim = claim_of(found, "cross-domain", "than the law of code moved to its first loss")
    assert claim.verdict != "reproduced"
    assert claim.n == 10


def test_record_and_page(store: Store, found: Findings) -> None:
    record = json.loads(json.dumps(dcpt_page.record(found), allow_nan=False))
    again = Fit.from_json(record["fits"]["d-cpt domain"])
    point = {"N": 1e4, "D": 2e5, "r": 0.5}
    assert again.predict(point) == found.laws["domain"].predict(point)
    page, figures = dcpt_page.page(store, found)
    assert page.text().count('src="data:image/png;base64,') == len(figures) == 3
    assert "Trained on 3 fresh trunks" in page.text()
    assert all(claim.measured in dcpt_page.summary(found) for claim in found.claims)


@pytest.mark.parametrize(("change", "message"), [
    ({"check_seeds": (1, 2)}, r"study.check_seeds = \(1, 2\): expected other seeds"),
    ({"check_width": 56}, "study.check_width = 56: expected one of"),
    ({"held_share": 1.0}, "study.held_share = 1.0: expected one of the inner shares"),
    ({"early_step": 7}, "study.early_step = 7: expected one of the evaluated steps"),
    ({"third_shares": (0.5,)}, "study.third_shares = .*the domain alone"),
    ({"shares": (0.2, 0.5, 1.0)}, "study.shares = .*the general corpus alone"),
])
def test_settings_that_cannot_answer_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dcpt.settings_of({**STUDY, **change})


def test_a_store_without_branches_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected finished branches into 'code'"):
        dcpt.analyse(Store(tmp_path), STUDY)


@pytest.mark.parametrize("setting", ["small", "full"])
def test_both_settings_expand_with_their_follow_ups(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    c = configuration.get_config(setting)
    values = {name: value for name, value in c.items() if name != "study"}
    study = c.study
    trunks = len(study.widths) * len(study.seeds)
    stages = configuration.get_stages(c)
    assert len(Sweep(run_from(values), tuple(stages)).runs()) == trunks * (
        1 + len(study.shares) + len(study.third_shares))
    width = study.check_width
    trials = {width: [Trial(width, 0.7, 100), Trial(width, 1.0, 64)]}
    monkeypatch.setattr(dcpt, "to_check", lambda store, settings: trials)
    follow_up, = configuration.FOLLOW_UPS
    runs = Sweep(run_from(values), tuple(follow_up(c, Store("nowhere")))).runs()
    assert len(runs) == len(study.check_seeds) * (1 + 2)
    branch = runs[-1]
    assert (branch.training.seed, branch.model.width) == (study.check_seeds[-1], width)
    assert dict(branch.data.mixture[0][1]) == {"code": 1.0, "prose": 0.0}
    assert branch.training.duration.steps == 64
