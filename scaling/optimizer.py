"""The section `optimizer` of a run: the method, its settings, and which parameters it treats how."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

from scaling.duration import LARGEST
from scaling.fields import check, static, traced

ADAM = ("b1", "b2", "eps")
SETTINGS = {  # which settings each method takes; the others are None
    "adafactor": ("memory", "form"),
    "adamp": (*ADAM, "delta", "decay_ratio"),
    "adamw": ADAM,
    "ademamix": (*ADAM, "b3", "alpha"),
    "adopt": ADAM,
    "conda": (*ADAM, "scale", "every"),
    "galore": (*ADAM, "scale", "every", "rank", "form"),
    "gradnormlorp": (*ADAM, "scale", "every", "rank", "form"),
    "lamb": ADAM,
    "lars": ("momentum", "scale"),
    "layca": (*ADAM, "momentum", "form"),
    "lion": ("b1", "b2"),
    "muon": (*ADAM, "momentum", "form"),
    "prodigy": (*ADAM, "scale"),
    "radam": (*ADAM, "form"),
    "schedule_free": ADAM,
    "sgd": ("momentum", "form"),
    "sgdp": ("momentum", "eps", "form", "delta", "decay_ratio"),
    "soap": (*ADAM, "every"),
    "sophia": (*ADAM, "scale", "every", "form"),
    "swats": (*ADAM, "tolerance"),
}
FORMS = {  # variants of a method; the first is its paper's
    "adafactor": ("scaled", "unscaled"),  # steps times the RMS of the parameter, or not
    "galore": ("short", "long"),  # side that is projected; optax takes the long one
    "gradnormlorp": ("published", "released"),  # gradient of the normalized weights; the authors' code
    "layca": ("sgd", "adam"),  # whose steps are rotations
    "muon": ("original", "moonlight"),  # scale of the orthogonal step
    "radam": ("published", "released"),  # while not rectified: SGD; no step
    "sgd": ("heavy_ball", "nesterov"),
    "sgdp": ("heavy_ball", "nesterov"),
    "sophia": ("gauss_newton", "hutchinson"),  # estimator of the diagonal
}
MATRIX_METHODS = ("conda", "galore", "gradnormlorp", "muon", "soap")  # of matrices; the rest is AdamW's
DECAY_CONVENTIONS = ("coupled", "independent")
DECAYED_PARAMETERS = ("all", "matrices")
TREATMENTS = ("named", "adamw", "frozen")
_ADAMW_DOES = tuple(name for name, takes in SETTINGS.items() if set(ADAM) <= set(takes))


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """A method of scaling/optimizers/build.py by name. Decay `coupled`: p -= lr_t λ p; `independent`:
    p -= (lr_t / peak) λ p, both on `decay_on`, where `matrices` are kernels: no embedding, norm scale or bias.

    `memory`: decay exponent of adafactor. `b3`, `alpha`: the slow average of ademamix and its weight. `scale`: the
    factor of conda's, galore's and gradnormlorp's step, the trust ratio of lars, ρ of sophia, d_0 of prodigy.
    `every`: steps between refreshes of a basis or of sophia's diagonal. `rank` of a projection. `delta`, `decay_ratio`:
    adamp's and sgdp's test for scale invariance, and the factor of decay where it holds. `tolerance`: ε of swats's
    switch.

    `groups`: ordered ((pattern, treatment), ...): the first pattern that a parameter's path, such as
    block_0/attention/query/kernel, matches in whole decides. Treatments: named, adamw, frozen. None: all are named, but
    with MATRIX_METHODS kernels of blocks alone, and the rest is AdamW's. `group_rates`, `group_decays`: factors of rate
    and decay, one a group; None: all 1. `width_exponent`: under muP alone, rate times decay of
    hidden matrices goes as (width / base width)^(exponent - 1): 1 keeps it, ½ is the layer-wise rule of arXiv
    2510.15262, 0 lets it fall as 1 / width, which with Adam-like methods leaves λ as it is.
    """

    name: str = static(choices=tuple(SETTINGS))
    b1: float | None = traced()
    b2: float | None = traced()
    eps: float | None = traced()
    weight_decay: float = traced()
    decay_convention: str = traced(choices=DECAY_CONVENTIONS)
    decay_on: str = static(choices=DECAYED_PARAMETERS)
    clip_norm: float | None = traced()  # None: no clipping
    momentum: float | None = traced(None)
    memory: float | None = traced(None)
    b3: float | None = traced(None)
    alpha: float | None = traced(None)
    scale: float | None = traced(None)
    delta: float | None = traced(None)
    decay_ratio: float | None = traced(None)
    tolerance: float | None = traced(None)
    every: int | None = static(None)
    rank: int | None = static(None)
    form: str | None = static(None)
    groups: tuple[tuple[str, str], ...] | None = static(None)
    group_rates: tuple[float, ...] | None = traced(None)
    group_decays: tuple[float, ...] | None = traced(None)
    width_exponent: float | None = traced(None)

    def __post_init__(self) -> None:
        self._check_settings()
        for name in ("b1", "b2", "b3", "momentum"):
            value = getattr(self, name)
            check(value is None or 0 <= value < 1, f"optimizer.{name}", value, "a number in [0, 1)",
                  "use 0.9, 0.95 or 0.999")
        for name in ("eps", "scale", "memory"):
            value = getattr(self, name)
            check(value is None or 0 < value < math.inf, f"optimizer.{name}", value, "positive and finite", "use 1e-8"
                  if name == "eps" else "correct it")
        for name in ("weight_decay", "alpha", "delta", "decay_ratio", "tolerance"):
            value = getattr(self, name)
            check(value is None or 0 <= value < math.inf, f"optimizer.{name}", value, "finite and not negative",
                  "use 0 for none, or 0.1")
        for name in ("every", "rank"):
            value = getattr(self, name)
            check(value is None or 1 <= value <= LARGEST, f"optimizer.{name}", value, "1 or more",
                  "use a positive number")
        check(self.clip_norm is None or self.clip_norm > 0, "optimizer.clip_norm", self.clip_norm, "positive or None",
              "use 1.0, or None for no clipping")
        check(self.name != "schedule_free" or self.b1 != 0, "optimizer.b1", self.b1,
              "above 0 for schedule_free, which divides by it", "use 0.9")
        self._check_groups()

    @property
    def momentum_field(self) -> str | None:
        """The setting that a cycle of momentum moves: `momentum`, else `b1`. None where the method has neither, or, as
        schedule_free, weighs its averages by it.
        """
        takes = SETTINGS[self.name]
        if self.name == "schedule_free" or not {"momentum", "b1"} & set(takes):
            return None
        return "b1" if "momentum" not in takes or self.form == "adam" else "momentum"

    def _check_settings(self) -> None:
        """Every setting that the method takes, and no other."""
        takes = SETTINGS[self.name]
        for name in sorted({name for settings in SETTINGS.values() for name in settings}):
            value, wanted = getattr(self, name), name in takes
            check((value is not None) == wanted, f"optimizer.{name}", value,
                  f"{'a value' if wanted else 'None'} for {self.name}, which takes {', '.join(takes)}",
                  "set it" if wanted else "leave it out")
        forms = FORMS.get(self.name, ())
        check(self.form is None or self.form in forms, "optimizer.form", self.form,
              f"one of {', '.join(forms)} for {self.name}", "correct it")

    def _check_groups(self) -> None:
        adamw = "adamw" in [treatment for _, treatment in self.groups or ()]
        check(self.name != "layca" or self.weight_decay == 0 or adamw, "optimizer.weight_decay", self.weight_decay,
              "0 for layca, which keeps the norms of what it trains", "use 0")
        for pattern, treatment in self.groups or ():
            check(treatment in TREATMENTS, "optimizer.groups", treatment, f"one of {', '.join(TREATMENTS)}",
                  "correct it")
            check(treatment != "adamw" or self.name in _ADAMW_DOES, "optimizer.groups", treatment,
                  f"named or frozen with {self.name}, which has no b1, b2 and eps", "use one of these")
            _compiled(pattern)
        for name in ("group_rates", "group_decays"):
            value = getattr(self, name)
            fits = value is None or (len(value) == len(self.groups or ()) and all(0 <= x < math.inf for x in value))
            check(fits, f"optimizer.{name}", value, "a factor for each of optimizer.groups, finite and not negative",
                  "correct it, or leave it out")
        check(self.width_exponent is None or math.isfinite(self.width_exponent), "optimizer.width_exponent",
              self.width_exponent, "finite", "use 0, 0.5 or 1")


def _compiled(pattern: str) -> Any:
    try:
        return re.compile(pattern)
    except re.error as error:
        check(False, "optimizer.groups", pattern, f"a regular expression ({error})", "correct it")
