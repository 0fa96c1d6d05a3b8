"""Keep the outcome of a finished study: its tables, figures, report and claims, small enough to commit.

python -m experiments.keep --workdir=runs/cmr --out=results/cmr
python -m experiments.ledger afterwards writes results/README.md from all that is kept. A study of very many runs may
define `kept(name, table)`: the part of a table that it is to be analysed from.
"""

from __future__ import annotations

import functools
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from absl import flags

from experiments import runtime
from scaling.fields import ConfigError, check
from scaling.seal import read_json
from scaling.store import Store, replace_durably

FLAGS = flags.FLAGS
MOST_BYTES = 2**20  # of a table
TABLES = ("runs", "curves", "diagnostics")
DIGITS = {"loss": 6, "loss_se": 6, "bits_per_byte": 6, "value": 6}  # decimals kept: far below the noise of a seed
MACHINE = ["pack_id", "job_id"]  # columns that say where a run was trained, not what it is


def keep(workdir: Path, out: Path) -> list[Path]:
    """Copy report and figures, write tables as Parquet and claims as CSV; returns what was written.

    Raises ConfigError for a sweep that has not ended, a study without claims, a table above 1 MB.
    """
    runs = Store(workdir / "store").read("runs")
    check(len(runs) > 0 and not (runs.status == "running").any(), "--workdir", str(workdir), "a sweep that has ended",
          "run it to its end")
    record, findings = _json(workdir / "experiment.json"), _json(workdir / "fits.json")
    check(bool(findings.get("claims")), "--workdir", str(workdir), "a study that tests claims", "analyse it first")
    shutil.rmtree(out, ignore_errors=True)
    kept = getattr(runtime.study_modules(record["study"])[0], "kept", lambda name, table: table)
    written = [_table(workdir, out, name, kept) for name in TABLES]
    claims = pd.DataFrame(findings["claims"]).assign(
        study=record["study"]["name"], command=record["command"], runs=len(runs), flops=runs.flops.sum(),
        device_seconds=runs.wall_seconds.sum(), device=", ".join(sorted(set(runs.device))))
    written.append(_write(out / "claims.csv", functools.partial(claims.to_csv, index=False, float_format="%.6g")))
    for path in [workdir / "report.html", *sorted((workdir / "figures").glob("*.png"))]:
        content = path.read_bytes()
        written.append(_write(out / path.relative_to(workdir), functools.partial(Path.write_bytes, data=content)))
    return [path for path in written if path is not None]


def _json(path: Path) -> dict:
    if not path.exists():
        raise ConfigError(f"{path}: expected the outcome of a study; run python -m experiments.run to its end")
    return read_json(path) if path.name == "experiment.json" else json.loads(path.read_text())


def _table(workdir: Path, out: Path, name: str, kept: Callable[[str, pd.DataFrame], pd.DataFrame]) -> Path | None:
    """What the study keeps of one table of the store, in one file; None where it is empty."""
    table = Store(workdir / "store").read(name)
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
