"""The five-step procedure on curves whose critical law is known."""

import math

import numpy as np
import pandas as pd
import pytest

from scaling.fitting.cmr import critical_curve

S2, S3, RISE = 0.3, 0.6, 0.02
CRITICAL = (0.2, 0.3, -0.3)  # alpha4, s4, beta3
TOKENS = np.geomspace(2.0, 200.0, 10)


def turning(share):
    return ((share - CRITICAL[2]) / CRITICAL[0]) ** (1 / CRITICAL[1])


def curves(shares=(0.2, 0.3, 0.4, 0.5, 0.6), seeds=6, run_noise=2e-4, noise=1e-5, seed=0, rise=RISE):
    """General change rise*(T^s2 - c*T^s3), which peaks at turning(R), scaled by a factor that a run shares."""
    rng = np.random.default_rng(seed)
    rows = []
    for share in shares:
        c = S2 / S3 * turning(share) ** (S2 - S3)
        for copy in range(seeds):
            scale = 1 + run_noise * rng.normal() / RISE
            general = rise * (scale * TOKENS**S2 - c * TOKENS**S3) + noise * rng.normal(size=TOKENS.size)
            domain = 0.05 - 0.1 * TOKENS**0.25 + noise * rng.normal(size=TOKENS.size)
            rows.append(
                pd.DataFrame(
                    {
                        "R": share,
                        "T": TOKENS,
                        "general_change": general,
                        "domain_change": domain,
                        "run_id": f"{share}-{copy}",
                    }
                )
            )
    return pd.concat(rows, ignore_index=True)


@pytest.fixture(scope="module")
def found():
    return critical_curve(curves(), bootstrap=60)


def test_turning_points_and_the_law_through_them_are_recovered(found):
    assert list(found.turning) == [0.2, 0.3, 0.4, 0.5, 0.6]
    assert found.left_out == {}
    for share, decision in found.turning.items():
        assert decision.value == pytest.approx(turning(share), rel=0.05)
        assert decision.low < turning(share) * 1.02
        assert decision.high > turning(share) * 0.98
    tokens = 40.0
    truth = CRITICAL[0] * tokens ** CRITICAL[1] + CRITICAL[2]
    decision = found.at(tokens)
    assert decision.value == pytest.approx(truth, abs=0.01)
    spread = (decision.high - decision.low) / 3.92
    assert abs(decision.value - truth) < 4 * spread  # one experiment of six runs a ratio: not a coverage test
    assert decision.refusal is None
    assert len(decision.draws_B) > 54


def test_the_law_is_clipped_and_refused_outside_its_meaning(found):
    early, late = found.at(0.01), found.at(1e5)
    assert (early.value, early.refusal.kind) == (0.0, "infeasible")
    assert "below its zero crossing" in early.refusal.reason
    assert (late.value, late.refusal.kind) == (1.0, "unbounded")


def test_ratios_that_do_not_turn_in_time_or_rise_too_much_are_left_out():
    late = critical_curve(curves(shares=(0.2, 0.3, 0.4, 0.9), seeds=1, run_noise=0.0), bootstrap=0)
    assert turning(0.9) > TOKENS[-1]
    assert list(late.left_out) == [0.9]
    assert "outside the measured 2 to 200; train longer" in late.left_out[0.9].reason
    assert late.at(30.0).refusal.kind == "few_groups"
    strict = critical_curve(curves(shares=(0.2, 0.3, 0.4), seeds=1, run_noise=0.0), bootstrap=0, epsilon=0.02)
    assert {refusal.kind for refusal in strict.left_out.values()} == {"infeasible"}
    assert strict.curve is None
    with pytest.raises(ValueError, match=r"fewer than 3 ratios turn within the measured tokens .R = 0.2: infeasible"):
        strict.at(30.0)


def test_a_finite_multiplier_turns_earlier():
    table = curves(shares=(0.3, 0.4, 0.5), seeds=1, run_noise=0.0)
    free = critical_curve(table, bootstrap=0)
    pulled = critical_curve(table, bootstrap=0, multiplier=100.0)
    assert all(pulled.turning[share].value < free.turning[share].value for share in free.turning)
    assert math.isfinite(pulled.at(20.0).value)
