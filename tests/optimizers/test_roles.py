"""Roles of a transformer's parameters, the factors of muP, what it refuses, and the factors as they act."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import small_run, windows_of
from scaling.config import Run
from scaling.fields import ConfigError
from scaling.models.transformer import Transformer
from scaling.optimizers.build import build
from scaling.optimizers.roles import role, role_factors
from scaling.parametrization import ADAM_LIKE
from scaling.training.tables import Stream, hyperparameters

BASE = {"width": 16, "heads": 2}
QUERY = "block_0/attention/query/kernel"


def wide_run(**changes: Any) -> Run:
    """Four times the base's width, an untied head."""
    return small_run(**{"model.width": 64, "model.heads": 8, "model.base": BASE, "model.tied_head": False,
                        "optimizer.width_exponent": 0.5, **changes})


def shapes_of(run: Run) -> Any:
    module = Transformer(run.model, 32, jnp.dtype("float32"))
    return jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 8), jnp.int32))["params"]


def paths_of(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def test_roles_of_every_parameter() -> None:
    run = wide_run(**{"model.norm": "layernorm", "model.activation": "swiglu", "model.qk_norm": True})
    found: dict[str, set[str]] = {}
    for path, leaf in paths_of(shapes_of(run)).items():
        found.setdefault(role(path, leaf.shape), set()).add(path)
    assert found.pop("embedding") == {"embedding/embedding", "positions"}
    assert found.pop("readout") == {"head/kernel"}
    attention = {f"block_0/attention/{name}/kernel" for name in ("query", "key", "value", "output")}
    assert found.pop("hidden") == attention | {f"block_0/feedforward/{name}/kernel" for name in ("up", "gate", "down")}
    assert {path.rsplit("/", 1)[1] for path in found.pop("vector")} == {"scale", "bias"}
    assert not found
    with pytest.raises(ValueError, match=r"parameter mixer/weights of shape \(2, 3\): expected a vector, .* its role"):
        role("mixer/weights", (2, 3))


@pytest.mark.parametrize(("method", "embedding", "hidden", "readout", "vector"), [
    *((method, 1.0, 0.25, 1.0, 1.0) for method in ADAM_LIKE), ("sgd", 4.0, 1.0, 4.0, 4.0),
])
def test_rates_by_role_at_four_times_the_base(
    method: str, embedding: float, hidden: float, readout: float, vector: float,
) -> None:
    model = wide_run().model
    expected = {"embedding/embedding": embedding, QUERY: hidden, "head/kernel": readout}
    for path, rate in expected.items():
        assert role_factors(model, method, path, (4, 4)).rate == rate
    assert role_factors(model, method, "final_norm/scale", (4,)).rate == vector


def test_decay_rule_from_256_to_1024() -> None:
    """methods.md A18: rate x 0.25; decay x 2 by the layer-wise rule, x 4 as in the mup package, which keeps rate x
    decay; all else stays.
    """
    model = wide_run(**{"model.width": 1024, "model.heads": 8, "model.base": {"width": 256, "heads": 2}}).model
    factors = role_factors(model, "adamw", QUERY, (1024, 1024))
    assert (factors.rate, factors.decay**0.5, factors.decay**1, factors.decay**0) == (0.25, 2.0, 4.0, 1.0)
    assert factors.rate * factors.decay**0.5 == 0.5
    for path, shape in [("head/kernel", (1024, 32)), ("embedding/embedding", (32, 1024)), ("final_norm/scale", (9,))]:
        assert role_factors(model, "adamw", path, shape)[:2] == (1.0, 1.0)


def test_muon_has_a_rule_for_hidden_matrices_alone() -> None:
    model = wide_run().model
    assert role_factors(model, "muon", QUERY, (64, 64)) == (1.0, 4.0, 1.0)
    with pytest.raises(ConfigError, match=r"optimizer\.groups = 'muon on head/kernel': .*readout.*; treat it as adamw"):
        role_factors(model, "muon", "head/kernel", (64, 32))


@pytest.mark.parametrize("method", [*ADAM_LIKE, "sgd", "lamb"])
def test_nothing_changes_at_the_base_or_without_one(method: str) -> None:
    at_base = wide_run(**{"model.width": 16, "model.heads": 2}).model
    standard = wide_run(**{"model.base": None, "optimizer.width_exponent": None}).model
    for path, shape in [(QUERY, (4, 4)), ("head/kernel", (4, 4)), ("positions", (4, 4)), ("final_norm/scale", (4,))]:
        assert role_factors(standard, method, path, shape)[:2] == (1.0, 1.0)
        if method != "lamb":
            assert role_factors(at_base, method, path, shape)[:2] == (1.0, 1.0)


def first_step(run: Run, params: Any, gradients: Any) -> dict[str, np.ndarray]:
    """Updates of the first step at rate 1."""
    values = hyperparameters(run, windows_of(run), Stream.start(1), np.dtype("float64")).optimizer
    with jax.enable_x64(True):
        transformation = build(run.optimizer, values, np.float64(1.0), run.model)
        updates, _ = transformation.update(gradients, transformation.init(params), params)
        return paths_of(jax.tree.map(np.asarray, updates))


@pytest.mark.parametrize(("exponent", "decay"), [(0.0, 1.0), (0.5, 2.0), (1.0, 4.0)])
def test_adamw_steps_and_decays_by_these_factors(exponent: float, decay: float) -> None:
    """With gradients and parameters of 1 the first AdamW step is rate (1 + decay), up to its ε of 1e-8."""
    run = wide_run(**{"optimizer.width_exponent": exponent, "optimizer.weight_decay": 0.25,
                      "optimizer.clip_norm": None})
    ones = jax.tree.map(lambda leaf: np.ones(leaf.shape), shapes_of(run))
    found = {path: float(update.mean()) for path, update in first_step(run, ones, ones).items()}
    assert found[QUERY] == pytest.approx(-0.25 * (1 + 0.25 * decay), abs=1e-7)
    assert found["block_0/feedforward/down/kernel"] == pytest.approx(found[QUERY], abs=1e-12)
    assert found["head/kernel"] == pytest.approx(-1.25, abs=1e-7)
    assert found["embedding/embedding"] == found["positions"] == pytest.approx(-1, abs=1e-7)
    assert found["final_norm/scale"] == pytest.approx(-1, abs=1e-7)


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("method", [{}, {"optimizer.name": "muon", "optimizer.momentum": 0.95,
                                         "optimizer.form": "original"}], ids=["adamw", "muon"])
def test_rate_times_decay_goes_with_width_as_the_exponent_says(method: dict[str, Any], exponent: float) -> None:
    """Kernels of 1 without a gradient shrink by it alone: 0.25 m^(exponent - 1) at rate 1."""
    run = wide_run(**method, **{"optimizer.width_exponent": exponent, "optimizer.weight_decay": 0.25})
    ones = jax.tree.map(lambda leaf: np.ones(leaf.shape), shapes_of(run))
    found = first_step(run, ones, jax.tree.map(np.zeros_like, ones))
    np.testing.assert_allclose(found[QUERY], -0.25 * 4 ** (exponent - 1), rtol=1e-12)


def test_sgd_steps_by_these_factors() -> None:
    sgd = {"optimizer.name": "sgd", "optimizer.b1": None, "optimizer.b2": None, "optimizer.eps": None,
           "optimizer.momentum": 0.9, "optimizer.form": "heavy_ball", "optimizer.weight_decay": 0.0,
           "optimizer.clip_norm": None}
    run = wide_run(**sgd)
    ones = jax.tree.map(lambda leaf: np.ones(leaf.shape), shapes_of(run))
    found = {path: float(update.mean()) for path, update in first_step(run, ones, ones).items()}
    assert (found[QUERY], found["head/kernel"], found["positions"], found["final_norm/scale"]) == (-1, -4, -4, -4)


LAMB = {"optimizer.name": "lamb"}
MUON = {"optimizer.name": "muon", "optimizer.momentum": 0.95, "optimizer.form": "moonlight"}
SGD = {"optimizer.name": "sgd", "optimizer.momentum": 0.9, "optimizer.form": "heavy_ball", "optimizer.b1": None,
       "optimizer.b2": None, "optimizer.eps": None}


@pytest.mark.parametrize(("changes", "message"), [
    (LAMB, r"optimizer\.name = 'lamb': .*no width rule of lamb is known; use one of these, or leave model\.base out"),
    (MUON, r"optimizer\.form = 'moonlight': expected 'original' for muon with model\.base"),
    (SGD, r"optimizer\.weight_decay = 0\.1: expected 0 for sgd with model\.base"),
    ({"optimizer.width_exponent": None}, r"optimizer\.width_exponent = None: expected how .*; use 1 to keep rate"),
    ({"optimizer.decay_on": "all"}, r"optimizer\.decay_on = 'all': expected 'matrices' with model\.base"),
    ({"model.base": None}, r"optimizer\.width_exponent = 0\.5: expected None without model\.base"),
    ({"model.base": {"width": 16, "heads": 3}}, r"model\.base\.heads = 3: expected a divisor of .* one of \[1, 2, 4"),
    ({"model.base": {"width": 0, "heads": 1}}, r"model\.base\.width = 0: expected from 1 to"),
    ({"model.base": {"width": 16}}, r"model\.base = \['width'\]: expected every key of width, heads; add heads"),
])
def test_refusals(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        wide_run(**changes)
