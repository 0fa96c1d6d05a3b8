"""The coordinate check of muP: a few steps at many widths, see experiments/coordinates.py.

Paper: Yang et al. 2022, arXiv 2203.03466, appendix D.
Command: python -m experiments.coordinates --config=configs/coordinates.py --widths=16,32,64,128,256 --figure=muP.png
Expected: after 3 steps every slope within 0.07 of 0 under muP; in the standard parametrization +0.6 and +0.8 for the
outputs of the two blocks and +0.9 for the logits. 1.5 minutes of one core, nearly all of it compilation. An untied
head's logits fall as 1/√m first (-0.4).
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    c = base.get_config()
    c.model.width, c.model.heads, c.model.depth = 32, 2, 2
    c.model.base = {"width": 32, "heads": 2}
    c.data.sequence, c.data.batch = 32, 8
    c.optimizer.width_exponent = 0.5
    c.schedule.name, c.schedule.floor = "constant", 1.0
    c.schedule.warmup = {"steps": 0}
    c.training.duration = {"steps": 3}
    c.evaluation.points, c.evaluation.windows = 2, 8
    return c
