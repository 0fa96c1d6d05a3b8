"""A whole sweep on other numbers of devices than it was planned for: the same tables, within float reassociation."""

import itertools
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest

from helpers import never
from scaling.config import Run
from scaling.sweeps.executor import run_sweep
from scaling.sweeps.jobs import Settings
from scaling.sweeps.plan import Width
from scaling.sweeps.tuning import Speed, Tuner
from scaling.sweeps.workbench import Workbench
from scaling.training.loop import Preempted
from scaling.training.trainer import Layout
from small_sweeps import KeptBench, base_run, branching, tables

COUNTS = (1, 2, 4, 8)
ALL = jax.local_devices


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("devices")


@pytest.fixture(scope="module")
def benches(folder: Path) -> dict[int, Workbench]:
    return {count: KeptBench(folder / "cache") for count in COUNTS}


@pytest.fixture
def train(
    folder: Path, benches: dict[int, Workbench], monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., dict[str, pd.DataFrame]]:
    """train(count, workdir, interrupted): three trunks and their six branches on so many devices, in packs of eight."""
    monkeypatch.setattr(Tuner, "speed", lambda self, runs: Speed(Width(8, 1, 1), 1e-3, 1, 0.0))
    runs: list[Run] = branching(base_run(folder / "text"), seeds=(0, 1, 2))

    def run(count: int, workdir: Path, interrupted: Callable[[], bool] = never) -> dict[str, pd.DataFrame]:
        monkeypatch.setattr(jax, "local_devices", lambda: ALL()[:count])
        run_sweep(runs, workdir, benches[count], Settings(0.0), interrupted)
        return tables(workdir)

    return run


def assert_close(found: dict[str, pd.DataFrame], wanted: dict[str, pd.DataFrame]) -> None:
    """Within 1e-5; a standard error is made of differences of losses, so it may move by as much as those."""
    for name, table in wanted.items():
        by_loss = table.columns.intersection(["loss_se"]).tolist()
        pd.testing.assert_frame_equal(found[name].drop(columns=by_loss), table.drop(columns=by_loss),
                                      check_exact=False, rtol=1e-5)
        for column in by_loss:
            np.testing.assert_array_less((found[name][column] - table[column]).abs().fillna(0), 1e-5 * table.loss)


@pytest.fixture(scope="module")
def kept() -> dict[str, dict[str, pd.DataFrame]]:
    return {}


@pytest.mark.parametrize("count", COUNTS)
def test_a_sweep_does_not_depend_on_the_number_of_devices(
    count: int, train: Callable[..., dict[str, pd.DataFrame]], tmp_path: Path,
    kept: dict[str, dict[str, pd.DataFrame]], benches: dict[int, Workbench],
) -> None:
    found = train(count, tmp_path)
    assert (found["runs"].status == "done").all()
    assert len(found["runs"]) == 9
    assert {trainer.layout.devices for trainer in benches[count]._trainers.values()} == {count}
    assert_close(found, kept.setdefault("one", found))


def test_a_sweep_saved_on_eight_devices_goes_on_on_two(
    train: Callable[..., dict[str, pd.DataFrame]], tmp_path: Path,
) -> None:
    whole, asked = train(1, tmp_path / "whole"), itertools.chain([False, False], itertools.repeat(True))
    with pytest.raises(Preempted, match=r"after step \d+ of 20; its checkpoint is written"):
        train(8, tmp_path / "moved", lambda: next(asked))
    assert_close(train(2, tmp_path / "moved"), whole)


@pytest.mark.parametrize(("devices", "width", "layout"), [
    (3, Width(8, 1, 1), Layout(8, 1, devices=2)),
    (3, Width(6, 2, 1), Layout(6, 2, devices=3)),
    (5, Width(4, 4, 1), Layout(4, 4, devices=1)),
    (3, Width(2, 1, 2), Layout(2, 1, devices=2, data=2)),
    (1, Width(1, 1, 4), Layout(1, 1, devices=1)),
    (3, Width(1, 1, 4), Layout(1, 1, devices=2, data=2)),
    (8, Width(2, 1, 4), Layout(2, 1, devices=8, data=4)),
])
def test_a_width_lies_on_as_many_devices_as_divide_it(
    devices: int, width: Width, layout: Layout, benches: dict[int, Workbench], monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jax, "local_devices", lambda: ALL()[:devices])
    assert benches[1].layout(width) == layout
