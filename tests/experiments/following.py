"""Two rates, then two more seeds of the better one, then branches of what both rounds trained."""

import os

from ml_collections import ConfigDict

from configs import base
from scaling.store import Store
from scaling.sweeps import grid
from scaling.sweeps.sweep import Stage

RATES = (1e-9, 1e-2)  # one learns nothing


def get_config(setting: str = "small") -> ConfigDict:
    c = base.get_config()
    del c.data.domains
    c.data.domains = {"prose": f"folder:{os.environ['TINY_TEXTS']}/prose"}
    c.model.width, c.model.depth, c.model.heads = 8, 1, 1
    c.data.sequence, c.data.batch = 16, 4
    c.training.duration = {"steps": {"small": 20, "full": 30}[setting]}
    c.schedule.warmup = {"steps": 2}
    c.evaluation.points, c.evaluation.windows = 2, 8
    return c


def get_stages(c: ConfigDict) -> list[Stage]:
    return [Stage("first", grid.product({"schedule.peak": RATES}))]


def best_rate(store: Store) -> float:
    runs, curves = store.read("runs"), store.read("curves")
    last = curves[(curves.split == "validation") & (curves.step == curves.step.max())].merge(runs, on="run_id")
    return float(last.loc[last.loss.idxmin(), "schedule.peak"])


def again(c: ConfigDict, store: Store) -> list[Stage]:
    return [Stage("again", grid.product({"schedule.peak": [best_rate(store)], "training.seed": [1, 2]}))]


def branches(c: ConfigDict, store: Store) -> list[Stage]:
    assert len(store.read("runs")) == 4, "the round before has ended when this one is decided"
    branch = {"parent.at": [{"steps": 10}], "parent.optimizer": ["keep"], "training.duration": [{"steps": 5}]}
    return [Stage("branch", grid.product(branch), parent="again")]


FOLLOW_UPS = (again, branches)
