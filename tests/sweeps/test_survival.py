"""Kill -9 at random moments of a sweep with branches, resumed each time: the tables are those of a sweep left alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

from scaling.store import Store

KILLS, TIMED = 10, 3
TESTS = Path(__file__).parents[1]


def test_ten_kills_leave_the_tables_of_a_sweep_left_alone(tmp_path: Path) -> None:
    """The script compares after each kill and at each sweep's end; the full form is `make torture`."""
    environment = {**os.environ, "SCALING_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(TESTS)}
    script = [sys.executable, str(Path(__file__).with_name("survival_sweep.py")), str(tmp_path), str(KILLS), str(TIMED)]
    ended = subprocess.run(script, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert ended.returncode == 0, ended.stderr
    report = json.loads(ended.stdout.splitlines()[-1])
    assert (report["kills"], report["timed"]) == (KILLS, TIMED)
    assert len(report["last_moments"]) >= 4, "killed in many places"
    assert report["ended_rows_checked"] > 0, "some runs had ended when others were killed"
    for workdir in ("whole", "killed1"):
        runs = Store(tmp_path / workdir / "store").read("runs")
        assert runs.status.value_counts().to_dict() == {"done": 5, "failed": 3, "diverged": 2}
