"""The section `model` of a run: what is trained."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from scaling import fields
from scaling.duration import LARGEST
from scaling.fields import check, static

ACTIVATIONS = ("gelu", "relu2", "swiglu")
POSITIONS = ("learned", "rotary")
NORMS = ("layernorm", "rmsnorm", "crmsnorm", "powernorm", "unified")
RUNNING_NORMS = ("powernorm", "unified")  # of statistics over batches
PLACEMENTS = ("pre", "post", "peri", "scaled")
ATTENTIONS = ("softmax", "lssa", "lssar")


def _divisors(number: int) -> list[int]:
    """All divisors, sorted."""
    small = [n for n in range(1, math.isqrt(number) + 1) if number % n == 0]
    return sorted({*small, *(number // n for n in small)})


@dataclasses.dataclass(frozen=True)
class Base:
    """The size at which muP equals the standard parametrization number by number, and from which widths count."""

    width: int = static()
    heads: int = static()

    def __post_init__(self) -> None:
        for name in fields.names(Base):
            value = getattr(self, name)
            check(1 <= value <= LARGEST, f"model.base.{name}", value, f"from 1 to {LARGEST}", "correct it")
        check(self.width % self.heads == 0, "model.base.heads", self.heads,
              f"a divisor of model.base.width = {self.width}", f"use one of {_divisors(self.width)}")


@dataclasses.dataclass(frozen=True)
class Model:
    """Decoder-only transformer. `feedforward_ratio`: hidden width of the feed-forward part over `width`.

    `placement` of norms about a sublayer F: `pre` x + F(N(x)); `post` N(x + F(x)), without a norm before the head
    (Xiong et al. 2020, arXiv 2002.04745); `peri` x + N(F(N(x))), with a norm of the embedding too (arXiv 2502.02732);
    `scaled` pre with the outputs of both norms of layer l over √l (arXiv 2502.05795, whose authors leave
    `depth_scaled_init` out, which weakens it).
    `depth_scaled_init`: kernels that write to the residual stream start at 1/√(2 depth) of their scale, as in GPT-2.
    `centred`: the residual stream is kept at mean zero and rmsnorm has biases, which is the layernorm model computed
    without means, in training too; crmsnorm stores the stream without its last entry (arXiv 2305.14858).
    `norm_warmup`: updates in which powernorm (paper: 10000) or unified (4000) takes each batch's own statistics.
    `filter_outliers`: of unified (paper: no for text). `attention`: softmax, or softplus without and with re-weighting.
    `base`: None for the standard parametrization; else muP (scaling/parametrization.py), equal to it at the base.
    """

    width: int = static()
    depth: int = static()
    heads: int = static()
    feedforward_ratio: float = static()
    activation: str = static(choices=ACTIVATIONS)
    positions: str = static(choices=POSITIONS)
    norm: str = static(choices=NORMS)
    tied_head: bool = static()
    qk_norm: bool = static()
    base: Base | None = static(None)
    placement: str = static("pre", choices=PLACEMENTS)
    depth_scaled_init: bool = static(True)
    centred: bool = static(False)
    norm_warmup: int | None = static(None)
    filter_outliers: bool = static(False)
    attention: str = static("softmax", choices=ATTENTIONS)

    def __post_init__(self) -> None:
        for name in ("width", "depth", "heads"):
            value = getattr(self, name)
            check(value >= 1, f"model.{name}", value, "1 or more", "use a positive number")
            check(value <= LARGEST, f"model.{name}", value, f"at most {LARGEST}", "use a smaller number")
        if self.width % self.heads:
            check(False, "model.heads", self.heads, f"a divisor of model.width = {self.width}",
                  f"use one of {_divisors(self.width)}")
        rotates_pairs = self.positions != "rotary" or (self.width // self.heads) % 2 == 0
        check(rotates_pairs, "model.heads", self.heads,
              f"an even width a head for rotary positions (model.width = {self.width})", "change heads or width")
        check(1 <= self.feedforward_ratio * self.width < math.inf, "model.feedforward_ratio", self.feedforward_ratio,
              "a hidden width of 1 or more, finite", "use a ratio such as 4")
        self._check_norms()
        check(not self.qk_norm or self.attention == "softmax", "model.qk_norm", self.qk_norm,
              f"False with model.attention = {self.attention!r}, which divides queries and keys by their lengths",
              "turn it off, or use softmax")

    def _check_norms(self) -> None:
        """Which kinds of norm go where, and what they ask for."""
        before = self.placement in ("pre", "scaled")
        check(not self.centred or self.norm == "rmsnorm", "model.centred", self.centred,
              f"False with model.norm = {self.norm!r}, since it makes rmsnorm equal to layernorm", "use rmsnorm")
        check(not self.centred or before, "model.centred", self.centred,
              f"False with model.placement = {self.placement!r}, whose residual stream norms write to",
              "use pre or scaled")
        if self.norm == "crmsnorm":
            check(before, "model.placement", self.placement,
                  "'pre' or 'scaled' with model.norm = 'crmsnorm', since others write norms to the stream", "use 'pre'")
            check(not self.tied_head, "model.tied_head", self.tied_head,
                  "False with model.norm = 'crmsnorm', whose embedding is one entry short", "use a head of its own")
            check(self.width >= 2, "model.width", self.width, "2 or more with model.norm = 'crmsnorm'", "use more")
        running = self.norm in RUNNING_NORMS
        check((self.norm_warmup is not None) == running, "model.norm_warmup", self.norm_warmup,
              f"a number of updates with {' and '.join(RUNNING_NORMS)}, None with other norms",
              "set it, or leave it out")
        check(self.norm_warmup is None or 0 <= self.norm_warmup <= LARGEST, "model.norm_warmup", self.norm_warmup,
              f"from 0 to {LARGEST}", "use a tenth of the run")
        check(not self.filter_outliers or self.norm == "unified", "model.filter_outliers", self.filter_outliers,
              f"False with model.norm = {self.norm!r}", "use it with unified")

    @property
    def hidden(self) -> int:
        """Width of the feed-forward hidden layer, rounded to the nearest unit."""
        return round(self.feedforward_ratio * self.width)

    @property
    def stream(self) -> int:
        """Width of the residual stream as stored."""
        return self.width - 1 if self.norm == "crmsnorm" else self.width

    @property
    def qk_norm_kind(self) -> str | None:
        """Norm of queries and keys: the model's, layernorm where it stands for that, rmsnorm for those with memory."""
        if not self.qk_norm:
            return None
        as_layernorm = self.norm == "crmsnorm" or self.centred
        return "layernorm" if as_layernorm else "rmsnorm" if self.norm in RUNNING_NORMS else self.norm

    @property
    def width_ratio(self) -> float:
        """Width over the base's; 1 in the standard parametrization."""
        return 1.0 if self.base is None else self.width / self.base.width

    @property
    def head_width_ratio(self) -> float:
        """Width of a head over that of the base's; 1 in the standard parametrization."""
        return 1.0 if self.base is None else self.width * self.base.heads / (self.base.width * self.heads)


def check_norm_beside(norm: str, optimizer: str, sections: Mapping[str, Any]) -> None:
    """Raise ConfigError for what takes losses or gradients of its own, or of part of a batch, with a norm whose
    statistics are those of plain training batches.
    """
    if norm not in RUNNING_NORMS:
        return
    why = f"with model.norm = {norm!r}, whose statistics are those of whole training batches"
    for name, section in sections.items():
        check(section is None, name, section, f"None {why}", "leave it out, or use rmsnorm")
    check(optimizer not in ("schedule_free", "sophia"), "optimizer.name", optimizer,
          f"a method that takes one gradient, at the parameters that are evaluated, {why}", "use adamw, or rmsnorm")
