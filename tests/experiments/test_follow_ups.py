"""Runs that are decided by the runs before them: trained in rounds, once, and again in one start after a kill."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from experiments import analyse
from experiments.keep import keep
from experiments.ledger import ledger
from experiments.workdir import sweep_runs
from helpers import write_text
from scaling.fields import ConfigError
from scaling.seal import read_json, write_json
from scaling.store import Store

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("following")
    write_text(folder / "texts" / "prose")
    return {**os.environ, "TINY_TEXTS": str(folder / "texts"), "SCALING_CACHE": str(folder / "cache"),
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}


def run(environment: dict[str, str], workdir: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "experiments.run", f"--config={HERE / 'following.py'}:full",
               f"--workdir={workdir}", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def workdir(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("work")
    done = run(environment, workdir)
    assert done.returncode == 0, done.stderr
    assert "6 runs" in done.stdout
    return workdir


def test_each_round_trains_what_the_one_before_decides(workdir: Path) -> None:
    runs = Store(workdir / "store").read("runs")
    assert runs.status.tolist() == ["done"] * 6
    branches, seeded = runs.parent_id.notna(), runs["training.seed"] > 0
    first, again, branch = runs[~seeded], runs[seeded & ~branches], runs[branches]
    assert sorted(first["schedule.peak"]) == [1e-9, 1e-2]
    assert again["schedule.peak"].tolist() == [1e-2, 1e-2], "the rate that learned"
    assert set(branch.parent_id) == set(again.run_id)
    assert set(first.steps) == {30}, "the setting after the colon reaches get_config"


def test_a_second_start_trains_nothing_and_keeps_every_table(environment: dict[str, str], workdir: Path) -> None:
    tables = {path: path.read_bytes() for path in sorted((workdir / "store").rglob("*.parquet"))}
    done = run(environment, workdir)
    assert done.returncode == 0, done.stderr
    assert {path: path.read_bytes() for path in sorted((workdir / "store").rglob("*.parquet"))} == tables


@pytest.mark.parametrize("table", ["runs", "curves"])
def test_a_damaged_table_is_set_aside_before_anything_is_decided_by_it(
    table: str, environment: dict[str, str], workdir: Path, tmp_path: Path,
) -> None:
    mine = shutil.copytree(workdir, tmp_path / "work")
    path = sorted((mine / "store" / table).iterdir())[0]
    path.write_bytes(path.read_bytes()[:-20])
    done = run(environment, mine)
    assert done.returncode == 0, done.stderr
    assert f"moved to {mine / 'corrupt' / 'store' / table / path.name}" in done.stderr
    runs, whole = (Store(folder / "store").read("runs") for folder in (mine, workdir))
    assert runs.status.tolist() == ["done"] * 6
    assert set(runs.run_id) == set(whole.run_id)


def test_a_time_between_checkpoints_that_is_no_number_is_refused(environment: dict[str, str], tmp_path: Path) -> None:
    done = run(environment, tmp_path / "work", "--checkpoint_seconds=nan")
    assert done.returncode == 1
    assert "ConfigError: --checkpoint_seconds = nan: expected a finite number of at least 0; " in done.stderr
    assert not (tmp_path / "work").exists()


def test_the_command_is_kept_without_the_folder_of_the_configuration(workdir: Path) -> None:
    assert read_json(workdir / "experiment.json")["command"] == "python -m experiments.run --config=following.py:full"


def test_the_runs_of_every_round_are_the_sweeps_own(workdir: Path) -> None:
    assert sorted(sweep_runs(workdir)) == sorted(Store(workdir / "store").read("runs").run_id)


CLAIM = {"statement": "a | b", "source": "Author 2024", "measured": "-0.1", "value": -0.1, "low": -0.2, "high": 0.1,
         "n": 6, "verdict": "inconclusive"}


def test_a_study_is_kept_and_stands_in_the_ledger(workdir: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"fits\.json: expected the outcome of a study; run python"):
        keep(workdir, tmp_path / "results" / "cmr")
    record = read_json(workdir / "experiment.json")
    study = tmp_path / "study"
    (study / "figures").mkdir(parents=True)
    (study / "store").symlink_to(workdir / "store")
    write_json(study / "experiment.json", {**record, "study": {"name": "cmr"}})
    claims, mark = [CLAIM, {**CLAIM, "verdict": "reproduced"}], analyse.fingerprint(study, analyse.own(study))
    (study / "fits.json").write_text(json.dumps({"claims": claims, analyse.ANALYSED: mark}))
    (study / "report.html").write_text(f"<p><!-- {mark} -->")
    (study / "figures" / "one.png").write_bytes(b"png")
    written = keep(study, tmp_path / "results" / "cmr")
    assert sorted(path.name for path in written) == [
        "claims.csv", "curves.parquet", "diagnostics.parquet", "one.png", "report.html", "runs.parquet"]
    kept = pd.read_parquet(tmp_path / "results" / "cmr" / "curves.parquet")
    whole = Store(workdir / "store").read("curves")
    pd.testing.assert_series_equal(kept.loss, whole.loss, atol=5e-7)
    page = ledger(tmp_path / "results")
    assert "2 claims in 1 studies: 1 inconclusive, 1 reproduced." in page
    assert r"| a \| b | Author 2024 | -0.1; -0.1 [-0.2, 0.1] | 6 | **inconclusive** |" in page
    assert "`python -m experiments.run --config=following.py:full --workdir=runs/cmr`: 6 runs" in page


def test_a_ledger_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected folders with claims\.csv; run python -m experiments\.keep first"):
        ledger(tmp_path)
