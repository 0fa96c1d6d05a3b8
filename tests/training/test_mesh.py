"""Devices do not matter: runs on 1, 2, 4 and 8 of them, dealt out or split, equal runs trained alone on one."""

from pathlib import Path

import jax
import numpy as np
import pytest

import packs
from packs import ALONE
from scaling.config import Run
from scaling.training.trainer import Layout

MESHES = [  # and numbers of runs that their lanes or devices do not divide
    (Layout(8, 1, devices=4), 7),
    (Layout(8, 1, devices=8), 5),
    (Layout(16, 2, devices=8), 11),
    (Layout(1, 1, devices=4, data=4), 1),
    (Layout(4, 1, devices=4, data=2), 3),
    (Layout(8, 2, devices=8, data=2), 7),
]


def runs_of(count: int, steps: int, **changes: str) -> list[Run]:
    return [packs.varied_run(index, **{"training.duration": {"steps": steps}, "evaluation.points": 4, **changes})
            for index in range(count)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, packs.Trained]:
    """Three of the runs, each trained by itself."""
    runs = runs_of(7, steps=50)
    return {run.run_id: packs.train(packs.job([run]), ALONE, tmp_path_factory.mktemp("alone"))
            for run in (runs[0], runs[2], runs[6])}


@pytest.mark.parametrize(("layout", "count"), MESHES, ids=str)
def test_every_mesh_gives_the_curves_and_parameters_of_one_device(
    layout: Layout, count: int, alone: dict[str, packs.Trained], tmp_path: Path,
) -> None:
    runs = runs_of(count, steps=50)
    trained = packs.train(packs.job(runs), layout, tmp_path)
    assert set(trained.curves.run_id) == {run.run_id for run in runs}
    compared = [run for run in runs if run.run_id in alone]
    assert len(compared) == min(3, 1 + (count > 2) + (count > 6))
    for run in compared:
        single = alone[run.run_id]
        np.testing.assert_allclose(trained.losses(run), single.losses(run), rtol=1e-5)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), trained.params(run),
                     single.params(run))
    assert len({trained.losses(run)[-1] for run in runs}) == count, "the runs must differ, or nothing is compared"


def test_float64_agrees_over_300_steps_on_a_mesh_of_runs_by_data(tmp_path: Path) -> None:
    runs = runs_of(3, steps=300, **{"training.dtype": "float64"})
    with jax.enable_x64(True):
        states = [packs.random_state(run.program, run.training.seed) for run in runs]
        mesh = packs.train(packs.job(runs, parents=states), Layout(4, 2, devices=4, data=2), tmp_path / "mesh")
        last = packs.train(packs.job(runs[2:], parents=states[2:]), ALONE, tmp_path / "alone")
    np.testing.assert_allclose(mesh.losses(runs[2]), last.losses(runs[2]), rtol=1e-9)
