"""Lengths of training, each in a unit of its own."""

from __future__ import annotations

import dataclasses
import math
import sys
from fractions import Fraction

from scaling.fields import ConfigError, check, traced

LARGEST = 2**31 - 1  # size or step: devices count in 32 bits


@dataclasses.dataclass(frozen=True)
class Duration:
    """A length of training in exactly one unit: steps, training tokens, or epochs of the only domain drawn."""

    steps: int | None = traced(None)
    tokens: float | None = traced(None)
    epochs: float | None = traced(None)

    def __post_init__(self) -> None:
        given = {unit: value for unit, value in vars(self).items() if value is not None}
        check(len(given) == 1, "duration", given, "exactly one unit", "give one of steps, tokens, epochs")
        unit, value = next(iter(given.items()))
        check(0 <= value < math.inf, f"duration.{unit}", value, "finite and not negative", "use 0 or more")

    def in_steps(self, tokens_per_step: int, steps_per_epoch: Fraction | None = None) -> int:
        """Number of optimizer steps; fractions of a step are rounded up. Epochs need `steps_per_epoch`.

        Exact: a number means the decimal that it is written as, 1.1 epochs eleven tenths.
        """
        steps = self._steps(tokens_per_step, steps_per_epoch)
        check(steps <= sys.float_info.max, "duration", vars(self), "a finite number of steps", "shorten it")
        return math.ceil(steps)

    def _steps(self, tokens_per_step: int, steps_per_epoch: Fraction | None) -> Fraction:
        if self.steps is not None:
            return Fraction(self.steps)
        if self.tokens is not None:
            return Fraction(str(self.tokens)) / tokens_per_step
        if steps_per_epoch is None:
            raise ConfigError(
                f"duration.epochs = {self.epochs}: expected steps or tokens, since the domains of a mixture pass at "
                "different speeds; draw from one domain alone, or change the unit"
            )
        return Fraction(str(self.epochs)) * steps_per_epoch
