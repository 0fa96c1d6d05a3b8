"""Trained the public way on a Markov chain, a model comes down to the chain's entropy and never below it.

P letters and the end of a document, 0; transition probabilities [P, P].
"""

import math
from pathlib import Path

import numpy as np
import pytest

from helpers import never, small_run
from scaling.store import Store
from scaling.sweeps.executor import run_sweep
from scaling.sweeps.jobs import Settings
from scaling.sweeps.workbench import Workbench

LETTERS = "abcd"
END = 1 / 400  # chance that a document ends after a letter
DOCUMENTS = 600
MARGIN = 0.02  # nats/token above the entropy at which training may end


def chain(rng: np.random.Generator) -> np.ndarray:
    """Transitions between the end of a document, row 0, and the letters; some 1.2 nats of entropy."""
    letters_PxP = rng.dirichlet(np.full(len(LETTERS), 0.6), size=len(LETTERS))
    start = np.full((1, len(LETTERS)), 1 / len(LETTERS))
    ends = np.concatenate([[[0.0]], np.full((len(LETTERS), 1), END)])
    return np.concatenate([ends, np.concatenate([start, letters_PxP * (1 - END)])], axis=1)


def entropy_rate(chain_PxP: np.ndarray) -> float:
    """-Σ π_i P_ij log P_ij with π the stationary distribution, nats a token."""
    values, vectors = np.linalg.eig(chain_PxP.T)
    stationary_P = np.real(vectors[:, np.argmax(values.real)])
    stationary_P /= stationary_P.sum()
    logs_PxP = np.log(np.where(chain_PxP > 0, chain_PxP, 1.0))
    return float(-np.sum(stationary_P[:, None] * chain_PxP * logs_PxP))


def write_chain(folder: Path, chain_PxP: np.ndarray, rng: np.random.Generator) -> None:
    folder.mkdir()
    for document in range(DOCUMENTS):
        state, text = 0, []
        while not text or state:
            state = rng.choice(len(chain_PxP), p=chain_PxP[state])
            text.append(LETTERS[state - 1] if state else "")
        (folder / f"{document}.txt").write_text("".join(text))


def test_loss_converges_to_the_entropy_from_above(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    chain_PxP = chain(rng)
    write_chain(tmp_path / "text", chain_PxP, rng)
    run = small_run(**{
        "data.domains": {"chain": f"folder:{tmp_path / 'text'}"}, "data.mixture": {"chain": 1.0}, "data.batch": 16,
        "schedule.peak": 1e-2, "schedule.floor": 0.0, "optimizer.weight_decay": 0.0,
        "training.duration": {"steps": 600}, "evaluation.points": 12, "evaluation.windows": 601})
    bench = Workbench(tmp_path / "cache")
    rows = run_sweep([run], tmp_path / "work", bench, Settings(checkpoint_seconds=60.0), never)
    assert rows.status.tolist() == ["done"]

    windows_MxT = bench.corpus(run.program).validation_windows(run.data.sequence, run.evaluation.windows)[0]
    states_MxT = np.array([0 if token == 0 else LETTERS.index(chr(token)) + 1 for token in windows_MxT.ravel()]
                          ).reshape(windows_MxT.shape)
    best_M = -np.log(chain_PxP[states_MxT[:, :-1], states_MxT[:, 1:]]).mean(axis=1)
    best, error = best_M.mean(), best_M.std(ddof=1) / math.sqrt(len(best_M))
    assert abs(best - entropy_rate(chain_PxP)) < 4 * error, "the held-out text is typical of its source"

    curve = Store(tmp_path / "work" / "store").read("curves").query("split == 'validation'").sort_values("step")
    assert curve.loss.iloc[0] == pytest.approx(math.log(256), abs=0.1)
    assert (curve.loss >= entropy_rate(chain_PxP) - 4 * curve.loss_se).all()
    assert (curve.loss > best).all(), "not even below what the source itself gives this very text"
    assert curve.loss.iloc[-1] < best + MARGIN
