"""DoGE against the reference sheet, a hand-written trace over explicit gradients, its clip and its target."""

from __future__ import annotations

import math

import numpy as np
import pytest

from scaling.data.mixers.doge import doge
from simulated_mixing import drive, observation, values

pytestmark = pytest.mark.usefixtures("double")

OTHERS = 1 - np.eye(3)


def test_the_published_example() -> None:
    gradients_KxN = np.array([[1.0, 0], [0, 1], [1, 1]])
    mixer = doge(values(np.full(3, 1 / 3), rate=20.0, pairs=OTHERS))
    after = drive(mixer, [observation(gradients_KxN @ gradients_KxN.T, learning_rate=5e-4)])[0]
    np.testing.assert_allclose(after, [0.332356, 0.332356, 0.335289], atol=5e-7)
    # Shares show scores up to a common shift: (4.39, 4.39, 8.79)e-4, less the first.
    np.testing.assert_allclose(np.log(after / after[0]) / 20.0, [0, 0, 4.39e-4], atol=5e-7)


@pytest.mark.parametrize("pairs", [OTHERS, np.array([[0, 1.0, 0]] * 3)], ids=["own domains", "domain 1 as target"])
def test_four_steps_by_hand_with_a_moving_learning_rate(pairs: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    start, rate = [0.5, 0.3, 0.2], 20.0
    shares, expected, observations = list(start), [], []
    for step, learning_rate in enumerate([0.0, 0.01, 0.02, 0.005]):
        gradients = rng.normal(size=(3, 4)) * [[0.5], [0.4], [0.3]]
        norms = [math.sqrt(sum(g * g for g in row)) for row in gradients]
        scores = []
        for i in range(3):
            agreement = sum(pairs[i][j] * float(np.dot(gradients[i], gradients[j])) for j in range(3))
            raw = learning_rate * agreement / (sum(norms) / 3 + 1e-6)
            scores.append(min(max(raw, 0.0), 5 * learning_rate))
        raised = [share * math.exp(rate * score) for share, score in zip(shares, scores, strict=True)]
        shares = [value / sum(raised) for value in raised]
        expected.append(shares)
        observations.append(observation(gradients @ gradients.T, step, learning_rate=learning_rate))
    result = drive(doge(values(start, rate=rate, pairs=pairs)), observations)
    np.testing.assert_allclose(result, expected, rtol=1e-12)
    np.testing.assert_allclose(result[0], start, rtol=1e-12)  # no learning rate, no step


def test_scores_are_clipped_to_five_learning_rates_and_to_none() -> None:
    # Gradients (5, 0), (5, 0), (-9, 0): W = (-20, -20, -90) with others, so all scores are 0.
    mixer = doge(values([0.2, 0.3, 0.5], rate=10.0, pairs=OTHERS))
    opposed = np.outer([5.0, 5, -9], [5.0, 5, -9])
    np.testing.assert_allclose(drive(mixer, [observation(opposed, learning_rate=0.1)])[0], [0.2, 0.3, 0.5], rtol=1e-12)
    # Gradients (30, 30, 0): mean norm 20, W = (900, 900, 0), scores 45 lr before the clip, 5 lr after it.
    large = np.outer([30.0, 30, 0], [30.0, 30, 0])
    raised = np.array([0.2, 0.3, 0.5]) * np.exp([5.0, 5.0, 0.0])
    after = drive(mixer, [observation(large, learning_rate=0.1)])[0]
    np.testing.assert_allclose(after, raised / raised.sum(), rtol=1e-12)


def test_a_domain_that_agrees_with_no_other_loses_share() -> None:
    gradients_KxN = np.array([[1.0, 0.2, 0], [0.8, 0.6, 0], [0, 0, 1]])
    mixer = doge(values(np.full(3, 1 / 3), rate=20.0, pairs=OTHERS))
    seen = [observation(gradients_KxN @ gradients_KxN.T, step, learning_rate=0.01) for step in range(50)]
    shares = drive(mixer, seen)
    assert (np.diff(shares[:, 2]) < 0).all()
    assert shares[-1, 2] < 0.01
