"""Which peak learning rate is best for a small transformer on prose? Eight rates, four seeds each.

Command: python -m experiments.run --config=configs/learning_rates.py --workdir=runs/learning_rates
Expected: 32 runs, about 4 minutes on 2 cores; lowest mean prose loss near 4e-3. Recorded in results/early_stopping/.
"""

from ml_collections import ConfigDict

from configs import base
from scaling.sweeps import grid
from scaling.sweeps.sweep import Stage

RATES = tuple(2.5e-4 * 2**k for k in range(8))


def get_config() -> ConfigDict:
    c = base.get_config()
    del c.data.domains
    c.data.domains = {"prose": "wheels:prose"}
    c.training.duration = {"steps": 500}
    c.evaluation.points = None
    c.evaluation.steps = tuple(range(25, 501, 25))
    c.evaluation.windows = 128
    return c


def get_stages(c: ConfigDict) -> list[Stage]:
    return [Stage("runs", grid.product({"schedule.peak": RATES}, {"training.seed": range(4)}))]
