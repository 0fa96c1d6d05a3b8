"""Where the solver starts."""

import numpy as np
import pandas as pd
import pytest

from experiments.reference import AbsentDataError, reference_data
from scaling import fitting
from scaling.fitting import starts
from scaling.laws.mixing import data_mixing


def test_spread_takes_the_farthest_each_time():
    line = np.array([[0.0], [0.1], [1.0], [0.45], [0.2]])
    np.testing.assert_array_equal(starts._spread(line, 4), [0, 2, 3, 4])
    assert len(set(starts._spread(line, 9))) == 5


def test_a_basin_that_no_well_screened_start_leads_to_is_found():
    """One of 22 published domains: the 64 best screened starts all end 26% above the minimum found here."""
    try:
        table = pd.read_csv(reference_data() / "mixinglaws_5mix.csv")
    except AbsentDataError as error:
        pytest.skip(str(error))
    table = table.query("model_size == '70M' and step == 30000 and in_fit == 1")
    shares = ["p_academic", "p_prose", "p_dialogue", "p_symbolic", "p_internet"]
    fit = fitting.fit(
        data_mixing(shares),
        table,
        target="loss_Ubuntu_IRC",
        group=None,
        objective=fitting.huber(0.02, "raw"),
        bootstrap=0,
    )
    problem = fitting.Problem(fit.law, fit.objective, fit.points)
    rng = np.random.default_rng(0)
    wide = np.column_stack([rng.uniform(-2, 1.5, 256), rng.uniform(-8, 2, (256, 5))])
    _, values = problem.minimise(wide, None, steps=300, tolerance=1e-12)
    assert fit.value <= values.min() * (1 + 1e-9)
    assert fit.agreement < 0.5
