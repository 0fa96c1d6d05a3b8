"""Keeping an outcome: what it publishes is of the runs that are there now, and it replaces nothing but its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from configs.optimizer_bench import get_config
from experiments import analyse, bench_design, report, runtime
from experiments.keep import keep
from experiments.ledger import ledger
from experiments.optimizer_bench import also
from scaling.fields import ConfigError
from scaling.files import StoreError
from scaling.seal import read_json, write_json
from scaling.store import Store

FILES = ["claims.csv", "curves.parquet", "figures/one.png", "report.html", "runs.parquet"]
AGAIN = "run python -m experiments.report --workdir=.* again"


def write_runs(workdir: Path, name: str, run_ids: list[str], status: str = "done", seconds: float = 1.0) -> None:
    store = Store(workdir / "store")
    store.write("runs", name, pd.DataFrame({"run_id": run_ids, "status": status, "flops": 10.0, "device": "test",
                                            "wall_seconds": seconds}))
    store.write("curves", name, pd.DataFrame({"run_id": run_ids, "step": 1, "loss": 2.0}))


def record(workdir: Path, run_ids: list[str], **settings: float) -> None:
    write_json(workdir / "experiment.json", {"base": {}, "study": {"name": "counting", **settings},
                                             "command": "python -m experiments.run", "runs": run_ids})


@pytest.fixture(autouse=True)
def counting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A study whose one claim counts the runs that it was given."""
    study = SimpleNamespace(analyse=lambda store, study: len(store.read("runs")))
    page = SimpleNamespace(
        record=lambda found: {"claims": [{"statement": "s", "source": "a", "measured": "m", "value": 1.0, "low": 0.0,
                                          "high": 2.0, "n": found, "verdict": "reproduced"}]},
        page=lambda store, found: (SimpleNamespace(text=lambda: f"<p>{len(store.read('curves'))} of {found}"),
                                   {"one": b"png"}))
    monkeypatch.setattr(runtime, "study_modules", lambda study: (study_module(study), page))

    def study_module(_: object) -> SimpleNamespace:
        return study


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    """Two runs, analysed and reported."""
    folder = tmp_path / "runs" / "counting"
    write_runs(folder, "all", ["a", "b"])
    record(folder, ["a", "b"])
    report.report(folder, analyse.analyse(folder))
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_an_outcome_is_kept_and_replaced_by_a_later_one(workdir: Path, tmp_path: Path) -> None:
    out = tmp_path / "results" / "counting"
    assert sorted(str(path.relative_to(out)) for path in keep(workdir, out)) == sorted(files(out)) == FILES
    write_runs(workdir, "more", ["c"])
    record(workdir, ["a", "b", "c"])
    report.report(workdir, analyse.analyse(workdir))
    keep(workdir, out)
    assert pd.read_csv(out / "claims.csv").n.tolist() == [3]
    assert sorted(files(out)) == FILES
    assert [path.name for path in out.parent.iterdir()] == ["counting"]


@pytest.mark.parametrize("place", [".", "figures", "new", "..", "../.."])
def test_an_out_that_is_holds_or_lies_in_the_workdir_is_refused(workdir: Path, place: str) -> None:
    before = files(workdir)
    with pytest.raises(ConfigError, match=r"--out = .*: expected a folder outside --workdir=.*; name another folder"):
        keep(workdir, workdir / place)
    assert files(workdir) == before


@pytest.mark.parametrize(("name", "held"), [
    ("README.md", "README.md"), ("cmr/claims.csv", "cmr"), ("runs.parquet", "runs.parquet"),
])
def test_a_folder_that_keep_did_not_write_is_refused(workdir: Path, tmp_path: Path, name: str, held: str) -> None:
    out = tmp_path / "results"
    (out / name).parent.mkdir(parents=True)
    (out / name).write_text("mine")
    with pytest.raises(ConfigError, match=rf"--out = .*results.*: expected .*, but it holds {held}; name another"):
        keep(workdir, out)
    assert (out / name).read_text() == "mine"


@pytest.mark.parametrize("name", ["notes.md", "figures/notes.md"])
def test_a_file_beside_a_kept_outcome_is_not_lost(workdir: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "kept"
    keep(workdir, out)
    (out / name).write_text("mine")
    with pytest.raises(ConfigError, match=rf"but it holds {name}; name another"):
        keep(workdir, out)
    assert (out / name).read_text() == "mine"


def test_an_out_that_is_a_file_is_refused(workdir: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match=r"--out = .*file.*: expected a folder;"):
        keep(workdir, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.keep.MOST_BYTES", 10)


def no_rename(monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if path.name.startswith(".") and not path.name.endswith(".old"):
            raise PermissionError(13, "Permission denied")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)


@pytest.mark.parametrize("fail", [too_large, no_rename])
def test_what_was_kept_before_is_left_by_one_that_fails(
    workdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fail: Callable[[pytest.MonkeyPatch], None],
) -> None:
    out = tmp_path / "results" / "counting"
    keep(workdir, out)
    before = files(tmp_path / "results")
    fail(monkeypatch)
    with pytest.raises((ConfigError, StoreError), match=r"table runs = |let this user at it"):
        keep(workdir, out)
    assert files(tmp_path / "results") == before
    assert [path.name for path in out.parent.iterdir()] == ["counting"]


def test_the_ledger_passes_over_what_a_killed_keep_left(workdir: Path, tmp_path: Path) -> None:
    keep(workdir, tmp_path / "results" / "counting")
    shutil.copytree(tmp_path / "results" / "counting", tmp_path / "results" / ".counting.0123")
    assert "1 claims in 1 studies" in ledger(tmp_path / "results")


def test_another_sweep_of_the_workdir_is_in_no_claim_page_or_table(workdir: Path, tmp_path: Path) -> None:
    write_runs(workdir, "other", ["x", "y", "z"])
    report.report(workdir, analyse.analyse(workdir))
    assert (workdir / "report.html").read_text().startswith("<p>2 of 2")
    keep(workdir, tmp_path / "kept")
    claims = pd.read_csv(tmp_path / "kept" / "claims.csv").iloc[0]
    assert (claims.n, claims.runs, claims.flops, claims.device_seconds) == (2, 2, 20, 2)
    for name in ("runs", "curves"):
        assert pd.read_parquet(tmp_path / "kept" / f"{name}.parquet").run_id.tolist() == ["a", "b"]


@pytest.mark.parametrize("changes", [{}, {"runs": [["a"]]}])
def test_a_workdir_that_does_not_say_its_runs_is_refused(workdir: Path, changes: dict) -> None:
    path = workdir / "experiment.json"
    old = {name: value for name, value in read_json(path).items() if name != "runs"}
    write_json(path, {**old, **changes})
    with pytest.raises(ConfigError, match=r"experiment.json: runs = .*: expected the run_ids .*; run python -m "
                                          r"experiments.run --workdir=.* again: it trains only what is missing"):
        analyse.analyse(workdir)


def test_the_bench_reads_its_trials_of_digits_too() -> None:
    study = get_config("small").study.to_dict()
    s = bench_design.settings_of(study)
    tuned = bench_design.tuning(s)
    entries = [*tuned, *bench_design.scored(s), *bench_design.retrained(s, tuned[3])]
    assert {bench_design.trial(s, task.workload, at).run_id for task in s.digits for at in entries} < also(study)


def widened(workdir: Path) -> None:
    """As a kill while the laws are fitted leaves it."""
    write_runs(workdir, "more", ["c"])
    record(workdir, ["a", "b", "c"])


def set_otherwise(workdir: Path) -> None:
    record(workdir, ["a", "b"], tolerance=0.1)


def trained_again(workdir: Path) -> None:
    write_runs(workdir, "all", ["a", "b"], seconds=1.5)


def ended_otherwise(workdir: Path) -> None:
    write_runs(workdir, "all", ["a", "b"], status="failed")


@pytest.mark.parametrize("change", [widened, set_otherwise, trained_again, ended_otherwise])
def test_claims_of_an_older_state_are_refused(
    workdir: Path, tmp_path: Path, change: Callable[[Path], None],
) -> None:
    change(workdir)
    with pytest.raises(ConfigError, match=rf"fits.json: .*of other runs or settings.*; {AGAIN}"):
        keep(workdir, tmp_path / "kept")
    findings = analyse.analyse(workdir)
    with pytest.raises(ConfigError, match=rf"report.html: .*of other runs or settings.*; {AGAIN}"):
        keep(workdir, tmp_path / "kept")
    assert not (tmp_path / "kept").exists()
    report.report(workdir, findings)
    keep(workdir, tmp_path / "kept")


def test_a_lost_run_or_one_in_training_is_no_end(workdir: Path, tmp_path: Path) -> None:
    write_runs(workdir, "other", ["x"], status="running")
    with pytest.raises(ConfigError, match=r"expected a sweep that has ended; run it to its end"):
        keep(workdir, tmp_path / "kept")
    Store(workdir / "store").remove("runs", ["other"])
    record(workdir, ["a", "b", "lost"])
    report.report(workdir, analyse.analyse(workdir))
    with pytest.raises(ConfigError, match=r"expected a sweep that has ended; run it to its end"):
        keep(workdir, tmp_path / "kept")


@pytest.mark.parametrize("content", [b'{"claims": [{"sta', b"[]", b"\xff\xfe"])
def test_a_damaged_fits_file_is_named_with_its_cure(workdir: Path, tmp_path: Path, content: bytes) -> None:
    assert json.loads((workdir / "fits.json").read_text())
    (workdir / "fits.json").write_bytes(content)
    with pytest.raises(ConfigError, match=rf"fits.json.*expected the outcome of a study.*; {AGAIN}"):
        keep(workdir, tmp_path / "kept")
