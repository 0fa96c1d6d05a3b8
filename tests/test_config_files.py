"""Every configuration file opens with its command and outcome, and builds runs that can be planned."""

import importlib.util
from pathlib import Path

import jax
import pytest

from experiments.runtime import set_precision
from helpers import windows_of
from scaling.config import run_from
from scaling.sweeps.plan import groups
from scaling.sweeps.sweep import Stage, Sweep

PARTS = ("__init__", "branching", "mixer_rounds", "optimizer_effects")  # what several configurations share
CONFIGS = sorted(path for path in (Path(__file__).parents[1] / "configs").glob("*.py") if path.stem not in PARTS)


@pytest.mark.parametrize("path", CONFIGS, ids=[path.stem for path in CONFIGS])
def test_every_configuration_file_builds_its_runs(path: Path) -> None:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    values = module.get_config()
    assert module.__doc__
    assert "Command:" in module.__doc__
    assert "Expected:" in module.__doc__
    base = run_from({key: value for key, value in values.items() if key != "study"})
    stages = module.get_stages(values) if hasattr(module, "get_stages") else (Stage("runs", [{}]),)
    runs = Sweep(base, tuple(stages)).runs()
    assert runs
    before = jax.config.read("jax_enable_x64")
    try:
        set_precision(runs)
        assert len(groups(runs, {run.program: windows_of(run, 10**7) for run in runs})) >= 1
    finally:
        jax.config.update("jax_enable_x64", before)
