"""What a table that cannot be fitted is told: the column, the row, the value, and the cure."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.reference import AbsentDataError, reference_data
from scaling import fitting
from scaling.laws.catalogue import law_named
from scaling.laws.law import LARGEST_GAP, Input, TableError

CHINCHILLA = law_named("chinchilla")
COLUMNS = {"N": "params"}


@pytest.fixture
def table():
    """Twelve runs, three sizes by four token counts, rows numbered from 100."""
    rows = [(n, d, 2 + 1e3 / n**0.5 + 1e3 / d**0.5) for n in (7e7, 4e8, 1.4e9) for d in (1e9, 3e9, 1e10, 3e10)]
    return pd.DataFrame(rows, columns=["params", "D", "loss"], index=range(100, 112))


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("params", 0.0, r"column 'params', row 105: 0 is outside \(0, inf\), the domain of N \(parameters\).*correct"),
        ("params", -7e7, r"column 'params', row 105: -7e\+07 is outside \(0, inf\).*correct or drop the row"),
        ("D", np.nan, r"column 'D', row 105: nan is not finite; drop such rows"),
        ("D", np.inf, r"column 'D', row 105: inf is not finite; drop such rows"),
        ("loss", np.nan, r"column 'loss', row 105: nan is not finite.*a diverged run has no loss to fit"),
        ("loss", 0.0, r"column 'loss', row 105: 0 has no logarithm; use an objective with scale='raw'"),
    ],
)
def test_a_bad_value_is_named_with_its_column_row_and_cure(table, column, value, message):
    table.loc[105, column] = value
    with pytest.raises(TableError, match=message):
        fitting.fit(CHINCHILLA, table, columns=COLUMNS, group=None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.drop(columns="D"),
            r"'D' is missing: it is input 'D' \(tokens\).*columns=; the table has params, l",
        ),
        (lambda t: t.drop(columns="loss"), r"column 'loss' is missing: it is the target \(nats/token\).*with target="),
        (lambda t: t.assign(D="7B"), r"column 'D' must hold numbers: it is input 'D' \(tokens\)"),
        (lambda t: t.assign(params=4e8), r"input 'N': only one distinct value \(4e\+08\).*add runs at other"),
        (
            lambda t: t.iloc[[0, 5, 6, 10]],
            r"table: 4 rows for the 5 parameters of law 'chinchilla'; add runs or choose",
        ),
    ],
)
def test_a_table_of_the_wrong_shape_is_told_what_to_add(table, change, message):
    with pytest.raises(TableError, match=message):
        fitting.fit(CHINCHILLA, change(table), columns=COLUMNS, group=None)


def test_missing_labels_weights_and_groups_are_named(table):
    with pytest.raises(TableError, match=r"column 'run_id' \(group\) is missing.*pass group=None"):
        fitting.fit(CHINCHILLA, table, columns=COLUMNS)
    with pytest.raises(TableError, match="column 'w', row 103: -1 must be > 0: it is the weights= of the rows"):
        fitting.fit(CHINCHILLA, table.assign(w=[1, 1, 1, -1] * 3), columns=COLUMNS, group=None, weights="w")
    with pytest.raises(TableError, match="column 'e', row 100: 0 must be > 0: it is the standard errors"):
        fitting.fit(CHINCHILLA, table.assign(e=0.0), columns=COLUMNS, group=None, error="e")


def test_mixed_units_name_one_row_of_each_side_and_the_cure(table):
    CHINCHILLA.check_units(table, COLUMNS)
    table.loc[[104, 108], "params"] = [70, 400]
    message = (
        r"column 'params', rows 108 and 100: 400 and 7e\+07, a factor 1.8e\+05 with nothing between; mixed units"
        r" suspected, such as 70 for 70M: write every row of N in parameters"
    )
    with pytest.raises(TableError, match=message):
        CHINCHILLA.check_units(table, COLUMNS)


def test_zero_and_shares_are_no_units(table):
    law = law_named("loss-in-steps")
    steps = pd.DataFrame({"S": [1.0, 1e3, 1e6, 1e9]})
    law.check_units(steps)
    with pytest.raises(TableError, match="a factor 1e\\+05"):
        law.check_units(steps.assign(S=[1.0, 1e5, 1e6, 1e9]))
    d_cpt = law_named("d-cpt")
    d_cpt.check_units(table.rename(columns={"params": "N"}).assign(r=[0.0, 1e-9, 0.5, 1.0] * 3))


def test_what_is_counted():
    assert Input("D", "tokens of continual pre-training, both corpora").counted
    assert Input("C", "training FLOPs").counted
    assert not Input("p", "fraction of pre-training tokens injected into fine-tuning", 0.0, 1.0).counted
    assert not Input("lr", "learning rate").counted
    assert not Input("k1", "validation loss, nats/token").counted


@settings(derandomize=True, deadline=None, max_examples=40)
@given(
    start=st.floats(1.0, 1e6),
    ratios=st.lists(st.floats(1.01, 0.99 * LARGEST_GAP), min_size=3, max_size=6),
    order=st.randoms(use_true_random=False),
)
def test_a_grid_without_a_gap_passes_in_any_order_and_with_a_gap_is_refused(start, ratios, order):
    sizes = list(start * np.cumprod([1.0, *ratios]))
    order.shuffle(sizes)
    CHINCHILLA.check_units({"N": np.array(sizes), "D": np.full(len(sizes), 1e9)})
    beyond = np.array([*sizes, max(sizes) * 1.01 * LARGEST_GAP])
    with pytest.raises(TableError, match="column 'N', rows"):
        CHINCHILLA.check_units({"N": beyond, "D": np.full(len(beyond), 1e9)})


@pytest.mark.parametrize(
    ("file", "law", "columns"),
    [
        ("chinchilla_epoch.csv", "chinchilla", {"N": "N_params", "D": "D_tokens"}),
        ("datablations_c4.csv", "data-constrained", {"N": "N_params", "D": "D_tokens", "U": "U_unique_tokens"}),
        ("steplaw_dense.csv", "chinchilla", {"N": "N_params", "D": "D_tokens"}),
        ("bnsl_addition.csv", "m2", {"x": "train_examples"}),
        ("revisiting_nmt_lm.csv", "m2", {"x": "seen_examples"}),
    ],
)
def test_published_tables_are_not_suspected(file, law, columns):
    try:
        path = reference_data() / file
    except AbsentDataError as error:
        pytest.skip(str(error))
    law_named(law).check_units(pd.read_csv(path), columns)
