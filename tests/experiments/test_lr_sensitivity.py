"""The study of sensitivity against sweeps whose losses, and so whose sensitivities, are known."""

import json
import math
import zlib
from pathlib import Path

import numpy as np
import pytest
import synthetic_rates
from synthetic_rates import UNTRAINED

from configs import lr_sensitivity as configuration
from experiments import lr_sensitivity, lr_sensitivity_page
from experiments.claims import Claim
from experiments.lr_sensitivity import ARMS, CONTRASTS, Findings
from scaling.config import Run
from scaling.fields import ConfigError
from scaling.store import Store

BEST = 2.0  # least loss of every arm, before its seed's shift


def edge_of(run: Run) -> float:
    """The highest rate that a model bears: raised by qk-norm and by independent decay, not by the rest."""
    return 0.02 * (10 if run.model.qk_norm else 1) * (1 if run.optimizer.decay_convention == "independent" else 0.1)


def loss_of(run: Run) -> float:
    """0.1 a factor of 10 below the edge; above it untrained for even seeds, diverged for odd ones."""
    if run.schedule.peak > edge_of(run):
        return math.inf if run.training.seed % 2 else UNTRAINED + 1
    worse = 0.02 if run.model.placement == "peri" else 0.0
    noise = np.random.default_rng(zlib.crc32(run.run_id.encode())).normal(scale=1e-5)
    return BEST + 0.01 * run.training.seed + 0.1 * math.log10(edge_of(run) / run.schedule.peak) + worse + noise


@pytest.fixture(scope="module")
def config():
    return configuration.get_config()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, config) -> Store:
    store = Store(tmp_path_factory.mktemp("lr_sensitivity"))
    runs = synthetic_rates.expanded(config, configuration.get_stages(config))
    synthetic_rates.write_runs(store, "all", runs, loss_of)
    return store


@pytest.fixture(scope="module")
def found(store: Store, config) -> Findings:
    return lr_sensitivity.analyse(store, config.study.to_dict())


def claim_of(found: Findings, start: str) -> Claim:
    claim, = (claim for claim in found.claims if claim.statement.startswith(start))
    return claim


def known(rates: tuple[float, ...], edge: float, seed: int) -> float:
    """The sensitivity by hand."""
    least = 0.1 * math.log10(edge / max(rate for rate in rates if rate <= edge))
    terms = [UNTRAINED - BEST - 0.01 * seed if rate > edge else 0.1 * math.log10(edge / rate) for rate in rates]
    return sum(terms) / len(rates) - least


@pytest.mark.parametrize(("arm", "edge"), [("plain", 0.02), ("qk-norm", 0.2), ("z-loss", 0.02), ("both", 0.2),
                                           ("coupled decay", 0.002), ("no warm-up", 0.02), ("peri", 0.02)])
def test_the_sensitivity_of_every_arm_and_seed_is_the_known_one(found: Findings, arm: str, edge: float) -> None:
    values = lr_sensitivity.by_seed(found.arms, arm, "sensitivity")
    for seed in found.settings.seeds:
        shift = 0.02 if arm == "peri" else 0.0
        lost = sum(rate > edge for rate in found.settings.rates) / len(found.settings.rates)
        assert values[seed] == pytest.approx(known(found.settings.rates, edge, seed) - shift * lost, abs=1e-4)


def test_what_lowers_the_sensitivity_is_told_from_what_does_not(found: Findings) -> None:
    verdicts = {each.name: claim.verdict for each, claim in zip(CONTRASTS, found.claims, strict=False)}
    assert verdicts["qk-norm"] == "reproduced"
    assert verdicts["independent decay"] == "reproduced"
    assert verdicts["independent decay beside qk-norm and z-loss"] == "reproduced"
    claim = claim_of(found, "Qk-norm lowers")
    expected = np.mean([known(found.settings.rates, 0.2, seed) - known(found.settings.rates, 0.02, seed)
                        for seed in found.settings.seeds])
    assert claim.value == pytest.approx(expected, abs=1e-4)
    assert claim.low <= expected <= claim.high
    assert claim.n == len(found.settings.seeds)
    for name in ("z-loss", "warm-up", "warm-up beside qk-norm and z-loss"):
        assert abs(claim_of(found, f"{name[0].upper()}{name[1:]} lowers").value) < 1e-4, name


def test_an_intervention_that_raises_it_is_not_reproduced(found: Findings) -> None:
    turned = lr_sensitivity.Contrast("no qk-norm", "", having="plain", without="qk-norm")
    assert lr_sensitivity.lower_claim(turned, found.arms, found.settings).verdict == "not reproduced"


def test_equal_losses_at_the_best_rate_are_called_equal_and_others_not(found: Findings) -> None:
    for name in ("Qk-norm", "Z-loss"):
        assert claim_of(found, f"{name} leaves").verdict == "reproduced"
    best = lr_sensitivity.by_seed(found.arms, "plain", "best")
    assert best[3] == pytest.approx(BEST + 0.03 + 0.1 * math.log10(0.02 / 0.01), abs=1e-4)
    raised = found.arms.assign(best=found.arms.best + 0.1 * (found.arms.arm == "qk-norm"))
    assert lr_sensitivity.equal_claim(CONTRASTS[0], raised, found.settings).verdict == "not reproduced"


def test_runs_that_failed_are_told_apart_and_counted(found: Findings) -> None:
    plain = found.losses[found.losses.arm == "plain"]
    assert (plain.capped <= UNTRAINED).all()
    beyond = sum(rate > 0.02 for rate in found.settings.rates)
    note, = (note for note in found.notes if note.startswith("plain:"))
    assert note == (f"plain: of 35 runs {2 * beyond} diverged and {3 * beyond} ended above the loss before training; "
                    "all count as untrained")


def test_the_page_and_the_record_hold_the_answers(store: Store, found: Findings) -> None:
    record = json.loads(json.dumps(lr_sensitivity_page.record(found), allow_nan=False))
    assert [row["verdict"] for row in record["claims"]] == [claim.verdict for claim in found.claims]
    assert sum(row["loss"] is None for row in record["losses"]) == np.isinf(found.losses.loss).sum()
    page, figures = lr_sensitivity_page.page(store, found)
    assert set(figures) == {"losses", "sensitivity", "changes"}
    assert "lowered by qk-norm" in page.text()
    assert all(claim.measured in lr_sensitivity_page.summary(found) for claim in found.claims)


def test_a_sweep_that_lacks_runs_of_an_arm_is_refused(tmp_path: Path, config) -> None:
    runs = synthetic_rates.expanded(config, configuration.get_stages(config))
    store = Store(tmp_path)
    synthetic_rates.write_runs(store, "all", [run for run in runs if run.model.placement != "peri"], loss_of)
    with pytest.raises(ConfigError, match=r"store = 'runs of peri': expected 7 rates x 5 seeds an arm; run the sweep"):
        lr_sensitivity.analyse(store, config.study.to_dict())


@pytest.mark.parametrize(("changes", "message"), [
    ({"rates": (1e-3, 1e-2, 2e-2)}, r"study.rates = .*: expected 3 or more rising rates, equally far apart"),
    ({"seeds": (0,)}, r"study.seeds = \(0,\): expected 2 or more different seeds"),
    ({"sede": 1}, "unknown key 'sede'"),
])
def test_settings_that_answer_nothing_are_refused(config, changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        lr_sensitivity.settings_of({**config.study.to_dict(), **changes})


@pytest.mark.parametrize("setting", ["small", "full"])
def test_every_arm_is_trained_at_every_rate_and_both_decays_agree_at_one(setting: str) -> None:
    c = configuration.get_config(setting)
    runs = synthetic_rates.expanded(c, configuration.get_stages(c))
    assert len(runs) == len(ARMS) * len(c.study.rates) * len(c.study.seeds)
    decay = {convention: {run.optimizer.weight_decay for run in runs if run.optimizer.decay_convention == convention}
             for convention in ("independent", "coupled")}
    (independent,), (coupled,) = decay["independent"], decay["coupled"]
    assert coupled * c.study.agreeing_rate == pytest.approx(independent, rel=1e-12)
    assert independent * c.training.duration.steps == pytest.approx(10.0)
    np.testing.assert_allclose([run.schedule.floor * run.schedule.peak for run in runs], 1e-5, rtol=1e-12)
    assert {run.schedule.warmup.in_steps(1) for run in runs} == {0, c.training.duration.steps // 20}
