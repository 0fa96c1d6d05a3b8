"""Exact bijection by property, exact values against Python integers, and statistics of the shuffle."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from scaling.data.permutation import ROUNDS, permute

LARGEST = 2**31 - 1
MASK = 2**32 - 1
words = st.lists(st.integers(0, MASK), min_size=4, max_size=4)
images = jax.jit(jax.vmap(permute, (None, 0, None)))
over_keys = jax.jit(jax.vmap(permute, (0, None, None)))


def python_mix(word: int) -> int:
    word = (word ^ (word >> 16)) * 0x7FEB352D & MASK
    word = (word ^ (word >> 15)) * 0x846CA68B & MASK
    return word ^ (word >> 16)


def python_permute(key: list[int], x: int, n: int) -> int:
    """The definition in unbounded integers."""
    seed = 0x9E3779B9
    for word in key:
        seed = python_mix((seed + 0x9E3779B9 & MASK) ^ word)
    for _ in range(ROUNDS):
        seed = python_mix(seed + 0x9E3779B9 & MASK)
        partner = (seed % n - x) % n
        if python_mix(max(x, partner) ^ python_mix(seed ^ MASK)) >> 31:
            x = partner
    return x


@settings(deadline=None)
@given(key=words, n=st.integers(1, 1024))
def test_every_point_is_hit_once(key: list[int], n: int) -> None:
    index = np.arange(1024) % n  # one compiled shape for all n
    image = np.asarray(images(np.array(key, np.uint32), index, n))[:n]
    np.testing.assert_array_equal(np.sort(image), np.arange(n))


@settings(deadline=None)
@given(key=words, n=st.one_of(st.integers(1, LARGEST), st.integers(LARGEST - 64, LARGEST)), data=st.data())
def test_equals_the_definition_in_unbounded_integers(key: list[int], n: int, data: st.DataObject) -> None:
    points = st.one_of(st.integers(0, n - 1), st.integers(max(0, n - 8), n - 1), st.integers(0, min(n - 1, 8)))
    index = data.draw(st.lists(points, min_size=8, max_size=8))
    image = images(np.array(key, np.uint32), np.array(index), n)
    assert image.tolist() == [python_permute(key, x, n) for x in index]


@pytest.mark.parametrize("n", [LARGEST, LARGEST - 1, 2**30 + 1])
def test_no_collision_and_no_overflow_near_the_largest_size(n: int) -> None:
    index = np.concatenate([np.arange(200_000), n - 1 - np.arange(200_000)])
    image = np.asarray(images(np.array([1, 2], np.uint32), index, n))
    assert image.dtype == np.int32
    assert image.min() >= 0
    assert image.max() < n
    assert np.unique(image).size == index.size


def test_size_may_be_traced_and_differ_between_elements() -> None:
    sizes, key = np.array([1, 2, 3, 1000]), np.array([3, 4], np.uint32)
    together = jax.vmap(partial(permute, key, 0))(jnp.asarray(sizes))
    assert together.tolist() == [python_permute([3, 4], 0, int(n)) for n in sizes]


def random_keys(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**32, (count, 4), np.uint32)


def p_value(counts: np.ndarray) -> float:
    return float(stats.chisquare(counts.ravel()).pvalue)


def test_all_permutations_of_five_are_equally_likely() -> None:
    everything = jax.jit(jax.vmap(jax.vmap(permute, (None, 0, None)), (0, None, None)))
    rows = np.asarray(everything(random_keys(24_000, 0), np.arange(5), 5))
    counts = np.unique(rows @ 5 ** np.arange(5), return_counts=True)[1]
    assert counts.size == len(list(itertools.permutations(range(5))))
    assert p_value(counts) > 1e-3


def test_consecutive_keys_place_every_point_uniformly() -> None:
    n, trials = 67, 8_000
    keys = np.stack([np.zeros(trials), np.arange(trials)], axis=1).astype(np.uint32)  # as epochs are numbered
    everything = jax.jit(jax.vmap(jax.vmap(permute, (None, 0, None)), (0, None, None)))
    images_TxN = np.asarray(everything(keys, np.arange(n), n))
    counts = np.stack([np.bincount(column, minlength=n) for column in images_TxN.T])
    statistic = ((counts - trials / n) ** 2 / (trials / n)).sum()
    assert stats.chi2.sf(statistic, (n - 1) ** 2) > 1e-3


@pytest.mark.parametrize("n", [LARGEST, 1_717_986_918])  # the second is where a 32-bit hash mod n is most biased
@pytest.mark.parametrize("point", [0, 1_000_000_007])
def test_large_sizes_have_no_modulo_bias(n: int, point: int) -> None:
    image = np.asarray(over_keys(random_keys(200_000, 1), point, n)).astype(np.int64)
    assert p_value(np.bincount(image * 64 // n, minlength=64)) > 1e-3


def test_consecutive_epochs_are_unrelated_and_neighbours_part() -> None:
    n, epochs = 5000, 40
    orders = np.stack([np.asarray(images(np.array([7, 0, e], np.uint32), np.arange(n), n)) for e in range(epochs)])
    correlations = [np.corrcoef(a, b)[0, 1] for a, b in itertools.pairwise(orders)]
    assert np.abs(correlations).max() < 4.5 / np.sqrt(n)
    assert np.abs(np.mean(correlations)) < 4 / np.sqrt(n * (epochs - 1))
    agreements = sum(int((a == b).sum()) for a, b in itertools.pairwise(orders))
    assert stats.poisson(epochs - 1).sf(agreements) > 1e-3  # one agreement a pair of orders in the mean
    neighbours = sum(int((np.abs(np.diff(order)) == 1).sum()) for order in orders)
    assert 1e-3 < stats.poisson(2 * epochs).sf(neighbours) < 1 - 1e-3
    serial = [np.corrcoef(order[:-1], order[1:])[0, 1] for order in orders]
    assert np.abs(serial).max() < 4.5 / np.sqrt(n)
