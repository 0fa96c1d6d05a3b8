"""Counts in closed form against the real tree, against XLA's cost analysis, and by hand."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from helpers import small_run
from scaling.model import ACTIVATIONS, NORMS, PLACEMENTS, POSITIONS, RUNNING_NORMS, Model
from scaling.models import attention
from scaling.models.counts import count
from scaling.models.running import split
from scaling.models.transformer import Transformer

VOCABULARY, SEQUENCE = 19, 5
PARTS = [{"activation": activation, "positions": positions, "tied_head": tied_head, "qk_norm": qk_norm}
         for activation, positions, tied_head, qk_norm in
         itertools.product(ACTIVATIONS, POSITIONS, (True, False), (True, False))]
BLOCKS = [{"norm": norm, "placement": placement, "centred": centred, "qk_norm": qk_norm,
           "tied_head": norm != "crmsnorm", "norm_warmup": 5 if norm in RUNNING_NORMS else None}
          for norm, placement, centred, qk_norm in itertools.product(NORMS, PLACEMENTS, (False, True), (False, True))
          if (placement in ("pre", "scaled") or not (centred or norm == "crmsnorm"))
          and (norm == "rmsnorm" or not centred)]


def name_of(changes: dict[str, Any]) -> str:
    return "-".join(f"{value}" for value in changes.values())


def model_config(**changes: Any) -> Model:
    return small_run(**{f"model.{name}": value for name, value in changes.items()}).model


def shapes(model: Model, vocabulary: int, sequence: int) -> Any:
    module = Transformer(model, vocabulary, jnp.dtype("float32"))
    return jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, sequence), jnp.int32))["params"]


@pytest.mark.parametrize("changes", [*PARTS, *BLOCKS], ids=name_of)
def test_closed_forms_equal_the_parameter_tree(changes: dict[str, Any]) -> None:
    """Without the running statistics of norms, which no optimizer sees."""
    model = model_config(width=12, depth=2, heads=3, feedforward_ratio=2.6, **changes)
    tree, statistics = split(shapes(model, VOCABULARY, SEQUENCE))
    assert bool(statistics) == (model.norm in RUNNING_NORMS)
    outside = {"embedding", "positions", "head"}
    counts = count(model, VOCABULARY, SEQUENCE)
    assert counts.total == sum(leaf.size for leaf in jax.tree.leaves(tree))
    inside = {name: part for name, part in tree.items() if name not in outside}
    assert counts.non_embedding == sum(leaf.size for leaf in jax.tree.leaves(inside))
    assert counts.flops_6n_total == 6 * counts.total
    assert counts.flops_6n_non_embedding == 6 * counts.non_embedding


def test_one_model_by_hand() -> None:
    """Width 8, depth 1, feed-forward 32, V 10, S 4, rmsnorm, learned positions, tied head."""
    counts = count(model_config(width=8, depth=1, heads=2, feedforward_ratio=4.0), 10, 4)
    matrices = 4 * 8 * 8 + 2 * 8 * 32  # 768
    assert counts.non_embedding == matrices + 3 * 8 == 792
    assert counts.total == 792 + 10 * 8 + 4 * 8 == 904
    assert counts.flops_6n_total == 5424
    assert counts.flops_6n_non_embedding == 4752
    assert counts.flops_exact == 6 * (768 + 80) + 12 * 4 * 8 == 5472


@pytest.mark.parametrize(("activation", "tied_head"), [("gelu", True), ("swiglu", False)])
def test_exact_flops_are_what_xla_counts(activation: str, tied_head: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Elementwise work is the difference, a few per cent at width 256.

    By convention the count takes attention's S x S in full; the model leaves out blocks of it that the mask hides, so
    XLA is asked about the model with one block.
    """
    monkeypatch.setattr(attention, "MOST_BLOCKS", 1)
    model = model_config(width=256, depth=2, heads=4, feedforward_ratio=4.0, activation=activation, tied_head=tied_head)
    batch, sequence, vocabulary = 2, 256, 512
    module = Transformer(model, vocabulary, jnp.dtype("float32"))

    def loss(params: Any, tokens_BxS: jax.Array) -> jax.Array:
        return jax.nn.logsumexp(module.apply({"params": params}, tokens_BxS), axis=-1).mean()

    tokens = jax.ShapeDtypeStruct((batch, sequence), jnp.int32)
    cost = jax.jit(jax.grad(loss)).lower(shapes(model, vocabulary, sequence), tokens).cost_analysis()
    exact = count(model, vocabulary, sequence).flops_exact
    assert 1.0 < cost["flops"] / (batch * sequence) / exact < 1.05
