"""The multi-power law against its direct double sum, and the merged changes it is made of."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling.fitting.evaluate import at_each
from scaling.laws.catalogue import law_named
from scaling.laws.law import TableError
from scaling.laws.merged_changes import MergedChanges
from scaling.laws.multi_power import MULTI_POWER_PUBLISHED, final_loss, multi_power
from scaling.laws.schedule import constant, cosine, wsd

NAMES = ("L0", "A", "alpha", "B", "C", "beta", "gamma")
PUBLISHED = MULTI_POWER_PUBLISHED[25]


def direct(p, lr_T, steps):
    """The formula as written, one step after the other."""
    area_T = np.cumsum(lr_T)
    values = []
    for s in steps:
        k = np.arange(1, s + 1)
        gap = area_T[s] - area_T[k - 1]
        scale = np.where(gap > 0, lr_T[k], 1.0) ** -p["gamma"]
        x = p["C"] * scale * gap
        bonus = np.sum((lr_T[k - 1] - lr_T[k]) * (1 - (1 + x) ** -p["beta"]))
        values.append(p["L0"] + p["A"] * area_T[s] ** -p["alpha"] - p["B"] * bonus)
    return np.array(values)


def law_at(p, lr_T, steps):
    law = multi_power({"s": lr_T})
    inputs = {"schedule": np.zeros(len(steps)), "step": np.asarray(steps, dtype=float)}
    return at_each(law, np.array([[p[name] for name in law.parameter_names]]), inputs)[0]


def rewarmed():
    """Two phases, the second warmed up again, with a jump down between them."""
    return np.concatenate([cosine(3000, 3e-4, 3e-5, 300), cosine(2000, 2e-4, 1e-6, 100)[1:]])


TABLES = {
    "cosine": cosine(6000, 3e-4, 3e-5, 500),
    "cosine to 0": cosine(4000, 1e-2, 1e-9, 0),
    "wsd": wsd(6000, 3e-4, 1e-10, 500, 2000),
    "exponential": wsd(6000, 3e-4, 3e-6, 500, 1000, "exponential"),
    "constant": constant(3000, 3e-4, 500),
    "drop": np.where(np.arange(4000) < 2000, 3e-4, 9e-5),
    "rewarmed": rewarmed(),
    "float32": cosine(6000, 3e-4, 3e-5, 500).astype(np.float32).astype(np.float64),
    "rough": 3e-4 * np.exp(np.random.default_rng(0).normal(size=700).cumsum() / 50),
}


@pytest.mark.parametrize("name", TABLES)
def test_merged_changes_give_the_direct_double_sum(name):
    lr_T = TABLES[name]
    steps = np.unique(np.r_[1, 2, 7, 8, 9, np.geomspace(10, len(lr_T) - 1, 40).astype(int), len(lr_T) - 1])
    for change in ({}, {"C": 100.0, "gamma": 1.0, "beta": 0.2}, {"C": 0.01, "gamma": 0.1, "beta": 2.0}):
        p = PUBLISHED | {"B": 0.11 / lr_T.max()} | change
        np.testing.assert_allclose(law_at(p, lr_T, steps), direct(p, lr_T, steps), rtol=1e-9)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    gamma=st.floats(0.05, 1.5),
    beta=st.floats(0.05, 3.0),
    log_c=st.floats(-8, 8),
    name=st.sampled_from(["cosine", "wsd", "exponential"]),
)
def test_any_kernel_is_read_off_the_same_nodes(gamma, beta, log_c, name):
    p = PUBLISHED | {"C": np.exp(log_c), "gamma": gamma, "beta": beta}
    steps = [100, 501, 2000, 4100, 5000, 5999]
    np.testing.assert_allclose(law_at(p, TABLES[name], steps), direct(p, TABLES[name], steps), rtol=1e-9)


def test_few_nodes_stand_for_many_changes():
    changes = MergedChanges.of(cosine(72_000, 3e-4, 3e-5, 2160))
    assert changes.count_G.max() < 250
    rough = MergedChanges.of(TABLES["rough"])
    assert rough.count_G[-1] > 600


def test_derivatives_are_those_of_the_sum():
    lr_T, steps = TABLES["wsd"], np.array([600.0, 600.0, 4500.0, 5999.0])
    law = multi_power({"s": lr_T})
    inputs = {"schedule": np.zeros(4), "step": steps}
    with jax.enable_x64(True):
        p = {name: np.float64(value) for name, value in PUBLISHED.items()}
        slopes = jax.jit(jax.jacfwd(lambda p: law.predict(p, inputs)))(p)
    for name in NAMES:
        up, down = ({**p, name: p[name] * (1 + sign * 1e-6)} for sign in (1, -1))
        wanted = (direct(up, lr_T, steps.astype(int)) - direct(down, lr_T, steps.astype(int))) / (2e-6 * p[name])
        np.testing.assert_allclose(slopes[name], wanted, rtol=1e-6, atol=1e-9 / p[name])


def test_final_loss_is_the_law_at_the_last_step():
    for lr_T in (TABLES["wsd"], TABLES["rewarmed"]):
        with jax.enable_x64(True):
            found = float(jax.jit(final_loss)(PUBLISHED, lr_T))
        assert found == pytest.approx(direct(PUBLISHED, lr_T, [len(lr_T) - 1])[0], rel=1e-12)


def test_the_family_keeps_its_members_and_the_catalogue_makes_them_again():
    tables = {"one": TABLES["drop"], "two": TABLES["constant"]}
    law = multi_power(tables)
    assert multi_power({name: lr_T.tolist() for name, lr_T in reversed(tables.items())}) is law
    assert law_named(**law.record) is law
    assert law.input_names == ("schedule", "step")


def test_schedules_and_steps_that_are_not_there():
    law = multi_power({"one": TABLES["drop"], "two": TABLES["constant"]})
    with pytest.raises(TableError, match="column 'schedule', row 0: 'three' is none of one, two"):
        law.read_inputs({"schedule": ["three"], "step": [5]})
    with pytest.raises(TableError, match=r"column 'step', row 0: 4000 is outside \[0, 3999\]"):
        law.read_inputs({"schedule": ["one"], "step": [4000]})
    inputs = {"schedule": np.array([1.0, 1.0, 0.0]), "step": np.array([3000.0, 5.5, 3999.0])}
    values = at_each(law, np.array([[*PUBLISHED.values()]]), inputs)[0]
    assert np.isnan(values).tolist() == [True, True, False]


def test_rates_of_zero_at_the_end_are_read_as_the_limit_of_small_ones():
    lr_T = np.append(TABLES["drop"][:1000], [0.0, 0.0])
    found = law_at(PUBLISHED, lr_T, [1000, 1001])
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, direct(PUBLISHED, lr_T, [1000, 1001]), rtol=1e-9)
