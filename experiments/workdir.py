"""What a workdir says of the sweep that was run in it last; nothing of training is imported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scaling.fields import ConfigError, shown
from scaling.files import disk_errors
from scaling.seal import read_json


def read_experiment(workdir: Path) -> Any:
    """What the last sweep in a workdir left of its configuration: base, study, command, runs. Raises ConfigError where
    there was none.
    """
    path = workdir / "experiment.json"
    with disk_errors(path):
        there = path.exists()
    if not there:
        raise ConfigError(f"--workdir={workdir}: expected the folder of a sweep, with experiment.json; run "
                          "python -m experiments.run first")
    return read_json(path)


def sweep_runs(workdir: Path) -> list[str]:
    """run_ids of the sweep that was run last in a workdir. Raises ConfigError where none was, or by an older version.
    """
    record = read_experiment(workdir)
    run_ids, command = (record.get(name) if isinstance(record, dict) else None for name in ("runs", "command"))
    if not isinstance(run_ids, list) or not all(isinstance(run_id, str) for run_id in run_ids):
        raise ConfigError(f"{workdir / 'experiment.json'}: runs = {shown(run_ids)}: expected the run_ids of the sweep, "
                          f"which older versions did not write; run {command or 'python -m experiments.run'} "
                          f"--workdir={workdir} again: it trains only what is missing")
    return run_ids
