"""Where norms stand: growth of the residual stream with depth, factors of scaled layers, what peri does not see."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from test_transformer import noisy_params

from helpers import small_run
from scaling.model import Model
from scaling.models.dense import dense
from scaling.models.transformer import Block, Transformer

WIDTH, TOKENS, SUBLAYERS = 1024, 64, 24
SAMPLING = 0.02  # of mean squares over 64 tokens of 1024 entries that share their matrices; the largest seen was 1.35 %


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def model_config(placement: str, **changes: Any) -> Model:
    values = {"placement": placement, "norm": "rmsnorm", "width": 12, "heads": 3, "depth": 2, **changes}
    return small_run(**{f"model.{name}": value for name, value in values.items()}).model


class LinearBlock(Block):
    """A block of one sublayer: a matrix of gain 2, which makes variance 4 of variance 1."""

    @nn.compact
    def __call__(self, x_NxD: Array, begins_BxS: Array | None = None) -> Array:
        return self.joined("linear", lambda h_NxD: dense(h_NxD, h_NxD.shape[-1], self.dtype, "matrix", 2.0), x_NxD)


def powers(placement: str) -> np.ndarray:
    """Mean square of the residual stream after each of 24 sublayers, from 1."""
    config, found = model_config(placement), []
    x_NxD = jax.random.normal(jax.random.key(0), (TOKENS, WIDTH), jnp.float32)
    for layer in range(1, SUBLAYERS + 1):
        block = LinearBlock(config, layer, 1, jnp.dtype("float32"))
        x_NxD, _ = block.init_with_output(jax.random.key(layer), x_NxD)
        found.append(float(jnp.mean(jnp.square(x_NxD))))
    return np.array(found)


@pytest.mark.parametrize("placement", ["pre", "post", "peri", "scaled"])
def test_power_of_the_residual_stream_grows_with_depth_as_in_theory(placement: str) -> None:
    """Pre 1 + 4 l; peri 1 + l, of sublayers normed to 1; post 1; scaled 1 + 4 (1 + 1/2 + ... + 1/l)."""
    sublayer = np.arange(1, SUBLAYERS + 1)
    theory = {"pre": 1 + 4 * sublayer, "post": np.ones(SUBLAYERS), "peri": 1 + sublayer,
              "scaled": 1 + 4 * np.cumsum(1 / sublayer)}[placement]
    expected = {"pre": (49, 97), "post": (1, 1), "peri": (13, 25), "scaled": (13.41, 16.10)}[placement]
    assert theory[[11, 23]] == pytest.approx(expected, abs=5e-3)
    np.testing.assert_allclose(powers(placement), theory, rtol=SAMPLING)


def test_scaled_layers_are_divided_by_the_root_of_their_number() -> None:
    x_NxD = jax.random.normal(jax.random.key(0), (5, 12))
    ends = {}
    for placement, layer in [("pre", 1), *(("scaled", layer) for layer in range(1, 13))]:
        block = LinearBlock(model_config(placement), layer, 1, jnp.dtype("float64"))
        ends[placement, layer] = block.init_with_output(jax.random.key(1), x_NxD)[0] - x_NxD
    factors = [float(jnp.vdot(ends["scaled", layer], ends["pre", 1]) / jnp.vdot(ends["pre", 1], ends["pre", 1]))
               for layer in range(1, 13)]
    assert factors[:6] == pytest.approx([1, 0.7071, 0.5774, 0.5, 0.4472, 0.4082], abs=5e-5)
    assert factors[11] == pytest.approx(0.2887, abs=5e-5)


def logits(config: Model, params: Any) -> np.ndarray:
    tokens_BxS = np.random.default_rng(0).integers(0, 13, (2, 7))
    return np.asarray(jax.jit(Transformer(config, 13, jnp.dtype("float64")).apply)({"params": params}, tokens_BxS))


def params_of(config: Model) -> Any:
    return noisy_params(Transformer(config, 13, jnp.dtype("float64")), 7)


def test_one_scaled_layer_is_a_plain_one_and_two_are_not() -> None:
    for depth in (1, 2):
        config = model_config("scaled", depth=depth)
        params = params_of(config)
        gap = np.abs(logits(config, params) - logits(dataclasses.replace(config, placement="pre"), params)).max()
        assert gap == 0 if depth == 1 else gap > 0.1


@pytest.mark.parametrize(("placement", "unseen"), [("peri", True), ("pre", False)])
def test_peri_does_not_see_the_scale_of_the_last_matrix_of_a_sublayer(placement: str, unseen: bool) -> None:
    """Up to ε = 1e-6 beside mean squares above 0.1."""
    config = model_config(placement)
    params = params_of(config)
    larger = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf * (7 if path[-2].key in ("output", "down") else 1) if len(path) > 1 else leaf, params)
    gap = np.abs(logits(config, params) - logits(config, larger)).max()
    assert gap < 1e-4 if unseen else gap > 0.1


@pytest.mark.parametrize(("scaled", "deviation"), [(True, 12**-0.5 / 2), (False, 12**-0.5)])
def test_output_kernels_start_smaller_by_the_root_of_twice_the_depth_or_not(scaled: bool, deviation: float) -> None:
    config = model_config("pre", width=120, depth_scaled_init=scaled)
    init = jax.jit(Transformer(config, 13, jnp.dtype("float32")).init)
    params = init(jax.random.key(0), np.zeros((1, 7), np.int32))["params"]
    found = float(params["block_1"]["attention"]["output"]["kernel"].std()) * 10**0.5
    assert found == pytest.approx(deviation, rel=0.03)
