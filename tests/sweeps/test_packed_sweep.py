"""Sweeps of packed runs: metadata conditioning then cooldown, packers as an axis, branches, power cuts, refusals."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from helpers import small_run, write_text
from scaling.config import Run
from scaling.fields import ConfigError
from scaling.models.counts import count
from scaling.store import Store
from scaling.sweeps.grid import product
from scaling.sweeps.plan import Width
from scaling.sweeps.sweep import Stage, Sweep
from scaling.sweeps.tuning import Speed, Tuner
from scaling.sweeps.workbench import Workbench
from small_sweeps import COOLDOWN, KeptBench, assert_same, power_cut, sweep, tables

PACKING = {"method": "best_fit", "attention": "document", "metadata": {"named": "a.org"},
           "documents": {"named": (0.0, 0.75), "plain": (0.75, 1.0)}}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Metadata conditioning for 15 steps, a cooldown on plain documents for 5."""
    source = write_text(tmp_path_factory.mktemp("text") / "a")
    return small_run(**{
        "data.domains": {"named": source, "plain": source}, "data.sequence": 127, "packing": PACKING,
        "data.mixture": ((0.0, {"named": 1.0}), (0.75, {"plain": 1.0})), "schedule.name": "constant",
        "schedule.floor": 1.0, "evaluation.points": None, "evaluation.steps": (5, 15), "evaluation.windows": 2})


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    return KeptBench(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module", autouse=True)
def _two_lanes() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tuner, "speed", lambda self, runs: Speed(Width(2, 1, 1), 1e-3, 1, 0.0))
        yield


def runs_of(base: Run) -> list[Run]:
    """By packer and seed, and a branch of each."""
    packings = [PACKING, {**PACKING, "method": "chop"}]
    return Sweep(base, (
        Stage("runs", product({"packing": packings, "training.seed": (0, 1)})),
        Stage("longer", product({"parent.at": [{"steps": 20}], "data.mixture": [{"plain": 1.0}]}, [COOLDOWN]),
              parent="runs"))).runs()


@pytest.fixture(scope="module")
def whole(base: Run, bench: Workbench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("whole")
    sweep(runs_of(base), workdir, bench)
    return workdir


def test_a_packed_sweep_records_positions_and_the_share_of_them_that_counts(
    base: Run, bench: Workbench, whole: Path,
) -> None:
    store = Store(whole / "store")
    runs, curves, diagnostics = (store.read(name) for name in ("runs", "curves", "diagnostics"))
    assert len(runs) == 8
    assert set(runs.status) == {"done"}
    assert set(runs["packing.method"]) == {"best_fit", "chop"}
    assert set(curves.domain) == {"named", "plain", "mixture"}
    assert (curves.tokens == curves.step * 4 * 127).all()
    vocabulary = bench.corpus(base.program).vocabulary
    assert (runs.flops == runs.tokens * count(base.model, vocabulary, 127).flops_exact).all()
    logged = diagnostics[diagnostics.name == "predicted_share"].set_index(["run_id", "step"]).value
    trained = curves[curves.split == "train"].set_index(["run_id", "step"])
    assert set(logged.index) == set(trained.index)
    assert logged.between(0.5, 0.999).all()


def test_the_packer_and_the_seed_make_different_curves(whole: Path) -> None:
    curves = Store(whole / "store").read("curves")
    ends = curves[(curves.step == 20) & (curves.domain == "plain")].loss
    assert len(set(ends)) == len(ends) >= 4


def test_a_power_cut_changes_nothing(base: Run, bench: Workbench, whole: Path, tmp_path: Path) -> None:
    with power_cut(after=5):
        sweep(runs_of(base), tmp_path, bench)
    sweep(runs_of(base), tmp_path, bench)
    assert_same(tables(tmp_path), tables(whole))


def test_held_out_documents_are_the_same_in_both_domains(base: Run, bench: Workbench, whole: Path) -> None:
    """At step 0 no domain is known better; only the metadata before the documents differ."""
    windows = bench.windows(base.program)
    assert dict(windows.by_domain)["named"] > 2 * dict(windows.by_domain)["plain"]
    curves = Store(whole / "store").read("curves")
    start: pd.DataFrame = curves[(curves.step == 0) & (curves.run_id == base.run_id)].set_index("domain")
    assert start.loss["named"] == pytest.approx(start.loss["plain"], abs=0.05)
    np.testing.assert_allclose(start.bits_per_byte, start.loss / np.log(2))  # a token is a byte


@pytest.mark.parametrize(("changes", "message"), [
    ({"packing": {**PACKING, "metadata": {"named": "x" * 122}}}, r"data\.sequence = 127, evaluation\.windows = 2: domai"
     r"n 'named': its metadata take 129 tokens, expected fewer than the 128 of a window; shorten the name"),
    ({"evaluation.windows": 500}, r"evaluation\.windows = 500: domain 'named' holds \d+ packed validation windows of "),
    ({"packing": {**PACKING, "documents": {"plain": (0.0, 1e-3)}}}, r"domain 'plain': its share of the training text"),
])
def test_what_the_text_cannot_give_is_refused_before_any_compute(
    base: Run, bench: Workbench, changes: dict[str, Any], message: str, tmp_path: Path,
) -> None:
    changed = Sweep(base, (Stage("runs", [changes]),)).runs()
    with pytest.raises(ConfigError, match=message):
        sweep(changed, tmp_path, bench)
    assert not (tmp_path / "store").exists()
