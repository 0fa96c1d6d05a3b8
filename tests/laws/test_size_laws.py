"""Laws in size, data and compute against hand-computed values, closed forms and published figures."""

import math

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from scaling.laws.compute import (
    DEEPSEEK_OPTIMAL,
    KAPLAN_OPTIMAL_SIZE,
    LOSS_IN_COMPUTE,
    LOSS_POWER_IN_COMPUTE,
    OPTIMAL_IN_COMPUTE,
    PORIAN_TUNED,
    TUNED_IN_SIZE,
)
from scaling.laws.parameter_counts import average_parameters, non_embedding_parameters, total_parameters
from scaling.laws.pass_until import PASS_UNTIL, success_rate
from scaling.laws.repetition import CHINCHILLA_TIED
from scaling.laws.size import (
    AVERAGE_PARAMETERS,
    CHINCHILLA,
    CHINCHILLA_GAMMA,
    CHINCHILLA_PUBLISHED,
    OVER_TRAINING,
    OVER_TRAINING_PUBLISHED,
    TOP_1_ERROR,
    WIDTH_DEPTH,
)
from scaling.laws.sparsity import SPARSITY_RELU, SPARSITY_RELU_PUBLISHED, SPARSITY_SILU
from scaling.laws.superposition import SUPERPOSITION, lost_frequency
from scaling.laws.translation import ENCODER_DECODER, encoder_decoder_split

SIZES = st.floats(1e6, 1e12)
EXPONENTS = st.floats(0.05, 1.5)


def at(law, parameters, **inputs):
    with jax.enable_x64(True):
        return np.asarray(jax.jit(law.predict)(parameters, {name: np.float64(x) for name, x in inputs.items()}))


def test_published_digits_give_the_printed_constants():
    rounded = {"E": 1.69, "A": 406.4, "B": 410.7, "alpha": 0.34, "beta": 0.28}
    digits = {"E": 2, "A": 1, "B": 1, "alpha": 2, "beta": 2}
    assert {name: round(value, digits[name]) for name, value in CHINCHILLA_PUBLISHED.items()} == rounded


@settings(max_examples=30, deadline=None, derandomize=True)
@given(n=SIZES, d=SIZES, alpha=EXPONENTS, beta=EXPONENTS, gamma=st.floats(0.2, 2.0))
def test_gamma_bends_the_reducible_loss_and_one_is_chinchilla(n, d, alpha, beta, gamma):
    p = {"E": 1.7, "A": 400.0, "B": 2000.0, "alpha": alpha, "beta": beta}
    plain = at(CHINCHILLA, p, N=n, D=d)
    assert at(CHINCHILLA_GAMMA, p | {"gamma": 1.0}, N=n, D=d) == pytest.approx(plain, rel=1e-12)
    wanted = 1.7 + (400 / n**alpha + 2000 / d**beta) ** gamma
    assert at(CHINCHILLA_GAMMA, p | {"gamma": gamma}, N=n, D=d) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("corpus", OVER_TRAINING_PUBLISHED)
@settings(max_examples=10, deadline=None, derandomize=True)
@given(n=SIZES, m=st.floats(0.5, 1000.0))
def test_over_training_is_chinchilla_with_one_exponent(corpus, n, m):
    p = OVER_TRAINING_PUBLISHED[corpus]
    same = {"E": p["E"], "A": p["a"] / 6 ** p["eta"], "B": p["b"] / 6 ** p["eta"], "alpha": 2 * p["eta"]}
    ours = at(OVER_TRAINING, p, C=6 * n * m * n, M=m)
    assert ours == pytest.approx(at(CHINCHILLA_TIED, same, N=n, D=m * n), rel=1e-12)
    power = -2 * p["eta"]  # the form of the released code
    coefficient = p["a"] / 6 ** p["eta"]
    released = coefficient * n**power + p["b"] * 6 ** (power / 2) * (m * n) ** power + p["E"]
    assert ours == pytest.approx(released, rel=1e-12)


def test_error_falls_from_chance_with_the_loss():
    p = {"k": 2.2065, "gamma": 0.7146, "epsilon": 0.8570}  # RedPajama, 17 tasks
    assert at(TOP_1_ERROR, p, L=3.0) == pytest.approx(0.8570 - 2.2065 * math.exp(-0.7146 * 3))
    assert at(TOP_1_ERROR, p, L=50.0) == pytest.approx(0.8570, abs=1e-12)


def test_width_depth_and_average_parameters_by_hand():
    p = {"E": 1.0, "A": 8.0, "alpha": 0.5, "G": 4.0, "gamma": 1.0, "B": 27.0, "beta": 1 / 3}
    assert at(WIDTH_DEPTH, p, width=64.0, depth=8.0, D=1e9) == pytest.approx(1 + 1 + 0.5 + 0.027)
    pruned = average_parameters([4e8, 3e8, 1e8], [2e9, 1e9, 1e9])
    assert pruned == pytest.approx(3e8)
    assert average_parameters(5e8, 1e10) == 5e8
    dense = {name: p[name] for name in ("E", "A", "alpha", "B", "beta")}
    assert at(AVERAGE_PARAMETERS, dense, Nbar=pruned, D=1e9) == at(CHINCHILLA, dense, N=3e8, D=1e9)
    with pytest.raises(ValueError, match=r"tokens_T: shape \(2,\) must be that of active_T, \(3,\)"):
        average_parameters([1.0, 2.0, 3.0], [1.0, 2.0])


def test_total_from_non_embedding_parameters():
    assert float(total_parameters(1e8)) == pytest.approx(1.22043e8, rel=1e-5)
    assert float(total_parameters(1e9)) == pytest.approx(1.047491e9, rel=1e-6)
    counts = np.geomspace(1e2, 1e13, 40)
    np.testing.assert_allclose(non_embedding_parameters(total_parameters(counts)), counts, rtol=1e-9)
    with pytest.raises(ValueError, match=r"non_embedding: -5\.0 must be finite and > 0"):
        total_parameters([1.0, -5.0])


def test_counting_without_embeddings_turns_the_exponent_into_that_of_kaplan():
    """Pearce and Song: 0.73 to 0.78 over the sizes of Kaplan et al., 768 to 1.5e9, where the law itself has 0.46."""
    p = CHINCHILLA_PUBLISHED

    def best(compute):
        def loss(log_n):
            n = math.exp(log_n)
            total = float(total_parameters(n))
            return p["A"] / total ** p["alpha"] + p["B"] / (compute / 6 / n) ** p["beta"]

        return minimize_scalar(loss, bounds=(2, 30), method="bounded", options={"xatol": 1e-9}).x

    log_c = np.log(np.geomspace(1e11, 1e22, 120))
    log_n = np.array([best(c) for c in np.exp(log_c)])
    inside = (log_n > math.log(768)) & (log_n < math.log(1.5e9))
    assert 0.73 < np.polyfit(log_c[inside], log_n[inside], 1)[0] < 0.78
    assert p["beta"] / (p["alpha"] + p["beta"]) == pytest.approx(0.4565, abs=1e-4)


def test_encoder_and_decoder_split_in_the_ratio_of_their_exponents():
    p = {"alpha": 0.4, "pe": 0.2, "pd": 0.35, "Linf": 1.1}
    assert at(ENCODER_DECODER, p, Ne=1e8, Nd=1e8) == pytest.approx(1.5)
    assert at(ENCODER_DECODER, p, Ne=1e8, Nd=1e9) == pytest.approx(1.1 + 0.4 * 10**-0.35)
    encoder, decoder = encoder_decoder_split(0.2, 0.35, 1e9)
    assert encoder + decoder == pytest.approx(1e9)
    share = np.linspace(0.01, 0.99, 981)
    loss = at(ENCODER_DECODER, p, Ne=share * 1e9, Nd=(1 - share) * 1e9)
    assert share[np.argmin(loss)] * 1e9 == pytest.approx(encoder, abs=1e6)
    with pytest.raises(ValueError, match=r"pe, pd, total: 0\.2, -1, 1 must be > 0"):
        encoder_decoder_split(0.2, -1, 1)


def test_laws_in_compute():
    assert at(LOSS_IN_COMPUTE, {"E": 1.5, "A": 100.0, "alpha": 0.1}, C=1e20) == pytest.approx(2.5)
    assert at(LOSS_POWER_IN_COMPUTE, {"a": 30.0, "b": 0.05}, C=1e20) == pytest.approx(3.0)
    kaplan = at(OPTIMAL_IN_COMPUTE, KAPLAN_OPTIMAL_SIZE, C=1e4)  # where the laws contradict one another
    assert kaplan == pytest.approx(1e12, rel=0.1)
    size, tokens = (at(OPTIMAL_IN_COMPUTE, DEEPSEEK_OPTIMAL[name], C=1e21) for name in ("size", "tokens"))
    assert size * tokens == pytest.approx(1e21, rel=1e-3)
    assert at(TUNED_IN_SIZE, PORIAN_TUNED["batch"], N=8 * 108e6) == pytest.approx(640)
    assert at(TUNED_IN_SIZE, PORIAN_TUNED["lr"], N=8 * 108e6) == pytest.approx(0.00235)


def test_active_share_falls_with_data_under_relu_and_rises_under_silu():
    tokens = np.geomspace(1, 1000, 50)
    relu = at(SPARSITY_RELU, SPARSITY_RELU_PUBLISHED, D=tokens)
    assert (np.diff(relu) <= 0).all()
    assert relu[-1] == pytest.approx(0.0648, abs=1e-4)
    assert relu[0] == pytest.approx(0.0648 + math.exp(-3.46 - 1.56e-4))
    silu = at(SPARSITY_SILU, {"c": 0.2, "alpha": 0.5, "A0": 0.4}, D=tokens)
    assert (np.diff(silu) > 0).all()
    assert at(SPARSITY_SILU, {"c": 0.2, "alpha": 0.5, "A0": 0.4}, D=100.0) == pytest.approx(0.38)


def test_weak_superposition_loses_the_tail_and_falls_with_its_exponent():
    assert lost_frequency(1, 2, 1.0) == pytest.approx(0.2)
    for exponent in (0.5, 1.0, 1.5):
        m = np.geomspace(30, 300, 8).astype(int)
        lost = [lost_frequency(int(one), 10**6, exponent) for one in m]
        slope = np.polyfit(np.log(m), np.log(lost), 1)[0]
        assert slope == pytest.approx(-exponent, abs=0.03)
    assert at(SUPERPOSITION, {"k": 3.0, "a": 1.0}, m=60.0) == pytest.approx(0.05)
    with pytest.raises(ValueError, match="dimensions, features, exponent: 10, 10, 1"):
        lost_frequency(10, 10, 1.0)


@pytest.mark.parametrize(("rate", "successes"), [(0.02, 2), (0.1, 5), (0.6, 2)])
def test_sampling_until_success_is_unbiased_where_the_plain_ratio_is_not(rate, successes):
    """Exact expectation over the number of samples K, negative binomial."""
    k = np.arange(successes, 40_000)
    log_choose = np.array([math.lgamma(i) - math.lgamma(successes) - math.lgamma(i - successes + 1) for i in k])
    chance = np.exp(log_choose + successes * math.log(rate) + (k - successes) * math.log1p(-rate))
    assert chance.sum() == pytest.approx(1, abs=1e-9)
    assert chance @ success_rate(successes, k) == pytest.approx(rate, rel=1e-9)
    assert chance @ (successes / k) > 1.05 * rate


def test_the_double_logarithm_of_a_success_rate_is_linear_in_log_size():
    p, sizes = {"c": 3e3, "alpha": 0.4}, np.geomspace(3e7, 2.4e9, 6)
    doubled = np.log(-np.log(at(PASS_UNTIL, p, N=sizes)))
    slope, intercept = np.polyfit(np.log(sizes), doubled, 1)
    assert slope == pytest.approx(-0.4)
    assert intercept == pytest.approx(math.log(3e3))
    with pytest.raises(ValueError, match="successes, samples: 1 in 10, expected 2 <= successes <= samples"):
        success_rate([2, 1], 10)
