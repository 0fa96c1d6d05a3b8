"""What a law demands of its own definition and of a table."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from scaling.laws.catalogue import LAWS, law_named
from scaling.laws.law import Input, Law, Parameter, TableError, power
from scaling.laws.mixture import D_CPT

TABLE = pd.DataFrame(
    {
        "parameters": [1e6, 1e6, 3e6, 3e6, 1e7, 1e7, 1e6, 3e6, 1e7],
        "D": [1e7, 2e7, 1e7, 2e7, 1e7, 2e7, 4e7, 4e7, 4e7],
        "r": [0.0, 0.1, 0.5, 1.0, 0.2, 0.8, 0.3, 0.6, 0.9],
    },
    index=[10, 11, 12, 13, 14, 15, 16, 17, 18],
)
COLUMNS = {"N": "parameters"}


def test_power_and_its_derivatives_are_finite_at_zero():
    assert power(0.0, 0.3) == 0
    assert jnp.isinf(power(0.0, -0.3))
    np.testing.assert_allclose(power(4.0, 0.5), 2.0, rtol=1e-6)
    assert jax.grad(power, argnums=1)(0.0, 0.3) == 0
    np.testing.assert_allclose(jax.grad(power, argnums=1)(4.0, 0.5), 2 * np.log(4.0), rtol=1e-6)


def test_inputs_are_read_by_column():
    inputs = D_CPT.read_inputs(TABLE, COLUMNS)
    assert list(inputs) == ["N", "D", "r"]
    np.testing.assert_array_equal(inputs["N"], TABLE["parameters"])
    assert inputs["r"].dtype == np.float64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"r": 1.2}, r"column 'r', row 12: 1.2 is outside \[0, 1\], the domain of r .* correct or drop"),
        ({"r": -0.1}, r"column 'r', row 12: -0.1 is outside"),
        ({"parameters": 0.0}, r"column 'parameters', row 12: 0 is outside \(0, inf\), the domain of N \(parameters\)"),
        ({"D": np.nan}, r"column 'D', row 12: nan is not finite; drop such rows"),
    ],
)
def test_bad_values_are_named_with_column_row_and_cure(change, message):
    table = TABLE.copy()
    for column, value in change.items():
        table.loc[12, column] = value
    with pytest.raises(TableError, match=message):
        D_CPT.read_inputs(table, COLUMNS)


def test_missing_and_unknown_columns_are_named():
    with pytest.raises(
        TableError, match=r"column 'N' is missing: it is input 'N' \(parameters\).*has parameters, D, r"
    ):
        D_CPT.read_inputs(TABLE)
    with pytest.raises(TableError, match="no input 'n'; its inputs are N, D, r"):
        D_CPT.read_inputs(TABLE, {"n": "parameters"})
    with pytest.raises(TableError, match="column 'D' must hold numbers"):
        D_CPT.read_inputs(TABLE.assign(D="many"), COLUMNS)


def test_too_few_points_and_single_sizes_are_refused():
    inputs = D_CPT.read_inputs(TABLE, COLUMNS)
    D_CPT.check_design(inputs)
    with pytest.raises(TableError, match="8 rows for the 9 parameters of law 'd-cpt'"):
        D_CPT.check_design({name: x_M[:8] for name, x_M in inputs.items()})
    with pytest.raises(TableError, match=r"input 'N': only one distinct value \(1e\+06\).*a law without N"):
        D_CPT.check_design(inputs | {"N": np.full(9, 1e6)})


def test_catalogue_knows_its_laws_and_guesses():
    assert all(law_named(name) is law and law.name == name for name, law in LAWS.items())
    with pytest.raises(KeyError, match="no law named 'D_CPT'; did you mean 'd-cpt'"):
        law_named("D_CPT")


@pytest.mark.parametrize("law", LAWS.values(), ids=list(LAWS))
def test_every_law_says_what_it_is_and_is_affine_where_it_says_so(law):
    assert law.formula
    assert law.citation
    assert law.target
    assert all(i.unit for i in law.inputs)
    rng = np.random.default_rng(0)
    inputs = {i.name: rng.uniform(0.1, 1.0, size=7) * (1 if i.high == 1 else 50) for i in law.inputs}
    first, second = ({p.name: rng.uniform(*p.start) for p in law.parameters} for _ in range(2))
    fixed = {p.name: first[p.name] for p in law.parameters if not p.linear}
    middle = {name: (first[name] + second[name]) / 2 for name in first}
    with jax.enable_x64(True):
        ends = [np.asarray(law.predict(p | fixed, inputs)) for p in (first, second)]
        np.testing.assert_allclose(law.predict(middle | fixed, inputs), (ends[0] + ends[1]) / 2, rtol=1e-12)


def test_a_law_checks_its_parameters():
    def law(parameter):
        return Law("l", "f", "c", (Input("x", "u"),), "t", (parameter,), lambda p, x: x["x"])

    with pytest.raises(ValueError, match=r"start .* of parameter 'a' must be an interval within"):
        law(Parameter("a", "unit", (0.5, 2.0)))
    with pytest.raises(ValueError, match=r"unit 'N\^b' of 'a' must be INPUT\^PARAMETER"):
        law(Parameter("a", "positive", (0.5, 2.0), unit="N^b"))
