"""The multi-power law at every step of a 72,000-step schedule, against the direct double sum over steps and changes.

python benchmarks/multi_power.py [STEPS]
Prints a table and ends with one JSON line. The direct sum is plain numpy, in blocks that fit in cache, steps without a
change left out. Ratios are of one process on one machine; seconds are of this machine.
"""

import json
import sys
import time
from collections.abc import Callable

import numpy as np

from scaling.fitting.evaluate import at_each
from scaling.laws.multi_power import MULTI_POWER_PUBLISHED, multi_power
from scaling.laws.schedule import Schedules, cosine, wsd

PARAMETERS = MULTI_POWER_PUBLISHED[400]
_BLOCK = 1 << 17  # kernel values held at once, 1 MiB


def direct(lr_T: np.ndarray) -> np.ndarray:
    """The double sum as written, [T]; NaN at step 0, where the learning rate is still 0."""
    p = PARAMETERS
    area_T, changes = np.cumsum(lr_T), 1 + np.flatnonzero(np.diff(lr_T))
    change_K, scale_K = np.diff(lr_T)[changes - 1], p["C"] * lr_T[changes] ** -p["gamma"]
    before_K = area_T[changes - 1]
    bonus_T = np.zeros(len(lr_T))
    first = 0
    while first < len(lr_T):
        last = min(len(lr_T), first + _BLOCK // (512 + np.searchsorted(changes, first, side="right")))
        seen = np.searchsorted(changes, last - 1, side="right")
        gap_MxK = area_T[first:last, None] - before_K[None, :seen]
        past_MxK = changes[None, :seen] <= np.arange(first, last)[:, None]
        kept_MxK = (1 + scale_K[None, :seen] * np.where(past_MxK, gap_MxK, 0.0)) ** -p["beta"]
        bonus_T[first:last] = (1 - kept_MxK) @ change_K[:seen]
        first = last
    with np.errstate(divide="ignore", invalid="ignore"):
        return p["L0"] + p["A"] * area_T ** -p["alpha"] + p["B"] * bonus_T


def timed(function: Callable[[], np.ndarray]) -> tuple[np.ndarray, float]:
    """The result, and the seconds it took."""
    began = time.perf_counter()
    return function(), time.perf_counter() - began


def main() -> None:
    """Both ways for a cosine and for WSD."""
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 72_000
    tables = {"cosine": cosine(steps, 3e-4, 3e-5, steps // 33), "wsd": wsd(steps, 3e-4, 3e-5, steps // 33, steps // 5)}
    vector_1xP, record = np.array([[*PARAMETERS.values()]]), {}
    print("schedule  direct s  tables s   first s   again s  ratio  largest gap")
    for name, lr_T in tables.items():
        wanted, slow = timed(lambda lr_T=lr_T: direct(lr_T))
        began = time.perf_counter()
        law = multi_power(Schedules.of({name: lr_T}))
        tabled = time.perf_counter() - began
        inputs = {"schedule": np.zeros(steps), "step": np.arange(steps, dtype=np.float64)}
        _, first = timed(lambda law=law, inputs=inputs: at_each(law, vector_1xP, inputs)[0])
        found, fast = timed(lambda law=law, inputs=inputs: at_each(law, vector_1xP, inputs)[0])
        gap = float(np.nanmax(np.abs(found[1:] / wanted[1:] - 1)))
        print(f"{name:8} {slow:9.2f} {tabled:9.2f} {first:9.2f} {fast:9.3f} {slow / fast:6.0f} {gap:12.1e}")
        record[name] = {
            "direct": slow,
            "tables": tabled,
            "first": first,
            "again": fast,
            "ratio": slow / fast,
            "gap": gap,
        }
    print(json.dumps({"steps": steps, **record}))


if __name__ == "__main__":
    main()
