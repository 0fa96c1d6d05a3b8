"""Mixtures of domains as tables: what share each domain has at each step, and how many windows that comes to.

Letters: T steps, K domains.
"""

import difflib
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

Shares = Mapping[str, float] | Iterable[tuple[str, float]]
Mixture = Mapping[str, float] | Sequence[tuple[float, Shares]]

TOLERANCE = 1e-9
UNITS = 2**31  # shares are held as multiples of 1 / UNITS, so that counts are exact integers
LIMIT = 2**31 - 1  # windows that one run may draw: ordinals are int32


def shares(mixture: Mixture, steps: int, names: Sequence[str]) -> np.ndarray:
    """Share of each domain at each step: float64 [T, K], rows summing to 1.

    Args:
      mixture: one set of shares by domain, or phases ((start, shares), ...), where start is the fraction of the run
        at which a phase begins: it rises from 0, and the phase acts from step round(start * steps) on. Domains not
        named have share 0.
      steps: T.
      names: the domains, in the order of the corpus.

    Raises:
      ValueError: shares of unknown domains, negative, or not summing to 1 within 1e-9; starts that do not rise from 0
        or reach 1.
    """
    phases = ((0.0, mixture),) if isinstance(mixture, Mapping) else tuple(mixture)
    starts = [start for start, _ in phases]
    rising = all(early < late for early, late in itertools.pairwise(starts))
    if not starts or starts[0] != 0 or not rising or not starts[-1] < 1:
        raise ValueError(f"mixture: phases start at {starts}, expected fractions rising from 0 and below 1; sort them")
    row_PxK = np.array([_row(dict(given), names) for _, given in phases])
    first_P = np.array([round(start * steps) for start in starts])
    return row_PxK[np.searchsorted(first_P, np.arange(steps), side="right") - 1]


def _row(given: Mapping[str, float], names: Sequence[str]) -> list[float]:
    for name, share in given.items():
        _known(name, names, "mixture")
        if not 0 <= share <= 1:
            raise ValueError(f"mixture.{name} = {share}: expected a share from 0 to 1; correct it")
    total = math.fsum(given.values())
    if abs(total - 1) > TOLERANCE:
        raise ValueError(f"mixture = {dict(given)}: shares sum to {total}, expected 1; divide each by {total}")
    return [given.get(name, 0.0) / total for name in names]


def _known(name: str, names: Sequence[str], field: str) -> None:
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(names)}"
        raise ValueError(f"{field}: unknown domain {name!r}; {hint}")


def allocate(
    shares_TxK: np.ndarray, batch: int, drawn_K: np.ndarray | Sequence[int] | int = 0,
    target_K: Sequence[int] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Whole windows of each domain at each step: (drawn before the step, drawn at the step), both int32 [T, K].

    Every step's counts are >= 0 and sum to `batch`. With target_t = batch * cumsum(shares)_t, what a domain has given
    after any step differs from its target by less than 1 window, for shares that change as well as for constant ones
    (plus batch * T / 2^31: shares are rounded to multiples of 2^-31). A step's counts look ahead only to order
    domains by when their next window falls due, with the last row held for ever: where two tables agree and are
    constant, so do their counts, whatever their lengths.

    This is scheduling of unit jobs, earliest deadline first: window j of a domain may be given once its target exceeds
    j and must be given when its target reaches j + 1. Fractional windows meet all these times, hence whole ones can
    (the transport polytope is integral), and then earliest-deadline-first does (Steiner and Yeomans, Level schedules
    for mixed-model just-in-time processes, Management Science 1993).

    Args:
      shares_TxK: as from `shares`.
      batch: windows a step.
      drawn_K: windows a parent run has already given: row 0 of the first result.
      target_K: the parent's target when it gave them, in 1 / UNITS of a window, as from `target_after`; the fraction
        that it still owed a domain is then given first, so that a branch with the parent's shares goes on exactly as
        the parent would. Default: drawn_K, nothing owed.

    Raises:
      ValueError: more than 2^31 - 1 windows in all.
    """
    steps, domains = shares_TxK.shape
    drawn_K = np.broadcast_to(np.asarray(drawn_K, np.int64), (domains,))
    total = steps * batch + int(drawn_K.sum())
    if total > LIMIT:
        raise ValueError(f"steps * batch = {total} windows in all, expected at most {LIMIT}; shorten the run")
    before_K = drawn_K * UNITS if target_K is None else np.asarray(target_K, np.int64)
    target_TxK = before_K + np.cumsum(_units(shares_TxK), axis=0) * batch
    floor_TxK = target_TxK // UNITS
    given_TxK = floor_TxK + _raised(target_TxK, floor_TxK, before_K, drawn_K)
    given_TxK = np.concatenate([drawn_K[None], given_TxK])
    return given_TxK[:-1].astype(np.int32), np.diff(given_TxK, axis=0).astype(np.int32)


def _units(shares_TxK: np.ndarray) -> np.ndarray:
    """Shares in whole units: int64 [T, K], rows summing to UNITS; the largest share takes what rounding left."""
    units_TxK = np.rint(shares_TxK * UNITS).astype(np.int64)
    rows_T = np.arange(len(units_TxK))
    units_TxK[rows_T, units_TxK.argmax(axis=1)] += UNITS - units_TxK.sum(axis=1)
    return units_TxK


def target_after(shares_TxK: np.ndarray, batch: int, step: int, target_K: Sequence[int]) -> tuple[int, ...]:
    """The target after `step` steps of a run that started from `target_K`, in 1 / UNITS of a window."""
    return tuple((np.asarray(target_K, np.int64) + _units(shares_TxK[:step]).sum(axis=0) * batch).tolist())


def _raised(target_TxK: np.ndarray, floor_TxK: np.ndarray, before_K: np.ndarray, drawn_K: np.ndarray) -> np.ndarray:
    """Which domains stand one window above the floor of their target after each step: bool [T, K].

    `before_K` and `drawn_K`: the target and the windows given before the first step.

    Only this set passes from step to step, as the bits of an integer; all else is computed for all steps at once.
    """
    steps, domains = target_TxK.shape
    above_TxK = target_TxK - floor_TxK * UNITS
    open_TxK = above_TxK > 0
    due_TxK = np.where(open_TxK, _due(target_TxK, floor_TxK, before_K), np.iinfo(np.int64).max)
    order_TxK = np.lexsort((-above_TxK, due_TxK), axis=1)
    stays_TxK = np.diff(floor_TxK, axis=0, prepend=before_K[None] // UNITS) == 0
    stays_T = [int.from_bytes(row, "little") for row in np.packbits(stays_TxK, axis=1, bitorder="little")]
    width = -(-domains // 8)
    needed_T = (above_TxK.sum(axis=1) // UNITS).tolist()
    ahead_K = drawn_K > before_K // UNITS
    raised_T, raised = [], sum(1 << domain for domain in np.flatnonzero(ahead_K).tolist())
    for stays, needed, order in zip(stays_T, needed_T, order_TxK.tolist(), strict=True):
        raised &= stays  # a window given early stays given until the floor catches up
        missing = needed - raised.bit_count()
        for domain in order:
            if missing <= 0:
                break
            bit = 1 << domain
            if not raised & bit:
                raised |= bit
                missing -= 1
        raised_T.append(raised.to_bytes(width, "little"))
    bytes_TxW = np.frombuffer(b"".join(raised_T), np.uint8).reshape(steps, width)
    return np.unpackbits(bytes_TxW, axis=1, count=domains, bitorder="little").astype(bool)


def _due(target_TxK: np.ndarray, floor_TxK: np.ndarray, before_K: np.ndarray) -> np.ndarray:
    """First step at which each domain's target reaches its next whole window, the last row of shares held for ever."""
    last_K = np.diff(target_TxK, axis=0, prepend=before_K[None])[-1]
    columns = []
    for target_T, floor_T, last in zip(target_TxK.T, floor_TxK.T, last_K, strict=True):
        wanted_T = (floor_T + 1) * UNITS
        beyond_T = len(target_T) - 1 + -(-(wanted_T - target_T[-1]) // max(last, 1))
        columns.append(np.where(wanted_T > target_T[-1], beyond_T, np.searchsorted(target_T, wanted_T)))
    return np.stack(columns, axis=1)


def window_limits(
    windows_K: np.ndarray, unique_tokens: Mapping[str, int] | Iterable[tuple[str, int]], names: Sequence[str],
    sequence: int,
) -> np.ndarray:
    """Windows a domain may show, after limits on unique tokens: int32 [K], floor(limit / sequence) where limited.

    Raises:
      ValueError: an unknown domain, or a limit below one window or above what the domain holds.
    """
    limits_K = np.array(windows_K, np.int32)
    for name, limit in dict(unique_tokens).items():
        _known(name, names, "unique_tokens")
        domain = list(names).index(name)
        most = int(windows_K[domain]) * sequence
        if not sequence <= limit <= most:
            raise ValueError(
                f"unique_tokens.{name} = {limit}: expected {sequence} (one window) to {most} (all its windows); "
                "change the limit, or leave it out to use all"
            )
        limits_K[domain] = limit // sequence
    return limits_K
