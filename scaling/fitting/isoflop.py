"""Compute-optimal size without a law of the loss: minima along budgets, and the power law through them.

Approaches 1 and 2 of Hoffmann et al. 2022 (arXiv 2203.15556); the second is also what Porian et al. 2024 (arXiv
2406.19146) use.

Letters: B draws with the estimate in front, G points of a grid of budgets, K budgets, M rows, Q coefficients, R runs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from scaling.fitting.inversions import Decision, decide
from scaling.fitting.result import Refusal, tails
from scaling.fitting.tables import read_codes
from scaling.laws.law import TableError, read_column

_LEAST = 3  # budgets for a power law with a residual; sizes for a parabola
_GRID = 64  # budgets at which curves are compared


@dataclass(frozen=True, eq=False)
class Frontier:
    """N* = k*C^a through the best sizes of several budgets, with what was used and what was not.

    `budgets`: one row a budget: C, rows, the best size N with its interval N_low to N_high, the tokens D =
    C/(flops*N) and the loss there, and `refused`, which says why a budget is left out (empty where it is used); with
    parabolas also c0, c1, c2 of log loss = c0 + c1*log N + c2*(log N)^2.
    `exponent` is a; that of tokens is 1 - a. `unused`: rows that belong to no budget. Laws in C, such as
    loss-in-compute, can be fitted to `budgets`.
    """

    budgets: pd.DataFrame
    exponent: Decision
    unused: int
    log_centre: float
    log_size_B: np.ndarray
    exponent_B: np.ndarray

    def size(self, compute: float, *, reach: float = 100.0) -> Decision:
        """N* at a budget: exp(log_size + a*(log C - log_centre)).

        Refused as the exponent is, or as "extrapolated" more than `reach` times beyond the budgets used.
        """
        if not (compute > 0 and reach >= 1):
            raise ValueError(f"compute, reach: {compute}, {reach} must be > 0 and >= 1")
        refusal = self.exponent.refusal
        used_K = self.budgets["C"][self.budgets["refused"] == ""]
        if refusal is None and not used_K.min() / reach <= compute <= used_K.max() * reach:
            beyond = f"more than {reach:g} times beyond the budgets {used_K.min():.4g} to {used_K.max():.4g}"
            refusal = Refusal("extrapolated", f"{compute:.4g} FLOPs is {beyond}; train larger budgets, or raise reach=")
        size_B = np.exp(self.log_size_B + self.exponent_B * (math.log(compute) - self.log_centre))
        return decide(size_B, refusal, size_B[0], self.exponent.level)

    def __str__(self) -> str:
        used = int((self.budgets["refused"] == "").sum())
        lines = [f"best size ~ C^a over {used} of {len(self.budgets)} budgets, {self.unused} rows unused"]
        lines.append(f"  a = {self.exponent}")
        left_out = self.budgets[self.budgets["refused"] != ""].groupby("refused", sort=False)["C"]
        for why, c_K in left_out:
            lines.append(f"  left out, {len(c_K)} between {c_K.min():.3g} and {c_K.max():.3g}: {why}")
        return "\n".join(lines)


def isoflop_frontier(
    table: pd.DataFrame,
    *,
    size: str = "N",
    compute: str = "C",
    target: str = "loss",
    group: str | None = None,
    budgets: Sequence[float] | None = None,
    within: float = 0.05,
    flops: float = 6.0,
    bootstrap: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Frontier:
    """Approach 2: log loss = c0 + c1*z + c2*z^2, z = log N, for each budget; least squares of log vertex on log C.

    `table`: one row a finished run, sizes varied at each budget. Rows whose compute differs by less than `within`
    (relative) are one budget; with `budgets`, rows within that of a named one, others unused. A row slightly off its
    budget is brought to it by a slope in log C that all budgets share. `group` names rows that share noise, such as
    points read off one run's curve at several budgets.

    Intervals through both stages: residuals of all budgets, divided by sqrt(1 - leverage), are resampled as one pool
    (so their noise is taken as equal in log loss), scaled to a t distribution; with `group`, each group's residuals,
    divided by 1 - leverage, get one random sign.

    A budget is refused as "few_distinct" below 3 sizes, as "no_interior_minimum" where the parabola opens downwards or
    its vertex lies outside its sizes. The exponent is refused as "few_budgets" where fewer than 3 are left. Trap: the
    true curve is no parabola; where its sides differ, sizes are biased by a few per cent to tens, all alike, so the
    exponent hardly. TableError for bad rows, and budgets that run into one another; ValueError for `flops` not above 0.
    """
    _check_flops(flops)
    log_n_M, log_c_M, log_loss_M = _read(table, size, compute, target)
    budget_K, at_M = _budgets(log_c_M, budgets, within, compute)
    sizes_K = [np.unique(log_n_M[at_M == k]).size for k in range(len(budget_K))]
    solved_M = np.array([k >= 0 and sizes_K[k] >= _LEAST for k in at_M], dtype=bool)
    if not solved_M.any():
        raise TableError(
            f"columns {size!r}, {compute!r}: no budget has {_LEAST} sizes or more; train more sizes at equal"
            " compute, or raise within="
        )
    group_M = read_codes(table, group, "group")[solved_M] if group else None
    found = _parabolas(log_n_M[solved_M], log_c_M[solved_M] - budget_K[at_M[solved_M]], at_M[solved_M], len(budget_K))
    coefficients_BxQ = found.drawn(log_loss_M[solved_M], group_M, bootstrap, seed)
    vertex_BxK, loss_K = found.vertices(coefficients_BxQ)
    refused = [_parabola_refusal(log_n_M[at_M == k], vertex) for k, vertex in enumerate(vertex_BxK[0])]
    rows_K = np.bincount(at_M[at_M >= 0], minlength=len(budget_K))
    unused = int((at_M < 0).sum())
    frontier = _frontier(np.exp(budget_K), rows_K, vertex_BxK, loss_K, refused, unused, flops, level)
    return replace(frontier, budgets=frontier.budgets.assign(**found.uncentred(coefficients_BxQ[0])))


def curve_frontier(
    curves: pd.DataFrame,
    *,
    size: str = "N",
    compute: str = "C",
    target: str = "loss",
    group: str = "run_id",
    flops: float = 6.0,
    bootstrap: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Frontier:
    """Approach 1: at 64 budgets, the run whose curve is lowest; then least squares of log N* on log C.

    `curves`: one row a logged point; a run (`group`) has one size, and its curve is read by interpolation in logs. The
    curve of a run counts where its schedule has not ended, so at constant rate, or with one run a horizon. Intervals:
    runs are resampled and the envelope taken anew.

    A budget is refused as "no_interior_minimum" where the smallest or the largest size trained that far is best, the
    exponent as "few_budgets" where fewer than 3 distinct sizes are best anywhere. The sizes trained are all that can
    come out: with few of them prefer approach 2. Trap: the lowest of noisy curves is a lucky one, which bends the
    envelope: noise of 0.1% between 24 runs moved the exponent by -0.006, of 0.4% by -0.027, and 80% of 95% intervals
    held the truth then. TableError for bad rows; ValueError for `flops` not above 0.
    """
    _check_flops(flops)
    log_n_M, log_c_M, log_loss_M = _read(curves, size, compute, target)
    run_M = read_codes(curves, group, "group")
    log_n_R, loss_RxG, grid_G = _interpolated(log_n_M, log_c_M, log_loss_M, run_M, curves, group)
    counts_BxR = np.random.default_rng(seed).multinomial(
        len(log_n_R), np.full(len(log_n_R), 1 / len(log_n_R)), bootstrap
    )
    best_BxG = np.full((bootstrap + 1, len(grid_G)), np.nan)
    for b, present_R in enumerate(np.vstack([np.ones(len(log_n_R), dtype=int), counts_BxR]) > 0):
        best_BxG[b] = _envelope(log_n_R[present_R], loss_RxG[present_R])
    reached_RxG = np.isfinite(loss_RxG)
    refused = [
        "" if np.isfinite(best) else "no_interior_minimum: the smallest or largest size trained that far is best"
        for best in best_BxG[0]
    ]
    if np.unique(best_BxG[0][np.isfinite(best_BxG[0])]).size < _LEAST:
        best_BxG[0], refused = np.nan, [why or "few_distinct: fewer than 3 sizes are best anywhere" for why in refused]
    loss_G = np.where(reached_RxG, loss_RxG, np.inf).min(axis=0)
    return _frontier(np.exp(grid_G), reached_RxG.sum(axis=0), best_BxG, loss_G, refused, 0, flops, level)


def _check_flops(flops: float) -> None:
    if not flops > 0:
        raise ValueError(f"flops: {flops} must be > 0: FLOPs a parameter and token, about 6")


@dataclass(frozen=True, eq=False)
class _Parabolas:
    """One linear model for all budgets: three columns each, and a shared one for rows off their budget."""

    design_MxQ: np.ndarray
    centre_K: np.ndarray
    span_K: np.ndarray

    def drawn(self, y_M: np.ndarray, group_M: np.ndarray | None, draws: int, seed: int) -> np.ndarray:
        """Coefficients of the least-squares fit, then of each draw, [B, Q]; no draws where no residual is free."""
        inverse_QxM = np.linalg.pinv(self.design_MxQ)
        coefficients_Q = inverse_QxM @ y_M
        residual_M = y_M - self.design_MxQ @ coefficients_Q
        free_M = 1 - np.einsum("mq,qm->m", self.design_MxQ, inverse_QxM)
        freedom = round(float(free_M.sum()))
        if freedom < 1:
            return coefficients_Q[None]
        rng = np.random.default_rng(seed)
        free_M = np.maximum(free_M, 1e-9)  # a row that its own parameter fits has residual 0
        if group_M is None:
            pool_M = residual_M / np.sqrt(free_M)
            noise_BxM = rng.choice(pool_M - pool_M.mean(), size=(draws, len(y_M)))
        else:
            sign_BxG = rng.choice([-1.0, 1.0], size=(draws, int(group_M.max()) + 1))
            noise_BxM = residual_M / free_M * sign_BxG[:, group_M]
        noise_BxM *= np.sqrt(freedom / rng.chisquare(freedom, size=(draws, 1)))
        return np.vstack([coefficients_Q, coefficients_Q + noise_BxM @ inverse_QxM.T])

    def vertices(self, coefficients_BxQ: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log of the best size by draw and budget, [B, K], nan where the parabola opens downwards; the loss there.

        A vertex farther outside a budget's sizes than they span is put there: the data do not tell it, nor how far.
        """
        budgets = len(self.centre_K)
        c0_BxK, c1_BxK, c2_BxK = (coefficients_BxQ[:, j : 3 * budgets : 3] for j in range(3))
        opens_BxK = c2_BxK > 0
        z_BxK = np.where(opens_BxK, -c1_BxK / np.where(opens_BxK, 2 * c2_BxK, 1.0), np.nan)
        z_BxK = np.clip(z_BxK, -1.5 * self.span_K, 1.5 * self.span_K)
        return z_BxK + self.centre_K, np.exp(c0_BxK[0] + c1_BxK[0] * z_BxK[0] / 2)

    def uncentred(self, coefficients_Q: np.ndarray) -> dict[str, np.ndarray]:
        """Coefficients of each budget's parabola in log N itself."""
        c0_K, c1_K, c2_K = (coefficients_Q[j : 3 * len(self.centre_K) : 3] for j in range(3))
        centre_K = self.centre_K
        return {"c0": c0_K - c1_K * centre_K + c2_K * centre_K**2, "c1": c1_K - 2 * c2_K * centre_K, "c2": c2_K}


def _parabolas(log_n_M: np.ndarray, off_M: np.ndarray, at_M: np.ndarray, budgets: int) -> _Parabolas:
    centre_K, span_K = np.zeros((2, budgets))
    for k in np.unique(at_M):
        low, high = log_n_M[at_M == k].min(), log_n_M[at_M == k].max()
        centre_K[k], span_K[k] = (low + high) / 2, high - low
    design_MxQ = np.zeros((len(at_M), 3 * budgets))
    for j in range(3):
        design_MxQ[np.arange(len(at_M)), 3 * at_M + j] = (log_n_M - centre_K[at_M]) ** j
    if np.abs(off_M).max() > 1e-6:
        design_MxQ = np.column_stack([design_MxQ, off_M])
    return _Parabolas(design_MxQ, centre_K, span_K)


def _parabola_refusal(log_n_M: np.ndarray, vertex: float) -> str:
    if (sizes := np.unique(log_n_M).size) < _LEAST:
        return f"few_distinct: {sizes} sizes, {_LEAST} needed for a parabola"
    if np.isnan(vertex):
        return "no_interior_minimum: the parabola opens downwards"
    low, high = float(log_n_M.min()), float(log_n_M.max())
    if not low < vertex < high:
        span = f"{math.exp(low):.3g} to {math.exp(high):.3g}"
        return f"no_interior_minimum: its vertex {math.exp(vertex):.3g} lies outside the sizes trained, {span}"
    return ""


def _frontier(
    compute_K: np.ndarray,
    rows_K: np.ndarray,
    log_size_BxK: np.ndarray,
    loss_K: np.ndarray,
    refused: list[str],
    unused: int,
    flops: float,
    level: float,
) -> Frontier:
    """The power law through the budgets that are not refused, at the estimate and at each draw."""
    used_K = np.array([not why for why in refused])
    low_K, high_K = np.full((2, len(compute_K)), np.nan)
    for k in np.flatnonzero(used_K):
        known_B = log_size_BxK[1:, k][np.isfinite(log_size_BxK[1:, k])]
        low_K[k], high_K[k] = np.exp(np.quantile(known_B, tails(level))) if known_B.size else (np.nan, np.nan)
    size_K = np.where(used_K, np.exp(log_size_BxK[0]), np.nan)
    budgets = pd.DataFrame({"C": compute_K, "rows": rows_K, "N": size_K, "N_low": low_K, "N_high": high_K})
    budgets = budgets.assign(D=compute_K / (flops * size_K), loss=np.where(used_K, loss_K, np.nan), refused=refused)
    refusal = None
    log_c_K = np.log(compute_K[used_K])
    centre = float(log_c_K.mean()) if used_K.any() else math.nan
    if used_K.sum() < _LEAST:
        reason = f"{int(used_K.sum())} budgets have a best size inside their sizes, at least {_LEAST} needed"
        refusal = Refusal("few_budgets", f"{reason}; {'; '.join(sorted({why for why in refused if why}))}")
        none_B = np.full(len(log_size_BxK), np.nan)
        return Frontier(budgets, decide(none_B[:1], refusal, math.nan, level), unused, centre, none_B[:1], none_B[:1])
    exponent_B, size_B = _lines(log_c_K - centre, log_size_BxK[:, used_K])
    return Frontier(budgets, decide(exponent_B, None, exponent_B[0], level), unused, centre, size_B, exponent_B)


def _lines(x_K: np.ndarray, y_BxK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least-squares slope, and value at x = 0, of each draw over the budgets where it has a value."""
    known_BxK = np.isfinite(y_BxK)
    count_B = np.maximum(known_BxK.sum(axis=1), 1)
    y_BxK = np.where(known_BxK, y_BxK, 0.0)
    mean_x_B, mean_y_B = (known_BxK * x_K).sum(axis=1) / count_B, y_BxK.sum(axis=1) / count_B
    off_BxK = np.where(known_BxK, x_K - mean_x_B[:, None], 0.0)
    spread_B = (off_BxK**2).sum(axis=1)
    told_B = known_BxK.sum(axis=1) >= 2
    slope_B = np.where(told_B, (off_BxK * y_BxK).sum(axis=1) / np.where(spread_B > 0, spread_B, 1.0), np.nan)
    return slope_B, mean_y_B - slope_B * mean_x_B


def _interpolated(
    log_n_M: np.ndarray,
    log_c_M: np.ndarray,
    log_loss_M: np.ndarray,
    run_M: np.ndarray,
    curves: pd.DataFrame,
    group: str,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log size of each run, its log loss on a common grid of log compute (nan beyond its points), and the grid."""
    log_n_R = np.zeros(int(run_M.max()) + 1)
    grid_G = np.linspace(log_c_M.min(), log_c_M.max(), _GRID)
    loss_RxG = np.full((len(log_n_R), _GRID), np.nan)
    for r in range(len(log_n_R)):
        rows_M = run_M == r
        order = np.argsort(log_c_M[rows_M])
        if np.ptp(log_n_M[rows_M]) > 1e-9:
            name = curves[group].to_numpy()[rows_M][0]
            raise TableError(f"column {group!r}: run {name} has rows of several sizes; a run has one")
        log_n_R[r] = log_n_M[rows_M][0]
        x, y = log_c_M[rows_M][order], log_loss_M[rows_M][order]
        loss_RxG[r] = np.interp(grid_G, x, y, left=np.nan, right=np.nan)
    return log_n_R, np.exp(loss_RxG), grid_G


def _envelope(log_n_R: np.ndarray, loss_RxG: np.ndarray) -> np.ndarray:
    """Log size of the lowest curve at each budget; nan where it is the smallest or largest size trained that far."""
    reached_RxG = np.isfinite(loss_RxG)
    best_G = log_n_R[np.argmin(np.where(reached_RxG, loss_RxG, np.inf), axis=0)]
    small_G = np.where(reached_RxG, log_n_R[:, None], np.inf).min(axis=0)
    large_G = np.where(reached_RxG, log_n_R[:, None], -np.inf).max(axis=0)
    return np.where((best_G > small_G) & (best_G < large_G), best_G, np.nan)


def _read(table: pd.DataFrame, size: str, compute: str, target: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    columns = []
    for column, purpose in ((size, "parameters, size="), (compute, "FLOPs, compute="), (target, "the loss, target=")):
        values_M = read_column(table, column, purpose)
        if (bad_M := values_M <= 0).any():
            row = int(np.argmax(bad_M))
            raise TableError(f"column {column!r}, row {table.index[row]}: {values_M[row]:g} must be > 0 ({purpose})")
        columns.append(np.log(values_M))
    return columns[0], columns[1], columns[2]


def _budgets(
    log_c_M: np.ndarray, budgets: Sequence[float] | None, within: float, compute: str
) -> tuple[np.ndarray, np.ndarray]:
    """Log of each budget, and each row's budget, -1 for none."""
    if not 0 < within < 1:
        raise ValueError(f"within: {within} must lie in (0, 1): the relative spread of compute inside one budget")
    gap = math.log1p(within)
    if budgets is not None:
        budget_K = np.log(np.sort(np.asarray(budgets, dtype=np.float64)))
        if not np.isfinite(budget_K).all() or (np.diff(budget_K) <= 2 * gap).any():
            raise ValueError(f"budgets: {list(budgets)} must be positive and more than within = {within:g} apart")
        at_M = np.argmin(np.abs(log_c_M[:, None] - budget_K), axis=1)
        return budget_K, np.where(np.abs(log_c_M - budget_K[at_M]) <= gap, at_M, -1)
    order_M = np.argsort(log_c_M)
    at_M = np.empty(len(log_c_M), dtype=np.int64)
    at_M[order_M] = np.concatenate([[0], np.cumsum(np.diff(log_c_M[order_M]) > gap)])
    for k in range(int(at_M.max()) + 1):
        if (span := float(np.ptp(log_c_M[at_M == k]))) > 2 * gap:
            low, high = math.exp(log_c_M[at_M == k].min()), math.exp(log_c_M[at_M == k].max())
            raise TableError(
                f"column {compute!r}: rows from {low:.4g} to {high:.4g} run into one another (a factor"
                f" {math.exp(span):.3g} without a gap of {within:.0%}); name them with budgets=, or lower within="
            )
    return np.bincount(at_M, weights=log_c_M) / np.bincount(at_M), at_M
