"""The learning-rate changes of a schedule, those far before a step merged into few: sums over past changes in O(log T).

A sum over changes k <= t of (eta_k - eta_(k-1)) * f(log eta_k, S(t) - S(k-1)), S the cumulative learning rate, with f
smooth away from S(t) = S(k-1). Blocks of consecutive changes that lie far from t, measured in S, are replaced by the
nodes of a Gauss quadrature whose measure is the block's own changes, in the step as variable: exact for polynomials of
degree 2*NODES-1. Near changes stay single. What is merged depends on the table alone, not on f.

Letters: T steps, N nodes, G segments of targets, K nodes that a segment sees, B blocks of one level, P places in a
block, Q = NODES.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

NODES = 5
CHUNK = 32  # nodes read at once
SEGMENT = 8  # steps of a segment of targets, and of the smallest block
_SAMPLES = 12  # of a smooth table, per block
_GAIN = 34.0  # a node more divides the error of a merged block by (3 + sqrt(8))^2, the worst allowed case
_RATE = 1.0  # largest range of log eta within a merged block
_LARGEST = 500_000_000  # entries of the list of seen nodes: 2 GB
_TOLERANCE = 1e-9  # of log eta, and of S relative to the block's width, between samples
_TOLERANCE_FLOAT32 = 3e-7  # the same where the table itself is rounded to float32


@dataclass(frozen=True, eq=False)
class MergedChanges:
    """Nodes (log eta, S before the change, weight, step) and, for each segment of 8 steps, the nodes it sees.

    Unused places of `seen_GxK`, after the `count_G` used ones, name a node of weight 0; K is a multiple of CHUNK. A
    target in a segment must leave out nodes of later steps.
    `area_T` is S. Several schedules may follow one another; `first_S` says at which step each begins.
    """

    first_S: np.ndarray
    area_T: np.ndarray
    log_rate_N: np.ndarray
    before_N: np.ndarray
    weight_N: np.ndarray
    step_N: np.ndarray
    seen_GxK: np.ndarray
    count_G: np.ndarray

    @classmethod
    def of(cls, lr_T: np.ndarray) -> "MergedChanges":
        """Merges the changes of a schedule. A rate of 0 has log eta -700. ValueError for a long table that is rough."""
        levels = list(_levels(lr_T))
        nodes, seen = [np.zeros((1, 4))], []
        pairs_Ex2 = np.stack(
            [np.arange(-(-len(lr_T) // SEGMENT)), np.zeros(-(-len(lr_T) // SEGMENT), dtype=int)], axis=1
        )
        start_G = np.cumsum(lr_T)[::SEGMENT]
        first = 1
        for level in levels:
            segment_E, block_E = pairs_Ex2.T
            live_E = level.live_B[block_E] & (level.first_B[block_E] < (segment_E + 1) * SEGMENT)
            far_E = level.last_B[block_E] <= segment_E * SEGMENT
            gap_E = start_G[segment_E] - level.end_B[block_E]
            takes_E = live_E & (level.single | (far_E & level.smooth_B[block_E] & (level.width_B[block_E] <= gap_E)))
            index_E = first + block_E[takes_E][:, None] * level.nodes_BxQx4.shape[1]
            index_ExQ = index_E + np.arange(level.nodes_BxQx4.shape[1])
            seen.append((np.repeat(segment_E[takes_E], index_ExQ.shape[1]), index_ExQ.ravel()))
            nodes.append(level.nodes_BxQx4.reshape(-1, 4))
            first += len(nodes[-1])
            deeper_Ex2 = pairs_Ex2[live_E & ~takes_E]
            pairs_Ex2 = (deeper_Ex2[:, None] * [1, 2] + np.array([[0, 0], [0, 1]])).reshape(-1, 2)
        segment_E, node_E = (np.concatenate(part) for part in zip(*seen, strict=True))
        compact = _compact(np.concatenate(nodes), segment_E, node_E, len(start_G))
        return cls(np.zeros(1, dtype=int), np.cumsum(lr_T), *compact)


def join(parts: Sequence[MergedChanges]) -> MergedChanges:
    """Schedules one after the other, each starting at a whole segment."""
    widest = max(part.seen_GxK.shape[1] for part in parts)
    first = node = 0
    first_S, areas, steps, seen = [], [], [], []
    for part in parts:
        first_S.append(first)
        steps.append(part.step_N + first)
        segments, width = part.seen_GxK.shape
        seen.append(np.pad(part.seen_GxK + node, ((0, 0), (0, widest - width)), constant_values=node))
        areas.append(np.pad(part.area_T, (0, segments * SEGMENT - len(part.area_T)), mode="edge"))
        first, node = first + segments * SEGMENT, node + len(part.step_N)
    log_rates, befores, weights = ([getattr(part, f) for part in parts] for f in ("log_rate_N", "before_N", "weight_N"))
    columns = (areas, log_rates, befores, weights, steps, seen, [part.count_G for part in parts])
    return MergedChanges(np.array(first_S), *map(np.concatenate, columns))


@dataclass(frozen=True, eq=False)
class _Level:
    """Blocks of one length: whether they change at all, may be merged, and their nodes."""

    single: bool  # of single changes: always taken
    live_B: np.ndarray
    smooth_B: np.ndarray
    first_B: np.ndarray
    last_B: np.ndarray
    end_B: np.ndarray
    width_B: np.ndarray
    nodes_BxQx4: np.ndarray


def _levels(lr_T: np.ndarray) -> Iterator[_Level]:
    """Levels from one block down to leaves of single changes."""
    depth = max(0, int(np.ceil(np.log2(max(len(lr_T) / SEGMENT, 1)))))
    pad = SEGMENT * 2**depth - len(lr_T)
    lr_T = np.pad(lr_T, (0, pad), mode="edge")
    change_T = np.diff(lr_T, prepend=lr_T[0])
    before_T = np.cumsum(lr_T) - lr_T
    with np.errstate(divide="ignore"):
        log_rate_T = np.maximum(np.log(lr_T), -700.0)
    tolerance = _TOLERANCE_FLOAT32 if (lr_T.astype(np.float32) == lr_T).all() else _TOLERANCE
    table_Tx4 = np.stack([log_rate_T, before_T, change_T, np.arange(len(lr_T))], axis=1)
    for level in range(depth + 1):
        table_BxPx4 = table_Tx4.reshape(2**level, -1, 4)
        yield _level(table_BxPx4, single=level == depth, tolerance=tolerance, largest=float(lr_T.max()))


def _level(table_BxPx4: np.ndarray, single: bool, tolerance: float, largest: float) -> _Level:
    log_rate_BxP, before_BxP, change_BxP, step_BxP = np.moveaxis(table_BxPx4, -1, 0)
    width_B = before_BxP[:, -1] - before_BxP[:, 0]
    smooth_B, nodes_BxQx4 = np.zeros(len(width_B), dtype=bool), table_BxPx4
    if not single:
        one_sign_B = (change_BxP >= 0).all(axis=1) | (change_BxP <= 0).all(axis=1)
        narrow_B = log_rate_BxP.max(axis=1) - log_rate_BxP.min(axis=1) <= _RATE
        place_P = np.linspace(-1, 1, step_BxP.shape[1])
        smooth_BxPx2, off_Bx2 = _polynomials(place_P, table_BxPx4[..., :2])
        fits_B = (off_Bx2[:, 0] <= tolerance) & (off_Bx2[:, 1] <= tolerance * np.maximum(width_B, 1e-300))
        smooth_B = one_sign_B & narrow_B & fits_B
        share_B = np.abs(change_BxP).sum(axis=1) / largest
        enough_B = np.ceil(NODES + np.log(np.maximum(share_B, 1e-300)) / np.log(_GAIN))
        place_BxQ, weight_BxQ = _gauss(place_P, change_BxP, np.clip(enough_B, 1, NODES).astype(int))
        at_BxQx2 = np.einsum("bqs,bsv->bqv", np.polynomial.chebyshev.chebvander(place_BxQ, _SAMPLES - 1), smooth_BxPx2)
        nodes_BxQx4 = np.concatenate(
            [at_BxQx2, weight_BxQ[..., None], np.broadcast_to(step_BxP[:, :1, None], (*weight_BxQ.shape, 1))], axis=-1
        )
    return _Level(
        single,
        (change_BxP != 0).any(axis=1),
        smooth_B,
        step_BxP[:, 0],
        step_BxP[:, -1],
        before_BxP[:, -1],
        width_B,
        nodes_BxQx4,
    )


def _polynomials(place_P: np.ndarray, values_BxPxV: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Chebyshev coefficients [B, _SAMPLES, V] through samples of each block, and the largest miss elsewhere [B, V]."""
    wanted = np.cos(np.pi * (np.arange(_SAMPLES) + 0.5) / _SAMPLES)
    sample = np.unique(np.round((wanted + 1) / 2 * (len(place_P) - 1)).astype(int))
    basis_PxS = np.polynomial.chebyshev.chebvander(place_P, len(sample) - 1)
    coefficients_BxSxV = np.linalg.inv(basis_PxS[sample]) @ values_BxPxV[:, sample]
    off_BxV = np.abs(basis_PxS @ coefficients_BxSxV - values_BxPxV).max(axis=1)
    return np.pad(coefficients_BxSxV, ((0, 0), (0, _SAMPLES - len(sample)), (0, 0))), off_BxV


def _gauss(place_P: np.ndarray, change_BxP: np.ndarray, count_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places and weights of the Gauss quadrature of each block's changes (of one sign), by Lanczos; [B, Q] each.

    Where fewer than Q changes differ from 0 the recursion ends early, and the surplus nodes have weight 0.
    """
    total_B = change_BxP.sum(axis=1)
    size_BxP = np.abs(change_BxP)
    mass_B = np.where(size_BxP.sum(axis=1) > 0, size_BxP.sum(axis=1), 1.0)
    vector_BxP = np.sqrt(size_BxP / mass_B[:, None])
    basis = [vector_BxP]
    matrix_BxQxQ = np.zeros((len(change_BxP), NODES, NODES))
    for q in range(NODES):
        next_BxP = place_P * basis[q]
        matrix_BxQxQ[:, q, q] = (basis[q] * next_BxP).sum(axis=1)
        for _ in range(2):  # orthogonal to all before, twice for rounding
            for before_BxP in basis:
                next_BxP = next_BxP - before_BxP * (before_BxP * next_BxP).sum(axis=1, keepdims=True)
        length_B = np.sqrt((next_BxP**2).sum(axis=1))
        length_B = np.where(length_B > 1e-12, length_B, 0.0)
        basis.append(next_BxP / np.where(length_B > 0, length_B, np.inf)[:, None])
        if q + 1 < NODES:
            matrix_BxQxQ[:, q, q + 1] = matrix_BxQxQ[:, q + 1, q] = length_B
    place_BxQ, weight_BxQ = np.zeros((2, len(change_BxP), NODES))
    for count in np.unique(count_B):
        rows_B = count_B == count
        place_RxQ, vectors_RxQxQ = np.linalg.eigh(matrix_BxQxQ[rows_B, :count, :count])
        place_BxQ[rows_B, :count] = place_RxQ
        weight_BxQ[rows_B, :count] = total_B[rows_B, None] * vectors_RxQxQ[:, 0, :] ** 2
    return place_BxQ, weight_BxQ


def _compact(nodes_Nx4: np.ndarray, segment_E: np.ndarray, node_E: np.ndarray, segments: int) -> tuple[np.ndarray, ...]:
    """Drops nodes of weight 0 and those never seen; lists the rest by segment, padded with node 0 (of weight 0)."""
    keep_E = nodes_Nx4[node_E, 2] != 0
    segment_E, node_E = segment_E[keep_E], node_E[keep_E]
    used, node_E = np.unique(np.concatenate([[0], node_E]), return_inverse=True)
    node_E = node_E[1:]
    order_E = np.argsort(segment_E, kind="stable")
    segment_E, node_E = segment_E[order_E], node_E[order_E]
    count_G = np.bincount(segment_E, minlength=segments)
    if segments * int(count_G.max()) > _LARGEST:
        raise ValueError(
            f"schedule: {int(count_G.max())} changes of the learning rate over {segments * SEGMENT} steps are too rough"
            " to merge; hold each rate for some steps, or smooth the table"
        )
    seen_GxK = np.zeros((segments, CHUNK * max(1, -(-int(count_G.max()) // CHUNK))), dtype=np.int32)
    place_E = np.arange(len(segment_E)) - np.repeat(np.cumsum(count_G) - count_G, count_G)
    seen_GxK[segment_E, place_E] = node_E
    return (*nodes_Nx4[used].T, seen_GxK, count_G)
