"""Packs that do not fit the devices' memory: not even begun where the compiled program says so, halved elsewhere."""

import logging
import math
from pathlib import Path

import jax
import pandas as pd
import pytest

from helpers import never
from scaling.config import Run
from scaling.sweeps import tuning
from scaling.sweeps.executor import run_sweep
from scaling.sweeps.jobs import Settings
from scaling.sweeps.plan import Width
from scaling.sweeps.tuning import Speed, Tuner
from scaling.sweeps.workbench import Workbench
from scaling.training.loop import PackRun
from scaling.training.trainer import OutOfMemoryError, PackTrainer, memory_errors
from small_sweeps import base_run, branching, tables

FULL = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 81604378624 bytes."


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    return branching(base_run(tmp_path), seeds=range(8))


@pytest.fixture
def holds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Widths asked of devices that hold at most 2 runs at a time, of which 8 were planned."""
    first, train, asked = jax.local_devices()[:1], PackTrainer.train, []
    monkeypatch.setattr(jax, "local_devices", lambda: first)
    monkeypatch.setattr(Tuner, "speed", lambda self, runs: Speed(Width(8, 8, 1), 1e-3, 1, 0.0))

    def limited(self: PackTrainer, *arguments: object) -> object:
        asked.append(self.layout.vmap)
        if self.layout.vmap > 2:
            raise jax.errors.JaxRuntimeError(FULL)
        return train(self, *arguments)

    monkeypatch.setattr(PackTrainer, "train", limited)
    return asked


def test_a_pack_that_does_not_fit_is_halved_until_it_does(
    runs: list[Run], holds: list[int], tmp_path: Path, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Workbench(tmp_path / "cache")
    with caplog.at_level(logging.WARNING, "scaling"):
        run_sweep(runs, tmp_path / "full", bench, Settings(0.0), never)
    assert [record.getMessage() for record in caplog.records] == [
        f"out of memory with {wide} runs at a time ({FULL}); going on with {wide // 2}" for wide in (8, 4)]
    assert holds[:3] == [8, 4, 2]
    assert set(holds[3:]) == {2}, "branches of the same program start with what fitted"
    monkeypatch.setattr(Tuner, "speed", lambda self, runs: Speed(Width(8, 2, 1), 1e-3, 1, 0.0))
    run_sweep(runs, tmp_path / "planned", bench, Settings(0.0), never)
    found, wanted = tables(tmp_path / "full", packing=False), tables(tmp_path / "planned", packing=False)
    assert len(found["runs"]) == 24
    for name, table in wanted.items():
        pd.testing.assert_frame_equal(found[name], table, check_exact=True)


def test_one_run_that_does_not_fit_is_refused(
    runs: list[Run], holds: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Tuner, "speed", lambda self, runs: Speed(Width(8, 1, 1), 1e-3, 1, 0.0))

    def full(self: PackTrainer, *arguments: object) -> None:
        raise jax.errors.JaxRuntimeError(FULL)

    monkeypatch.setattr(PackTrainer, "train", full)
    with pytest.raises(OutOfMemoryError, match=r"one run at a time does not fit .*EXHAUSTED.*; free the dev"):
        run_sweep(runs, tmp_path / "full", Workbench(tmp_path / "cache"), Settings(0.0), never)


def test_other_errors_of_the_devices_stay_what_they_are() -> None:
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL: cable unplugged"), memory_errors():
        raise jax.errors.JaxRuntimeError("INTERNAL: cable unplugged")


def test_nothing_is_placed_that_the_compiled_program_says_is_too_large(
    runs: list[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, placed = jax.local_devices()[:1], []
    monkeypatch.setattr(jax, "local_devices", lambda: first)
    tuner, place = Tuner(Workbench(tmp_path / "cache")), PackRun.place
    monkeypatch.setattr(PackRun, "place", lambda self, states: (placed.append(len(states)), place(self, states))[1])
    whole = tuner._measure(runs[:8], Width(8, 8, 1))
    assert math.isfinite(whole.seconds_per_step)
    monkeypatch.setattr(tuning, "device_memory", lambda: int(0.7 * whole.bytes_per_device / tuning.MEMORY_SHARE))
    monkeypatch.setattr(tuning, "candidates", lambda per_row, accelerator: [per_row])
    del placed[:]
    chosen = tuner.speed(runs[:8])
    assert chosen.width == Width(4, 4, 1)
    assert chosen.bytes_per_device <= 0.7 * whole.bytes_per_device
    assert placed == [4]
