"""Best learning rate and batch, sensitivity to the rate, transfer in width."""

import math

import jax
import numpy as np
import pandas as pd
import pytest

from scaling import fitting
from scaling.laws.catalogue import law_named
from scaling.laws.learning_rate import (
    DEEPSEEK_PUBLISHED,
    SENSITIVITY_RATES,
    STEP_LAW,
    STEP_LAW_BATCH,
    STEP_LAW_PUBLISHED,
    matrix_rate_and_decay,
    sensitivity,
)


def evaluate(law, parameters, **inputs):
    with jax.enable_x64(True):
        return float(law.predict(parameters, {name: np.float64(value) for name, value in inputs.items()}))


def test_step_law_of_seven_billion_parameters():
    rate = evaluate(STEP_LAW, STEP_LAW_PUBLISHED["step-law"], N=7e9, D=1.4e12)
    assert rate == pytest.approx(9.17e-4, rel=1e-3)
    assert evaluate(STEP_LAW_BATCH, STEP_LAW_PUBLISHED["step-law-batch"], D=1.4e12) == pytest.approx(4.999e6, rel=1e-3)
    means = {"c": math.exp(0.5863), "a": 0.71292, "b": 0.30749}
    assert evaluate(STEP_LAW, means, N=7e9, D=1.4e12) == pytest.approx(9.35e-4, rel=1e-3)
    assert evaluate(STEP_LAW_BATCH, {"c": math.exp(-0.5435), "b": 0.57094}, D=1.4e12) == pytest.approx(
        4.997e6, rel=1e-3
    )


@pytest.mark.parametrize(("name", "parameters"), DEEPSEEK_PUBLISHED.items())
def test_deepseek_powers_by_hand(name, parameters):
    wanted = parameters["c"] * math.exp(parameters["a"] * math.log(1e20))
    assert evaluate(law_named(name), parameters, C=1e20) == pytest.approx(wanted, rel=1e-12)


def test_deepseek_size_and_tokens_use_up_the_compute():
    both = [
        evaluate(law_named(name), DEEPSEEK_PUBLISHED[name], C=3e20) for name in ("deepseek-scale", "deepseek-tokens")
    ]
    assert math.prod(both) == pytest.approx(3e20, rel=1e-3)


def test_a_power_law_fit_is_ordinary_least_squares_in_logs():
    rng = np.random.default_rng(1)
    table = pd.DataFrame({"N": np.repeat([1e8, 3e8, 1e9], 24), "D": np.tile(np.geomspace(2e9, 1e11, 24), 3)})
    table["lr"] = 1.79 * table["N"] ** -0.713 * table["D"] ** 0.307 * np.exp(rng.normal(scale=0.2, size=72))
    fit = fitting.fit(STEP_LAW, table, target="lr", group=None, objective=fitting.least_squares("log"), bootstrap=0)
    design = np.stack([np.ones(72), -np.log(table["N"]), np.log(table["D"])], axis=1)
    log_c, a, b = np.linalg.lstsq(design, np.log(table["lr"]))[0]
    assert fit.parameters == pytest.approx({"c": math.exp(log_c), "a": a, "b": b}, rel=1e-6)
    assert fit.agreement > 0.5


def test_sensitivity_by_hand():
    loss_R = np.array([3.0, 2.8, 2.9, 3.4, 12.0, math.inf, 9.0])
    assert len(SENSITIVITY_RATES) == 7
    wanted = (3.0 + 2.8 + 2.9 + 3.4 + 10.0 + 10.0 + 9.0) / 7 - 2.8
    assert sensitivity(loss_R, initial_loss=10.0) == pytest.approx(wanted)
    assert sensitivity(np.full(7, 2.5), 10.0) == 0
    with pytest.raises(ValueError, match="inf, not nan, where diverged"):
        sensitivity([2.0, math.nan], 10.0)
    with pytest.raises(ValueError, match=r"initial_loss: 2 must be finite and above the least loss 2.5"):
        sensitivity([2.5, 3.0], 2.0)


def test_transfer_in_width_keeps_the_steady_state():
    rate, decay = matrix_rate_and_decay(1e-2, 0.1, 256, 2048)
    assert rate == pytest.approx(1e-2 / 8)
    assert decay == pytest.approx(0.1 * math.sqrt(8))

    def singular_value(rate, decay, width):
        return math.sqrt(rate / decay) * width**0.75

    assert singular_value(rate, decay, 2048) == pytest.approx(singular_value(1e-2, 0.1, 256))
    with pytest.raises(ValueError, match="width: 256 and 0 must be >= 1"):
        matrix_rate_and_decay(1e-2, 0.1, 256, 0)
