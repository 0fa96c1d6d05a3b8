"""Diagnostics against numpy, against what the next step does, and over packs, devices and interruptions.

D width, E width of a head, S sequence, T = S + 1.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import packs
import reference
from mixer_runs import MIXERS
from packs import ALONE
from scaling.config import Run
from scaling.training.diagnosing import by_path, diagnosed, largest_attention_logit, layer_values, spectra, watched
from scaling.training.loop import PackRun
from scaling.training.packed import window_means
from scaling.training.state import TrainState, initial_state, model_of
from scaling.training.step import draw
from scaling.training.tables import Stream, hyperparameters, run_tables
from scaling.training.trainer import Layout

STEPS = 6
ALL = {"layers": True, "activations": True, "spectra": 2}
TINY = {"model.width": 4, "model.heads": 2, "model.feedforward_ratio": 2.0, "data.sequence": 11, "data.batch": 4,
        "training.dtype": "float64", "training.z_loss": 0.01, "training.duration": {"steps": STEPS},
        "evaluation.points": None, "evaluation.steps": (0, 3, 4), "data.mixture": {"a": 0.5, "b": 0.5},
        "schedule.peak": 0.05, "schedule.name": "constant", "schedule.floor": 1.0,
        "diagnostics": ALL}


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def tiny(**changes: Any) -> Run:
    return packs.pack_run(**{**TINY, **changes})


def train(runs: list[Run], layout: Layout, folder: Path) -> packs.Trained:
    ids = [run.run_id for run in runs]
    return packs.train(packs.job(runs, saves={3: ids, 4: ids, STEPS: ids}), layout, folder)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> packs.Trained:
    with jax.enable_x64(True):
        return train([tiny()], ALONE, tmp_path_factory.mktemp("alone"))


def values(trained: packs.Trained, run: Run, step: int) -> dict[str, float]:
    """Diagnostics of a run at a step, by name."""
    rows = trained.diagnostics[(trained.diagnostics.run_id == run.run_id) & (trained.diagnostics.step == step)]
    assert rows.name.is_unique
    return dict(zip(rows.name, rows.value, strict=True))


def params_at(trained: packs.Trained, run: Run, step: int) -> dict[str, np.ndarray]:
    params = initial_state(run.program, packs.VOCABULARY, jnp.int32(run.training.seed)).params if step == 0 else (
        trained.states[step][run.run_id].params)
    return {path: np.asarray(leaf) for path, leaf in by_path(params).items()}


def norm(x: Any) -> float:
    return float(np.linalg.norm(np.ravel(x)))


@pytest.mark.parametrize("step", [0, 3, STEPS])
def test_gradient_norms_are_those_of_the_next_batch(alone: packs.Trained, step: int) -> None:
    """By complex steps in numpy; after the last step, of the batch that would follow."""
    run = tiny()
    row = run_tables(run, packs.windows(), Stream.start(2)).following(step, np.dtype(np.float64))
    hyper = hyperparameters(run, packs.windows(), Stream.start(2), np.dtype(np.float64))
    tokens, _ = packs.corpus(run.data.sequence, run.evaluation.windows)
    state = initial_state(run.program, packs.VOCABULARY, jnp.int32(0)) if step == 0 else alone.states[step][run.run_id]
    drawn = jax.jit(draw, static_argnums=(0, 1))(run.program, 1, hyper, row, tokens, state)
    params = jax.tree.map(np.asarray, state.params)
    gradient = by_path(reference.gradient(params, run, np.asarray(drawn.tokens_BxT)))
    found = values(alone, run, step)
    for path, expected in gradient.items():
        np.testing.assert_allclose(found[f"gradient_norm.{path}"], norm(expected), rtol=1e-8, atol=1e-13)


def test_the_row_that_follows_goes_on_after_the_last_step() -> None:
    table = run_tables(tiny(), packs.windows(), Stream.start(2))
    for step in range(STEPS):
        row = table.following(step, np.dtype(np.float64))
        columns = table.learning_rate_T, table.drawn_TxK, table.counts_TxK, table.momentum_T
        for value, column_T in zip(row, columns, strict=True):
            np.testing.assert_array_equal(value, column_T[step])
    after = table.following(STEPS, np.dtype(np.float64))
    assert after.learning_rate_C == table.learning_rate_T[-1]
    np.testing.assert_array_equal(after.drawn_CxK, table.stream_after(STEPS).drawn_K)
    np.testing.assert_array_equal(after.counts_CxK, table.counts_TxK[-1])


@pytest.mark.parametrize("mixer", [None, "odm", "doge"])
def test_an_evaluation_tells_what_the_next_step_does(mixer: str | None, tmp_path: Path) -> None:
    """Update: the parameters' move from step 3 to 4. Gradient: its whole norm as logged by the step itself."""
    layers = {"layers": True, "activations": False, "spectra": 0}
    run = tiny() if mixer is None else tiny(**MIXERS[mixer], diagnostics=layers)
    trained = train([run], ALONE, tmp_path)
    before, after = params_at(trained, run, 3), params_at(trained, run, 4)
    found = values(trained, run, 3)
    for path, p in before.items():
        moved = norm(after[path] - p)
        assert moved > 0
        np.testing.assert_allclose(found[f"update_norm.{path}"], moved, rtol=1e-9)
        np.testing.assert_allclose(found[f"effective_rate.{path}"], moved / norm(p), rtol=1e-9)
    whole = np.sqrt(sum(found[f"gradient_norm.{path}"]**2 for path in before))
    np.testing.assert_allclose(whole, values(trained, run, 4)["gradient_norm"], rtol=1e-9)


def test_the_last_evaluation_is_as_if_the_run_went_on(alone: packs.Trained, tmp_path: Path) -> None:
    longer = tiny(**{"training.duration": {"steps": STEPS + 2}, "evaluation.steps": (STEPS,)})
    found = values(packs.train(packs.job([longer]), ALONE, tmp_path), longer, STEPS)
    expected = values(alone, tiny(), STEPS)
    found["gradient_norm"] = expected["gradient_norm"]  # a mean over the steps since the evaluation before
    assert found == expected


def test_rotation_is_the_cosine_to_the_start(alone: packs.Trained) -> None:
    run = tiny()
    start = params_at(alone, run, 0)
    assert max(value for name, value in values(alone, run, 0).items() if name.startswith("rotation.")) < 1e-28
    for step in (3, STEPS):
        found = values(alone, run, step)
        for path, p in params_at(alone, run, step).items():
            cosine = np.sum(p * start[path]) / (norm(p) * norm(start[path]))
            assert cosine < 1 - 1e-6
            np.testing.assert_allclose(found[f"rotation.{path}"], 1 - cosine, rtol=1e-8)


def test_layer_values_by_hand() -> None:
    """From (5, 0) to (3, 4): cosine 3 / 5; what has no direction has no rotation."""
    p, start = jnp.array([3.0, 4.0]), jnp.array([5.0, 0.0])
    update, gradient = jnp.array([0.6, 0.8]), jnp.array([-5.0, 12.0])
    found = layer_values({"a": {"kernel": p}}, {"a": {"kernel": start}}, {"a": {"kernel": gradient}},
                         {"a": {"kernel": update}})
    expected = {"gradient_norm": 13.0, "update_norm": 1.0, "effective_rate": 0.2, "rotation": 0.4}
    assert found == pytest.approx({f"{name}.a/kernel": value for name, value in expected.items()}, rel=1e-14)
    zero = jnp.zeros(2)
    born, dead = (layer_values({"b": a}, {"b": b}, {"b": gradient}, {"b": update}) for a, b in ((p, zero), (zero, p)))
    assert (born["effective_rate.b"], dead["update_norm.b"]) == (0.2, pytest.approx(1.0))
    assert np.isnan([born["rotation.b"], dead["rotation.b"], dead["effective_rate.b"]]).all()


@settings(deadline=None)
@given(arrays.arrays(np.float64, (2, 5), elements=st.floats(-1, 1).filter(lambda x: abs(x) > 1e-3)),
       st.floats(1e-3, 1e3))
def test_rotation_knows_directions_alone(pair: np.ndarray, scale: float) -> None:
    p, start = jnp.asarray(pair)

    def rotation(p: Any, start: Any) -> float:
        return float(layer_values({"p": p}, {"p": start}, {"p": p}, {"p": p})["rotation.p"])

    turned = rotation(p, start)
    assert 0 <= turned <= 2 + 1e-12
    assert rotation(scale * p, start) == pytest.approx(turned, abs=1e-12)
    assert rotation(-p, start) == pytest.approx(2 - turned, abs=1e-12)
    assert rotation(scale * p, p) == pytest.approx(0, abs=1e-30)


def test_singular_values_are_those_of_numpy(alone: packs.Trained) -> None:
    run = tiny()
    found = values(alone, run, STEPS)
    matrices = {path: p for path, p in params_at(alone, run, STEPS).items() if p.ndim == 2}
    assert {name for name in found if name.startswith("singular")} == {
        f"singular_value_{i}.{path}" for path in matrices for i in (1, 2)}
    for path, p in matrices.items():
        expected = np.linalg.svd(p, compute_uv=False)[:2]
        np.testing.assert_allclose([found[f"singular_value_{i}.{path}"] for i in (1, 2)], expected, rtol=1e-10)
    few = spectra({"kernel": jnp.diag(jnp.array([1.0, -3.0, 2.0])), "scale": jnp.ones(4)}, count=5)
    assert few == pytest.approx({f"singular_value_{i + 1}.kernel": 3 - i for i in range(3)})


def attention_logits(p: Any, run: Run, x_SxD: np.ndarray) -> np.ndarray:
    """q · k / √E of every query and the keys it sees, of all heads in a row."""
    heads, positions = run.model.heads, len(x_SxD)
    q, k = ((x_SxD @ p[name]["kernel"]).reshape(positions, heads, -1) for name in ("query", "key"))
    logits_HxSxS = np.einsum("she,the->hst", q, k) / np.sqrt(q.shape[-1])
    return logits_HxSxS[:, *np.tril_indices(positions)]


def walk(params: Any, run: Run, window_T: np.ndarray) -> dict[str, np.ndarray]:
    """What passes through a model of one block on one window, by the name of the diagnostic that takes its maximum."""
    p, tokens_S = params["block_0"], window_T[:-1]
    embedded = params["embedding"]["embedding"][tokens_S]
    x = embedded + params["positions"][:len(tokens_S)]
    first = reference._norm(x, p["attention_norm"]["scale"])
    attended = reference._attention(p["attention"], run.model.heads, first)
    second = reference._norm(x + attended, p["feedforward_norm"]["scale"])
    fed = reference._gelu(second @ p["feedforward"]["up"]["kernel"]) @ p["feedforward"]["down"]["kernel"]
    final = reference._norm(x + attended + fed, params["final_norm"]["scale"])
    activations = {"embedding": embedded, "block_0/attention_norm": first, "block_0/attention": attended,
                   "block_0/feedforward_norm": second, "block_0/feedforward": fed, "block_0": x + attended + fed,
                   "final_norm": final}
    return {**{f"activation_max.{name}": abs(value) for name, value in activations.items()},
            "attention_logit_max.block_0/attention": attention_logits(p["attention"], run, first),
            "logit_max": final @ params["embedding"]["embedding"].T}


@pytest.mark.parametrize("step", [0, STEPS])
def test_maxima_are_over_all_held_out_windows(alone: packs.Trained, step: int) -> None:
    run = tiny()
    state = initial_state(run.program, packs.VOCABULARY, jnp.int32(0)) if step == 0 else alone.states[step][run.run_id]
    params = jax.tree.map(np.asarray, state.params)
    _, held_KxMxT = packs.corpus(run.data.sequence, run.evaluation.windows)
    windows = [window_T for held_MxT in held_KxMxT for window_T in held_MxT]
    walks = [walk(params, run, window_T) for window_T in windows]
    expected = {name: max(one[name].max() for one in walks) for name in walks[0]}
    expected["log_z_mean"] = np.mean([reference.losses(params, run, window_T)[1] for window_T in windows])
    found = values(alone, run, step)
    seen = {name for name in found if name.startswith(("activation_max", "attention_logit", "log"))}
    assert seen == set(expected)
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-10)


def test_in_packed_windows_documents_see_themselves_and_padding_counts_for_nothing() -> None:
    packing = {"method": "best_fit", "attention": "document", "metadata": {}, "documents": {}}
    run = tiny(packing=packing)
    params = packs.random_state(run.program, seed=1).params
    tokens_T = np.random.default_rng(0).integers(0, packs.VOCABULARY, 12).astype(np.int32)
    segments_T = np.array([1] * 5 + [2] * 5 + [0] * 2, np.int32)

    def losses() -> jax.Array:
        return window_means(run.program, packs.VOCABULARY, params, tokens_T[None], segments_T[None])

    counts_N = np.array([1] * 4 + [0] + [1] * 4 + [0] * 2, bool)
    losses_B, seen = watched(losses, jnp.asarray(counts_N))
    np.testing.assert_array_equal(losses_B, losses())
    documents = [tokens_T[:5], tokens_T[5:10]]
    log_z = np.concatenate([reference.losses({**params, "positions": params["positions"][:4]}, run, document_T)[1]
                            for document_T in documents])
    np.testing.assert_allclose(seen.log_z / seen.targets, log_z.mean(), rtol=1e-10)
    assert seen.targets == 8
    q_SxE, k_SxE = np.random.default_rng(1).normal(size=(2, 4, 9))
    begins_S = np.array([0, 0, 2, 2])
    pairs = [(0, 0), (1, 0), (1, 1), (2, 2), (3, 2), (3, 3)]
    expected = max(q_SxE[i] @ k_SxE[j] / 3 for i, j in pairs)
    found = largest_attention_logit(*(jnp.asarray(x)[None] for x in (q_SxE, k_SxE, k_SxE, begins_S)))
    np.testing.assert_allclose(found, expected, rtol=1e-14)


@pytest.mark.parametrize(("changes", "gone"), [
    ({"model.attention": "lssa"}, "attention_logit_max"),
    ({"model.norm": "layernorm", "model.qk_norm": True, "model.activation": "swiglu", "model.tied_head": False}, None),
])
def test_every_model_has_values_of_its_own_parameters_and_modules(changes: dict[str, Any], gone: str | None) -> None:
    """And softplus attention has no logits of a softmax."""
    run = tiny(**changes)
    hyper = hyperparameters(run, packs.windows(), Stream.start(2), np.dtype(np.float64))
    row = run_tables(run, packs.windows(), Stream.start(2)).following(0, np.dtype(np.float64))
    tokens, held_KxMxT = packs.corpus(run.data.sequence, run.evaluation.windows)
    state = packs.template(run.program)

    def logits_mean(state: TrainState) -> jax.Array:
        logits_NxV: Any = model_of(run.program, packs.VOCABULARY).apply({"params": state.params}, held_KxMxT[0, :, :-1])
        return jnp.mean(logits_NxV)

    layers = jax.eval_shape(lambda state: diagnosed(
        run.program, packs.VOCABULARY, 1, hyper, row, tokens, None, state), state)
    _, seen = jax.eval_shape(lambda state: watched(lambda: logits_mean(state), None), state)
    names = [*layers, *seen.maxima]
    assert gone is None or not any(gone in name for name in names)
    parameters = by_path(state.params)
    for quantity in ("gradient_norm", "update_norm", "effective_rate", "rotation"):
        assert {name.partition(".")[2] for name in names if name.startswith(f"{quantity}.")} == set(parameters)
    matrices = {path for path, leaf in parameters.items() if len(leaf.shape) == 2}
    assert {name.partition(".")[2] for name in names if name.startswith("singular_value_2.")} == matrices
    modules = {name.partition(".")[2] for name in seen.maxima if name.startswith("activation_max.")}
    assert modules >= {"embedding", "block_0", "block_0/attention", "block_0/feedforward", "final_norm"}
    assert not any(module.endswith(("query", "up", "head")) for module in modules), "kernels are no activations"


def varied() -> list[Run]:
    return [tiny(**{"training.seed": seed, "schedule.peak": peak}) for seed, peak in ((1, 0.02), (0, 0.05), (0, 0.1))]


@pytest.mark.parametrize("layout", [Layout(4, 2, devices=2), Layout(4, 1, devices=4, data=2)], ids=str)
def test_packs_and_devices_change_no_diagnostic(layout: Layout, alone: packs.Trained, tmp_path: Path) -> None:
    runs = varied()
    trained = train(runs, layout, tmp_path)
    for step in (0, 3, 4, STEPS):
        expected = values(alone, runs[1], step)
        assert values(trained, runs[1], step) == pytest.approx(expected, rel=1e-8, abs=1e-13)
        assert values(trained, runs[0], step) != pytest.approx(expected, rel=1e-3), "the runs must differ"


def test_runs_train_as_they_do_without(alone: packs.Trained, tmp_path: Path) -> None:
    plain, run = tiny(diagnostics=None), tiny()
    trained = train([plain], ALONE, tmp_path)
    for step in (3, 4, STEPS):
        jax.tree.map(np.testing.assert_array_equal, alone.states[step][run.run_id], trained.states[step][plain.run_id])
    np.testing.assert_allclose(alone.losses(run), trained.losses(plain), rtol=1e-13)
    assert set(trained.diagnostics.name) == {"gradient_norm"}


def test_a_cut_run_goes_on_to_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout, job = Layout(4, 2, devices=2), functools.partial(packs.job, varied())
    wanted = packs.train(job(), layout, tmp_path / "whole").diagnostics
    read = PackRun.read

    def cut(self: PackRun, step: int, measured: Any) -> Any:
        if step > 3:
            raise InterruptedError
        return read(self, step, measured)

    with monkeypatch.context() as patch:
        patch.setattr(PackRun, "read", cut)
        with pytest.raises(InterruptedError):
            packs.train(job(), layout, tmp_path / "cut", checkpoint_seconds=0)
    assert list((tmp_path / "cut" / "checkpoints").iterdir()), "nothing was saved to go on from"
    found = packs.train(job(), layout, tmp_path / "cut", checkpoint_seconds=0).diagnostics
    found, wanted = (table.sort_values(["run_id", "step", "name"]).reset_index(drop=True) for table in (found, wanted))
    pd.testing.assert_frame_equal(found, wanted, check_exact=True)
