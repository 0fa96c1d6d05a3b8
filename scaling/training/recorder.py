"""Rows of a pack's curves: from what the devices measured to the store's tables."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from scaling.store import Store

MIXTURE = "mixture"  # the domain of the training loss


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """What one evaluation measured for the R runs of a pack, K domains, M windows; still on devices until read."""

    step: int
    losses_RxKxM: np.ndarray  # nats/token
    metrics_R: tuple[np.ndarray, ...]  # sums of `Metrics` since the last snapshot, in its order
    diverged_at_R: np.ndarray
    shares: Mapping[str, np.ndarray]  # of an online mixer: a quantity's name to [R, K]; else empty
    diagnostics: Mapping[str, np.ndarray]  # of a program with diagnostics: a quantity's name to [R]; else empty


@dataclasses.dataclass(frozen=True)
class RunFacts:
    """What turns steps of one run into tokens, FLOPs and rates."""

    run_id: str
    tokens_per_step: int
    flops_per_token: float
    learning_rate_T: np.ndarray


def held_out(losses_M: np.ndarray) -> tuple[float, float]:
    """Mean over held-out windows, and its standard error over them (NaN for one), nats/token."""
    losses_M = losses_M.astype(np.float64)
    error = losses_M.std(ddof=1) / math.sqrt(len(losses_M)) if len(losses_M) > 1 else math.nan
    return float(losses_M.mean()), float(error)


class Recorder:
    """Turns snapshots into rows and writes them, a file a flush, named by pack and steps.

    Loss of a domain: mean over its held-out windows; loss_se: standard error of that mean over windows, which are the
    sampling unit, since tokens of one window are not independent. Training loss: mean over the steps since the last
    row, loss_se over steps. A diverged run has no rows after the step that was refused.
    """

    def __init__(self, store: Store, pack_id: str, facts: Sequence[RunFacts], domains: Sequence[str],
                 bytes_per_token_K: np.ndarray) -> None:
        self.store, self.pack_id, self.facts = store, pack_id, list(facts)
        self.domains, self.bytes_per_token_K = list(domains), bytes_per_token_K
        self._curves: list[dict] = []
        self._diagnostics: list[dict] = []
        self._ended: set[str] = set()
        self._since = 0

    def end(self, run_ids: Sequence[str]) -> None:
        """Take no more rows of these runs."""
        self._ended.update(run_ids)

    def add(self, snapshot: Snapshot) -> None:
        """Take one snapshot's rows."""
        for index, fact in enumerate(self.facts):
            diverged_at = int(snapshot.diverged_at_R[index])
            if fact.run_id in self._ended or 0 <= diverged_at <= snapshot.step:
                continue
            self._curves += self._rows(fact, snapshot, index)
            steps, _, _, *totals = (float(total[index]) for total in snapshot.metrics_R)
            if steps > 0:  # not every program counts what it predicts
                for name, total in zip(("gradient_norm", "predicted_share"), totals, strict=False):
                    self._diagnose(fact, snapshot, name, total / steps)
            for name, values_RxK in snapshot.shares.items():
                for domain, value in zip(self.domains, values_RxK[index].tolist(), strict=True):
                    self._diagnose(fact, snapshot, f"{name}.{domain}", float(value))
            for name, value_R in snapshot.diagnostics.items():
                self._diagnose(fact, snapshot, name, float(value_R[index]))

    def _diagnose(self, fact: RunFacts, snapshot: Snapshot, name: str, value: float) -> None:
        self._diagnostics.append({"run_id": fact.run_id, "step": snapshot.step, "name": name, "value": value})

    def _rows(self, fact: RunFacts, snapshot: Snapshot, index: int) -> list[dict]:
        step = snapshot.step
        tokens = step * fact.tokens_per_step
        common = {
            "run_id": fact.run_id, "step": step, "tokens": tokens, "flops": tokens * fact.flops_per_token,
            "lr": fact.learning_rate_T[step - 1] if step else math.nan,
        }
        rows = []
        losses_KxM = snapshot.losses_RxKxM[index]
        for domain, losses_M, length in zip(self.domains, losses_KxM, self.bytes_per_token_K, strict=True):
            mean, error = held_out(losses_M)
            rows.append({**common, "split": "validation", "domain": domain, "loss": mean, "loss_se": error,
                         "bits_per_byte": mean / (length * math.log(2))})
        count, total, deviations, *_ = (float(total[index]) for total in snapshot.metrics_R)
        if count > 0:
            error = math.sqrt(deviations / count / (count - 1)) if count > 1 else math.nan
            rows.append({**common, "split": "train", "domain": MIXTURE, "loss": total / count, "loss_se": error,
                         "bits_per_byte": math.nan})
        return rows

    def flush(self, step: int) -> None:
        """Write the rows taken since the last flush; nothing if there are none."""
        if self._curves:
            name = self._name(self._since, step)
            self.store.write("curves", name, pd.DataFrame(self._curves))
            if self._diagnostics:
                self.store.write("diagnostics", name, pd.DataFrame(self._diagnostics))
        self._curves, self._diagnostics, self._since = [], [], step

    def rewind(self, step: int) -> None:
        """Drop the pack's rows written after its checkpoint at `step`: they will be written again, the same."""
        for table in ("curves", "diagnostics"):
            mine = [name for name in self.store.names(table) if name.startswith(f"{self.pack_id}.")]
            self.store.remove(table, [name for name in mine if int(name.split(".")[1]) >= step])
        self._since = step

    def _name(self, start: int, stop: int) -> str:
        return f"{self.pack_id}.{start:09d}.{stop:09d}"
