"""Mixtures to train: the lattice whole, draws as RegMix's, rounding to the nearest mixture."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.mixture_design import dirichlet, lattice, random_mixtures, rounded
from scaling.fields import ConfigError

PRIOR = {"code": 0.64, "headers": 0.04, "prose": 0.32}


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6).filter(lambda shares: sum(shares) > 0.1), st.integers(1, 500))
@settings(max_examples=100, deadline=None)
def test_a_rounded_mixture_sums_to_1_and_no_share_moves_by_a_step(weights: list[float], divisions: int) -> None:
    shares = {str(i): weight / sum(weights) for i, weight in enumerate(weights)}
    near = rounded(shares, divisions)
    assert sum(near.values()) == pytest.approx(1, abs=1e-12)
    for domain, share in near.items():
        assert share * divisions == pytest.approx(round(share * divisions), abs=1e-9)
        assert abs(share - shares[domain]) < 1 / divisions + 1e-9


def test_the_largest_remainders_are_rounded_up() -> None:
    assert rounded({"a": 0.336, "b": 0.335, "c": 0.329}, 100) == {"a": 0.34, "b": 0.33, "c": 0.33}
    assert rounded({"a": 1 / 3, "b": 2 / 3}, 9) == {"a": 3 / 9, "b": 6 / 9}


@pytest.mark.parametrize(("domains", "divisions"), [(2, 4), (3, 9), (4, 5)])
def test_the_lattice_holds_every_mixture_once(domains: int, divisions: int) -> None:
    mixtures = lattice([str(i) for i in range(domains)], divisions)
    assert len({tuple(shares.values()) for shares in mixtures}) == len(mixtures)
    assert len(mixtures) == math.comb(divisions + domains - 1, domains - 1)
    assert all(sum(shares.values()) == pytest.approx(1, abs=1e-12) for shares in mixtures)
    assert sum(max(shares.values()) == 1 for shares in mixtures) == domains


def test_draws_have_the_mean_and_spread_of_their_dirichlets() -> None:
    share_MxK = dirichlet(PRIOR, 60_000, (2.0, 2.0), seed=0)
    base_K = np.array([0.8, 0.2, 0.32**0.5])
    mean_K = base_K / base_K.sum()
    capped_M = share_MxK[:, 1] > 0.55  # headers have a prior of 0.04, so that 15 times it is a bound
    assert not (share_MxK[:, 1] > 0.6).any()
    assert capped_M.any()
    free_MxK = dirichlet({"a": 0.64, "b": 0.36}, 60_000, (2.0, 2.0), seed=0)
    mean = 0.8 / 1.4
    assert free_MxK[:, 0].mean() == pytest.approx(mean, abs=0.005)
    assert free_MxK[:, 0].var() == pytest.approx(mean * (1 - mean) / 3, abs=0.003)  # of a Dirichlet of strength 2
    assert share_MxK[:, 1].mean() < mean_K[1]
    np.testing.assert_allclose(share_MxK.sum(axis=1), 1, atol=1e-12)


def test_weak_draws_lie_near_single_domains_and_strong_ones_near_the_prior() -> None:
    weak, strong = (dirichlet(PRIOR, 300, (strength, strength), seed=0).max(axis=1) for strength in (0.1, 50.0))
    assert np.median(weak) > 0.99
    assert np.median(strong) < 0.6


def test_random_mixtures_depend_on_the_seed_alone_and_are_multiples_of_1_in_5000() -> None:
    first, again, other = (random_mixtures(PRIOR, 40, (1.0, 10.0), seed) for seed in (0, 0, 1))
    assert first == again != other
    for shares in first:
        assert sum(shares.values()) == pytest.approx(1, abs=1e-12)
        assert all(share * 5000 == pytest.approx(round(share * 5000)) for share in shares.values())


def test_designs_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"prior = .*: expected a share above 0 for each domain; drop the domain"):
        dirichlet({"a": 1.0, "b": 0.0}, 3, (1.0, 2.0), 0)
    with pytest.raises(ConfigError, match=r"strengths = \(2.0, 1.0\): expected 0 < lowest <= highest"):
        dirichlet(PRIOR, 3, (2.0, 1.0), 0)
    with pytest.raises(ConfigError, match=r"divisions = 0: expected 1 or more"):
        lattice(["a", "b"], 0)
