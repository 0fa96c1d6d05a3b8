"""Widths: which are tried, in which order, how memory limits them, and that a choice is remembered."""

import os
from collections.abc import Callable
from pathlib import Path

import jax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import small_run, write_text
from scaling.config import Run
from scaling.fields import ConfigError
from scaling.sweeps import tuning
from scaling.sweeps.plan import Width
from scaling.sweeps.tuning import Speed, Tuner, candidates, device_memory, split
from scaling.sweeps.workbench import Workbench


@given(st.integers(1, 300))
def test_candidates_climb_by_four_on_cpu_and_descend_elsewhere(per_row: int) -> None:
    narrow, wide = list(candidates(per_row, accelerator=False)), list(candidates(per_row, accelerator=True))
    assert narrow == [v for v in (1, 4, 16, 64, 256) if v <= per_row]
    assert wide[0] == per_row
    assert wide == sorted(set(wide), reverse=True)
    assert set(wide) == {per_row, *narrow}


@pytest.mark.parametrize(("runs", "batch", "accumulation", "windows", "devices"), [
    (8, 4, 1, 4, 1), (9, 4, 1, 4, 1), (5, 4, 1, 4, 1),  # as many runs as devices, or more than half as many
    (4, 4, 1, 4, 2), (2, 4, 1, 4, 4), (1, 8, 1, 8, 8), (1, 4, 1, 4, 4),
    (1, 8, 2, 8, 4),  # a microbatch of 4
    (1, 6, 1, 6, 2),  # 6 windows on 8 devices: 2 divides both
    (1, 8, 1, 6, 2),  # held-out windows are split too
])
def test_a_run_is_split_only_where_devices_would_idle(
    runs: int, batch: int, accumulation: int, windows: int, devices: int
) -> None:
    run = small_run(**{"data.batch": batch, "training.accumulation": accumulation, "evaluation.windows": windows})
    assert split(run.program, runs, 8) == devices


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    return Workbench(tmp_path / "cache")


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    """40 runs of a tiny model on a folder of text."""
    text = {"data.domains": {"text": write_text(tmp_path / "text")}, "data.mixture": {"text": 1.0}}
    return [small_run(**text, **{"training.seed": seed, "model.width": 8}) for seed in range(40)]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Width], float], int], list[Width]]:
    """Replace measurement by given seconds a width and bytes a lane of one of 8 devices; returns the widths asked."""
    asked: list[Width] = []

    def install(
        seconds: Callable[[Width], float], bytes_per_lane: int = 1, compile_seconds: float = 0.0
    ) -> list[Width]:
        def measure(self: Tuner, runs: list[Run], width: Width) -> Speed:
            asked.append(width)
            return Speed(width, seconds(width), width.lanes * bytes_per_lane // 8, compile_seconds)

        monkeypatch.setattr(Tuner, "_measure", measure)
        return asked

    return install


def test_widths_are_tried_until_they_get_slower(bench: Workbench, runs: list[Run], measured: Callable) -> None:
    asked = measured(lambda width: {1: 3.0, 4: 2.0}.get(width.vmap, 2.5))
    assert Tuner(bench).speed(runs * 4).width == Width(8 * 20, 4, 1)
    assert [width.vmap for width in asked] == [1, 4, 1, 4, 1, 4, 16, 4, 16, 4, 16], "160 runs on 8 devices: 20 each"
    assert asked[-1] == Width(8 * 32, 16, 1), "lanes are rounded up to whole groups"


def test_a_width_that_was_slowed_while_it_was_timed_is_timed_again(
    bench: Workbench, runs: list[Run], measured: Callable
) -> None:
    """Work beside ours slowed the first timing of vmap 1 and the second of vmap 4."""
    seconds = {1: iter([2.0, 1.0, 1.1]), 4: iter([1.2, 2.4, 1.3])}
    asked = measured(lambda width: next(seconds[width.vmap]))
    chosen = Tuner(bench).speed(runs)
    assert (chosen.width.vmap, chosen.seconds_per_step) == (1, 1.0)
    assert [width.vmap for width in asked] == [1, 4, 1, 4, 1, 4]


def test_the_first_width_wins_where_the_second_is_slower(
    bench: Workbench, runs: list[Run], measured: Callable
) -> None:
    asked = measured(lambda width: float(width.vmap))
    assert Tuner(bench).speed(runs).width == Width(40, 1, 1)
    assert [width.vmap for width in asked] == [1, 4]


def test_no_other_width_is_tried_where_all_the_steps_take_less_than_compiling_it(
    bench: Workbench, runs: list[Run], measured: Callable
) -> None:
    asked = measured(lambda width: 1.0 / width.vmap, compile_seconds=40 * 20.0)
    first = Tuner(bench).speed(runs)
    assert (first.width.vmap, first.settled, [width.vmap for width in asked]) == (1, False, [1])
    assert Tuner(bench).speed(runs) == first
    assert len(asked) == 1, "remembered"
    longer = [small_run(**{"data.domains": dict(run.data.domains), "data.mixture": {"text": 1.0}, "model.width": 8,
                           "training.seed": run.training.seed, "training.duration": {"steps": 21}}) for run in runs]
    assert longer[0].program == runs[0].program
    second = Tuner(bench).speed(longer)
    assert (second.width.vmap, second.settled) == (4, True)
    tried = [width.vmap for width in asked]
    assert tried == [1, 1, 4, 1, 4, 1, 4]
    assert Tuner(bench).speed(runs) == second
    assert len(asked) == len(tried), "what longer runs settled serves shorter ones"


def test_packs_hold_a_bounded_number_of_runs(bench: Workbench, runs: list[Run], measured: Callable) -> None:
    measured(lambda width: float(width.vmap))
    assert Tuner(bench).speed(runs * 25).width == Width(8 * tuning.MOST_RUNS_A_DEVICE, 1, 1)


def test_runs_a_device_are_halved_until_they_fit(
    bench: Workbench, runs: list[Run], measured: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "device_memory", lambda: 1000)  # 800 may be used: 2 runs of 400
    asked = measured(lambda width: float(width.vmap), 400)
    assert Tuner(bench).speed(runs).width == Width(16, 1, 1)
    assert [width.lanes for width in asked if width.vmap == 1] == [40, 16]


def test_a_run_that_fits_no_device_is_refused(
    bench: Workbench, runs: list[Run], measured: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "device_memory", lambda: 1000)
    measured(lambda width: 1.0, 900)
    with pytest.raises(ConfigError, match=r"data\.batch = 4: .* at most 800 bytes .* not 900; raise training"):
        Tuner(bench).speed(runs)


def test_few_runs_are_split_over_the_devices(bench: Workbench, runs: list[Run], measured: Callable) -> None:
    measured(lambda width: float(width.vmap))
    assert Tuner(bench).speed(runs[:2]).width == Width(2, 1, 4)
    assert bench.layout(Width(2, 1, 4)).devices == 8


def test_a_measured_choice_is_remembered(
    bench: Workbench, runs: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "MEASURED_SECONDS", 0.01)
    first = Tuner(bench).speed(runs[:2])
    assert first.width.data == 4
    assert first.seconds_per_step > 0
    assert first.compile_seconds > 0
    assert 10_000 < first.bytes_per_device < device_memory()
    monkeypatch.setattr(Tuner, "_measure", lambda *_: pytest.fail("measured again"))
    assert Tuner(Workbench(bench.cache)).speed(runs[:2]) == first
    with pytest.raises(pytest.fail.Exception, match="measured again"):
        Tuner(bench).speed(runs[:3])


def test_a_damaged_choice_is_named_and_measured_again(
    bench: Workbench, runs: list[Run], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:
    speed = Speed(Width(4, 1, 1), 1e-3, 1000, 1.0, settled=True)
    monkeypatch.setattr(Tuner, "_measure", lambda *_: speed)
    assert Tuner(bench).speed(runs[:2]) == speed
    [path] = [path for path in (bench.cache / "widths").iterdir() if '"lanes": 4' in path.read_text()]
    path.write_text(path.read_text().replace('"lanes": 4', '"lanes": 6'))
    with caplog.at_level("WARNING", "scaling"):
        assert Tuner(bench).speed(runs[:2]) == speed
    assert f"{path}: damaged, or edited by hand" in caplog.text
    assert "measuring again" in caplog.text


def test_memory_of_a_device_is_its_share_of_the_machine() -> None:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert device_memory() == total // len(jax.local_devices())
