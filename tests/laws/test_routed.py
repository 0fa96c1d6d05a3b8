"""The law of routed models against its definitions, published figures, and data simulated from it."""

import math

import jax
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling import fitting
from scaling.laws.routed import ROUTED, ROUTED_PUBLISHED, cutoff, effective_parameters, saturated_experts

S_BASE = ROUTED_PUBLISHED["S-BASE"]


def loss(parameters, n, experts):
    with jax.enable_x64(True):
        return np.asarray(ROUTED.predict(parameters, {"N": np.float64(n), "experts": np.float64(experts)}))


def test_experts_saturate_between_their_limits():
    assert saturated_experts(1.0, 1.847, 314.478) == pytest.approx(1.847)
    assert saturated_experts(1e12, 1.847, 314.478) == pytest.approx(314.478, rel=1e-6)
    shifted = 1 / (1 / 1.847 - 1 / 314.478)
    assert saturated_experts(65.0, 1.847, 314.478) == pytest.approx(1 / (1 / (64 + shifted) + 1 / 314.478))


def test_formula_by_hand():
    n, saturated = 1e8, saturated_experts(64.0, S_BASE["Es"], S_BASE["Em"])
    tens = S_BASE["a"] * 8 + S_BASE["b"] * math.log10(saturated) + S_BASE["c"] * 8 * math.log10(saturated)
    assert loss(S_BASE, n, 64.0) == pytest.approx(10 ** (tens + S_BASE["d"]), rel=1e-12)


def test_dense_models_follow_the_published_dense_law():
    sizes = np.geomspace(1.5e7, 1.3e9, 7)
    for router, p in ROUTED_PUBLISHED.items():
        dense = (3.568e13 / sizes) ** 0.078
        np.testing.assert_allclose(loss(p, sizes, 1.0), dense, rtol=0.02, err_msg=router)


@pytest.mark.parametrize("router", ROUTED_PUBLISHED)
@settings(max_examples=15, deadline=None, derandomize=True)
@given(n=st.floats(1e7, 1e10), experts=st.floats(1.0, 512.0))
def test_effective_parameters_are_the_dense_size_of_equal_loss(router, n, experts):
    p = ROUTED_PUBLISHED[router]
    dense = effective_parameters(p, n, experts)
    assert loss(p, dense, 1.0) == pytest.approx(loss(p, n, experts), rel=1e-10)
    assert effective_parameters(p, n, 1.0) == pytest.approx(n, rel=1e-12)
    assert dense >= n * (1 - 1e-9)


def test_at_the_cutoff_routing_stops_helping():
    for p in ROUTED_PUBLISHED.values():
        assert effective_parameters(p, cutoff(p), 256.0) == pytest.approx(cutoff(p), rel=1e-9)
    assert cutoff(S_BASE | {"c": -0.001}) == math.inf
    with pytest.raises(ValueError, match=r"b: 0\.1 must be < 0"):
        cutoff(S_BASE | {"b": 0.1})


def test_rounded_constants_put_the_cutoff_elsewhere_than_the_paper():
    rounded = [cutoff(p) for p in ROUTED_PUBLISHED.values()]
    assert rounded == pytest.approx([1.0e12, 32e9, 215e9], rel=0.02)
    for ours, paper in zip(rounded, (937e9, 85e9, 83e9), strict=True):
        assert abs(math.log(ours / paper)) > 0.05


def test_the_default_fit_finds_the_law_behind_simulated_runs():
    n, experts = (a.ravel() for a in np.meshgrid(np.geomspace(1.5e7, 1.3e9, 6), 2.0 ** np.arange(10)))
    noise = np.random.default_rng(0).normal(scale=0.003, size=n.size)
    table = pd.DataFrame({"N": n, "experts": experts, "loss": loss(S_BASE, n, experts) * np.exp(noise)})
    fit = fitting.fit(ROUTED, table, group=None, bootstrap=0, holdout="N > 1e9")
    assert fit.held_out.relative < 0.005
    assert fit.status == "ok"
    wanted = effective_parameters(S_BASE, 1e8, 64.0)
    assert effective_parameters(fit.parameters, 1e8, 64.0) == pytest.approx(wanted, rel=0.05)
