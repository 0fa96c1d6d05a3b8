"""1cycle's momentum: its table, the steps that it makes, packs, and refusals."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import packs
from scaling.fields import ConfigError
from scaling.training.losses import Batch
from scaling.training.tables import Stream, hyperparameters, run_tables
from scaling.training.trainer import Layout
from scaling.training.updating import Step, optimizer_updates

FLOAT64 = np.dtype("float64")
CYCLE: dict[str, Any] = {
    "schedule.name": "one_cycle", "schedule.level": 0.04, "schedule.floor": 4e-6, "schedule.low_momentum": 0.85,
    "schedule.warmup": {"steps": 30}, "schedule.decay": {"steps": 15}, "training.duration": {"steps": 100},
    "optimizer.name": "sgd", "optimizer.form": "heavy_ball", "optimizer.momentum": 0.95, "optimizer.b1": None,
    "optimizer.b2": None, "optimizer.eps": None}
SHORT = {"schedule.warmup": {"steps": 3}, "schedule.decay": {"steps": 1}, "training.duration": {"steps": 8}}


def momenta(**changes: Any) -> np.ndarray:
    found = run_tables(packs.pack_run(**{**CYCLE, **changes}), packs.windows(), Stream.start(2)).momentum_T
    assert found is not None
    return found


def test_momentum_goes_from_its_own_to_the_low_one_and_back_as_published() -> None:
    found_T = momenta()
    known = {0: 0.95, 15: 0.9, 30: 0.85, 57: 0.85 + 0.1 * 27 / 55, 85: 0.95, 99: 0.95}
    assert {t: found_T[t] for t in known} == pytest.approx(known, abs=1e-12)


@pytest.mark.parametrize("shape", [None, "cosine"])
def test_momentum_is_a_line_in_the_rate_until_the_last_decay(shape: str | None) -> None:
    changes = {**CYCLE, "schedule.shape": shape}
    table = run_tables(packs.pack_run(**changes), packs.windows(), Stream.start(2))
    rate_T = table.learning_rate_T / packs.pack_run(**changes).schedule.peak
    np.testing.assert_allclose(momenta(**changes)[:85], 0.95 - 0.1 * (rate_T[:85] - 0.04) / 0.96, rtol=1e-12)


def test_without_a_last_decay_momentum_climbs_to_the_end() -> None:
    found_T = momenta(**{"schedule.decay": {"steps": 0}})
    np.testing.assert_allclose(found_T[30:], 0.85 + 0.1 * np.arange(70) / 70, rtol=1e-12)


def test_each_step_takes_its_own_momentum() -> None:
    """Heavy ball by hand on the gradients 1, 2, ...: b = m_t b + g, p -= rate_t b."""
    run = packs.pack_run(**{**CYCLE, **SHORT, "optimizer.clip_norm": None, "optimizer.weight_decay": 0.0})
    table = run_tables(run, packs.windows(), Stream.start(2))
    hyper = hyperparameters(run, packs.windows(), Stream.start(2), np.dtype("float32"))
    batch = Batch(jnp.zeros((1, 2), jnp.int32), jnp.zeros(1, jnp.int32), jnp.zeros(2, jnp.int32))
    params = packs.random_state(run.program, 0).params
    state, optimizer, trace = packs.random_state(run.program, 0), packs.random_state(run.program, 0).optimizer, 0.0
    for step in range(8):
        row = table.following(step, np.dtype("float32"))
        gradient = jax.tree.map(lambda leaf, g=step + 1.0: jnp.full(leaf.shape, g), params)
        at = Step(run.program, packs.VOCABULARY, 1, hyper, row, batch, None, state)
        updates, optimizer = optimizer_updates(at, gradient, optimizer, params)
        trace = table.momentum_T[step] * trace + step + 1.0
        np.testing.assert_allclose(jax.tree.leaves(updates)[0], -table.learning_rate_T[step] * trace, rtol=1e-5)


@pytest.mark.parametrize("changes", [{}, {"optimizer.name": "adamw", "optimizer.form": None, "optimizer.momentum": None,
                                          "optimizer.b1": 0.95, "optimizer.b2": 0.99, "optimizer.eps": 1e-8}])
def test_a_pack_gives_each_run_what_it_gets_alone(changes: dict[str, Any], tmp_path: Path) -> None:
    runs = [packs.pack_run(**{**CYCLE, **SHORT, **changes, "evaluation.points": 2, "training.seed": seed})
            for seed in (0, 1)]
    together = packs.train(packs.job(runs), Layout(2, 2, devices=1), tmp_path / "pack")
    alone = packs.train(packs.job(runs[1:]), packs.ALONE, tmp_path / "alone")
    np.testing.assert_allclose(together.losses(runs[1]), alone.losses(runs[1]), rtol=1e-5)
    assert runs[0].program == packs.pack_run(**{**CYCLE, **SHORT, **changes, "schedule.low_momentum": None}).program
    flat = packs.pack_run(**{**CYCLE, **SHORT, **changes, "evaluation.points": 2, "training.seed": 1,
                             "schedule.low_momentum": None})
    without = packs.train(packs.job([flat]), packs.ALONE, tmp_path / "flat")
    assert abs(without.losses(flat)[-1] - alone.losses(runs[1])[-1]) > 1e-5, "the cycle must matter"


NO_MOMENTUM = {"optimizer.name": "adafactor", "optimizer.momentum": None, "optimizer.memory": 0.8,
               "optimizer.form": "scaled"}
FREE = {"optimizer.name": "schedule_free", "optimizer.form": None, "optimizer.momentum": None, "optimizer.b1": 0.95,
        "optimizer.b2": 0.99, "optimizer.eps": 1e-8}


@pytest.mark.parametrize(("changes", "message"), [
    ({"schedule.low_momentum": 1.0}, r"schedule\.low_momentum = 1\.0: expected None or a number in \[0, 1\); use"),
    ({"schedule.low_momentum": 0.96}, r"schedule\.low_momentum = 0\.96: expected at most optimizer\.momentum = 0\.95"),
    ({"schedule.name": "cosine", "schedule.level": None, "schedule.decay": None},
     r"schedule\.low_momentum = 0\.85: expected None for cosine; use the published 0\.85 with one_cycle"),
    (NO_MOMENTUM, r"schedule\.low_momentum = 0\.85: expected None with adafactor; leave it out"),
    (FREE, r"schedule\.low_momentum = 0\.85: expected None with schedule_free; leave it out"),
])
def test_a_cycle_that_nothing_can_follow_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        packs.pack_run(**{**CYCLE, **changes})
