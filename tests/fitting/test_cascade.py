"""The cascade of limits: exact recovery, propagated noise, published values, refusals."""

import numpy as np
import pandas as pd
import pytest

from scaling.fitting.cascade import cascade, data_efficiency
from scaling.laws.law import TableError

MEMBERS, SIZES, TOKENS = (1, 2, 3, 5), (0.15, 0.3, 0.6, 1.4), (0.2, 0.4, 0.8, 1.6)


def grid(floor=1.9, scale=0.86):
    """The paper's design, N and U in billions: 64 losses whose joint limit at 200M tokens is the published 3.17."""
    rows = [(k, n, u) for k in MEMBERS for n in SIZES for u in TOKENS]
    table = pd.DataFrame(rows, columns=["K", "N", "U"])
    scale *= (3.17 - floor) / (scale * 0.2**-0.24)
    loss = floor + scale * table["U"] ** -0.24 + 0.05 / table["N"] ** 1.02 + 0.25 / table["K"] ** 1.02
    return table.assign(loss=loss)


@pytest.fixture(scope="module")
def limits():
    return cascade(grid(), ("K", "N", "U"), noise=1e-3, draws=300)


def test_exact_losses_give_back_every_limit(limits):
    members, sizes, tokens = limits.stages
    assert [len(stage.settings) for stage in limits.stages] == [16, 4, 1]
    first = members.table().iloc[5]
    truth = grid().query("K == 1 and N == @first.N and U == @first.U")["loss"].item() - 0.25
    assert first["E"] == pytest.approx(truth, abs=1e-6)
    np.testing.assert_allclose(members.table()[["A", "alpha"]], [[0.25, 1.02]] * 16, rtol=1e-4)
    assert sizes.table()["E"].iloc[0] == pytest.approx(3.17, abs=1e-5)
    assert tokens.table()["alpha"].item() == pytest.approx(0.24, abs=1e-3)
    assert limits.limit().value == pytest.approx(1.9, abs=1e-2)
    assert limits.predict(np.array([0.2]))[0] == pytest.approx(3.17, abs=1e-4)


def test_noise_grows_from_stage_to_stage(limits):
    widths = [np.mean(stage.table()["E_high"] - stage.table()["E_low"]) for stage in limits.stages]
    assert 2 * 1.96e-3 < widths[0] < widths[1] < widths[2]
    low, high = limits.limit().low, limits.limit().high
    assert low < 1.9 < high


def test_intervals_hold_the_truth_under_noise():
    held, rng = 0, np.random.default_rng(4)
    table = grid().query("U == 0.2").drop(columns="U")
    for _ in range(20):
        noisy = table.assign(loss=table["loss"] + rng.normal(scale=1e-3, size=len(table)))
        found = cascade(noisy, ("K", "N"), noise=1e-3, draws=100).limit()
        held += found.low <= 3.17 <= found.high
    assert held >= 17


def test_seed_noise_of_the_paper_leaves_the_last_limit_unknown():
    found = cascade(grid(), ("K", "N", "U"), noise=0.01, draws=100).limit()
    assert found.refusal.kind == "unstable"
    assert "do not bend enough against noise 0.01" in str(found.refusal)


def test_data_efficiency_is_the_ratio_of_tokens_for_equal_loss(limits):
    baseline = cascade(grid(scale=1.0).assign(loss=lambda t: t["loss"] + 0.1), ("K", "N", "U"), noise=1e-3, draws=300)
    found = data_efficiency(baseline, limits, 0.2)
    excess = 3.17 - 2.0
    wanted = (1.27 * 0.2**0.24 / excess) ** (1 / 0.24) / 0.2
    assert found.value == pytest.approx(wanted, rel=1e-2)
    assert found.low < found.value < found.high
    beyond = data_efficiency(baseline, limits, 1e9)
    assert beyond.refusal.kind == "unbounded"
    assert beyond.value == np.inf
    with pytest.raises(ValueError, match="50 draws, the baseline has 300"):
        data_efficiency(baseline, cascade(grid(), ("K", "N", "U"), noise=1e-3, draws=50), 0.2)


def test_the_noise_of_two_methods_does_not_cancel_whatever_their_seeds():
    """Equal designs: of one seed the draws of both see the same noise, that of the runs is each table's own."""
    table, rng, held = grid(), np.random.default_rng(2), 0
    for place in range(20):
        pair = [cascade(table.assign(loss=table["loss"] + rng.normal(scale=3e-4, size=len(table))), ("K", "N", "U"),
                        noise=3e-4, draws=100) for _ in range(2)]  # fmt: skip
        found = data_efficiency(*pair, 0.2)
        held += found.low <= 1 <= found.high
        if not place:
            other = cascade(table, ("K", "N", "U"), noise=3e-4, draws=100, seed=1)
            assert np.std(found.draws_B) == pytest.approx(np.std(data_efficiency(pair[0], other, 0.2).draws_B), rel=0.4)
    assert held >= 17


def test_what_rests_on_a_cascade_without_a_limit_is_refused_with_it(limits):
    noisy = cascade(grid(), ("K", "N", "U"), noise=0.01, draws=300)
    assert limits.refusal is None
    for pair in ((noisy, limits), (limits, noisy)):
        assert data_efficiency(*pair, 0.2).refusal == noisy.refusal == noisy.limit().refusal


def test_tables_that_cannot_be_cascaded():
    table = grid()
    with pytest.raises(ValueError, match="noise: 0 must be > 0: the standard deviation of a loss between seeds"):
        cascade(table, ("K", "N", "U"), noise=0)
    with pytest.raises(TableError, match=r"\{'N': 0.15, 'U': 0.2\}: 2 values of 'K', at least 3 needed"):
        cascade(table.query("K > 2 or N > 0.2 or U > 0.2"), ("K", "N", "U"), noise=0.01)
    with pytest.raises(TableError, match=r"row 64: repeats \{'K': 1.0, 'N': 0.15, 'U': 0.2\}; average the seeds"):
        cascade(pd.concat([table, table.iloc[:1]], ignore_index=True), ("K", "N", "U"), noise=0.01)
    with pytest.raises(ValueError, match=r"variables: \(\), draws: 400: one variable and one draw at least"):
        cascade(table, (), noise=0.01)
    with pytest.raises(ValueError, match=r"draws: 0: one variable and one draw at least"):
        cascade(table, ("K",), noise=0.01, draws=0)
    with pytest.raises(TableError, match="column 'N', row 5: 0 must be > 0; drop it"):
        cascade(table.assign(N=table["N"].where(table.index != 5, 0)), ("K", "N", "U"), noise=0.01)
    with pytest.raises(TableError, match="column 'M' is missing"):
        cascade(table, ("K", "M"), noise=0.01)
