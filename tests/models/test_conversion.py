"""LayerNorm against RMSNorm and CRMSNorm: the same function, and for a centred stream the same training."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_transformer import noisy_params

from helpers import small_run
from scaling.fields import ConfigError
from scaling.model import Model
from scaling.models.conversion import converted
from scaling.models.normalization import Normalization, compressed_rms, expanded, rms
from scaling.models.transformer import Transformer

VOCABULARY, SEQUENCE = 13, 7
TOKENS_BxT = np.random.default_rng(0).integers(0, VOCABULARY, (4, SEQUENCE + 1))


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def model_config(**changes: Any) -> Model:
    values = {"width": 12, "depth": 3, "heads": 3, "norm": "layernorm", **changes}
    return small_run(**{f"model.{name}": value for name, value in values.items()}).model


def module_of(model: Model) -> Transformer:
    return Transformer(model, VOCABULARY, jnp.dtype("float64"))


def logits(model: Model, params: Any) -> np.ndarray:
    return np.asarray(jax.jit(module_of(model).apply)({"params": params}, TOKENS_BxT[:, :-1]))


def test_rms_by_hand_whole_and_compressed() -> None:
    x = np.array([1.0, 2.0, -3.0])
    np.testing.assert_allclose(rms(x), x / 2.1602469, rtol=1e-6)
    np.testing.assert_allclose(compressed_rms(x[:2]), [0.46291, 0.92582], atol=1e-5)
    np.testing.assert_allclose(expanded(compressed_rms(x[:2])), rms(x), rtol=1e-14)
    y = Normalization("crmsnorm", jnp.dtype("float64")).init_with_output(jax.random.key(0), x[None, :2])[0]
    np.testing.assert_allclose(y[0], rms(x), rtol=1e-14)


@pytest.mark.parametrize("norm", ["rmsnorm", "crmsnorm"])
@pytest.mark.parametrize("changes", [
    {}, {"placement": "scaled", "positions": "rotary"}, {"tied_head": False, "qk_norm": True, "activation": "swiglu"},
], ids=["tied", "scaled", "qk_norm"])
def test_converted_models_have_the_same_logits(norm: str, changes: dict[str, Any]) -> None:
    model = model_config(**changes)
    params = noisy_params(module_of(model), SEQUENCE)
    other, its = converted(model, params, norm)
    expected = jax.eval_shape(module_of(other).init, jax.random.key(0), TOKENS_BxT[:, :-1])["params"]
    assert jax.tree.map(jnp.shape, its) == jax.tree.map(jnp.shape, expected)
    before = logits(model, params)
    np.testing.assert_allclose(logits(other, its), before, atol=1e-13 * np.abs(before).max())


def test_without_centring_they_differ() -> None:
    """Biases at 0, since a plain rmsnorm has none."""
    model = model_config()
    params = jax.tree_util.tree_map_with_path(lambda path, leaf: leaf * (path[-1].key != "bias"),
                                              noisy_params(module_of(model), SEQUENCE))
    plain = dataclasses.replace(model, norm="rmsnorm")
    assert np.abs(logits(plain, params) - logits(model, params)).max() > 1


def losses(model: Model, params: Any) -> list[float]:
    """Of eleven evaluations about ten updates of AdamW."""
    module, optimizer = module_of(model), optax.adamw(1e-2)

    def loss(params: Any) -> jax.Array:
        logits_NxV = module.apply({"params": params}, TOKENS_BxT[:, :-1])
        return optax.softmax_cross_entropy_with_integer_labels(logits_NxV, TOKENS_BxT[:, 1:].reshape(-1)).mean()

    @jax.jit
    def step(params: Any, state: Any) -> tuple[Any, Any, jax.Array]:
        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    state, found = optimizer.init(params), []
    for _ in range(11):
        params, state, value = step(params, state)
        found.append(float(value))
    return found


def test_a_centred_stream_trains_as_layernorm_and_a_compressed_one_does_not() -> None:
    model = model_config(depth=1)
    params = noisy_params(module_of(model), SEQUENCE)
    before = losses(model, params)
    assert before[0] - before[-1] > 0.5, "training must move the model, or nothing is compared"
    np.testing.assert_allclose(losses(*converted(model, params, "rmsnorm")), before, atol=1e-5, rtol=0)
    compressed = losses(*converted(model, params, "crmsnorm"))
    assert compressed[0] == pytest.approx(before[0], abs=1e-12)
    assert abs(compressed[-1] - before[-1]) > 1e-3


@pytest.mark.parametrize(("changes", "message"), [
    ({"placement": "post"}, r"model.placement = 'post': expected 'pre' or 'scaled' to convert norms exactly"),
    ({"norm": "rmsnorm"}, r"model.norm = 'rmsnorm': expected layernorm"),
])
def test_what_cannot_be_converted_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        converted(model_config(**changes), {}, "rmsnorm")


@pytest.mark.parametrize(("changes", "message"), [
    ({"norm": "layernorm", "centred": True}, r"model.centred = True: expected False with model.norm = 'layernorm'"),
    ({"norm": "rmsnorm", "centred": True, "placement": "peri"},
     r"model.centred = True: expected False with model.placement = 'peri'"),
    ({"norm": "crmsnorm", "tied_head": False, "placement": "post"}, r"model.placement = 'post': expected 'pre' or"),
    ({"norm": "crmsnorm"}, r"model.tied_head = True: expected False with model.norm = 'crmsnorm'"),
])
def test_norms_that_fit_no_stream_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        model_config(**changes)
