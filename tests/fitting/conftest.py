"""Shared tables and fits."""

import os
from pathlib import Path

import pandas as pd
import pytest

from scaling import fitting
from scaling.laws.mixture import D_CPT
from simulated import d_cpt_table


@pytest.fixture(scope="session")
def d_cpt_data():
    return d_cpt_table(seed=3)


@pytest.fixture(scope="session")
def d_cpt_fit(d_cpt_data):
    """The general loss: r is the general share."""
    return fitting.fit(D_CPT, d_cpt_data, bootstrap=200)


@pytest.fixture(scope="session")
def chinchilla_points():
    """The 240 points of the Epoch replication."""
    default = Path(__file__).parents[3] / "shared/reference/data"
    path = Path(os.environ.get("SCALING_REFERENCE_DATA", default)) / "chinchilla_epoch.csv"
    if not path.exists():
        pytest.skip(f"published data are absent: no {path.name} where SCALING_REFERENCE_DATA points")
    table = pd.read_csv(path)
    return table[table["used_in_epoch_fit"] == 1].rename(
        columns={"N_params": "N", "D_tokens": "D", "loss_nats": "loss"}
    )
