"""The transformer against numpy, its causality by gradients, its scale at the start, its arithmetic."""

import functools
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import small_run
from numpy_model import logits as reference_logits
from scaling.model import ACTIVATIONS, Model
from scaling.models.transformer import Transformer

VOCABULARY, SEQUENCE = 13, 7


def model_config(**changes: Any) -> Model:
    values = {"width": 12, "depth": 2, "heads": 3, "feedforward_ratio": 2.5, **changes}
    return small_run(**{f"model.{name}": value for name, value in values.items()}).model


def noisy_params(module: Transformer, sequence: int) -> Any:
    """Random parameters, norm scales and biases too: host arrays of the module's shapes."""
    random = np.random.default_rng(0)
    tokens_1xS = jax.ShapeDtypeStruct((1, sequence), jnp.int32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), tokens_1xS)["params"]

    def draw(path: tuple, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        drawn = random.normal(scale=0.4, size=leaf.shape).astype(leaf.dtype)
        return drawn**2 + 0.1 if path[-1].key == "square" else drawn

    return jax.tree_util.tree_map_with_path(draw, shapes)


VARIANTS = [
    {"activation": activation, "norm": norm, "positions": positions, "tied_head": tied, "qk_norm": qk_norm}
    for (activation, norm), (positions, tied, qk_norm) in zip(
        itertools.product(ACTIVATIONS, ("layernorm", "rmsnorm")),
        [("learned", True, False), ("rotary", False, True), ("rotary", True, False), ("learned", False, True),
         ("learned", True, True), ("rotary", False, False)], strict=True)
]


BLOCKS: list[dict[str, Any]] = [
    {"placement": "post", "norm": "layernorm"},
    {"placement": "peri", "norm": "rmsnorm", "depth_scaled_init": False},
    {"placement": "scaled", "norm": "rmsnorm", "qk_norm": True, "depth": 3},
    {"norm": "rmsnorm", "centred": True, "qk_norm": True},
    {"norm": "crmsnorm", "placement": "scaled", "tied_head": False, "qk_norm": True},
    {"norm": "powernorm", "placement": "peri", "norm_warmup": 3},
    {"norm": "unified", "placement": "post", "norm_warmup": 3, "qk_norm": True},
    {"attention": "lssa", "positions": "rotary"},
    {"attention": "lssar", "placement": "post"},
]


@pytest.mark.parametrize("changes", [*VARIANTS, *BLOCKS],
                         ids=["-".join(map(str, v.values())) for v in [*VARIANTS, *BLOCKS]])
def test_logits_equal_a_plain_numpy_forward_pass(changes: dict[str, Any]) -> None:
    model = model_config(**changes)
    tokens_BxS = np.random.default_rng(0).integers(0, VOCABULARY, (2, SEQUENCE))
    with jax.enable_x64(True):
        module = Transformer(model, VOCABULARY, jnp.dtype("float64"))
        params = noisy_params(module, SEQUENCE)
        logits_NxV = np.asarray(jax.jit(module.apply)({"params": params}, tokens_BxS))
    assert logits_NxV.dtype == np.float64
    expected_BxSxV = np.stack([reference_logits(model, params, tokens_S) for tokens_S in tokens_BxS])
    np.testing.assert_allclose(logits_NxV, expected_BxSxV.reshape(-1, VOCABULARY), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("positions", "qk_norm"), [("learned", False), ("rotary", True)])
def test_a_logit_depends_on_every_earlier_token_and_on_no_later_one(positions: str, qk_norm: bool) -> None:
    """With all tokens distinct, the gradient by a row of the embedding is the gradient by one position's input."""
    model = model_config(depth=1, positions=positions, qk_norm=qk_norm, tied_head=False)
    module = Transformer(model, SEQUENCE, jnp.dtype("float32"))
    tokens_1xS = np.arange(SEQUENCE, dtype=np.int32)[None, ::-1]
    params = noisy_params(module, SEQUENCE)

    def probe(embedding: jax.Array) -> jax.Array:
        changed = {**params, "embedding": {"embedding": embedding}}
        return module.apply({"params": changed}, tokens_1xS) @ np.cos(np.arange(SEQUENCE, dtype=np.float32))

    jacobian_SxVxD = jax.jit(jax.jacrev(probe))(params["embedding"]["embedding"])
    reach_SxS = np.abs(jacobian_SxVxD[:, ::-1]).max(axis=-1)  # row: logit's position; column: token's position
    assert (reach_SxS[np.triu_indices(SEQUENCE, 1)] == 0).all()
    assert (reach_SxS[np.tril_indices(SEQUENCE)] > 1e-6).all()


@functools.cache
def started(tied: bool) -> tuple[float, Any]:
    """Loss on random tokens before any update, and the parameters, at width 128."""
    model = model_config(width=128, depth=1, heads=4, feedforward_ratio=4.0, tied_head=tied)
    module = Transformer(model, 256, jnp.dtype("float32"))
    tokens_BxT = np.random.default_rng(1).integers(0, 256, (8, 65))

    def start(key: jax.Array) -> tuple[jax.Array, Any]:
        logits_NxV, variables = module.init_with_output(key, tokens_BxT[:, :-1])
        return jax.nn.log_softmax(logits_NxV), variables["params"]

    log_p_NxV, params = jax.jit(start)(jax.random.key(0))
    loss_N = -np.take_along_axis(np.asarray(log_p_NxV), tokens_BxT[:, 1:].reshape(-1, 1), axis=1)
    return float(loss_N.mean()), params


@pytest.mark.parametrize(("tied", "excess"), [(True, 0.0), (False, 0.5)])
def test_initial_loss_is_that_of_guessing(tied: bool, excess: float) -> None:
    """log V for a tied head; an untied one has logits of variance 1, which cost half a nat more."""
    assert started(tied)[0] == pytest.approx(math.log(256) + excess, abs=0.1)


def test_output_kernels_shrink_with_depth_and_the_rest_keeps_its_scale() -> None:
    params = started(True)[1]
    block = params["block_0"]
    deviation = {name: float(block[part][name]["kernel"].std())
                 for part, name in [("attention", "query"), ("attention", "output"), ("feedforward", "up"),
                                    ("feedforward", "down")]}
    assert deviation == pytest.approx({
        "query": 128**-0.5, "output": 256**-0.5, "up": 128**-0.5, "down": 1024**-0.5}, rel=0.03)
    assert float(params["embedding"]["embedding"].std()) == pytest.approx(0.02, rel=0.03)


def test_bfloat16_computes_in_bfloat16_and_keeps_float32_parameters() -> None:
    tokens_BxS = np.random.default_rng(1).integers(0, VOCABULARY, (2, SEQUENCE))
    logits = {}
    for dtype in ("bfloat16", "float32"):
        module = Transformer(model_config(depth=1, positions="rotary", qk_norm=True), VOCABULARY, jnp.dtype(dtype))
        params = noisy_params(module, SEQUENCE)
        assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
        logits[dtype] = jax.jit(module.apply)({"params": params}, tokens_BxS)
        assert logits[dtype].dtype == jnp.float32
    difference = np.abs(logits["bfloat16"] - logits["float32"]).max()
    assert 0 < difference < 0.05 * np.abs(logits["float32"]).max() + 0.02
