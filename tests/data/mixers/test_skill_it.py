"""Skill-It against the reference sheet, a hand-written trace longer than its window, and the authors' identities."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
import pytest

from scaling.data.mixers.skill_it import skill_it
from simulated_mixing import drive, observation, values

pytestmark = pytest.mark.usefixtures("double")


def test_the_published_example() -> None:
    mixer = skill_it(values([0.5, 0.5], rate=0.2, pairs=[[1, 0.5], [0, 1]]), window=1)
    np.testing.assert_allclose(drive(mixer, [observation([2.0, 1.0])])[0], [0.574443, 0.425557], atol=5e-7)


def test_before_any_loss_the_graph_alone_decides() -> None:
    mixer = skill_it(values([0.5, 0.5], rate=0.2, pairs=[[1, 0.5], [0, 1]]), window=3)
    raised = [math.exp(0.2 * 1.5), math.exp(0.2 * 1.0)]
    at_start = mixer.weights(mixer.init(), jnp.int32(0))
    np.testing.assert_allclose(at_start, [value / sum(raised) for value in raised], rtol=1e-12)


def test_six_rounds_by_hand_with_a_window_of_three() -> None:
    rng = np.random.default_rng(1)
    start, rate, graph = [0.6, 0.3, 0.1], 0.3, rng.uniform(0, 1, (3, 3))
    measured = rng.uniform(1, 4, (6, 3)).tolist()
    expected = []
    for done in range(1, 7):
        recent = measured[max(0, done - 3):done]
        total = [sum(losses[j] for losses in recent) for j in range(3)]
        raised = [start[i] * math.exp(rate * sum(graph[i][j] * total[j] for j in range(3))) for i in range(3)]
        expected.append([value / sum(raised) for value in raised])
    mixer = skill_it(values(start, rate=rate, pairs=graph), window=3)
    result = drive(mixer, [observation(losses, 5 * (done + 1)) for done, losses in enumerate(measured)])
    np.testing.assert_allclose(result, expected, rtol=1e-12)


def test_no_teaching_between_domains_and_equal_losses_stay_uniform() -> None:
    mixer = skill_it(values([0.25] * 4, rate=0.5, pairs=np.eye(4)), window=2)
    np.testing.assert_allclose(drive(mixer, [observation([2.5] * 4)] * 3), 0.25, rtol=1e-13)


@pytest.mark.parametrize("graph", [np.zeros((3, 3)), np.ones((3, 3))], ids=["empty", "complete"])
def test_a_graph_that_prefers_no_domain_keeps_the_start_whatever_the_losses(graph: np.ndarray) -> None:
    mixer = skill_it(values([0.5, 0.3, 0.2], rate=0.5, pairs=graph), window=3)
    shares = drive(mixer, [observation(losses) for losses in ([1.0, 2, 3], [4.0, 1, 1], [2.0, 2, 9])])
    np.testing.assert_allclose(shares, [[0.5, 0.3, 0.2]] * 3, rtol=1e-12)


def test_a_teacher_gains_over_another_domain_by_the_loss_of_its_pupil() -> None:
    mixer = skill_it(values([1 / 3] * 3, rate=0.2, pairs=[[1, 0, 1], [0, 1, 0], [0, 0, 1]]), window=1)
    shares = drive(mixer, [observation([1.0, 1, 3]), observation([1.0, 1, 0.1])])  # 0 teaches 2, 1 teaches no other
    np.testing.assert_allclose(shares[:, 0] / shares[:, 1], np.exp([0.2 * 3, 0.2 * 0.1]), rtol=1e-12)
