"""The tables of a sweep for other tools: CSV, or TensorBoard event files."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from scaling.fields import ConfigError
from scaling.files import disk_errors, replace_durably
from scaling.sweeps.status import SECTIONS, Status

EVENTS = "events.out.tfevents.*"


def to_csv(status: Status, folder: Path) -> str:
    """Write each table of the status as NAME.csv; returns what was written, in words."""
    tables = status.tables()
    for name, table in tables.items():
        replace_durably(folder / f"{name}.csv", functools.partial(table.to_csv, index=False))
    return f"{folder}: " + ", ".join(f"{name}.csv ({len(table)} rows)" for name, table in tables.items())


def to_tensorboard(status: Status, folder: Path) -> str:
    """Write one event file a run, in place of an earlier export's: each curve as loss/SPLIT/DOMAIN and, where it has
    them, bits_per_byte/SPLIT/DOMAIN, lr and the diagnostics, against step; the configuration as hyperparameters.
    """
    try:
        from tensorboardX import SummaryWriter
        from tensorboardX.summary import hparams
    except ImportError as error:
        raise ConfigError("--export=tensorboard: expected the package tensorboardX; "
                          "pip install 'scaling[tensorboard]', or pip install tensorboardX") from error
    curves, diagnostics = (dict(list(table.groupby("run_id"))) for table in (status.curves, status.diagnostics))
    last = status.last()
    for _, row in status.runs.iterrows():
        run_id = row.run_id
        scalars = _scalars(curves.get(run_id, status.curves[:0]), diagnostics.get(run_id, status.diagnostics[:0]))
        losses = {f"loss/validation/{found.domain}": found.loss for found in last[last.run_id == run_id].itertuples()}
        with disk_errors(folder / run_id):
            for old in (folder / run_id).glob(EVENTS):
                old.unlink()
            with SummaryWriter(str(folder / run_id)) as writer:
                for summary in hparams(_hyperparameters(row), losses):
                    writer.file_writer.add_summary(summary)
                for tag, value, step in scalars:
                    writer.add_scalar(tag, value, step)
    return f"{folder}: event files of {len(status.runs)} runs; tensorboard --logdir={folder}"


def _scalars(curves: pd.DataFrame, diagnostics: pd.DataFrame) -> list[tuple[str, float, int]]:
    """(tag, value, step) of one run, in order of steps."""
    found = []
    for row in curves.to_dict("records"):
        found += [(f"{name}/{row['split']}/{row['domain']}", row[name], row["step"])
                  for name in ("loss", "bits_per_byte")]
    found += [("lr", row["lr"], row["step"]) for row in curves.drop_duplicates("step").to_dict("records")]
    found += [(f"diagnostics/{row['name']}", row["value"], row["step"]) for row in diagnostics.to_dict("records")]
    return sorted(((tag, float(value), int(step)) for tag, value, step in found if math.isfinite(value)),
                  key=lambda scalar: (scalar[2], scalar[0]))


def _hyperparameters(row: pd.Series) -> Mapping[str, Any]:
    """The configuration and size of a run as plain values; what a run lacks is left out."""
    wanted = [name for name in row.index if str(name).startswith((*SECTIONS, "params_")) and pd.notna(row[name])]
    plain = {name: row[name].item() if hasattr(row[name], "item") else row[name] for name in wanted}
    return {**plain, "status": row.status}


EXPORTS: dict[str, Callable[[Status, Path], str]] = {"csv": to_csv, "tensorboard": to_tensorboard}
