"""A stateless pseudorandom permutation of [0, n): any image is computed alone, so a shuffle needs no stored order.

Letters: W words of key.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

ROUNDS = 24
GOLDEN = 0x9E3779B9  # 2^32 over the golden ratio: a Weyl step that keeps successive seeds apart


def mix(word: Array) -> Array:
    """An avalanching bijection of uint32 (the two-multiplication hash `lowbias32` of C. Wellons)."""
    word = (word ^ (word >> 16)) * jnp.uint32(0x7FEB352D)
    word = (word ^ (word >> 15)) * jnp.uint32(0x846CA68B)
    return word ^ (word >> 16)


def permute(key_W: ArrayLike, index: ArrayLike, n: ArrayLike) -> Array:
    """Image of `index` under the permutation of [0, n) that the key's words select: int32 scalar.

    A swap-or-not shuffle of ROUNDS rounds: round r draws K_r in [0, n); the pair {x, (K_r - x) mod n} is swapped or
    not by one hashed bit of its larger member. Each round is an involution of [0, n), so the whole is a bijection for
    every n in [1, 2^31 - 1] and every key, exactly; n and the key may be traced, and `vmap` maps over any argument.

    A point escapes all swaps, and two neighbours stay neighbours, with probability 2^-ROUNDS. K_r is a 32-bit hash
    modulo n, so not quite uniform; each round shrinks every Fourier mode of a point's position by at least
    (1 + n / (pi 2^32)) / 2, and what is left after all rounds is below 3e-6 for every n.

    Source: Hoang, Morris and Rogaway, An enciphering scheme based on a card shuffle, CRYPTO 2012, with a statistical
    hash in place of their cryptographic one.
    """
    n = jnp.asarray(n).astype(jnp.uint32)
    x = jnp.asarray(index).astype(jnp.uint32)
    seed = jnp.uint32(GOLDEN)
    for word in jnp.asarray(key_W).astype(jnp.uint32):
        seed = mix((seed + jnp.uint32(GOLDEN)) ^ word)
    for _ in range(ROUNDS):
        seed, x = _round(seed, x, n)
    return x.astype(jnp.int32)


@jax.jit
def _round(seed: Array, x: Array, n: Array) -> tuple[Array, Array]:
    """The next seed, and the image of x under its round. Jitted, so that a program traces it once, not ROUNDS times."""
    seed = mix(seed + jnp.uint32(GOLDEN))
    partner = seed % n + n - x  # below 2n < 2^32: exact in uint32
    partner = jnp.where(partner >= n, partner - n, partner)
    swap = mix(jnp.maximum(x, partner) ^ mix(~seed)) >> 31
    return seed, jnp.where(swap == 1, partner, x)
