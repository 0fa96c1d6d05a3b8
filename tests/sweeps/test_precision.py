"""64-bit arithmetic where a run asks for it, and nothing else for its neighbours."""

import dataclasses
from pathlib import Path

import jax
import pandas as pd
import pytest

from experiments.runtime import set_precision
from scaling.config import Run
from scaling.sweeps.workbench import Workbench, cache_folder
from small_sweeps import base_run, sweep, tables


def in_float64(run: Run) -> Run:
    return dataclasses.replace(run, training=dataclasses.replace(run.training, dtype="float64"))


@pytest.mark.parametrize("asked", [False, True])
def test_precision_is_set_where_a_run_asks_for_it(asked: bool, tmp_path: Path) -> None:
    run = base_run(tmp_path)
    before = jax.config.read("jax_enable_x64")
    try:
        set_precision([run, in_float64(run)] if asked else [run])
        assert jax.config.read("jax_enable_x64") is (asked or before)
    finally:
        jax.config.update("jax_enable_x64", before)


def test_a_run_of_32_bits_is_the_same_beside_one_of_64(tmp_path: Path) -> None:
    run = base_run(tmp_path)
    bench = Workbench(cache_folder())
    sweep([run], tmp_path / "alone", bench)
    with jax.enable_x64(True):
        sweep([run, in_float64(run)], tmp_path / "beside", bench)
    alone, beside = tables(tmp_path / "alone"), tables(tmp_path / "beside")
    wide = beside["curves"][beside["curves"].run_id != run.run_id]
    narrow = beside["curves"][beside["curves"].run_id == run.run_id].reset_index(drop=True)
    pd.testing.assert_frame_equal(narrow, alone["curves"], check_exact=True)
    assert len(wide) == len(narrow)
    assert not (wide.loss.to_numpy() == narrow.loss.to_numpy()).any()
