"""The fit against the published replication of the Chinchilla parametric law."""

import numpy as np
import pytest
from scipy.special import huber as scipy_huber

from scaling import fitting
from scaling.laws.size import CHINCHILLA


def objective(table, e, a, b, alpha, beta):
    """Summed Huber loss of log residuals, in plain numpy and SciPy."""
    predicted = np.exp(e) + np.exp(a) / table["N"] ** alpha + np.exp(b) / table["D"] ** beta
    return np.sum(scipy_huber(1e-3, np.log(predicted / table["loss"])))


def test_optimum_on_the_240_published_points(chinchilla_points):
    fit = fitting.fit(CHINCHILLA, chinchilla_points, group=None, bootstrap=200)
    p = fit.parameters
    here = np.log(p["E"]), np.log(p["A"]), np.log(p["B"]), p["alpha"], p["beta"]
    assert fit.value == pytest.approx(0.0010182740178, rel=1e-9)
    assert fit.value == pytest.approx(objective(chinchilla_points, *here), rel=1e-9)
    refitted = np.log(1.8172), np.log(482.01), np.log(2085.43), 0.3478, 0.3658
    original = 0.5267228, 6.0073404, 6.0179186, 0.33917084, 0.2849083
    assert fit.value < objective(chinchilla_points, *refitted) < 0.001025
    assert objective(chinchilla_points, *original) == pytest.approx(0.00123116, rel=1e-5)
    assert fit.agreement == 1
    assert fit.status == "ok"
    assert fit.parameter_interval()["beta"] == pytest.approx((0.331, 0.415), abs=0.01)  # published, bootstrap
    assert fit.standard_errors["alpha"] == pytest.approx(0.0154, rel=0.25)


def test_the_order_of_rows_and_the_units_of_inputs_do_not_matter(chinchilla_points):
    fit = fitting.fit(CHINCHILLA, chinchilla_points, group=None, bootstrap=0)
    rescaled = chinchilla_points.assign(N=chinchilla_points["N"] / 1e9, D=chinchilla_points["D"] / 1e6)
    other = fitting.fit(CHINCHILLA, rescaled.sample(frac=1, random_state=1), group=None, bootstrap=0)
    assert other.value == pytest.approx(fit.value, rel=1e-9)
    exponents = {name: fit.parameters[name] for name in ("E", "alpha", "beta")}
    assert {name: other.parameters[name] for name in exponents} == pytest.approx(exponents, rel=1e-5)
    in_billions = other.parameters["A"] * 1e9 ** other.parameters["alpha"]
    assert in_billions == pytest.approx(fit.parameters["A"], rel=1e-4)
