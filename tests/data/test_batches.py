"""Batches against a plain NumPy reading of the definition; epochs are exact for any mixture, limit and resumption."""

from collections import Counter
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling.data.batches import Tokens, batch, device_tokens
from scaling.data.corpus import Corpus, Domain
from scaling.data.mixing import allocate, shares, window_limits
from scaling.data.permutation import permute

SEQUENCE, BATCH, CAPACITY = 3, 8, 200
NAMES = ("a", "b", "c")
compiled = jax.jit(batch, static_argnames="sequence")


def corpus_of(sizes: tuple[int, ...]) -> Corpus:
    """Every training token is its own place among all tokens, so that a window says where it came from."""
    ends = np.cumsum(sizes)
    domains = tuple(
        Domain(name, np.arange(end - size, end, dtype=np.uint16), np.zeros(1, np.uint16))
        for name, size, end in zip(NAMES, sizes, ends, strict=False)
    )
    return Corpus(domains, 2**16, np.ones(2**16, np.int64), "")


def padded(corpus: Corpus) -> Tokens:
    tokens = device_tokens(corpus)
    assert tokens.tokens_N.size <= CAPACITY
    return Tokens(np.resize(tokens.tokens_N, CAPACITY), tokens.start_K)  # one compiled shape for all sizes


def stream(corpus: Corpus, key: jax.Array, windows_K: np.ndarray, drawn_TxK: np.ndarray, counts_TxK: np.ndarray):
    tokens, slots = padded(corpus), np.arange(BATCH)
    rows = [compiled(tokens, key, windows_K, drawn, counts, slots, sequence=SEQUENCE)
            for drawn, counts in zip(drawn_TxK, counts_TxK, strict=True)]
    return np.stack(rows)


sizes = st.tuples(*[st.integers(SEQUENCE + 1, 60)] * 3)
weights = st.tuples(*[st.integers(0, 9)] * 3).filter(any)


@settings(deadline=None, max_examples=40)
@given(sizes=sizes, weights=weights, seed=st.integers(0, 2**31), steps=st.integers(1, 12), data=st.data())
def test_every_window_once_an_epoch_before_any_repeats(sizes, weights, seed, steps, data) -> None:
    corpus = corpus_of(sizes)
    held = corpus.windows(SEQUENCE)
    limits = {name: data.draw(st.integers(SEQUENCE, SEQUENCE * int(most)))
              for name, most in zip(NAMES, held, strict=True)}
    windows = window_limits(held, limits, NAMES, SEQUENCE)
    mixture = {name: weight / sum(weights) for name, weight in zip(NAMES, weights, strict=True)}
    drawn, counts = allocate(shares(mixture, steps, NAMES), BATCH)
    rows = stream(corpus, jax.random.key(seed), windows, drawn, counts)
    assert (np.diff(rows, axis=2) == 1).all()  # contiguous text
    start_K = device_tokens(corpus).start_K
    for domain, limit in enumerate(windows):
        first = start_K[domain]
        inside = rows[(rows[..., 0] >= first) & (rows[..., 0] < first + sizes[domain] - SEQUENCE)]
        assert len(inside) == counts[:, domain].sum()
        ids, rest = np.divmod(inside[:, 0] - first, SEQUENCE)
        assert (rest == 0).all()
        assert ids.max(initial=0) < limit  # the unique-token limit is a prefix
        for epoch in range(0, len(ids), int(limit)):
            visits = Counter(ids[epoch : epoch + limit].tolist())
            assert max(visits.values()) == 1
        assert sorted(ids[:limit]) == list(range(limit)) or len(ids) < limit


def test_slots_follow_the_definition() -> None:
    corpus = corpus_of((40, 50, 30))
    key, windows = jax.random.key(5), corpus.windows(SEQUENCE)
    drawn, counts = np.array([30, 2, 9]), np.array([3, 0, 5])
    rows = compiled(padded(corpus), key, windows, drawn, counts, np.arange(BATCH), sequence=SEQUENCE)
    words, expected = jax.random.key_data(key), []
    for domain, start in ((0, 0), (2, 90)):
        for rank in range(counts[domain]):
            epoch, within = divmod(int(drawn[domain]) + rank, int(windows[domain]))
            stream_words = jnp.concatenate([words, jnp.array([domain, epoch], jnp.uint32)])
            window = int(permute(stream_words, within, windows[domain]))
            expected.append(start + window * SEQUENCE + np.arange(SEQUENCE + 1))
    np.testing.assert_array_equal(rows, expected)
    assert rows.dtype == np.int32


def test_a_device_that_holds_some_slots_gets_those_rows() -> None:
    corpus = corpus_of((40, 50, 30))
    tokens, windows = padded(corpus), corpus.windows(SEQUENCE)
    drawn, counts = np.array([7, 2, 9]), np.array([3, 1, 4])
    make = partial(compiled, tokens, jax.random.key(1), windows, drawn, counts, sequence=SEQUENCE)
    whole = make(slots_B=np.arange(BATCH))
    np.testing.assert_array_equal(make(slots_B=np.array([6, 0, 3])), whole[np.array([6, 0, 3])])


def test_a_resumed_run_sees_what_the_uninterrupted_one_saw() -> None:
    corpus = corpus_of((40, 50, 30))
    windows = corpus.windows(SEQUENCE)
    drawn, counts = allocate(shares({"a": 0.5, "b": 0.3, "c": 0.2}, 20, NAMES), BATCH)
    whole = stream(corpus, jax.random.key(2), windows, drawn, counts)
    resumed = stream(corpus, jax.random.key(2), windows, drawn[13:], counts[13:])
    np.testing.assert_array_equal(resumed, whole[13:])


def test_a_branch_goes_on_to_windows_its_parent_has_not_seen() -> None:
    corpus = corpus_of((4, 4, 180))
    windows = corpus.windows(SEQUENCE)
    table = shares({"c": 1.0}, 3, NAMES)
    drawn, counts = allocate(table, BATCH)
    parent = stream(corpus, jax.random.key(3), windows, drawn, counts)
    child = stream(corpus, jax.random.key(3), windows, *allocate(table, BATCH, drawn[-1] + counts[-1]))
    assert not set(parent[..., 0].ravel().tolist()) & set(child[..., 0].ravel().tolist())


def test_order_differs_between_keys_domains_and_epochs() -> None:
    corpus = corpus_of((61, 61, 61))
    windows = corpus.windows(SEQUENCE)  # 20 each
    tokens = padded(corpus)

    def order(seed: int, domain: int, epoch: int) -> tuple[int, ...]:
        counts, drawn = np.zeros(3, int), np.full(3, 20 * epoch)
        counts[domain] = 20
        rows = compiled(tokens, jax.random.key(seed), windows, drawn, counts, np.arange(20), sequence=SEQUENCE)
        return tuple((np.asarray(rows)[:, 0] - 61 * domain).tolist())

    orders = [order(*where) for where in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1))]
    assert len({tuple(sorted(one)) for one in orders}) == 1
    assert len(set(orders)) == len(orders)


def test_runs_batched_by_vmap_equal_runs_alone() -> None:
    corpus = corpus_of((40, 50, 30))
    tokens, slots = padded(corpus), np.arange(BATCH)
    keys = jax.random.split(jax.random.key(4), 3)
    windows = np.array([[13, 16, 9], [5, 16, 9], [1, 2, 3]], np.int32)
    counts = np.array([[8, 0, 0], [3, 3, 2], [0, 0, 8]], np.int32)
    drawn = np.array([[0, 0, 0], [9, 1, 0], [0, 0, 100]], np.int32)
    together = jax.jit(jax.vmap(partial(batch, tokens, slots_B=slots, sequence=SEQUENCE)))(keys, windows, drawn, counts)
    for run in range(3):
        alone = compiled(tokens, keys[run], windows[run], drawn[run], counts[run], slots, sequence=SEQUENCE)
        np.testing.assert_array_equal(together[run], alone)


def test_the_largest_ordinals_are_exact() -> None:
    corpus = corpus_of((40, 50, 30))
    windows, last = corpus.windows(SEQUENCE), 2**31 - 1 - BATCH
    drawn, counts = np.array([last, 0, 0]), np.array([BATCH, 0, 0])
    rows = compiled(padded(corpus), jax.random.key(0), windows, drawn, counts, np.arange(BATCH), sequence=SEQUENCE)
    words, image = jax.random.key_data(jax.random.key(0)), jax.jit(permute)
    for rank, row in enumerate(np.asarray(rows)):
        epoch, within = divmod(last + rank, int(windows[0]))
        stream_words = jnp.concatenate([words, jnp.array([0, epoch], jnp.uint32)])
        assert row[0] == int(image(stream_words, within, windows[0])) * SEQUENCE


def test_tokens_of_all_domains_lie_end_to_end() -> None:
    tokens = device_tokens(corpus_of((4, 7, 5)))
    np.testing.assert_array_equal(tokens.tokens_N, np.arange(16))
    np.testing.assert_array_equal(tokens.start_K, [0, 4, 11])
    assert tokens.tokens_N.dtype == np.uint16
    assert tokens.start_K.dtype == np.int32


def test_more_tokens_than_an_int32_addresses_are_refused() -> None:
    endless = np.broadcast_to(np.uint8(1), (2**30,))  # takes no memory
    domains = tuple(Domain(name, endless, endless[:1]) for name in ("a", "b"))
    with pytest.raises(ValueError, match=r"domains: 2147483648 training tokens in all, expected at most 2147483647"):
        device_tokens(Corpus(domains, 256, np.ones(256, np.int64), ""))
