"""A sweep without a study that trains for a few seconds: one program, three packs of trunks, then one of branches."""

import os

from ml_collections import ConfigDict

from configs import base
from scaling.sweeps import grid
from scaling.sweeps.sweep import Stage

COOLDOWN = {"parent.optimizer": "keep", "parent.at": {"steps": 150}, "schedule.name": "linear", "schedule.floor": 0.0,
            "schedule.warmup": {"steps": 0}, "training.duration": {"steps": 60}}


def get_config() -> ConfigDict:
    c = base.get_config()
    texts = os.environ["TINY_TEXTS"]
    c.data.domains = {"a": f"folder:{texts}/a", "b": f"folder:{texts}/b"}
    c.data.mixture = {"a": 0.5, "b": 0.5}
    c.model.width, c.model.depth, c.model.heads = 16, 1, 2
    c.data.sequence, c.data.batch = 16, 4
    c.schedule.name, c.schedule.floor, c.schedule.warmup = "constant", 1.0, {"steps": 5}
    c.evaluation.points, c.evaluation.windows = 6, 4
    return c


def get_stages(c: ConfigDict) -> list[Stage]:
    durations = [{"steps": 600}, {"steps": 700}, {"steps": 800}]
    return [
        Stage("trunk", grid.product({"training.seed": [0, 1]}, {"training.duration": durations})),
        Stage("cooldown", [COOLDOWN], parent="trunk"),
    ]
