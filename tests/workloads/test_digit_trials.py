"""Trials of digits: data, models against numpy, packs against single trials, what is refused, what is stored."""

import dataclasses

import jax
import numpy as np
import pytest

from scaling.duration import Duration
from scaling.fields import ConfigError
from scaling.optimizer import Optimizer
from scaling.schedule import Schedule
from scaling.store import Store
from scaling.workloads.digits import HELD_OUT, Digits, Images, digits
from scaling.workloads.models import flops_per_image, initial_params, loss, module_of, patches
from scaling.workloads.race import STEP_SECONDS, race
from scaling.workloads.trainer import Lane, TrialTrainer, steps_of
from scaling.workloads.trial import Trial, Workload, trial_from

ADAMW = Optimizer("adamw", b1=0.9, b2=0.99, eps=1e-8, weight_decay=0.01, decay_convention="coupled",
                  decay_on="matrices", clip_norm=None)
MLP = Workload("mlp", 8, 2, "gelu", None, 16)


def trial(seed: int = 0, peak: float = 1e-2, optimizer: Optimizer = ADAMW, workload: Workload = MLP, steps: int = 12,
          evaluations: int = 3) -> Trial:
    return Trial(workload, optimizer, Schedule("linear", peak, Duration(steps=2), 0.0, None), steps, evaluations, seed)


@pytest.fixture(scope="module")
def few() -> Digits:
    """Images of noise, as many as make an epoch of two and a half batches."""
    rng = np.random.default_rng(0)
    def images(count: int) -> Images:
        return Images(rng.random((count, 64), dtype=np.float32), rng.integers(0, 10, count).astype(np.int32))

    return Digits(images(40), images(16), "none")


def trained(trials: list[Trial], few: Digits, lanes: int) -> np.ndarray:
    """Validation losses of a pack, [R, E + 1]."""
    trainer = TrialTrainer(trials[0].program, few, lanes)
    lane = trainer.put([Lane(np.int32(each.seed), each.values()) for each in trials])
    state = trainer.initial(lane)
    found = [np.asarray(trainer.evaluate(state))]
    for evaluation in range(1, trials[0].evaluations + 1):
        state = trainer.advance(lane, trainer.put([steps_of(each, 40, evaluation) for each in trials]), state)
        found.append(np.asarray(trainer.evaluate(state)))
    return np.stack(found, axis=1)[:len(trials)]


def test_the_split_is_whole_and_held_out_images_are_not_trained_on() -> None:
    found = digits()
    assert len(found.training.labels_N) + len(found.validation.labels_N) == 1797
    assert len(found.validation.labels_N) == 1797 // HELD_OUT
    assert 0 == found.training.pixels_Nx64.min() < found.training.pixels_Nx64.max() == 1
    assert set(found.validation.labels_N) == set(range(10))
    seen = {row.tobytes() for row in found.training.pixels_Nx64}
    assert not any(row.tobytes() in seen for row in found.validation.pixels_Nx64)


def test_packed_trials_equal_single_ones(few: Digits) -> None:
    trials = [trial(seed, peak) for seed in (0, 1) for peak in (1e-3, 3e-2)]
    packed = trained(trials, few, 4)
    alone = np.concatenate([trained([each], few, 1) for each in trials[1:3]])
    np.testing.assert_allclose(packed[1:3], alone, rtol=2e-5)
    assert np.ptp(packed[:, -1]) > 1e-3  # they differ from one another


def test_a_step_of_sgd_is_the_gradient_times_the_rate(few: Digits) -> None:
    sgd = Optimizer("sgd", None, None, None, 0.0, "coupled", "all", None, momentum=0.0, form="heavy_ball")
    each = dataclasses.replace(trial(optimizer=sgd, steps=1, evaluations=1),
                               schedule=Schedule("constant", 0.5, Duration(steps=0), 1.0, None))
    trainer = TrialTrainer(each.program, few, 1)
    lane, steps = trainer.put([Lane(np.int32(0), each.values())]), steps_of(each, 40, 1)
    start = trainer.initial(lane)
    before = jax.tree.map(lambda leaf: np.asarray(leaf[0]), start.params)
    after = trainer.advance(lane, trainer.put([steps]), start).params
    drawn = Images(*(rows[steps.chosen_CxB[0]] for rows in few.training))
    grads = jax.grad(loss, argnums=1)(MLP, before, *drawn)
    jax.tree.map(lambda a, b, g: np.testing.assert_allclose(a[0], b - 0.5 * g, atol=1e-6), after, before, grads)


def test_every_image_is_drawn_once_an_epoch_in_an_order_of_its_own() -> None:
    each = trial(steps=10, evaluations=2)  # of 16 images: four epochs of 40
    chosen = np.concatenate([steps_of(each, 40, part).chosen_CxB for part in (1, 2)]).reshape(4, 40)
    np.testing.assert_array_equal(np.sort(chosen, axis=1), np.tile(np.arange(40), (4, 1)))
    assert (chosen[0] != chosen[1]).any()
    other = steps_of(trial(seed=1, steps=10, evaluations=2), 40, 1).chosen_CxB
    assert (other != steps_of(each, 40, 1).chosen_CxB).any()


def test_patches_are_the_neighbourhoods_of_a_convolution() -> None:
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, 8, 8, 3)).astype(np.float32), rng.normal(size=(3, 3, 3, 5)).astype(np.float32)
    padding = ((1, 1), (1, 1))
    expected = jax.lax.conv_general_dilated(x, kernel, (2, 2), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))
    np.testing.assert_allclose(patches(x, 2) @ kernel.reshape(27, 5), expected, atol=1e-4)


@pytest.mark.parametrize(("workload", "products"), [
    (MLP, 64 * 8 + 8 * 8 + 8 * 10),
    (Workload("convnet", 4, 2, "relu", "rmsnorm", 8), 16 * 9 * 4 + 4 * 36 * 8 + 32 * 10),
    (Workload("autoencoder", 8, 3, "tanh", None, 8), 2 * (64 * 8 + 8 * 4 + 4 * 2)),
])
def test_every_multiplication_is_counted_and_every_weight_is_a_matrix(workload: Workload, products: int) -> None:
    assert flops_per_image(workload) == 6 * products
    params = jax.jit(initial_params, static_argnums=0)(workload, jax.random.key(0))
    assert {leaf.ndim for path, leaf in jax.tree_util.tree_leaves_with_path(params) if path[-1].key == "kernel"} == {2}
    pixels = np.linspace(0, 1, 128, dtype=np.float32).reshape(2, 64)
    logits = module_of(workload).apply({"params": params}, pixels)
    if workload.model == "autoencoder":
        expected = np.mean(np.logaddexp(0, logits) - pixels * logits)
    else:
        expected = np.mean(np.log(np.exp(logits).sum(axis=1)) - np.asarray(logits)[[0, 1], [3, 4]])
    assert loss(workload, params, pixels, np.array([3, 4])) == pytest.approx(float(expected), rel=1e-5)


def test_a_race_stores_every_trial_once_and_trains_only_what_is_missing(few: Digits, tmp_path) -> None:
    store, trials = Store(tmp_path), [trial(0), trial(1), trial(0, peak=float("1e38"))]
    assert race(trials[:1], store, few, {}) == 1
    assert race([*trials, trials[1]], store, few, {}) == 2
    runs, curves, told = (store.read(name) for name in ("runs", "curves", "diagnostics"))
    assert sorted(runs.run_id) == sorted(each.run_id for each in trials)
    by_id = runs.set_index("run_id")
    assert by_id.status[[each.run_id for each in trials]].tolist() == ["done", "done", "diverged"]
    assert 0 < by_id.diverged_at[trials[2].run_id] <= 12
    sound = curves[curves.run_id == trials[0].run_id]
    assert sound.step.tolist() == [0, 4, 8, 12]
    assert sound.loss.iloc[0] == pytest.approx(np.log(10), abs=1.0)
    assert (curves[curves.run_id == trials[2].run_id].step < by_id.diverged_at[trials[2].run_id]).all()
    assert (told.name == STEP_SECONDS).all()
    assert set(told.step) == {8, 12}  # the first call compiles
    assert by_id.flops[trials[0].run_id] == 12 * 16 * flops_per_image(MLP)


def test_a_trial_is_hashed_by_what_it_says_and_shares_a_program_with_its_like() -> None:
    one = trial(0)
    assert one.run_id == trial(0).run_id
    assert len({one.run_id, trial(1).run_id, trial(0, 2e-2).run_id, trial(0, steps=24).run_id}) == 4
    assert one.program == trial(3, 0.5, steps=24).program
    assert one.program != trial(workload=dataclasses.replace(MLP, width=9)).program
    assert trial_from(dataclasses.asdict(one)) == one


@pytest.mark.parametrize(("change", "message"), [
    ({"steps": 10}, r"steps, evaluations = \(10, 3\): expected steps that the evaluations divide"),
    ({"seed": -1}, "seed = -1: expected from 0"),
    ({"schedule": Schedule("wsd", 0.1, Duration(steps=0), 0.0, Duration(steps=2))},
     "schedule.name = 'wsd': expected one of constant, cosine, linear in a trial"),
])
def test_trials_that_cannot_be_trained_are_refused(change, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(trial(), **change)


def test_workloads_that_cannot_be_built_are_refused(few: Digits) -> None:
    with pytest.raises(ConfigError, match="at most 3 for a convnet"):
        Workload("convnet", 8, 4, "relu", None, 8)
    with pytest.raises(ConfigError, match="at least 8 for an autoencoder of depth 4"):
        Workload("autoencoder", 6, 4, "relu", None, 8)
    with pytest.raises(ConfigError, match=r"workload\.norm = 'batchnorm': expected None or one of layernorm, rmsnorm"):
        Workload("mlp", 8, 2, "relu", "batchnorm", 8)
    trainer = TrialTrainer(trial().program, few, 1)
    with pytest.raises(ValueError, match="9 trials do not fit into 8 lanes"):
        trainer.put([np.zeros(1)] * 9)
