"""The study against a store with a known truth: its differences, verdicts, tables, page, record, refusals."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic_effects
from ml_collections import ConfigDict
from synthetic_continual import runs_of
from synthetic_effects import START, noise

from configs import radam_warmup as configuration
from experiments import radam_warmup, radam_warmup_page
from experiments.optimizer_effects import Findings, best_rate, by_seed, methods_table, outcomes, tuned
from scaling.config import Run
from scaling.fields import ConfigError
from scaling.store import Store

BEST, LAG, RELEASED, UNSURE = 3e-3, 0.3, 0.2, 0.01


def small() -> ConfigDict:
    c = synthetic_effects.configured(configuration, seeds=4)
    c.study.rates = (1e-3, 3e-3, 9e-3, 2.7e-2)
    return c


def truth(run: Run, step: int) -> float:
    """Adam with warm-up has its least at BEST; without, it lags by LAG above that with β₂ .999, and by UNSURE or
    -UNSURE in turn from seed to seed with .98; published RAdam equals warm-up; the released form is RELEASED worse.
    """
    peak, cold = run.schedule.peak, run.schedule.warmup.steps == 0
    loss = 2.0 + 0.1 * run.training.seed + 0.05 * math.log(peak / BEST, 3) ** 2 + noise(run)
    if run.optimizer.name == "radam":
        return loss + RELEASED * (run.optimizer.form == "released")
    lag = LAG if run.optimizer.b2 == 0.999 else UNSURE * (-1) ** run.training.seed
    return loss + lag * (cold and peak > 1.5 * BEST)


def fails(run: Run) -> bool:
    """Adam without warm-up diverges at the highest rate, with β₂ .999."""
    cold = run.optimizer.name == "adamw" and run.schedule.warmup.steps == 0
    return cold and run.schedule.peak > 2e-2 and run.optimizer.b2 == 0.999


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return synthetic_effects.write(tmp_path_factory.mktemp("store"), configuration, small(), truth, fails)[0]


@pytest.fixture(scope="module")
def found(store: Store) -> Findings:
    return radam_warmup.analyse(store, small().study.to_dict())


def test_the_lag_of_adam_without_warmup_is_found_where_it_is(found: Findings) -> None:
    none, lag = (claim for claim in found.claims if "lags" in claim.statement)
    assert (none.verdict, lag.verdict) == ("inconclusive", "reproduced")
    assert none.value == pytest.approx(0, abs=2e-3)
    failure = START - (2.15 + 0.05 * 4)  # of the highest rate, against warm-up there, mean over four seeds
    assert lag.value == pytest.approx((LAG + failure) / 2, abs=2e-3)
    assert lag.n == 4


def test_forms_of_radam_track_adam_with_warmup_or_not(found: Findings) -> None:
    tracks = [claim for claim in found.claims if "over all rates" in claim.statement]
    assert [claim.verdict for claim in tracks] == ["reproduced", "not reproduced"] * 2
    np.testing.assert_allclose([claim.value for claim in tracks], [0, RELEASED] * 2, atol=2e-3)
    ends = [claim for claim in found.claims if "each at its best rate" in claim.statement]
    assert [claim.verdict for claim in ends] == ["reproduced", "not reproduced"] * 2
    gains = [claim for claim in found.claims if "loses less" in claim.statement]
    assert [claim.verdict for claim in gains[2:]] == ["reproduced"] * 2


def test_a_failed_run_counts_with_the_loss_before_training(found: Findings) -> None:
    failed = found.table[found.table.failed]
    assert (len(failed), set(failed.loss)) == (4, {START})
    table = methods_table(found.table[found.table.b2 == 0.999]).set_index("method")
    assert table.failed.to_dict() == {"Adam, no warm-up": 4, "Adam, warm-up": 0, "RAdam, published": 0,
                                      "RAdam, released": 0}
    assert set(table["best rate"]) == {"0.003"}


def test_a_run_that_ends_above_its_start_has_failed(tmp_path: Path) -> None:
    store, _ = synthetic_effects.write(tmp_path, configuration, small(), lambda run, step: START + 1)
    table = radam_warmup.losses(store)
    assert table.failed.all()
    assert (table.loss == START).all()


def test_a_seed_has_no_say_in_its_own_rate() -> None:
    table = pd.DataFrame([("m", rate, seed, loss) for rate, losses in ((1.0, (1.0, 5.0, 5.0)), (2.0, (2.9, 2.9, 2.9)))
                          for seed, loss in enumerate(losses)], columns=["method", "peak", "seed", "loss"])
    assert tuned(table, "m").to_dict() == {0: 2.9, 1: 2.9, 2: 2.9}  # the others of seed 0 know nothing of its 1.0
    table.loc[table.seed == 1, "loss"] = [1.0, 2.9]
    assert tuned(table, "m").to_dict() == {0: 2.9, 1: 2.9, 2: 5.0}  # means of the others at rate 1: 3, 3, 1
    assert best_rate(table, "m") == 1.0
    assert by_seed(table, "m", [1.0, 2.0]).to_dict() == pytest.approx({0: 1.95, 1: 1.95, 2: 3.95})


def test_unfinished_sweeps_are_refused(tmp_path: Path, store: Store) -> None:
    with pytest.raises(ConfigError, match="expected runs to analyse; run the sweep to its end"):
        radam_warmup.losses(Store(tmp_path / "none"))
    runs = store.read("runs").assign(status="running")
    for name, table in (("runs", runs), ("curves", store.read("curves"))):
        Store(tmp_path).write(name, "all", table)
    with pytest.raises(ConfigError, match=r"runs = \{'running': 128\}: expected all of them done or diverged"):
        outcomes(Store(tmp_path), {}, radam_warmup.method_of)


def test_rates_that_are_all_low_are_refused(store: Store) -> None:
    with pytest.raises(ConfigError, match=r"study.rates = .* expected rates above 0.003, the best with warm-up"):
        radam_warmup.analyse(store, {**small().study.to_dict(), "rates": (1e-3, 3e-3)})


def test_a_rate_that_lacks_a_seed_is_refused(found: Findings) -> None:
    with pytest.raises(ConfigError, match=r"rates of Adam, warm-up .* expected \[0.003\] with every seed"):
        by_seed(found.table[(found.table.b2 == 0.98) & (found.table.peak > 5e-3)], radam_warmup.WARM, [3e-3])


def test_page_and_record_hold_the_answer(store: Store, found: Findings) -> None:
    page, figures = radam_warmup_page.page(store, found)
    text = page.text()
    assert found.headline in text
    assert text.count('src="data:image/png;base64,') == len(figures) == 1
    record = json.loads(json.dumps(radam_warmup_page.record(found), allow_nan=False))
    assert [claim["verdict"] for claim in record["claims"]] == [claim.verdict for claim in found.claims]
    assert found.headline in radam_warmup_page.summary(found)


def test_the_full_setting_expands() -> None:
    c = configuration.get_config("full")
    runs = runs_of(c, configuration.get_stages(c))
    assert len(runs) == 512
    assert {run.model.width for run in runs} == {256}


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"study: unknown key 'warmup'; did you mean 'warmup_steps'"):
        radam_warmup.analyse(Store(Path("none")), {**small().study.to_dict(), "warmup": 5})
