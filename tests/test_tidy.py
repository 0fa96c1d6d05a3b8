"""The tidy table of a sweep: nothing left out, nothing of another step, run or domain."""

import json

import numpy as np
import pandas as pd
import pytest

from scaling.store import StoreError
from scaling.tidy import tidy


def mixture(*phases: dict[str, float]) -> str:
    return json.dumps([[start / len(phases), list(shares.items())] for start, shares in enumerate(phases)])


@pytest.fixture
def runs() -> pd.DataFrame:
    """Done, diverged and stopped after step 2, done with a mixer, done with two phases; steps of 10 tokens."""
    return pd.DataFrame({
        "run_id": list("abcde"), "status": ["done", "diverged", "stopped", "done", "done"], "steps": [4, 4, 4, 4, 2],
        "tokens": [40, 40, 40, 40, 20], "flops": 1.0, "schedule.peak": [1e-3, 1e-1, 2e-3, 1e-3, 1e-3],
        "data.mixture": [mixture({"prose": 0.75, "code": 0.25}), *[mixture({"prose": 1.0})] * 3,
                         mixture({"prose": 1.0}, {"code": 1.0})],
        "mixer.name": [None, None, None, "doremi", None]})


@pytest.fixture
def curves() -> pd.DataFrame:
    rows = []
    for place, (run_id, last) in enumerate(zip("abcde", (4, 2, 2, 4, 2), strict=True)):
        for step in range(0, last + 1, 2):
            for offset, domain in enumerate(("prose", "code")):
                rows.append((run_id, step, "validation", domain, 5 - step + place / 10 + offset))
            rows.append((run_id, step, "train", "mixture", 0.0))
    table = pd.DataFrame(rows, columns=["run_id", "step", "split", "domain", "loss"])
    return table.assign(tokens=table.step * 10, flops=table.step * 7.0, lr=1 / (1 + table.step), loss_se=0.1,
                        bits_per_byte=1.0).sample(frac=1, random_state=0)


def test_ends_of_runs_are_their_losses_after_the_last_step(runs: pd.DataFrame, curves: pd.DataFrame) -> None:
    table = tidy(runs, curves)
    assert table[["run_id", "domain"]].to_numpy().tolist() == [[r, d] for r in "abcde" for d in ("code", "prose")]
    prose = table[table.domain == "prose"].set_index("run_id")
    assert prose.loss.to_dict() == pytest.approx({"a": 1.0, "b": np.inf, "c": np.nan, "d": 1.3, "e": 3.4}, nan_ok=True)
    assert (table.loss[table.domain == "code"].to_numpy() - prose.loss).dropna().tolist() == pytest.approx([1] * 3)
    done = prose.loc[["a", "d", "e"]]
    assert done.step.tolist() == [4, 4, 2]
    assert done.tokens.tolist() == [40, 40, 20]
    assert done.flops.tolist() == [28, 28, 14]
    assert done.lr.tolist() == pytest.approx([0.2, 0.2, 1 / 3])
    assert prose["schedule.peak"].tolist() == runs["schedule.peak"].tolist()


def test_logged_steps_are_all_there(runs: pd.DataFrame, curves: pd.DataFrame) -> None:
    table = tidy(runs, curves, logged=True)
    assert len(table) == (curves.split == "validation").sum() == 2 * (3 + 2 + 2 + 3 + 2)
    key = ["run_id", "domain", "step"]
    assert table[key].to_numpy().tolist() == sorted(table[key].to_numpy().tolist())
    wanted = curves.set_index(key).loss
    assert table.set_index(key).loss.to_dict() == wanted[table.set_index(key).index].to_dict()
    assert table.groupby("run_id").status.first().to_dict() == dict(zip(runs.run_id, runs.status, strict=True))


def test_shares_are_those_of_mixtures_that_stay(runs: pd.DataFrame, curves: pd.DataFrame) -> None:
    shares = tidy(runs, curves).drop_duplicates("run_id").set_index("run_id")[["share_code", "share_prose"]]
    np.testing.assert_array_equal(shares, [[0.25, 0.75], [0, 1], [0, 1], [np.nan, np.nan], [np.nan, np.nan]])
    plain = tidy(runs.drop(columns=["mixer.name"]), curves).drop_duplicates("run_id").set_index("run_id")
    assert plain.loc["d", ["share_code", "share_prose"]].tolist() == [0, 1]


def test_a_sweep_of_no_texts_and_fewer_columns_is_read(runs: pd.DataFrame, curves: pd.DataFrame) -> None:
    table = tidy(runs.drop(columns=["data.mixture", "flops"]), curves.drop(columns=["flops", "lr", "bits_per_byte"]))
    assert not {"flops", "lr", "share_prose"} & set(table)
    assert table.loss.notna().sum() == 8


@pytest.mark.parametrize(("keep_runs", "keep_curves", "message"), [
    (0, 99, "0 runs and 24 held-out losses: expected both; run the sweep first"),
    (5, 0, "5 runs and 0 held-out losses"),
])
def test_a_sweep_without_rows_is_refused(
    runs: pd.DataFrame, curves: pd.DataFrame, keep_runs: int, keep_curves: int, message: str,
) -> None:
    with pytest.raises(StoreError, match=message):
        tidy(runs.head(keep_runs), curves.head(keep_curves))
    with pytest.raises(StoreError, match="0 runs and 0 held-out losses"):
        tidy(pd.DataFrame(), pd.DataFrame())
