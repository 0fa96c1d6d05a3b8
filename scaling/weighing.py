"""How domains and windows weigh while a run trains: its sections `mixer` and `objective`, None for plain training."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from scaling import fields
from scaling.duration import LARGEST, Duration
from scaling.fields import check, static, traced

REWEIGHTINGS = ("none", "lin_upper", "quadratic", "extremes", "upper")
MIXER_SETTINGS = {  # which settings each online mixer needs; the others must be left out
    "doremi": ("rate", "smoothing"),
    "doge": ("rate",),
    "skill_it": ("rate", "graph", "every", "window", "windows"),
    "odm": ("memory",),
    "odm_released": ("memory",),
    "aioli": ("rate", "memory", "own", "every", "interval", "passes", "windows"),
    "bilevel": ("rate", "penalty", "windows"),
}
MAY = ("doge", "graph")  # a setting that a mixer may take


@dataclasses.dataclass(frozen=True)
class Mixer:
    """A mixture that learns while it trains, from the shares of `data.mixture` on; see scaling/data/mixers.

    `rate`: strength of an update. `smoothing`: uniform share mixed in (doremi). `memory`: share of the old estimate
    that is kept (odm), of the old mixture's logarithm (aioli; 1 is the paper's update). `own`: share of the domain
    that an aioli probe is about. `penalty`: α of bilevel. `graph`: effect on a domain's loss of training on another,
    {from: {to: effect}} (skill_it), or whose gradient counts for whom (doge; None: all but its own). `every`: steps
    of a round; `interval`, `passes`: steps of a probe and how often each is made (aioli); `window`: rounds remembered
    (skill_it). `windows`: held-out windows a domain that it sees.
    """

    name: str = static(choices=tuple(MIXER_SETTINGS))
    rate: float | None = traced(None)
    smoothing: float | None = traced(None)
    memory: float | None = traced(None)
    own: float | None = traced(None)
    penalty: float | None = traced(None)
    graph: tuple[tuple[str, tuple[tuple[str, float], ...]], ...] | None = traced(None, convert=fields.nested_pairs)
    every: int | None = static(None)
    interval: int | None = static(None)
    passes: int | None = static(None)
    window: int | None = static(None)
    windows: int | None = static(None)

    def __post_init__(self) -> None:
        takes = MIXER_SETTINGS[self.name]
        for name, value in vars(self).items():
            if name != "name" and (self.name, name) != MAY:
                check((value is not None) == (name in takes), f"mixer.{name}", value,
                      f"{'a value' if name in takes else 'None'} for {self.name}, which takes {', '.join(takes)}",
                      "set it" if name in takes else "leave it out")
        for name in ("smoothing", "memory", "own"):
            value = getattr(self, name)
            check(value is None or 0 <= value <= 1, f"mixer.{name}", value, "a share from 0 to 1", "correct it")
        for name in ("rate", "penalty"):
            value = getattr(self, name)
            check(value is None or 0 <= value < math.inf, f"mixer.{name}", value, "finite and not negative", "use 0.2")
        for name in ("every", "interval", "passes", "window", "windows"):
            value = getattr(self, name)
            check(value is None or 1 <= value <= LARGEST, f"mixer.{name}", value, "1 or more", "use a positive number")


@dataclasses.dataclass(frozen=True)
class Objective:
    """How windows weigh in the training loss: the mean over the batch of w_k(b) ℓ_b, times B softmax(f(h_b) / r) of
    a reweighting by loss (2502.06733). `domain_weights` w: 1 where not named. `temperature`: r. `uniform_for`: before
    which nothing is reweighted by loss.
    """

    domain_weights: tuple[tuple[str, float], ...] = traced(convert=fields.pairs)
    reweighting: str = static(choices=REWEIGHTINGS)
    temperature: float | None = traced()
    uniform_for: Duration | None = traced()

    def __post_init__(self) -> None:
        for name, weight in self.domain_weights:
            check(0 <= weight < math.inf, f"objective.domain_weights.{name}", weight, "finite and not negative",
                  "correct it")
        for name in ("temperature", "uniform_for"):
            value = getattr(self, name)
            check((value is None) == (self.reweighting == "none"), f"objective.{name}", value,
                  "None for reweighting 'none', and a value for every other", "set or remove it")
        check(self.temperature is None or 0 < self.temperature < math.inf, "objective.temperature", self.temperature,
              "positive and finite", "use 1.0")


def check_weighing(mixer: Mixer | None, objective: Objective | None, names: Sequence[str], accumulation: int) -> None:
    """Refuse what the sections ask of a run that cannot give it; `names` are the run's domains."""
    if mixer is None and objective is None:
        return
    check(accumulation == 1, "training.accumulation", accumulation,
          "1 with a mixer or an objective, which weigh the whole batch at once", "use 1")
    for name, _ in () if objective is None else objective.domain_weights:
        fields.check_key(name, names, "objective.domain_weights")
    if mixer is None:
        return
    check(mixer.name != "doge" or objective is None, "objective", objective,
          "None with the mixer doge, which adds up a gradient a domain with weights of its own",
          "leave it out, or use another mixer")
    for source, effects in mixer.graph or ():
        for name in (source, *dict(effects)):
            fields.check_key(name, names, "mixer.graph")
    check(len(names) > 1, "data.domains", names, "two or more with a mixer", "name another")
    check(mixer.own is None or abs(mixer.own - 1 / len(names)) > 1e-6, "mixer.own", mixer.own,
          f"another share than 1 / {len(names)}, of which every probe would be the same", "use 0.75")
