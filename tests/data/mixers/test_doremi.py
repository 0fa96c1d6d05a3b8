"""DoReMi against the reference sheet, a hand-written trace with absent domains, and its fixed point."""

from __future__ import annotations

import math

import numpy as np
import pytest

from scaling.data.mixers.doremi import doremi
from simulated_mixing import drive, observation, values

pytestmark = pytest.mark.usefixtures("double")


def test_the_published_example() -> None:
    mixer = doremi(values([0.5, 0.3, 0.2], rate=1.0, smoothing=1e-4))
    excess = np.maximum(np.array([3, 2.5, 2]) - [2.8, 2.6, 1.5], 0)
    np.testing.assert_allclose(drive(mixer, [observation(excess)])[0], [0.492308, 0.241858, 0.265834], atol=5e-7)


def test_three_steps_by_hand_with_an_absent_domain_keeping_its_excess() -> None:
    rate, smoothing = 0.7, 0.05
    seen = [(0.4, 0.1, 0.9), (0.2, math.nan, 0.3), (0.0, 0.5, math.nan)]
    counts = [(3, 2, 1), (4, 0, 2), (1, 5, 0)]
    held = [(0.4, 0.1, 0.9), (0.2, 0.1, 0.3), (0.0, 0.5, 0.3)]  # an absent domain's is that of the step before
    shares, expected = [0.5, 0.3, 0.2], []
    for excess in held:
        raised = [share * math.exp(rate * value) for share, value in zip(shares, excess, strict=True)]
        shares = [(1 - smoothing) * value / sum(raised) + smoothing / 3 for value in raised]
        expected.append(shares)
    mixer = doremi(values([0.5, 0.3, 0.2], rate=rate, smoothing=smoothing))
    observations = [observation(s, step, c) for step, (s, c) in enumerate(zip(seen, counts, strict=True))]
    np.testing.assert_allclose(drive(mixer, observations), expected, rtol=1e-12)


def test_a_domain_never_seen_has_no_excess() -> None:
    mixer = doremi(values([0.5, 0.5], rate=1.0, smoothing=0.0))
    after = drive(mixer, [observation([0.3, math.nan], counts=(4, 0))])[0]
    np.testing.assert_allclose(after[0], 1 / (1 + math.exp(-0.3)), rtol=1e-12)


def test_a_model_equal_to_its_reference_stays_on_a_uniform_mixture() -> None:
    mixer = doremi(values([0.25] * 4, rate=1.0, smoothing=1e-3))
    shares = drive(mixer, [observation(np.zeros(4), step) for step in range(20)])
    np.testing.assert_allclose(shares, 0.25, rtol=1e-13)


def test_without_smoothing_zero_excess_keeps_any_mixture() -> None:
    mixer = doremi(values([0.7, 0.2, 0.1], rate=1.0, smoothing=0.0))
    np.testing.assert_allclose(drive(mixer, [observation(np.zeros(3))] * 20)[-1], [0.7, 0.2, 0.1], rtol=1e-13)


def test_smoothing_gives_nothing_to_a_domain_that_starts_with_nothing() -> None:
    mixer = doremi(values([0.5, 0.5, 0.0], rate=1.0, smoothing=0.2))
    shares = drive(mixer, [observation([0.1, 0.6, 9.0])] * 5)
    assert (shares[:, 2] == 0).all()
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-12)
    raised = np.exp([0.1, 0.6])
    np.testing.assert_allclose(shares[0, :2], 0.8 * raised / raised.sum() + 0.1, rtol=1e-12)
