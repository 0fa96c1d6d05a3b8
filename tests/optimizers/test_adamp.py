"""AdamP and SGDP by the numbers of their rule, against a plain version with units first, and by what defines them."""

from typing import Any

import jax
import numpy as np
import optax
import pytest
from descents import kernels, trajectory
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling.optimizers.adamp import adamp, sgdp, views

RATE, DECAY, DELTA, RATIO = 0.1, 0.01, 0.1, 0.1


def adam_projected(delta: float = DELTA, decay: float = DECAY) -> optax.GradientTransformation:
    return adamp(RATE, 0.9, 0.999, 1e-8, decay, delta, RATIO)


def sgd_projected(nesterov: bool = False, delta: float = DELTA, momentum: float = 0.9) -> optax.GradientTransformation:
    return sgdp(RATE, momentum, nesterov, 1e-8, DECAY, delta, RATIO)


@pytest.mark.parametrize(("method", "start", "gradients", "expected"), [
    (adam_projected(), [[3, 4], [1, 0]], [[[-4, 3], [0, 2]], [[1, 1], [1, 1]]],
     [[[3.1117, 3.9156], [0.9999, -0.1]], [[3.155535, 3.824578], [0.924486, -0.193118]]]),
    (adam_projected(), [[3, 4], [4, 3]], [[[3, 4], [-4, -3]]], [[[2.8997, 3.8996], [4.0996, 3.0997]]]),
    (sgd_projected(), [[3, 4]], [[[-4, 3]]] * 2, [[[3.397, 3.696]], [[4.12303, 3.08904]]]),
], ids=["channel then none", "layer", "sgdp"])
def test_the_published_rule_by_hand(method: Any, start: list, gradients: list, expected: list) -> None:
    found, _ = trajectory(method, kernels(start)[0], kernels(*gradients))
    for params, values in zip(found, expected, strict=True):
        np.testing.assert_allclose(params["kernel"].T, values, atol=1e-6)


def view_of(p: np.ndarray, g: np.ndarray, key: str = "kernel") -> int:
    with jax.enable_x64(True):
        return int(jax.jit(views)({key: p}, {key: g}, DELTA)[key])


def test_views_of_the_two_cases() -> None:
    (p,), (g, ones) = kernels([[3, 4], [1, 0]]), kernels([[-4, 3], [0, 2]], [[1, 1], [1, 1]])
    assert view_of(p["kernel"], g["kernel"]) == 1
    assert view_of(p["kernel"], ones["kernel"]) == 0
    (p,), (g,) = kernels([[3, 4], [4, 3]]), kernels([[3, 4], [-4, -3]])
    assert view_of(p["kernel"], g["kernel"]) == 2


@pytest.mark.parametrize(("cosines", "view"), [
    ((0.049, -0.049, 0.049), 1), ((0.051, 0.051, 0.051), 0),  # 0.1 / √4 = 0.05 of every unit
    ((0.9, -0.9, 0.084), 2), ((0.9, -0.9, 0.09), 0),  # 0.1 / √12 = 0.0289 of their mean
])
def test_the_bounds_on_the_cosine(cosines: tuple, view: int) -> None:
    c_O = np.array(cosines)
    p_OxI, g_OxI = np.zeros((3, 4)), np.stack([c_O, np.sqrt(1 - c_O**2), 0 * c_O, 0 * c_O], 1)
    p_OxI[:, 0] = 1
    assert view_of(p_OxI.T, g_OxI.T) == view


def test_the_units_of_a_kernel_lie_along_its_last_axis_and_those_of_a_table_along_its_first() -> None:
    """A gradient orthogonal to the weights of every unit, and so of the whole, but of no input."""
    random = np.random.default_rng(0)
    p_IxO, g_IxO = random.normal(size=(2, 5, 3))
    g_IxO -= p_IxO * (p_IxO * g_IxO).sum(0) / (p_IxO**2).sum(0)
    assert (view_of(p_IxO, g_IxO), view_of(p_IxO.T, g_IxO.T)) == (1, 2)
    for key in ("embedding", "positions"):
        assert (view_of(p_IxO, g_IxO, key), view_of(p_IxO.T, g_IxO.T, key)) == (2, 1)


def authors_projection(p: np.ndarray, g: np.ndarray, u: np.ndarray, eps: float) -> tuple[np.ndarray, float, int]:
    """Step, factor of decay and view; axis 0 holds the units."""
    for view, shape in ((1, (len(p), -1)), (2, (1, -1))):
        rows_p, rows_g, rows_u = p.reshape(shape), g.reshape(shape), u.reshape(shape)
        cosines = [abs(a @ b) / (np.linalg.norm(a) * np.linalg.norm(b)) for a, b in zip(rows_p, rows_g, strict=True)]
        if max(cosines) < DELTA / np.sqrt(rows_p.shape[1]):
            units = [a / (np.linalg.norm(a) + eps) for a in rows_p]
            steps = [b - (a @ b) * a for a, b in zip(units, rows_u, strict=True)]
            return np.array(steps).reshape(p.shape), RATIO, view
    return u, 1.0, 0


def gradient_for(p: np.ndarray, step: int, random: np.random.Generator) -> np.ndarray:
    """In turn: orthogonal to every unit; to the whole tensor, and not to its units; to neither."""
    g = random.normal(size=p.shape)
    if step % 3 == 0:
        g += 3 * p
    axes = tuple(range(1, p.ndim))
    if step % 3 == 1:
        g -= p * (p * g).sum(axes, keepdims=True) / (p**2).sum(axes, keepdims=True)
    if step % 3 == 2:
        g += p * (np.arange(len(p)) - 1.0).reshape(-1, *[1] * len(axes)) * 3
        g -= p * (p * g).sum() / (p**2).sum()
    return g


def reference(name: str, p: np.ndarray, steps: int, eps: float) -> tuple[list, list, list]:
    """Weights, gradients and views; units along axis 0, gradients made for the weights as they come."""
    random, m, v = np.random.default_rng(3), np.zeros_like(p), np.zeros_like(p)
    weights, gradients, found = [], [], []
    for t in range(1, steps + 1):
        g = gradient_for(p, t, random)
        if name == "adamp":
            m, v, decay = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2, DECAY
            u = m / (np.sqrt(v) / np.sqrt(1 - 0.999**t) + eps) / (1 - 0.9**t)
        else:
            m, decay = 0.9 * m + g, DECAY / (1 - 0.9)
            u = g + 0.9 * m if name == "nesterov" else m
        u, factor, view = authors_projection(p, g, u, eps)
        p = p * (1 - RATE * decay * factor) - RATE * u
        weights.append(p)
        gradients.append(g)
        found.append(view)
    return weights, gradients, found


@pytest.mark.parametrize("shape", [(3, 7), (4, 3, 3, 2)], ids=["dense", "convolution"])
@pytest.mark.parametrize(("name", "method"), [
    ("adamp", adam_projected()), ("heavy ball", sgd_projected()), ("nesterov", sgd_projected(nesterov=True))])
def test_equals_the_authors_rule_written_plainly_with_units_first(name: str, method: Any, shape: tuple) -> None:
    start = np.random.default_rng(1).normal(size=shape)
    weights, gradients, found = reference(name, start, 9, 1e-8)
    assert found == [1, 2, 0] * 3  # every branch, on known steps
    flax = [{"kernel": np.moveaxis(x, 0, -1)} for x in (start, *gradients)]
    for params, expected in zip(trajectory(method, flax[0], flax[1:])[0], weights, strict=True):
        np.testing.assert_allclose(np.moveaxis(params["kernel"], -1, 0), expected, rtol=1e-12, atol=1e-12)


def test_without_a_view_accepted_they_are_adamw_and_sgd_with_decoupled_decay() -> None:
    random = np.random.default_rng(0)
    start, *gradients = ({"kernel": random.normal(size=(3, 5)), "scale": random.normal(size=4)} for _ in range(7))

    def mask(params: Any) -> Any:
        return {"kernel": True, "scale": False}

    plain = optax.chain(optax.trace(0.9, nesterov=True), optax.add_decayed_weights(DECAY / (1 - 0.9), mask),
                        optax.scale(-RATE))
    for method, other in [
            (adamp(RATE, 0.9, 0.999, 1e-8, DECAY, 0.0, RATIO, mask),
             optax.adamw(RATE, 0.9, 0.999, 1e-8, weight_decay=DECAY, mask=mask)),
            (sgdp(RATE, 0.9, True, 1e-8, DECAY, 0.0, RATIO, mask), plain)]:
        found, expected = (trajectory(each, start, gradients)[0][-1] for each in (method, other))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), found, expected)


def test_vectors_are_never_projected() -> None:
    p, g = np.array([3.0, 4.0]), np.array([-4.0, 3.0])
    assert view_of(p, g, "scale") == 0
    found, _ = trajectory(sgd_projected(momentum=0.0), {"scale": p}, [{"scale": g}])
    np.testing.assert_allclose(found[0]["scale"], p * (1 - RATE * DECAY) - RATE * g, rtol=1e-14)


@jax.jit
def second_step(p_IxO: jax.Array, first_IxO: jax.Array, g_IxO: jax.Array) -> tuple[jax.Array, jax.Array]:
    """AdamP's update after one by another gradient, and its view."""
    method, params, gradients = adamp(RATE, 0.9, 0.999, 1e-14, 0.0, DELTA, RATIO), {"kernel": p_IxO}, {"kernel": g_IxO}
    _, state = method.update({"kernel": first_IxO}, method.init(params), params)
    updates, _ = method.update(gradients, state, params)
    return updates["kernel"], views(params, gradients, DELTA)["kernel"]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), step=st.sampled_from([1, 2]))
def test_a_projected_step_is_orthogonal_to_the_weights(seed: int, step: int) -> None:
    """Of each unit in the channel view, of the tensor in the layer view, with momentum from another gradient."""
    random = np.random.default_rng(seed)
    p_OxI, first_OxI = random.normal(size=(2, 4, 6))
    with jax.enable_x64(True):
        update_IxO, view = second_step(p_OxI.T, first_OxI.T, gradient_for(p_OxI, step, random).T)
    products_O = (p_OxI * np.asarray(update_IxO).T).sum(1)
    assert int(view) == step
    np.testing.assert_allclose(products_O if step == 1 else products_O.sum(), 0, atol=1e-12)
    assert np.abs(update_IxO).max() > 1e-3
