"""What every online mixer is: three pure functions and a state, as optax has them, so that it rides inside a compiled
step, is vmapped over its settings and saved with the train state. K domains.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from jax import Array

State = Any  # a pytree of arrays

Signal = Literal["excess", "losses", "gradients", "held_out", "bilevel"]
"""What a mixer looks at, nats/token:

excess: [K], mean over a domain's tokens in the batch of max(loss - reference loss, 0);
losses: [K], mean training loss of a domain in the batch;
gradients: [K, K], inner products of the domains' gradients, each clipped to norm 1;
held_out: [K], mean loss of a domain's held-out windows, which are not those of the evaluation;
bilevel: [2, K], training losses by domain of the model and of its companion that sees the training loss alone.
"""


class MixerValues(NamedTuple):
    """Settings in which runs of one program differ; NaN where a mixer does not use one."""

    start_K: Any  # the mixture's shares at step 0
    rate: Any
    smoothing: Any
    memory: Any
    own: Any
    penalty: Any
    pairs_KxK: Any  # skill_it: effect of training on i (row) upon the loss of j; doge: which products count
    seed: Any  # int32


class Observation(NamedTuple):
    """What is seen at one update of a mixer."""

    seen: Array  # as the mixer's `sees` says
    counts_K: Array  # int32, windows of the batch by domain; 0: nothing was seen of it (all 1 for held_out)
    step: Array  # int32, optimizer steps done before
    learning_rate: Array


class Mixer(NamedTuple):
    """A mixer under its settings.

    `acts_on` sampling: weights are shares of the next batch; loss: of the training loss, sum_k w_k mean loss_k, the
    batch being sampled as `data.mixture` says. `update` is called once a step before the gradient (excess), after it
    (losses, gradients, bilevel), or at the steps of `observation_steps`, before any update there (held_out).
    """

    sees: Signal
    acts_on: Literal["sampling", "loss"]
    init: Callable[[], State]
    weights: Callable[[State, Array], Array]  # (state, steps done) -> [K], >= 0, sum 1
    update: Callable[[State, Observation], State]
