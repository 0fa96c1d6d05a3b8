"""Laws of many domains against hand-computed values, second implementations and the forms that papers print."""

import json
import math

import jax
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling import fitting
from scaling.laws import additive, capacity, mixing
from scaling.laws.catalogue import law_named
from scaling.laws.law import TableError

DOMAINS = ("code", "prose", "web")
SHARES = {"code": 0.2, "prose": 0.3, "web": 0.5}
FAMILIES = [
    (mixing.data_mixing, {}, 4),
    (mixing.data_mixing_implicit, {"units": 2}, 7),
    (mixing.bimix_domains, {}, 12),
    (additive.mixture_term, {}, 7),
    (additive.mixture_additive, {}, 11),
    (additive.mixture_joint, {}, 17),
    (capacity.capacity_noise, {}, 16),
]


predict = jax.jit(lambda law, p, x: law.predict(p, x), static_argnums=0)
slopes = jax.jit(lambda law, p, x: jax.jacfwd(lambda p: law.predict(p, x))(p), static_argnums=0)


def evaluate(law, parameters, **inputs):
    with jax.enable_x64(True):
        return np.asarray(predict(law, parameters, {name: np.float64(value) for name, value in inputs.items()}))


@pytest.mark.parametrize(("make", "more", "count"), FAMILIES, ids=lambda v: getattr(v, "__name__", None))
def test_a_member_is_one_object_with_the_published_number_of_parameters(make, more, count):
    law = make(list(DOMAINS), **more)
    assert law is make(DOMAINS, **more)
    assert law is law_named(law.name, **json.loads(json.dumps(law.arguments)))
    assert len(law.parameters) == count
    assert law.simplex == DOMAINS
    with pytest.raises(ValueError, match=r"domains: .'code', 'code'. must be at least two different column names"):
        make(["code", "code"], **more)
    with pytest.raises(ValueError, match=r"domains: .'code',. must be at least two"):
        make("code", **more)


def test_eight_domains_have_21_and_37_parameters():
    eight = [f"d{i}" for i in range(8)]
    assert len(additive.mixture_additive(eight).parameters) == 21
    assert len(additive.mixture_joint(eight).parameters) == 37


@pytest.mark.parametrize(("make", "more", "count"), FAMILIES, ids=lambda v: getattr(v, "__name__", None))
def test_a_member_is_affine_in_its_linear_parameters_and_has_finite_derivatives(make, more, count):
    law = make(DOMAINS, **more)
    rng = np.random.default_rng(0)
    share_MxK = rng.dirichlet(np.ones(3), size=5)
    share_MxK[0] = [0.0, 0.4, 0.6]
    inputs = {d: share_MxK[:, i] for i, d in enumerate(DOMAINS)}
    others = {"N": rng.uniform(50.0, 400.0, 5), "D": rng.uniform(10.0, 90.0, 5), "S": rng.uniform(10.0, 90.0, 5)}
    inputs |= {name: x for name, x in others.items() if name in law.input_names}
    if "domain" in law.input_names:
        inputs["domain"] = np.array([1.0, 0.0, 1.0, 2.0, 2.0])
    first, second = ({p.name: float(rng.uniform(*p.start)) for p in law.parameters} for _ in range(2))
    fixed = {p.name: first[p.name] for p in law.parameters if not p.linear}
    middle = {name: (first[name] + second[name]) / 2 for name in first}
    with jax.enable_x64(True):
        ends = [np.asarray(predict(law, p | fixed, inputs)) for p in (first, second)]
        np.testing.assert_allclose(predict(law, middle | fixed, inputs), (ends[0] + ends[1]) / 2, rtol=1e-12)
        assert all(np.isfinite(slope).all() for slope in slopes(law, first, inputs).values())


def test_data_mixing_is_the_published_form():
    published = {"code": -10.0864, "prose": 2.714, "web": 1.5866}
    p = mixing.from_published(0.975, -2.1391, published)
    r = sum(published[d] * SHARES[d] for d in DOMAINS)
    wanted = math.exp(0.975) + math.exp(-2.1391) * math.exp(r)
    assert evaluate(mixing.data_mixing(DOMAINS), p, **SHARES) == pytest.approx(wanted, rel=1e-12)
    two = {"c": 2.8103, "k": -3.7407, "b": -1.6936}
    assert evaluate(mixing.DATA_MIXING_TWO, two, r=0.28515625) == pytest.approx(
        2.8103 + math.exp(-3.7407 * 0.28515625 - 1.6936), rel=1e-12
    )


def test_implicit_domains_are_the_network_with_softmax_weights():
    rng = np.random.default_rng(1)
    weight_KxM, bias_K, output_K = rng.normal(size=(4, 3)), rng.normal(size=4), rng.normal(size=4)
    softmax_K = np.exp(output_K) / np.exp(output_K).sum()
    share_M = np.array(list(SHARES.values()))
    network = 1.7 + softmax_K @ np.exp(weight_KxM @ share_M + bias_K)
    t_KxM = weight_KxM + (bias_K + np.log(softmax_K))[:, None]
    p = {f"t{i + 1}[{d}]": t_KxM[i, j] for i in range(4) for j, d in enumerate(DOMAINS)} | {"c": 1.7}
    law = mixing.data_mixing_implicit(DOMAINS, 4)
    assert evaluate(law, p, **SHARES) == pytest.approx(network, rel=1e-12)
    assert law.exchangeable[1] == ("t2[code]", "t2[prose]", "t2[web]")
    with pytest.raises(ValueError, match="units: 0 must be a whole number from 1 to 1000"):
        mixing.data_mixing_implicit(DOMAINS, 0)


def test_bimix_and_the_pipeline_laws_by_hand():
    p = {"alpha": 0.5, "B": 3.0, "beta": 0.5, "C": 2.0}
    assert evaluate(mixing.BIMIX, p, r=0.25, S=9.0) == pytest.approx(2 * (1 + 2))
    assert evaluate(mixing.LOSS_IN_STEPS, {"E1": 2.0, "B": 10.0, "beta": 0.5}, S=100.0) == pytest.approx(3.0)
    assert evaluate(mixing.LOSS_IN_SIZE, {"E2": 2.0, "A": 30.0, "alpha": 1 / 3}, N=1e6) == pytest.approx(2.3)
    all_of = {f"{name}[{d}]": value * (i + 1) for i, d in enumerate(DOMAINS) for name, value in p.items()}
    inputs = {d: np.full(3, SHARES[d]) for d in DOMAINS} | {"S": np.full(3, 9.0), "domain": np.arange(3.0)}
    each = [evaluate(mixing.BIMIX, {n: all_of[f"{n}[{d}]"] for n in p}, r=SHARES[d], S=9.0).item() for d in DOMAINS]
    np.testing.assert_allclose(evaluate(mixing.bimix_domains(DOMAINS), all_of, **inputs), each, rtol=1e-12)


def test_additive_and_joint_by_hand_and_in_the_papers_parameters():
    c, gamma = {"code": 0.4, "prose": 0.9, "web": 1.3}, {"code": 0.5, "prose": 0.2, "web": 1.0}
    p = {"E": 1.1, "A": 50.0, "alpha": 0.3, "B": 200.0, "beta": 0.4}
    p |= {f"C[{d}]": c[d] for d in DOMAINS} | {f"gamma[{d}]": gamma[d] for d in DOMAINS}
    term = 1.1 + 1 / sum(c[d] * SHARES[d] ** gamma[d] for d in DOMAINS)
    assert evaluate(additive.mixture_term(DOMAINS), p, **SHARES) == pytest.approx(term, rel=1e-12)
    n, d = 3e8, 2e10
    wanted = term + 50 / n**0.3 + 200 / d**0.4
    assert evaluate(additive.mixture_additive(DOMAINS), p, N=n, D=d, **SHARES) == pytest.approx(wanted, rel=1e-12)
    paper_a, paper_b = {"code": 3.0, "prose": 8.0, "web": 5.0}, {"code": 90.0, "prose": 20.0, "web": 70.0}
    joint = p | {"gamma_A": 1.7, "gamma_B": 0.6}
    joint |= {f"A[{d}]": paper_a[d] ** 1.7 for d in DOMAINS} | {f"B[{d}]": paper_b[d] ** 0.6 for d in DOMAINS}
    size = sum(paper_a[x] * SHARES[x] for x in DOMAINS) ** 1.7 / n**0.3
    data = sum(paper_b[x] * SHARES[x] for x in DOMAINS) ** 0.6 / d**0.4
    got = evaluate(additive.mixture_joint(DOMAINS), joint, N=n, D=d, **SHARES)
    assert got == pytest.approx(term + size + data, rel=1e-12)


def bisected(c, b, h, n, least):
    """Capacities in plain numpy, with bisection."""
    low, high = -200.0, 200.0
    for _ in range(200):
        middle = (low + high) / 2
        x = np.maximum(least, np.exp((np.log(h * b * c) - middle) / (b + 1)))
        low, high = (middle, high) if x.sum() > n + (len(c) - 1) * least else (low, middle)
    return x


def capacity_parameters(c, b, a_coefficient, a, e, least):
    columns = {"c": c, "b": b, "A": a_coefficient, "a": a, "E": e}
    return {f"{k}[{d}]": float(v[i]) for i, d in enumerate(DOMAINS) for k, v in columns.items()} | {"H": least}


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    n=st.floats(2.0, 1e4),
    least=st.floats(1e-6, 1.0),
    concentration=st.floats(0.02, 3.0),
)
def test_capacity_is_shared_out_as_bisection_says(seed, n, least, concentration):
    rng = np.random.default_rng(seed)
    c, b, a_coefficient, a, e = rng.uniform([[0.1], [0.02], [0.1], [0.02], [0.1]], [[5], [2], [5], [1], [2]], (5, 3))
    h = rng.dirichlet(np.full(3, concentration)) + 1e-12
    p = capacity_parameters(c, b, a_coefficient, a, e, least)
    inputs = {d: np.full(3, h[i]) for i, d in enumerate(DOMAINS)} | {"domain": np.arange(3.0)}
    got = evaluate(capacity.capacity_noise(DOMAINS), p, N=np.full(3, n), D=np.full(3, 30.0), **inputs)
    x = bisected(c, b, h, n, least)
    np.testing.assert_allclose(got, c * x**-b + a_coefficient * (30 * h) ** -a + e, rtol=1e-9)


def test_capacity_has_the_derivatives_of_finite_differences_and_minimises_the_sum():
    rng = np.random.default_rng(2)
    c, b, h, n, least = rng.uniform(0.5, 3, 3), rng.uniform(0.1, 0.6, 3), np.array([0.02, 0.3, 0.68]), 100.0, 2.0
    p = capacity_parameters(c, b, np.ones(3), np.full(3, 0.2), np.ones(3), least)
    inputs = {d: np.full(3, h[i]) for i, d in enumerate(DOMAINS)}
    inputs |= {"domain": np.arange(3.0), "N": np.full(3, n), "D": np.full(3, 30.0)}
    law = capacity.capacity_noise(DOMAINS)
    with jax.enable_x64(True):
        slope = slopes(law, p, inputs)
    for name in ("c[code]", "b[prose]", "b[web]", "H"):
        up, down = (evaluate(law, p | {name: p[name] * (1 + step)}, **inputs) for step in (1e-6, -1e-6))
        np.testing.assert_allclose(slope[name], (up - down) / (2e-6 * p[name]), rtol=1e-6, atol=1e-9)
    x = bisected(c, b, h, n, least)
    assert x.sum() == pytest.approx(n + 2 * least)
    for move in (np.array([0.01, -0.01, 0]), np.array([0, 0.01, -0.01]), np.array([0, -0.01, 0.01])):
        assert h @ (c * (x + move) ** -b) > h @ (c * x**-b)


@pytest.fixture(scope="module")
def mixtures():
    """60 mixtures of three domains."""
    share_MxK = np.random.default_rng(5).dirichlet(np.ones(3), size=60)
    return pd.DataFrame(share_MxK, columns=list(DOMAINS))


def test_data_mixing_is_recovered_and_identified_though_the_shares_sum_to_one(mixtures):
    truth = {"c": 2.0, "t[code]": -4.0, "t[prose]": 0.5, "t[web]": -0.5}
    law = mixing.data_mixing(DOMAINS)
    clean = evaluate(law, truth, **mixtures)
    table = mixtures.assign(loss=clean * np.exp(0.001 * np.random.default_rng(0).normal(size=60)))
    fit = fitting.fit(law, table, group=None, bootstrap=50)
    assert fit.refusals == ()
    assert fit.agreement > 0.9
    assert all(fit.parameters[name] == pytest.approx(value, abs=0.03) for name, value in truth.items())
    np.testing.assert_allclose(fit.predict(mixtures), clean, rtol=1e-3)
    half = mixtures.assign(loss=clean, web=mixtures["web"] / 2)
    with pytest.raises(TableError, match=r"row 0: the shares code, prose, web sum to .* expected 1 within"):
        fitting.fit(law, half, group=None)


def test_additive_predictions_are_recovered_at_the_held_out_size(mixtures):
    p = {"E": 1.2, "A": 60.0, "alpha": 0.3, "B": 300.0, "beta": 0.35}
    p |= {"C[code]": 0.5, "C[prose]": 1.0, "C[web]": 2.0, "gamma[code]": 0.3, "gamma[prose]": 0.6, "gamma[web]": 0.15}
    law = additive.mixture_additive(DOMAINS)
    table = mixtures.assign(N=np.repeat([1e7, 3e7, 1e8, 3e8], 15), D=np.tile([1e9, 3e9, 1e10, 3e10], 15))
    clean = evaluate(law, p, **table)
    table["loss"] = clean * np.exp(5e-4 * np.random.default_rng(0).normal(size=60))
    fit = fitting.fit(law, table, group=None, bootstrap=0, holdout=fitting.largest("N"))
    assert fit.held_out.relative < 0.005
    np.testing.assert_allclose(fit.predict(table)[:45], clean[:45], rtol=3e-3)


def test_capacity_predictions_are_recovered_from_a_table_of_labelled_rows(mixtures):
    two = ("code", "web")
    p = {"c[code]": 20.0, "b[code]": 0.3, "A[code]": 50.0, "a[code]": 0.25, "E[code]": 1.0, "H": 1e5}
    p |= {"c[web]": 30.0, "b[web]": 0.2, "A[web]": 20.0, "a[web]": 0.25, "E[web]": 0.8}
    law = capacity.capacity_noise(two)
    table = mixtures.assign(
        N=np.tile([1e7, 3e7, 1e8], 20), D=np.repeat([1e9, 1e10, 1e11], 20), web=1 - mixtures["code"]
    )
    table["domain"] = np.tile(np.repeat(two, 3), 10)
    clean = evaluate(law, p, **law.read_inputs(table))
    table["loss"] = clean * np.exp(5e-4 * np.random.default_rng(0).normal(size=60))
    fit = fitting.fit(law, table, group=None, bootstrap=0)
    np.testing.assert_allclose(fit.predict(table), clean, rtol=5e-3)
    assert fit.errors.relative < 1e-3
    with pytest.raises(TableError, match="column 'domain', row 0: 'maths' is none of code, web"):
        fitting.fit(law, table.assign(domain="maths"), group=None)
