"""Parameter groups: the first pattern decides, all parameters are covered, factors and treatments act."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from every_optimizer import optimizer_changes
from hypothesis import given
from hypothesis import strategies as st

from experiments.plan import described_groups
from helpers import small_run, windows_of
from scaling.config import Run
from scaling.fields import ConfigError
from scaling.models.transformer import Transformer
from scaling.optimizer import MATRIX_METHODS
from scaling.optimizers.build import blank_values, build
from scaling.optimizers.groups import groups, labels
from scaling.training.tables import Stream, hyperparameters

THREE = (("embedding/.*|positions", "frozen"), (r"block_\d+/.*kernel", "named"), (".*", "named"))


def shapes(run: Run) -> Any:
    module = Transformer(run.model, 32, jnp.dtype("float32"))
    return jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 16), jnp.int32))["params"]


def toy(**changes: Any) -> Run:
    return small_run(**{"optimizer.clip_norm": None, "optimizer.decay_on": "all", "training.dtype": "float64",
                        **changes})


PARAMS = {"embedding": {"embedding": np.full((3, 2), 2.0)}, "block_0": {"up": {"kernel": np.full((2, 4), 2.0)}},
          "final_norm": {"scale": np.full(2, 2.0)}}
GRADIENTS = jax.tree.map(lambda leaf: np.linspace(-1, 2, leaf.size).reshape(leaf.shape) + 0.01, PARAMS)


def after_one(run: Run, params: Any = PARAMS, rate: float = 0.1) -> Any:
    with jax.enable_x64(True):
        values = hyperparameters(run, windows_of(run), Stream.start(1), np.dtype("float64")).optimizer
        method = build(run.optimizer, values, rate, run.model)
        updates, _ = method.update(GRADIENTS, method.init(params), params)
        return jax.tree.map(np.asarray, optax.apply_updates(params, updates))


def test_factors_multiply_rate_and_decay_of_their_group_and_frozen_stands_still() -> None:
    run = toy(**{"optimizer.groups": THREE, "optimizer.group_rates": (5.0, 0.5, 1.0),
                 "optimizer.group_decays": (5.0, 3.0, 0.0), "optimizer.weight_decay": 0.2})
    found = after_one(run)
    signs = jax.tree.map(np.sign, GRADIENTS)  # Adam's first step
    np.testing.assert_array_equal(found["embedding"]["embedding"], 2.0)
    expected = 2.0 - 0.05 * (signs["block_0"]["up"]["kernel"] + 0.6 * 2.0)
    np.testing.assert_allclose(found["block_0"]["up"]["kernel"], expected, atol=1e-6)
    np.testing.assert_allclose(found["final_norm"]["scale"], 2.0 - 0.1 * signs["final_norm"]["scale"], atol=1e-6)


@pytest.mark.parametrize("clip", [None, 0.5])
def test_one_plain_group_is_no_group(clip: float | None) -> None:
    """Clipping too is over all, not by group."""
    plain = toy(**{"optimizer.clip_norm": clip, "optimizer.eps": 1.0})
    grouped = toy(**{"optimizer.clip_norm": clip, "optimizer.eps": 1.0, "optimizer.groups": (
        ("block_.*", "named"), (".*", "adamw"))})
    for one, other in zip(jax.tree.leaves(after_one(plain)), jax.tree.leaves(after_one(grouped)), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", MATRIX_METHODS)
def test_a_method_of_matrices_has_those_of_blocks_and_adamw_the_rest(name: str) -> None:
    run = small_run(**{**optimizer_changes(name, None if name in ("conda", "soap") else "short"
                                           if name == "galore" else "published" if name == "gradnormlorp"
                                           else "original"), "model.tied_head": False})
    found = groups(run.optimizer, run.model, shapes(run))
    assert list(found) == ["0_named", "1_adamw"]
    attention = {f"block_0/attention/{part}/kernel" for part in ("query", "key", "value", "output")}
    assert set(found["0_named"].shapes) == attention | {f"block_0/feedforward/{part}/kernel" for part in ("up", "down")}
    assert found["1_adamw"].shapes["embedding/embedding"] == (32, 16)
    assert {"head/kernel", "positions", "final_norm/scale"} < set(found["1_adamw"].shapes)


def test_muon_leaves_to_adamw_exactly_what_adamw_does() -> None:
    changes = {**optimizer_changes("muon", "original"), "optimizer.clip_norm": None, "training.dtype": "float64",
               "optimizer.decay_on": "all"}
    muon, adamw = after_one(small_run(**changes)), after_one(toy())
    for name in ("embedding", "final_norm"):
        jax.tree.map(np.testing.assert_array_equal, muon[name], adamw[name])
    assert not np.allclose(muon["block_0"]["up"]["kernel"], adamw["block_0"]["up"]["kernel"])


@given(st.permutations([("embedding/.*", "frozen"), (".*kernel", "named"), (".*", "adamw")]))
def test_every_parameter_is_in_one_group_and_the_first_match_decides(patterns: list) -> None:
    spec = dataclasses.replace(toy().optimizer, groups=tuple(patterns))
    try:
        found = groups(spec, None, PARAMS)
    except ConfigError:  # some pattern stands behind ".*"
        assert patterns[-1][0] != ".*"
        return
    assert patterns[-1][0] == ".*"
    paths = [path for group in found.values() for path in group.shapes]
    assert sorted(paths) == ["block_0/up/kernel", "embedding/embedding", "final_norm/scale"]
    assert jax.tree.structure(labels(found, PARAMS)) == jax.tree.structure(PARAMS)


@pytest.mark.parametrize(("given", "message"), [
    ((("block_.*", "named"),), r"expected a pattern for every parameter, none matches embedding/embedding in whole"),
    ((("block", "named"), (".*", "named")), r"'block': expected a pattern that matches a parameter which none "),
    (((".*", "named"), ("block_.*", "adamw")), r"'block_\.\*': expected a pattern .* none before it"),
])
def test_patterns_that_leave_a_parameter_or_take_none_are_refused(given: tuple, message: str) -> None:
    run = toy(**{"optimizer.groups": given})
    with pytest.raises(ConfigError, match=message):
        build(run.optimizer, blank_values(run.optimizer), 0.1, run.model).init(PARAMS)


def test_a_vector_is_no_matter_for_a_method_of_matrices() -> None:
    run = small_run(**{**optimizer_changes("soap", None), "optimizer.groups": ((".*", "named"),)})
    with pytest.raises(ConfigError, match=r"matrices alone named for soap, not final_norm/scale of shape \(2,\)"):
        build(run.optimizer, blank_values(run.optimizer), 0.1, run.model).init(PARAMS)


def test_at_the_base_width_the_widths_change_nothing_and_beyond_it_they_do() -> None:
    standard = toy(**{"optimizer.decay_on": "matrices"})
    mup = {"optimizer.decay_on": "matrices", "optimizer.width_exponent": 1.0}
    base = toy(**{**mup, "model.base": {"width": 16, "heads": 2}})
    jax.tree.map(np.testing.assert_array_equal, after_one(base), after_one(standard))
    wide = after_one(toy(**{**mup, "model.base": {"width": 4, "heads": 2}}))  # 4 times the base: rate / 4, decay * 4
    signs = np.sign(GRADIENTS["block_0"]["up"]["kernel"])
    np.testing.assert_allclose(wide["block_0"]["up"]["kernel"], 2.0 - 0.025 * signs - 0.1 * 0.1 * 2.0, atol=1e-6)
    np.testing.assert_array_equal(wide["final_norm"]["scale"], after_one(standard)["final_norm"]["scale"])


def test_the_plan_prints_every_group_with_its_factors_and_parameters() -> None:
    groups = {"optimizer.groups": (("embedding/.*", "frozen"), (".*", "named"))}
    runs = [toy(**groups), toy(**groups, **{"optimizer.group_rates": (1.0, 0.25)})]
    assert described_groups(runs, PARAMS).splitlines() == [
        "  'embedding/.*': frozen", "    embedding/embedding 3x2", "  '.*': adamw, rate x 0.25 or 1, decay x 1",
        "    block_0/up/kernel 2x4", "    final_norm/scale 2"]
