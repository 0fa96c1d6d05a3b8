"""What a workdir says of the sweep that was run in it last; nothing of training is imported."""

from __future__ import annotations

from pathlib import Path

from scaling.fields import ConfigError, shown
from scaling.files import disk_errors
from scaling.seal import read_json


def sweep_runs(workdir: Path) -> list[str]:
    """run_ids of the sweep that was run last in a workdir. Raises ConfigError where none was, or by an older version.
    """
    path = workdir / "experiment.json"
    with disk_errors(path):
        there = path.exists()
    if not there:
        raise ConfigError(f"--workdir={workdir}: expected the folder of a sweep, with experiment.json; run "
                          "python -m experiments.run first")
    record = read_json(path)
    run_ids = record.get("runs") if isinstance(record, dict) else None
    if not isinstance(run_ids, list) or not all(isinstance(run_id, str) for run_id in run_ids):
        command = record.get("command") if isinstance(record, dict) else None
        raise ConfigError(f"{path}: runs = {shown(run_ids)}: expected the run_ids of the sweep, which older versions "
                          f"did not write; run {command or 'python -m experiments.run'} --workdir={workdir} again: it "
                          "trains only what is missing")
    return run_ids
