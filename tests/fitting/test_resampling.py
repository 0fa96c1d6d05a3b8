"""Resampling by group: what each draw keeps together."""

import numpy as np
import pytest

from scaling.fitting.resampling import group_counts

GROUP = np.repeat(np.arange(8), 3)
INPUTS = {"x": np.tile([1.0, 2.0, 3.0], 8), "n": np.repeat([1.0, 2.0], 12)}


def test_draws_have_as_many_groups_as_there_are_in_each_stratum():
    stratum = np.repeat([0, 1], 12)
    counts = group_counts(GROUP, stratum, INPUTS, needed=3, draws=500, seed=0)
    assert counts.shape == (500, 8)
    assert (counts[:, :4].sum(axis=1) == 4).all()
    assert (counts[:, 4:].sum(axis=1) == 4).all()
    np.testing.assert_allclose(counts.mean(axis=0), 1, atol=0.15)
    np.testing.assert_allclose(counts.var(axis=0), 3 / 4, atol=0.15)  # multinomial: 4 * 1/4 * 3/4


def test_draws_that_lose_an_inputs_variation_are_drawn_again():
    counts = group_counts(GROUP, np.zeros(24, int), INPUTS, needed=6, draws=2000, seed=0)
    assert (counts[:, :4].sum(axis=1) > 0).all()
    assert (counts[:, 4:].sum(axis=1) > 0).all()
    assert (counts.sum(axis=1) == 8).all()


def test_seeds_reproduce():
    first, second, other = (group_counts(GROUP, np.zeros(24, int), INPUTS, 3, 50, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()


def test_hopeless_designs_and_mixed_strata_are_refused():
    two = {"x": np.array([1.0, 2.0, 3.0])}
    with pytest.raises(ValueError, match="nearly every resample of the 3 groups leaves fewer than 4 distinct points"):
        group_counts(np.arange(3), np.zeros(3, int), two, needed=4, draws=10, seed=0)
    with pytest.raises(ValueError, match="stratum must be constant within a group"):
        group_counts(np.array([0, 0, 1]), np.array([0, 1, 1]), two, needed=2, draws=10, seed=0)
