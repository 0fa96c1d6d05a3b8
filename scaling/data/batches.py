"""Batches as a pure function of (key, windows already drawn, windows drawn now): no iterator, no state to save.

Letters: N tokens of all domains, K domains, B slots of a batch, S sequence length (a window holds S + 1 tokens).
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from scaling.data.corpus import Corpus
from scaling.data.permutation import permute

INT32_MAX = 2**31 - 1


class Tokens(NamedTuple):
    """Training tokens of all domains end to end, and where each domain starts; shared by all runs of a device."""

    tokens_N: Array | np.ndarray  # uint8, uint16 or uint32
    start_K: Array | np.ndarray  # int32
    segments_N: Array | np.ndarray | None = None  # int16, of packed windows; see `scaling.data.packed`


def device_tokens(corpus: Corpus) -> Tokens:
    """The corpus's training tokens in one array, still on the host.

    Raises:
      ValueError: the corpus holds more tokens than an int32 index can address.
    """
    sizes = [domain.train.size for domain in corpus.domains]
    check_addressable(sizes)
    start_K = np.cumsum([0, *sizes[:-1]]).astype(np.int32)
    return Tokens(np.concatenate([domain.train for domain in corpus.domains]), start_K)


def check_addressable(sizes: Sequence[int]) -> None:
    """Raise ValueError where domains of these sizes hold more tokens than an int32 index can address."""
    if sum(sizes) > INT32_MAX:
        raise ValueError(
            f"domains: {sum(sizes)} training tokens in all, expected at most {INT32_MAX} (int32 indices); "
            "use fewer or smaller domains, or a tokenizer with a larger vocabulary"
        )


def _first(tokens: Tokens, stride: int, key: Array, windows_K: Array, drawn_K: Array, counts_K: Array, slot: Array
           ) -> Array:
    """Where the window of one slot of a batch starts; a domain's windows start every `stride` tokens. See `batch`."""
    words_W = jax.random.key_data(key).reshape(-1)
    end_K = jnp.cumsum(counts_K)
    domain = jnp.sum(slot >= end_K)
    ordinal = drawn_K[domain] + slot - (end_K[domain] - counts_K[domain])
    limit = windows_K[domain]
    stream_W = jnp.concatenate([words_W, jnp.stack([domain, ordinal // limit]).astype(jnp.uint32)])
    return tokens.start_K[domain] + permute(stream_W, ordinal % limit, limit) * stride


def batch(
    tokens: Tokens, key: Array, windows_K: Array, drawn_K: Array, counts_K: Array, slots_B: Array, sequence: int
) -> Array:
    """Tokens of the batch's slots `slots_B`: int32 [B, sequence + 1]; inputs are [:, :-1], targets [:, 1:].

    With end = cumsum(counts), slot b belongs to the domain k with end_(k-1) <= b < end_k. Its ordinal there is
    o = drawn_k + b - end_(k-1), its window permute((key, k, o // windows_k), o mod windows_k, windows_k): every window
    of a domain comes exactly once an epoch before any comes again, whatever the mixture.

    Args:
      key: typed PRNG key of the run's data stream; the same at every step.
      windows_K: windows a domain may show, >= 1 wherever counts_K > 0 (`Corpus.windows`, `mixing.window_limits`).
      drawn_K: windows each domain gave before this step; drawn_K + counts_K must stay below 2^31.
      counts_K: windows each domain gives now; they sum to the global batch size.
      slots_B: global slot numbers wanted here, all below the global batch size.
    """
    tokens, windows_K, drawn_K, counts_K = jax.tree.map(jnp.asarray, (tokens, windows_K, drawn_K, counts_K))

    def window(slot: Array) -> Array:
        start = _first(tokens, sequence, key, windows_K, drawn_K, counts_K, slot)
        return jax.lax.dynamic_slice_in_dim(tokens.tokens_N, start, sequence + 1)

    return jax.vmap(window)(slots_B).astype(jnp.int32)


def packed_batch(
    tokens: Tokens, key: Array, windows_K: Array, drawn_K: Array, counts_K: Array, slots_B: Array, sequence: int
) -> tuple[Array, Array]:
    """Tokens and segments of the batch's slots, both int32 [B, sequence + 1]: as `batch`, of packed windows, which
    start every sequence + 1 tokens.
    """
    tokens, windows_K, drawn_K, counts_K = jax.tree.map(jnp.asarray, (tokens, windows_K, drawn_K, counts_K))
    segments_N = tokens.segments_N
    assert segments_N is not None

    def window(slot: Array) -> tuple[Array, Array]:
        start = _first(tokens, sequence + 1, key, windows_K, drawn_K, counts_K, slot)
        tokens_T = jax.lax.dynamic_slice_in_dim(tokens.tokens_N, start, sequence + 1)
        segments_T = jax.lax.dynamic_slice_in_dim(segments_N, start, sequence + 1)
        return tokens_T.astype(jnp.int32), segments_T.astype(jnp.int32)

    return jax.vmap(window)(slots_B)
