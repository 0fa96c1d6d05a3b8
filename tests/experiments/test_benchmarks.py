"""The benchmarks' shared parts, and what the accelerator's says where there is none."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks import common, scaling_cost

ROOT = Path(__file__).parents[2]


def test_without_an_accelerator_nothing_is_measured(tmp_path: Path) -> None:
    out = tmp_path / "accelerator.json"
    done = subprocess.run([sys.executable, "-m", "benchmarks.accelerator", f"--out={out}"], capture_output=True,
                          text=True, check=True, cwd=ROOT, env={"JAX_PLATFORMS": "cpu", "HOME": str(tmp_path)})
    said = done.stdout.splitlines()
    assert said[0] == "no accelerator at hand: nothing measured"
    assert json.loads(said[-1]) == {"accelerator": None}
    assert not out.exists()


def test_the_last_line_is_json_with_four_digits(capsys: pytest.CaptureFixture[str]) -> None:
    common.table([{"name": "a", "seconds": 1.23456}])
    common.finish({"rate": np.float64(1.23456), "n": np.int64(3), "same": True, "list": [0.000123456, None]})
    *rows, last = capsys.readouterr().out.splitlines()
    assert rows[-1].split() == ["a", "1.235"]
    assert json.loads(last) == {"rate": 1.235, "n": 3, "same": True, "list": [0.0001235, None]}


def test_functions_are_timed_in_turn() -> None:
    order: list[str] = []
    took = common.interleaved({name: lambda name=name: order.append(name) for name in "ab"}, 3)
    assert order == list("ababab")
    assert set(took) == {"a", "b"}


def test_the_matrix_peak_is_a_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """All devices count: a chain of products is done on each."""
    monkeypatch.setitem(common.PEAK_SIZES, "cpu", (16,))
    monkeypatch.setitem(common.PEAK_FLOPS, "cpu", 1e5)
    assert 0 < common.matmul_peak("float32", jax.local_devices()[:2]) < 1e15


def test_slopes_are_those_of_the_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling_cost, "seconds", lambda function: function())
    functions = {size: lambda size=size: 0.1 * size**1.5 for size in (1.0, 2.0, 4.0)}
    row = scaling_cost.slope("size", functions, 2)
    assert row["slope"] == pytest.approx(1.5)
    assert row["low"] == pytest.approx(row["high"], abs=1e-6)
    assert row["ratio_to_linear"] == pytest.approx(2.0)
