"""Packs of trials trained side by side, a call of each in turn, so that their speeds are measured alike.

The machine's other work slows a call now and then; what is slowed is spread over all packs, and medians pass it over.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence

import jax
import numpy as np
import pandas as pd

from scaling.store import Store
from scaling.sweeps.rows import FINAL
from scaling.workloads.digits import Digits
from scaling.workloads.rows import trial_curve, trial_row
from scaling.workloads.trainer import Lane, TrialTrainer, steps_of
from scaling.workloads.trial import Trial

STEP_SECONDS = "step_seconds"  # diagnostic: device seconds a step of one trial took, in a call for a whole pack


class Pack:
    """Trials of one program and length, in training."""

    def __init__(self, trainer: TrialTrainer, trials: Sequence[Trial], images: int) -> None:
        self.trainer, self.trials, self.images = trainer, list(trials), images
        self.lane = trainer.put([Lane(np.int32(trial.seed), trial.values()) for trial in trials])
        self.state = trainer.initial(self.lane)
        self.done = 0  # evaluations
        self.losses = [self._losses()]
        self.seconds: list[float] = []

    @property
    def ended(self) -> bool:
        """Whether the trials have all their steps."""
        return self.done == self.trials[0].evaluations

    def advance(self) -> None:
        """The steps up to the next evaluation, timed, and the evaluation, which is not."""
        self.done += 1
        steps = self.trainer.put([steps_of(trial, self.images, self.done) for trial in self.trials])
        begin = time.perf_counter()
        self.state = jax.block_until_ready(self.trainer.advance(self.lane, steps, self.state))
        self.seconds.append(time.perf_counter() - begin)
        self.losses.append(self._losses())

    def _losses(self) -> np.ndarray:
        return np.asarray(self.trainer.evaluate(self.state))[:len(self.trials)]

    def write(self, store: Store, checksum: str) -> None:
        """Curves and speeds, then the rows that say that the trials have ended. The first call compiles: it has no
        speed.
        """
        trials, every = self.trials, self.trials[0].every
        pack_id = hashlib.sha256("".join(trial.run_id for trial in trials).encode()).hexdigest()[:12]
        diverged_R = np.asarray(self.state.diverged_at).tolist()
        losses_RxE = np.stack(self.losses, axis=1)
        store.write("curves", pack_id, pd.concat(
            [trial_curve(*row) for row in zip(trials, losses_RxE, diverged_R, strict=False)], ignore_index=True))
        a_step = self.trainer.mesh.devices.size / (every * self.trainer.lanes)
        store.write("diagnostics", pack_id, pd.DataFrame([
            {"run_id": trials[0].run_id, "step": (call + 1) * every, "name": STEP_SECONDS, "value": seconds * a_step}
            for call, seconds in enumerate(self.seconds) if call > 0]))
        share = sum(self.seconds) / len(trials)
        store.write("runs", pack_id, pd.DataFrame(
            [trial_row(trial, pack_id, checksum, diverged, share)
             for trial, diverged in zip(trials, diverged_R, strict=False)]))


def race(trials: Sequence[Trial], store: Store, data: Digits, trainers: dict[Trial, TrialTrainer]) -> int:
    """Train what the store lacks of trials of one workload, all packs side by side; returns how many that were.

    `trainers`: by program, of races on this workload before; those that are new are added. All packs have as many
    lanes, so that speeds compare and a program is compiled once.
    """
    runs = store.read("runs")
    ended = set(runs.run_id[runs.status.isin(FINAL)]) if len(runs) else set()
    left = list({trial.run_id: trial for trial in trials if trial.run_id not in ended}.values())
    groups: dict[tuple[Trial, int, int], list[Trial]] = {}
    for trial in left:
        groups.setdefault((trial.program, trial.steps, trial.every), []).append(trial)
    lanes = max([*(trainer.lanes for trainer in trainers.values()), *map(len, groups.values())], default=0)
    for program, _, _ in groups:
        trainers.setdefault(program, TrialTrainer(program, data, lanes))
    racing = [Pack(trainers[program], members, len(data.training.labels_N))
              for (program, _, _), members in groups.items()]
    while racing:
        for pack in racing:
            pack.advance()
            if pack.ended:
                pack.write(store, data.checksum)
        racing = [pack for pack in racing if not pack.ended]
    return len(left)
