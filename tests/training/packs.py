"""Packs of small runs on a made-up corpus, trained by the trainer as a sweep would.

K domains, N tokens of all, M held-out windows a domain, S sequence length.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd

from helpers import never, small_run
from scaling.config import Run
from scaling.data.batches import Tokens
from scaling.store import Store
from scaling.training.checkpoints import PackCheckpoints
from scaling.training.loop import Hooks, PackJob, train_pack
from scaling.training.recorder import Recorder, RunFacts
from scaling.training.state import TrainState, initial_state
from scaling.training.tables import Stream, Windows, evaluation_steps, run_tables
from scaling.training.trainer import Layout, PackTrainer

VOCABULARY = 11
DOMAINS = ("a", "b")
WINDOWS = 40  # training windows a domain
BYTES_PER_TOKEN = (1.0, 1.5)
NEVER = float("inf")
ALONE, SEVEN = Layout(1, 1, devices=1), Layout(8, 1, devices=2)  # most tests share these, since compiling costs


def pack_run(**changes: Any) -> Run:
    """A small run on the two made-up domains."""
    return small_run(**{"data.domains": {name: f"folder:{name}" for name in DOMAINS}, "data.mixture": {"a": 1.0},
                        **changes})


def varied_run(index: int, **changes: Any) -> Run:
    """Run `index` of a pack whose runs differ in seed, rate, decay and mixture."""
    share = index % 5 / 4
    return pack_run(**{"training.seed": index, "schedule.peak": 2e-3 * (1 + index % 3),
                       "optimizer.weight_decay": 0.1 * (index % 2), "data.mixture": {"a": share, "b": 1 - share},
                       **changes})


def windows(count: int = WINDOWS) -> Windows:
    return Windows(tuple((name, count) for name in DOMAINS))


@functools.cache
def corpus(sequence: int, held_out: int) -> tuple[Tokens, np.ndarray]:
    """Domain k counts up by k + 1, with a fifth of its tokens random; and held-out windows int32[K, M, S + 1]."""
    rng = np.random.default_rng(0)
    size, width = WINDOWS * sequence + 1, sequence + 1

    def text(domain: int, length: int) -> np.ndarray:
        steps = np.where(rng.random(length) < 0.2, rng.integers(VOCABULARY, size=length), domain + 1)
        return (np.cumsum(steps) % VOCABULARY).astype(np.uint8)

    train_N = np.concatenate([text(domain, size) for domain in range(len(DOMAINS))])
    validation = [text(domain, held_out * width).reshape(held_out, width) for domain in range(len(DOMAINS))]
    return Tokens(train_N, np.array([0, size], np.int32)), np.stack(validation).astype(np.int32)


@functools.cache
def trainer(program: Run, layout: Layout) -> PackTrainer:
    """One trainer a program and layout for the whole test session; compiling is what costs."""
    wanted = 0 if program.mixer is None else program.mixer.windows or 0
    tokens, validation_KxMxT = corpus(program.data.sequence, program.evaluation.windows)
    return PackTrainer(program, VOCABULARY, tokens, validation_KxMxT, layout,
                       held_out_KxMxT=held_out(program.data.sequence, wanted) if wanted else None)


def held_out(sequence: int, count: int) -> np.ndarray:
    """Windows for a mixer to look at, int32[K, count, S + 1]."""
    return corpus(sequence, 50 + count)[1][:, 50:]


@functools.cache
def template(program: Run) -> TrainState:
    return jax.eval_shape(functools.partial(initial_state, program, VOCABULARY), np.int32(0))


def random_state(program: Run, seed: int) -> TrainState:
    """A state to start from that costs no compilation: parameters around 1 for norms, 0 for the rest, no moments."""
    rng = np.random.default_rng(seed)

    def draw(path: tuple, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        return (rng.normal(size=leaf.shape) * 0.3 + (path[-1].key == "scale")).astype(leaf.dtype)

    shapes = template(program)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    return zeros._replace(params=jax.tree_util.tree_map_with_path(draw, shapes.params), diverged_at=np.int32(-1))


@dataclasses.dataclass
class Trained:
    """What a pack left: its tables, states kept by step and run id, the step each run diverged at."""

    curves: pd.DataFrame
    diagnostics: pd.DataFrame
    states: dict[int, dict[str, TrainState]]
    diverged_at: dict[str, int]

    def losses(self, run: Run) -> np.ndarray:
        """Every loss of one run, training and held-out, in order of step."""
        return self.curves[self.curves.run_id == run.run_id].loss.to_numpy()

    def params(self, run: Run) -> Any:
        """Parameters of one run at the last step that was kept."""
        return self.states[max(self.states)][run.run_id].params


def job(runs: Sequence[Run], positions: Sequence[int] | None = None, saves: Mapping[int, Sequence[str]] | None = None,
        parents: Sequence[TrainState] | None = None) -> PackJob:
    """A pack of runs; by default the last step's state of each is kept."""
    tables = [run_tables(run, windows(), Stream.start(2)) for run in runs]
    steps = len(tables[0].learning_rate_T)
    return PackJob(runs, range(len(runs)) if positions is None else positions, tables, windows(),
                   evaluation_steps(runs[0], steps), {steps: [run.run_id for run in runs]} if saves is None else saves,
                   parents)


def train(pack: PackJob, layout: Layout, folder: Path, checkpoint_seconds: float = NEVER) -> Trained:
    """Train a pack with the trainer of its program and layout, the store and checkpoints in `folder`."""
    program = pack.runs[0].program
    facts = [RunFacts(run.run_id, run.data.tokens_per_step, 1.0, table.learning_rate_T)
             for run, table in zip(pack.runs, pack.tables, strict=True)]
    store = Store(folder / "store")
    states: dict[int, dict[str, TrainState]] = {}

    def keep(step: int, run_ids: list[str], states_R: TrainState) -> None:
        for index, run_id in enumerate(run_ids):
            states.setdefault(step, {})[run_id] = jax.tree.map(lambda leaf, i=index: leaf[i], states_R)

    diverged_at_R = train_pack(
        trainer(program, layout), pack, Recorder(store, "pack", facts, DOMAINS, np.array(BYTES_PER_TOKEN)),
        PackCheckpoints(folder / "checkpoints"), template(program), checkpoint_seconds,
        Hooks(keep, lambda first, last: None, never, lambda snapshot: (), lambda step: ()))
    ids = [run.run_id for run in pack.runs]
    return Trained(store.read("curves"), store.read("diagnostics"), states,
                   dict(zip(ids, diverged_at_R.tolist(), strict=True)))
