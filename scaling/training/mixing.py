"""What an online mixer adds to a run: its settings, its state, and the windows that its shares come to. K domains."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from scaling.config import Run
from scaling.data.mixers.build import build
from scaling.data.mixers.mixer import Mixer, MixerValues

GOLDEN = 2654435769  # 2**32 over the golden ratio: multiples of it spread most evenly


class MixingInputs(NamedTuple):
    """Values of one run that its mixer takes."""

    values: MixerValues
    drawn_K: Any  # int32, windows that each domain gave before the run's first step


class MixingState(NamedTuple):
    """What a mixer carries from step to step."""

    mixer: Any
    drawn_K: Array  # int32; of mixers that act on sampling
    weight_sum_K: Array  # over steps
    companion: Any  # doremi: the reference's parameters; bilevel: the second model and its optimizer state; else ()


class ObjectiveValues(NamedTuple):
    """Values of one run that its objective takes."""

    domain_weights_K: Any
    temperature: Any
    uniform_for: Any  # int32 steps


def mixer_of(program: Run, inputs: MixingInputs) -> Mixer:
    """The mixer of a program under a run's settings."""
    assert program.mixer is not None
    return build(program.mixer, inputs.values)


def blank_inputs(program: Run) -> Any:
    """Inputs of the right shapes, for what depends on shapes alone; () without a mixer."""
    if program.mixer is None:
        return ()
    domains, number = len(program.data.names), jnp.promote_types(program.training.dtype, jnp.float32)
    one, by_domain = np.zeros((), number), np.full(domains, 1 / domains, number)
    values = MixerValues(by_domain, one, one, one, one, one, np.zeros((domains, domains), number), np.int32(0))
    return MixingInputs(values, np.zeros(domains, np.int32))


def initial_mixing(program: Run, inputs: MixingInputs, companion: Any) -> MixingState:
    """State before the first step."""
    start_K = jnp.asarray(inputs.values.start_K)
    mixer = mixer_of(program, inputs).init()
    return MixingState(mixer, jnp.asarray(inputs.drawn_K), jnp.zeros_like(start_K), companion)


def whole_windows(shares_K: Array, batch: int, step: Array) -> Array:
    """Windows of each domain in one batch: int32 [K], each within 1 of batch × share, `batch` in all, and over steps
    batch × share in the mean, whatever the shares do: systematic sampling, the step of floor(batch Σ_{j<=k} w_j + u_t)
    at k, with u_t the multiples of the golden ratio less their whole parts. A share of 0 gives none.
    """
    u = (step.astype(jnp.uint32) * jnp.uint32(GOLDEN)).astype(shares_K.dtype) / 2.0**32
    u = jnp.minimum(u, 1 - jnp.finfo(shares_K.dtype).eps)
    cumulative_K = jnp.cumsum(shares_K)
    edges_K = jnp.floor(batch * (cumulative_K / cumulative_K[-1]) + u).astype(jnp.int32)
    return jnp.diff(jnp.minimum(edges_K, batch), prepend=0)  # batch + u may round up to batch + 1
