"""The section `schedule` of a run: its learning rate from step to step."""

from __future__ import annotations

import dataclasses
import math

from scaling.duration import Duration
from scaling.fields import check, traced

SCHEDULES = ("constant", "cosine", "infinite", "inverse_sqrt", "linear", "one_cycle", "power", "table", "wsd")
USED_BY = {  # optional fields: the schedules that need each, and have no other
    "decay": ("wsd", "infinite", "one_cycle", "power"),
    "level": ("infinite", "one_cycle"),
    "cooldown": ("infinite",),
    "onset": ("power",),
    "exponent": ("power",),
}
SHAPES = {"wsd": ("1-sqrt", "cosine"), "power": ("1-sqrt", "cosine"), "one_cycle": ("cosine",)}


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Learning rate over a run: linear warm-up to `peak`, then the named shape down to `floor`, a share of the peak.

    infinite (Ibrahim et al. 2024, arXiv 2403.08763): a cosine over `cooldown` from the peak to `level`, a share of the
    peak, which is held for as long as the run goes on; exponential to `floor` over the last `decay`, 0 steps for not
    yet. A branch that goes on at the level has it as its own peak, `level` 1 and `cooldown` 0.
    one_cycle (Smith & Topin 2017, arXiv 1708.07120): from `level` to the peak over `warmup`, back to `level`, and to
    `floor` over the last `decay`; 0 steps for straight from the peak to the floor. With `low_momentum` the optimizer's
    momentum goes the other way: from its own down to this at the peak, and back.
    power (Shen et al. 2024, arXiv 2408.13359): the peak up to `onset`, then (t / onset)^`exponent` of it; down to
    `floor` over the last `decay`, 0 steps for not yet.
    table: the share of the peak that acts, as `points` (fraction of the run, share) with straight lines between, or as
    `values`, one a step. Warm-up and floor are the table's own: both fields 0.
    """

    name: str = traced(choices=SCHEDULES)
    peak: float = traced()
    warmup: Duration = traced()
    floor: float = traced()
    decay: Duration | None = traced()  # length of the final decay; None for the schedules that have none
    level: float | None = traced(None)
    cooldown: Duration | None = traced(None)
    shape: str | None = traced(None)  # 1-sqrt | cosine, of the last decay of wsd and power, of one_cycle; None: linear
    onset: Duration | None = traced(None)
    exponent: float | None = traced(None)
    points: tuple[tuple[float, float], ...] | None = traced(None)
    values: tuple[float, ...] | None = traced(None)
    low_momentum: float | None = traced(None)

    def __post_init__(self) -> None:
        check(self.peak >= 0 and math.isfinite(self.peak), "schedule.peak", self.peak, "finite and not negative",
              "use a rate such as 1e-3")
        check(0 <= self.floor <= 1, "schedule.floor", self.floor, "a share of the peak from 0 to 1", "use 0 or 0.1")
        check(self.name != "constant" or self.floor == 1, "schedule.floor", self.floor,
              "1.0 for a constant schedule, which never decays", "set floor to 1.0 or name another schedule")
        for name, users in USED_BY.items():
            value = getattr(self, name)
            kind = "a duration" if name == "decay" else "a value"
            check((value is not None) == (self.name in users), f"schedule.{name}", value,
                  f"{kind} for {' and '.join(users)} and None for every other schedule",
                  f"set or remove schedule.{name}")
        shapes = SHAPES.get(self.name, ())
        check(self.shape is None or self.shape in shapes, "schedule.shape", self.shape,
              f"{' or '.join(['None', *shapes])} for {self.name}", "use one of these; None is linear where "
              "there is a choice")
        check(self.level is None or self.floor <= self.level <= 1, "schedule.level", self.level,
              f"from schedule.floor = {self.floor} to 1", "use a level such as 0.5")
        check(self.name != "infinite" or self.floor > 0, "schedule.floor", self.floor,
              "above 0 for infinite, whose decay is exponential", "use a floor such as 0.1")
        check(self.exponent is None or -math.inf < self.exponent < 0, "schedule.exponent", self.exponent,
              "finite and below 0", "use the published -0.51")
        check(self.low_momentum is None or (self.name == "one_cycle" and 0 <= self.low_momentum < 1),
              "schedule.low_momentum", self.low_momentum, f"None for {self.name}" if self.name != "one_cycle" else
              "None or a number in [0, 1)", "use the published 0.85 with one_cycle, or leave it out")
        self._check_table()

    def _check_table(self) -> None:
        given = {name: value for name, value in (("points", self.points), ("values", self.values)) if value is not None}
        is_table = self.name == "table"
        check(len(given) == is_table, "schedule.points, schedule.values", tuple(given),
              f"{'exactly one of them for table' if is_table else f'neither for {self.name}'}", "set or remove one")
        if not is_table:
            return
        own = {"floor": self.floor, **vars(self.warmup)}
        check(not any(own.values()), "schedule.floor, schedule.warmup", own, "0 for table, which has its own",
              "write them into the table")
        shares = self.values if self.points is None else [share for _, share in self.points]
        assert shares is not None
        (name, rows), = given.items()
        check(len(shares) > 0 and all(0 <= share <= 1 for share in shares), f"schedule.{name}", rows,
              "shares of the peak from 0 to 1", "divide by the highest, and raise the peak by it")
        at = [0.0, 1.0] if self.points is None else [fraction for fraction, _ in self.points]
        check(at[0] == 0 and at[-1] == 1 and at == sorted(at), "schedule.points", at,
              "fractions of the run that rise from 0 to 1", "sort them, and add both ends")
