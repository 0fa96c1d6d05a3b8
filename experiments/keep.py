"""Keep the outcome of a finished study: its tables, figures, report and claims, small enough to commit.

python -m experiments.keep --workdir=runs/cmr --out=results/cmr
python -m experiments.ledger afterwards writes results/README.md from all that is kept. A study of very many runs may
define `kept(name, table)`: the part of a table that it is to be analysed from.
"""

from __future__ import annotations

import contextlib
import functools
import json
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
from absl import flags

from experiments import analyse, runtime
from experiments.workdir import sweep_runs
from scaling.fields import ConfigError, check
from scaling.files import disk_errors, listed, replace_durably, sync_folder
from scaling.seal import read_json
from scaling.store import Store
from scaling.sweeps.rows import FINAL, STOPPED

FLAGS = flags.FLAGS
MOST_BYTES = 2**20  # of a table
TABLES = ("runs", "curves", "diagnostics")
WRITTEN = ("claims.csv", "report.html", "figures", *(f"{name}.parquet" for name in TABLES))
DIGITS = {"loss": 6, "loss_se": 6, "bits_per_byte": 6, "value": 6}  # decimals kept: far below the noise of a seed
MACHINE = ["pack_id", "job_id"]  # columns that say where a run was trained, not what it is


def keep(workdir: Path, out: Path) -> list[Path]:
    """Copy report and figures, write tables as Parquet and claims as CSV; returns what was written.

    Raises ConfigError for a sweep that has not ended, a study without claims or analysed before its last run ended, a
    table above 1 MB, a folder `out` that holds anything but what this wrote; `out` is then as before.
    """
    _check_out(workdir.resolve(), out.resolve())
    findings = _findings(workdir)
    check(bool(findings.get("claims")), "--workdir", str(workdir), "a study that tests claims", "analyse it first")
    store = analyse.own(workdir)
    runs = _ended(workdir, store)
    _check_analysed(workdir, analyse.fingerprint(workdir, store), findings)
    with _replaced(out.resolve()) as fresh:
        written = [*_tables(workdir, store, fresh), _claims(workdir, fresh, findings["claims"], runs)]
        for path in [workdir / "report.html", *sorted((workdir / "figures").glob("*.png"))]:
            content = path.read_bytes()
            written.append(_write(fresh / path.relative_to(workdir), functools.partial(Path.write_bytes, data=content)))
    return [out / path.relative_to(fresh) for path in written]


def _check_out(workdir: Path, out: Path) -> None:
    """Refuse a folder whose contents must not go: all of it is replaced."""
    cure = "name another folder, such as results/cmr"
    check(out != workdir and out not in workdir.parents and workdir not in out.parents, "--out", str(out),
          f"a folder outside --workdir={workdir} that does not hold it", cure)
    check(out.is_dir() or not out.exists(), "--out", str(out), "a folder", cure)
    names = listed(out)
    figures = [f"figures/{name}" for name in listed(out / "figures") if not name.endswith(".png")]
    others = [name for name in names if name not in WRITTEN] + figures
    check(not names or ("claims.csv" in names and not others), "--out", str(out), "a new or an empty folder, or one of "
          f"nothing but an outcome that was kept, but it holds {', '.join((others or names)[:3])}", cure)


def _findings(workdir: Path) -> dict:
    path = workdir / "fits.json"
    if not path.exists():
        raise ConfigError(f"{path}: expected the outcome of a study; run python -m experiments.run to its end")
    try:
        findings = json.loads(path.read_bytes())
    except ValueError as error:
        raise ConfigError(f"{path}: damaged ({error}), expected the outcome of a study as JSON; {_again(workdir)}"
                          ) from error
    check(isinstance(findings, dict), str(path), findings, "the outcome of a study", _again(workdir))
    return findings


def _again(workdir: Path) -> str:
    return f"run python -m experiments.report --workdir={workdir} again"


def _ended(workdir: Path, store: Store) -> pd.DataFrame:
    """Rows of the sweep's runs, all of which have an outcome."""
    everything, runs = Store(workdir / "store").read("runs"), store.read("runs")
    over = len(runs) > 0 and not (everything.status == "running").any()
    check(over and set(sweep_runs(workdir)) <= set(runs.run_id[runs.status.isin((*FINAL, STOPPED))]),
          "--workdir", str(workdir), "a sweep that has ended", "run it to its end")
    return runs


def _check_analysed(workdir: Path, mark: str, findings: dict) -> None:
    """Refuse claims, a report and figures of other runs or settings than are in the workdir now."""
    page = workdir / "report.html"
    said = {workdir / "fits.json": findings.get(analyse.ANALYSED) == mark,
            page: page.exists() and mark in page.read_text(errors="replace")}
    for path, current in said.items():
        if not current:
            raise ConfigError(f"{path}: missing, or of other runs or settings than {workdir} holds now: expected the "
                              f"outcome of these; {_again(workdir)}")


@contextlib.contextmanager
def _replaced(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its place at the end; after an error `out` is as before."""
    fresh = out.with_name(f".{out.name}.{uuid.uuid4().hex}")
    old = fresh.with_name(f"{fresh.name}.old")
    try:
        yield fresh
        with disk_errors(out):
            if out.exists():
                out.rename(old)
            try:
                fresh.rename(out)
            except OSError:
                if old.exists():
                    old.rename(out)
                raise
            sync_folder(out.parent)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def _claims(workdir: Path, out: Path, claims: list[dict], runs: pd.DataFrame) -> Path:
    record = read_json(workdir / "experiment.json")
    table = pd.DataFrame(claims).assign(
        study=record["study"]["name"], command=record["command"], runs=len(runs), flops=runs.flops.sum(),
        device_seconds=runs.wall_seconds.sum(), device=", ".join(sorted(set(runs.device))))
    return _write(out / "claims.csv", functools.partial(table.to_csv, index=False, float_format="%.6g"))


def _tables(workdir: Path, store: Store, out: Path) -> list[Path]:
    module = runtime.study_modules(runtime.load_study(workdir))[0]
    kept = getattr(module, "kept", lambda name, table: table)
    written = [_table(store, out, name, kept) for name in TABLES]
    return [path for path in written if path is not None]


def _table(store: Store, out: Path, name: str, kept: Callable[[str, pd.DataFrame], pd.DataFrame]) -> Path | None:
    """What the study keeps of one table of the store, in one file; None where it is empty."""
    table = store.read(name)
    if not len(table):
        return None
    table = kept(name, table)
    table = table.drop(columns=[column for column in MACHINE if column in table]).round(DIGITS)
    path = _write(out / f"{name}.parquet",
                  lambda path: table.to_parquet(path, index=False, compression="zstd", compression_level=19))
    check(path.stat().st_size <= MOST_BYTES, f"table {name}", path.stat().st_size, f"at most {MOST_BYTES} bytes",
          "evaluate at fewer steps")
    return path


def _write(path: Path, write: Callable[[Path], object]) -> Path:
    replace_durably(path, write)
    return path


def main() -> None:
    out = Path(FLAGS.out)
    written = keep(Path(FLAGS.workdir), out)
    print(f"{len(written)} files, {sum(path.stat().st_size for path in written):,} bytes in {out}")
    print("python -m experiments.ledger brings results/README.md up to date", file=sys.stderr)


if __name__ == "__main__":
    runtime.define_workdir()
    flags.DEFINE_string("out", None, "Folder to keep the outcome in, such as results/cmr.", required=True)
    flags.adopt_module_key_flags(runtime)
    runtime.start(main)
