"""Attention against a softmax in double precision, and row by row against itself."""

from __future__ import annotations

import numpy as np
import pytest

from targets.cpu.attention import attention
from targets.cpu.errors import LoweringError
from tests.targets.cpu.helpers import Array, Kernel, snr_db, vectorized_loops, with_threads

# heads, kv_heads, head_dim
LAYOUTS = [(6, 2, 32), (4, 4, 8), (3, 1, 80)]


def reference(q: Array, k: Array, v: Array, scale: float, causal: bool, window: int = 0) -> Array:
    """q [s, heads, d], k and v [t, kv_heads, d], all to float64; ``window``: the last keys a query sees."""
    out = np.empty(q.shape, np.float64)
    group = q.shape[1] // k.shape[1]
    for row in range(len(q)):
        seen = len(k) - len(q) + row + 1 if causal else len(k)
        first = max(0, seen - window) if window else 0
        for head in range(q.shape[1]):
            keys, values = (x[first:seen, head // group].astype(np.float64) for x in (k, v))
            scores = keys @ q[row, head].astype(np.float64) * scale
            weights = np.exp(scores - scores.max())
            out[row, head] = weights @ values / weights.sum()
    return out


def inputs(
    s: int, t: int, heads: int, kv_heads: int, d: int, spread: float = 1.0
) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(s * 1000 + t)
    q = rng.standard_normal((s, heads, d), np.float32) * np.float32(spread)
    return (
        q,
        rng.standard_normal((t, kv_heads, d), np.float32),
        rng.standard_normal((t, kv_heads, d), np.float32),
    )


@pytest.fixture(scope="module")
def small() -> Kernel:
    return Kernel(attention(2, 1, 16, 0.25, causal=True))


def attend(kernel: Kernel, q: Array, k: Array, v: Array) -> Array:
    return kernel(q[None], k[None], v[None], out=np.full((1, *q.shape), np.nan, np.float32))[0]


@pytest.mark.parametrize(("heads", "kv_heads", "d"), LAYOUTS)
def test_causal_attention(heads: int, kv_heads: int, d: int) -> None:
    scale = d**-0.5
    kernel = Kernel(attention(heads, kv_heads, d, scale, causal=True))
    for s, t in ((1, 1), (1, 200), (5, 5), (16, 64), (33, 150)):
        q, k, v = inputs(s, t, heads, kv_heads, d)
        assert snr_db(reference(q, k, v, scale, True), attend(kernel, q, k, v)) > 115, (s, t)

    past, total = 70, 134
    q, k, v = inputs(total, total, heads, kv_heads, d)
    whole = attend(kernel, q[past:], k, v)
    for size in (1, 16, 64):
        chunks = [
            attend(kernel, q[start : start + size], k[: start + size], v[: start + size])
            for start in range(past, total, size)
        ]
        np.testing.assert_array_equal(np.concatenate(chunks), whole, err_msg=f"chunks of {size}")


@pytest.mark.parametrize("window", [1, 70])
def test_sliding_window(window: int) -> None:
    kernel = Kernel(attention(4, 2, 16, 0.25, causal=True, window=window))
    q, k, v = inputs(150, 150, 4, 2, 16)
    whole = attend(kernel, q, k, v)
    assert snr_db(reference(q, k, v, 0.25, True, window), whole) > 115
    for start, end in ((0, 3), (70, 86), (149, 150)):
        np.testing.assert_array_equal(attend(kernel, q[start:end], k[:end], v[:end]), whole[start:end])


def test_attention_without_a_mask() -> None:
    kernel = Kernel(attention(4, 2, 16, 0.5, causal=False))
    for s, t in ((3, 3), (7, 90), (9, 2)):
        q, k, v = inputs(s, t, 4, 2, 16)
        assert snr_db(reference(q, k, v, 0.5, False), attend(kernel, q, k, v)) > 115


def test_large_scores_do_not_overflow(small: Kernel) -> None:
    q, k, v = inputs(12, 80, 2, 1, 16, spread=1200.0)
    assert snr_db(reference(q, k, v, 0.25, True), attend(small, q, k, v)) > 70


def test_keys_that_are_not_seen_have_no_influence(small: Kernel) -> None:
    # In vectors of a row's keys, and of rows.
    for s in (7, 24):
        q, k, v = inputs(s, 72, 2, 1, 16)
        expected = attend(small, q, k, v)[:-1]
        k[-1], v[-1] = np.nan, np.inf
        np.testing.assert_array_equal(attend(small, q, k, v)[:-1], expected)


def test_threads_do_not_change_results() -> None:
    kernel = Kernel(attention(8, 4, 16, 0.25, causal=True))
    for s, t in ((160, 160), (8, 90), (1, 90)):
        q, k, v = inputs(s, t, 8, 4, 16)
        first, second = (with_threads(n, lambda a=(q, k, v): attend(kernel, *a)) for n in (1, 2))
        assert snr_db(reference(q, k, v, 0.25, True), first) > 115
        np.testing.assert_array_equal(first, second)


def test_the_loops_are_vectorized() -> None:
    assert vectorized_loops(attention(6, 2, 32, 0.2, causal=True)) >= 20


def test_heads_that_do_not_form_groups_are_refused() -> None:
    with pytest.raises(LoweringError, match="expected a multiple of its 2 key heads"):
        attention(3, 2, 16, 1.0, causal=True)
