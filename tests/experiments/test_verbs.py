"""The verbs as a user runs them: plan, run, run again, report from the store alone, errors in one line."""

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from helpers import write_text
from scaling import store
from scaling.seal import read_json

CONFIG = Path(__file__).parent / "tiny.py"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    texts = tmp_path_factory.mktemp("texts")
    for seed, domain in enumerate(("prose", "code")):
        write_text(texts / domain, seed, 300)
    return {**os.environ, "TINY_TEXTS": str(texts), "SCALING_CACHE": str(tmp_path_factory.mktemp("cache"))}


def verb(name: str, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", f"experiments.{name}", *arguments], env=environment, text=True,
                          capture_output=True, timeout=280, check=False)


@pytest.fixture(scope="module")
def workdir(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished sweep, and what the command printed."""
    folder = tmp_path_factory.mktemp("sweep")
    done = verb("run", environment, f"--config={CONFIG}", f"--workdir={folder}", f"--profile={folder / 'profile'}")
    assert done.returncode == 0, done.stderr
    assert "36 runs in" in done.stdout
    assert "36/36 runs" in done.stderr
    assert "profile of 4 calls" in done.stderr
    return folder


def test_run_leaves_store_fits_report_and_figures(workdir: Path) -> None:
    runs, curves = store.read(workdir / "store", "runs"), store.read(workdir / "store", "curves")
    assert (runs.status == "done").all()
    assert len(runs) == 36
    assert set(curves.domain) == {"prose", "code", "mixture"}
    assert (workdir / "fits.json").stat().st_size > 1000
    assert "<figure>" in (workdir / "report.html").read_text()
    assert len(list((workdir / "figures").glob("*.png"))) == 5
    assert list((workdir / "states").glob("*")) == []
    assert sorted(read_json(workdir / "experiment.json")["runs"]) == sorted(runs.run_id)


def test_the_profile_is_what_its_viewers_read(workdir: Path) -> None:
    folder, = (workdir / "profile").glob("plugins/profile/*")
    assert len(list(folder.glob("*.xplane.pb"))) == 1
    events = json.loads(gzip.decompress((folder / "perfetto_trace.json.gz").read_bytes()))["traceEvents"]
    assert {event["args"]["name"] for event in events if event.get("name") == "process_name"} >= {"/host:CPU"}
    assert sum(event.get("ph") == "X" for event in events) > 100


def test_watch_shows_a_finished_sweep_once_and_writes_nothing(workdir: Path, environment: dict[str, str]) -> None:
    before = sorted(workdir.rglob("*"))
    done = verb("watch", environment, f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    assert "36 runs: 36 done; 0 left" in done.stdout
    assert "ended  36/36" in done.stdout
    assert sorted(workdir.rglob("*")) == before
    refused = verb("watch", environment, f"--workdir={workdir}", "--export=csv")
    assert "ConfigError: --export and --out: expected both or none" in refused.stderr


def test_report_and_keep_come_from_this_sweeps_rows_of_the_store_alone(
    workdir: Path, environment: dict[str, str], tmp_path: Path,
) -> None:
    """Another configuration was run in the workdir too, and nothing but the store is left of what was analysed."""
    both, fits = tmp_path / "both", json.loads((workdir / "fits.json").read_text())
    shutil.copytree(workdir, both, ignore=shutil.ignore_patterns("report.html", "fits.json", "figures"))
    tables = {name: store.read(workdir / "store", name) for name in ("runs", "curves")}
    for name, table in tables.items():
        renamed = {column: "x" + table[column] for column in ("run_id", "parent_id") if column in table}
        store.Store(both / "store").write(name, "other", table.assign(**renamed))
    done = verb("report", {**environment, "SCALING_CACHE": "/nonexistent"}, f"--workdir={both}")
    assert done.returncode == 0, done.stderr
    assert json.loads((both / "fits.json").read_text()) == fits
    assert len((both / "report.html").read_text()) == pytest.approx(len((workdir / "report.html").read_text()), rel=0.2)
    kept = verb("keep", environment, f"--workdir={both}", f"--out={tmp_path / 'kept'}")
    assert kept.returncode == 0, kept.stderr
    assert pd.read_parquet(tmp_path / "kept" / "runs.parquet").run_id.tolist() == tables["runs"].run_id.tolist()
    refused = verb("keep", environment, f"--workdir={both}", f"--out={tmp_path}")
    assert re.match(r"ConfigError: --out = .*expected a folder outside --workdir=.*; name another", refused.stderr)


def test_plan_says_what_it_will_cost(environment: dict[str, str]) -> None:
    planned = verb("plan", environment, f"--config={CONFIG}", "--config.model.width=8")
    assert planned.returncode == 0, planned.stderr
    assert "12 runs of 2 groups and 1 programs" in planned.stdout
    assert "given on the command line, in place of axes where they set it: {'model.width': 8}" in planned.stdout
    assert "to train: 12 runs, about" in planned.stdout


@pytest.mark.parametrize(("arguments", "message"), [
    (["--config.model.depth=0"], "ConfigError: model.depth = 0: expected 1 or more"),
    (["--config.study.shares=(0.0, 1.5)"], r"ConfigError: data.mixture.code = 1.5: expected a share from 0 to 1"),
    (["--config.data.sequence=100000"], "ConfigError: data.sequence = 100000"),
])
def test_what_a_user_can_cure_is_one_line(
    environment: dict[str, str], tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = verb("run", environment, f"--config={CONFIG}", f"--workdir={tmp_path}", *arguments)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("*.parquet"))


def test_the_start_of_a_sweep_imports_no_fits_nor_figures() -> None:
    """They cost every process of every sweep a second and more."""
    heavy = ("scaling.fitting", "scaling.figures", "matplotlib", "scipy.stats", "scipy.signal")
    program = f"import sys, experiments.run; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], text=True, capture_output=True, timeout=280, check=True)
    assert done.stdout == "[]\n"


def test_report_without_a_sweep_says_what_to_run(environment: dict[str, str], tmp_path: Path) -> None:
    done = verb("report", environment, f"--workdir={tmp_path}")
    assert done.returncode != 0
    assert "expected the folder of a sweep, with experiment.json; run python -m experiments.run first" in done.stderr
