"""64 runs as one sweep against a fresh process a run: start-up, compilation, evaluation and checkpoints included.

python -m benchmarks.sweep_end_to_end [--runs=64] [--steps=500] [--sample=4] [--width=16] [--sequence=32] [--batch=8]
Both sides are `python -m experiments.run` on configs/base.py with prose and code for text, runs that differ in rate
and seed. What is saved is start-up, compilation and the idle machine of small models: the larger the model, the less of
the time that is, and a fresh process has all devices to itself. The corpora are read beforehand; compiled programs and
measured widths begin empty ("cold") or are there ("warm"). Of the fresh processes a sample is timed and scaled: cold,
the first alone finds nothing compiled, as with any cache that is kept, so its time counts once and the mean of the
others for all the rest. Prints a table and ends with one JSON line.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.common import finish, table

CHECKPOINT_SECONDS = 10  # oftener than the default, so that single runs write some too
CONFIG = '''
from configs import base
from scaling.sweeps import grid
from scaling.sweeps.sweep import Stage


def get_config():
    c = base.get_config()
    del c.data.domains
    c.data.domains = {{"prose": "wheels:prose", "code": "wheels:code"}}
    c.training.duration = {{"steps": {steps}}}
    c.model.width, c.model.heads = {width}, max(1, {width} // 16)
    c.data.sequence, c.data.batch = {sequence}, {batch}
    return c


def get_stages(c):
    rates = [1e-3 * 2 ** (k / 2) for k in range(8)]
    return [Stage("runs", grid.product({{"schedule.peak": rates}}, {{"training.seed": range(64)}})[:{runs}])]
'''


class Bench:
    """Commands of the user, timed, in a folder that holds their cache and workdirs."""

    def __init__(self, folder: Path, width: int, sequence: int, batch: int) -> None:
        self.folder, self.count = folder, 0
        self.size = {"width": width, "sequence": sequence, "batch": batch}

    def config(self, runs: int, steps: int) -> Path:
        """A configuration file of so many runs."""
        path = self.folder / f"grid_{runs}_{steps}.py"
        path.write_text(CONFIG.format(runs=runs, steps=steps, **self.size))
        return path

    def empty(self) -> None:
        """Forget compiled programs and measured widths; keep the corpora."""
        for name in ("compiled", "widths"):
            shutil.rmtree(self.folder / "cache" / name, ignore_errors=True)

    def seconds(self, config: Path, *overrides: str) -> float:
        """Wall seconds of one command from start to end, in a new workdir."""
        self.count += 1
        command = [sys.executable, "-m", "experiments.run", f"--config={config}",
                   f"--workdir={self.folder / f'work{self.count}'}", f"--checkpoint_seconds={CHECKPOINT_SECONDS}"]
        begin = time.perf_counter()
        done = subprocess.run([*command, *overrides], capture_output=True, text=True, check=False,
                              env={**os.environ, "SCALING_CACHE": str(self.folder / "cache")})
        if done.returncode:
            raise SystemExit(f"{' '.join(done.args)} failed:\n{done.stderr}")
        return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("runs", 64), ("steps", 500), ("sample", 4), ("width", 16), ("sequence", 32), ("batch", 8)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    if not 2 <= options.sample <= options.runs:
        parser.error(f"--sample={options.sample}: expected 2 to --runs={options.runs}")
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name), options.width, options.sequence, options.batch)
        bench.seconds(bench.config(1, 40))  # reads the corpora
        bench.empty()
        first, *others = [bench.seconds(bench.config(1, options.steps), f"--config.training.seed={seed}")
                          for seed in range(options.sample)]
        one = sum(others) / len(others)
        fresh = {"cold": first + one * (options.runs - 1), "warm": one * options.runs}
        bench.empty()
        together = bench.config(options.runs, options.steps)
        sweep = {"cold": bench.seconds(together), "warm": bench.seconds(together)}
    rows = [{"start": start, "fresh processes, s": fresh[start], "one sweep, s": sweep[start],
             "ratio": fresh[start] / sweep[start]} for start in ("cold", "warm")]
    table(rows)
    print(f"fresh processes: {options.sample} of {options.runs} timed, {first:.1f} s the first, {one:.1f} s the others")
    finish({"runs": options.runs, "steps": options.steps, **bench.size, "sampled_processes": options.sample,
            **{f"ratio_{row['start']}": row["ratio"] for row in rows}, "fresh_first_s": first, "fresh_other_s": one,
            "sweep_cold_s": sweep["cold"], "sweep_warm_s": sweep["warm"]})


if __name__ == "__main__":
    main()
