"""A study small enough for a test: text of a few letters, three sizes, two generations."""

import os

from ml_collections import ConfigDict

from configs import quickstart

get_stages = quickstart.get_stages


def get_config() -> ConfigDict:
    c = quickstart.get_config()
    texts = os.environ["TINY_TEXTS"]
    c.data.domains = {"prose": f"folder:{texts}/prose", "code": f"folder:{texts}/code"}
    c.model.depth = 1
    c.data.sequence, c.data.batch = 16, 4
    c.training.duration = {"steps": 30}
    c.schedule.warmup = {"steps": 5}
    c.evaluation.windows = 8
    c.study.widths = (8, 12, 16)
    c.study.shares = (0.0, 0.25, 0.5, 0.75, 1.0)
    c.study.branch_steps = 20
    c.study.branch_evaluations = (4, 8, 12, 16, 20)
    c.study.tolerance = 0.01
    c.study.bootstrap = 20
    return c
