"""Kill -9 at random moments of a sweep with branches, resumed each time: the tables are those of a sweep left alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd

from scaling.store import Store
from scaling.sweeps.rows import VOLATILE

KILLS = 10
TESTS = Path(__file__).parents[1]
KEYS = {"runs": ["run_id"], "curves": ["run_id", "step", "split", "domain"], "diagnostics": ["run_id", "step", "name"]}


def test_ten_kills_leave_the_tables_of_a_sweep_left_alone(tmp_path: Path) -> None:
    environment = {**os.environ, "SCALING_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(TESTS)}
    script = [sys.executable, str(Path(__file__).with_name("survival_sweep.py")), str(tmp_path), str(KILLS)]
    ended = subprocess.run(script, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert ended.returncode == 0, ended.stderr
    report = json.loads(ended.stdout.splitlines()[-1])
    assert len(report["killed"]) == KILLS, f"the sweep came to its end too early: {report}"
    assert sum(moment for moment in report["killed"] if isinstance(moment, int)) > report["moments"] / 2
    for name, keys in KEYS.items():
        killed, whole = (Store(tmp_path / workdir / "store").read(name).sort_values(keys).reset_index(drop=True)
                         for workdir in ("killed", "whole"))
        assert not whole.duplicated(keys).any()
        killed, whole = (table.drop(columns=list(VOLATILE), errors="ignore") for table in (killed, whole))
        pd.testing.assert_frame_equal(killed, whole, check_exact=True)
    runs = Store(tmp_path / "killed" / "store").read("runs")
    assert runs.status.value_counts().to_dict() == {"done": 5, "failed": 3, "diverged": 2}
