"""Grouped-query attention over any number of new and cached tokens, one query row at a time in exact order.

For each key/value head the keys are transposed once into blocks of 64, so that a vector holds one element of
64 keys. The queries that read this head (its group's heads of every row) then go over them in tiles of four.
Tiles share loads only: each query's scores, sum and output are chains in an order that depends on its own
position alone, so a row is bit-identical in a chunk of any length.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import cache

from tvm import tirx
from tvm.script import tirx as T  # noqa: N812

from targets.cpu import vector_math
from targets.cpu.errors import LoweringError
from targets.cpu.kernel import KERNEL_ATTRS, column_panels, register_groups

_KEYS = 64
_LANES = 16
_MASKED = -3.0e38


def _fold(
    combine: Callable[[tirx.Expr, tirx.Expr], tirx.Expr], values: tirx.Var, lane: tirx.Expr
) -> tirx.Expr:
    """One lane of 16 out of a lane of each quarter of 64 values."""
    first, second, third, fourth = (values[lane + i * _LANES] for i in range(_KEYS // _LANES))
    return combine(combine(first, second), combine(third, fourth))


@cache
def attention(
    heads: int, kv_heads: int, head_dim: int, scale: float, causal: bool, window: int = 0
) -> tirx.PrimFunc:
    """PrimFunc ``(q [1, s, heads, d], k [1, t, kv_heads, d], v like k, out like q)``, all float32.

    out = softmax(scale * q k^T) v; with ``causal``, query i sees the first t - s + i + 1 keys (t >= s), and
    with a ``window`` above 0 only the last ``window`` of those; blocks of keys before it cost nothing.
    Raises LoweringError when ``heads`` is not a multiple of ``kv_heads``.
    """
    if heads % kv_heads:
        raise LoweringError(
            f"attention with {heads} query heads: expected a multiple of its {kv_heads} key heads"
        )
    group, D = heads // kv_heads, head_dim
    # Sums of a tile of queries fill half the vector registers at most.
    most_queries = max(1, min(4, 256 // D))
    panels = [
        (start + i * width, width) for start, count, width in column_panels(D, _KEYS) for i in range(count)
    ]

    @T.inline
    def transpose_keys(k, keys, head, block, count):  # type: ignore[no-untyped-def]
        for e in T.serial(T.int64(D)):
            for c in T.serial(count):
                keys[block, e, c] = k[0, block * _KEYS + c, head, e]
            # Padding is masked, but what lies there might be numbers that are slow to multiply.
            for c in T.serial(count, T.int64(_KEYS)):
                keys[block, e, c] = T.float32(0)

    def visible(key, row, seen, since):  # type: ignore[no-untyped-def]
        before_end = key < seen(row)
        return tirx.And(before_end, key >= since(row)) if window else before_end

    @T.inline
    def zero(acc, size):  # type: ignore[no-untyped-def]
        for c in T.vectorized(T.int64(size)):
            acc[c] = T.float32(0)

    @T.inline
    def add_scores(acc, q, keys, first, head, block, e, queries):  # type: ignore[no-untyped-def]
        for r in T.unroll(T.int64(queries)):
            for c in T.vectorized(T.int64(_KEYS)):
                acc[r * _KEYS + c] = vector_math.fma(
                    q[0, (first + r) // group, head * group + (first + r) % group, e],
                    keys[block, e, c],
                    acc[r * _KEYS + c],
                )

    @T.inline
    def write_scores(acc, scores, first, row, block, seen, since, queries):  # type: ignore[no-untyped-def]
        for r in T.unroll(T.int64(queries)):
            for c in T.vectorized(T.int64(_KEYS)):
                scores[row + r, block * _KEYS + c] = T.Select(
                    visible(block * _KEYS + c, (first + r) // group, seen, since),
                    acc[r * _KEYS + c] * T.float32(scale),
                    T.float32(_MASKED),
                )

    def score(q, keys, scores, first, head, skipped, blocks, seen, since, queries):  # type: ignore[no-untyped-def]
        groups = register_groups(queries, _KEYS)
        with T.serial(skipped, blocks) as block:
            accs = [T.alloc_buffer((count * _KEYS,), "float32") for _, count in groups]
            for acc, (_, count) in zip(accs, groups, strict=True):
                zero(acc, count * _KEYS)
            with T.serial(T.int64(D)) as e:
                for acc, (row, count) in zip(accs, groups, strict=True):
                    add_scores(acc, q, keys, first + row, head, block, e, count)
            for acc, (row, count) in zip(accs, groups, strict=True):
                write_scores(acc, scores, first + row, row, block, seen, since, count)

    @T.inline
    def softmax(scores, r, skipped, blocks, sums):  # type: ignore[no-untyped-def]
        # Leaves e^(score - highest) in scores and their sum in sums[r].
        highest = T.alloc_buffer((_KEYS,), "float32")
        total = T.alloc_buffer((_KEYS,), "float32")
        for c in T.vectorized(T.int64(_KEYS)):
            highest[c] = T.float32(_MASKED)
            total[c] = T.float32(0)
        for block in T.serial(skipped, blocks):
            for c in T.vectorized(T.int64(_KEYS)):
                highest[c] = T.max(highest[c], scores[r, block * _KEYS + c])
        for c in T.vectorized(T.int64(_LANES)):
            highest[c] = _fold(T.max, highest, c)
        top = T.alloc_buffer((1,), "float32")
        top[0] = T.call_llvm_pure_intrin(
            "float32", "llvm.vector.reduce.fmax", highest[T.ramp(T.int64(0), 1, _LANES)]
        )
        for block in T.serial(skipped, blocks):
            for c in T.vectorized(T.int64(_KEYS)):
                scores[r, block * _KEYS + c] = vector_math.exp(scores[r, block * _KEYS + c] - top[0])
            for c in T.vectorized(T.int64(_KEYS)):
                total[c] = total[c] + scores[r, block * _KEYS + c]
        for c in T.vectorized(T.int64(_LANES)):
            total[c] = _fold(operator.add, total, c)
        # From the first lane to the last.
        sums[r] = T.call_llvm_pure_intrin(
            "float32", "llvm.vector.reduce.fadd", T.float32(0), total[T.ramp(T.int64(0), 1, _LANES)]
        )

    @T.inline
    def add_panel(acc, scores, v, head, key, r, start, width):  # type: ignore[no-untyped-def]
        for c in T.vectorized(T.int64(width)):
            acc[c] = vector_math.fma(scores[r, key], v[0, key, head, start + c], acc[c])

    @T.inline
    def write_panel(out, acc, sums, row, out_head, r, start, width):  # type: ignore[no-untyped-def]
        for c in T.vectorized(T.int64(width)):
            out[0, row, out_head, start + c] = acc[c] / sums[r]

    def add_values(accs, scores, v, head, begin, end, rows):  # type: ignore[no-untyped-def]
        with T.serial(begin, end) as key:
            for r in rows:
                for acc, (start, width) in zip(accs[r], panels, strict=True):
                    add_panel(acc, scores, v, head, key, r, start, width)

    def tile(q, keys, v, out, scores, sums, first, head, seen, since, queries):  # type: ignore[no-untyped-def]
        skipped = since(first // group) // _KEYS
        most_blocks = T.ceildiv(seen((first + queries - 1) // group), _KEYS)
        score(q, keys, scores, first, head, skipped, most_blocks, seen, since, queries)
        with T.serial(T.int64(queries)) as r:
            softmax(scores, r, skipped, T.ceildiv(seen((first + r) // group), _KEYS), sums)
        # A buffer for each row and panel: small enough for registers, whatever the head's size.
        accs = [[T.alloc_buffer((width,), "float32") for _, width in panels] for _ in range(queries)]
        for row in accs:
            for acc, (_, width) in zip(row, panels, strict=True):
                zero(acc, width)
        # The keys up to the first query's last one, then the rest of each; those outside of a window weigh 0.
        add_values(accs, scores, v, head, skipped * _KEYS, seen(first // group), range(queries))
        for r in range(queries):
            position = first + r
            add_values(accs, scores, v, head, seen(first // group), seen(position // group), [r])
            out_head = head * group + position % group
            for acc, (start, width) in zip(accs[r], panels, strict=True):
                write_panel(out, acc, sums, position // group, out_head, r, start, width)

    @T.prim_func(private=True, s_tir=True)
    def attention(q_handle: T.handle, k_handle: T.handle, v_handle: T.handle, out_handle: T.handle) -> None:
        T.func_attr(KERNEL_ATTRS)
        s, t = T.int64(), T.int64()
        q = T.match_buffer(q_handle, (1, s, heads, D), "float32")
        k = T.match_buffer(k_handle, (1, t, kv_heads, D), "float32")
        v = T.match_buffer(v_handle, (1, t, kv_heads, D), "float32")
        out = T.match_buffer(out_handle, (1, s, heads, D), "float32")
        with T.sblock("root"):
            keys = T.alloc_buffer((T.ceildiv(t, _KEYS), D, _KEYS), "float32")
            scores = T.alloc_buffer((most_queries, T.ceildiv(t, _KEYS) * _KEYS), "float32")
            sums = T.alloc_buffer((most_queries,), "float32")
            seen = T.meta_var(lambda row: t - s + row + 1 if causal else t)
            since = T.meta_var(lambda row: T.max(seen(row) - window, T.int64(0)) if window else T.int64(0))
            for head in T.serial(T.int64(kv_heads)):
                for block in T.serial(t // _KEYS):
                    transpose_keys(k, keys, head, block, T.int64(_KEYS))
                if t % _KEYS > 0:
                    transpose_keys(k, keys, head, t // _KEYS, t % _KEYS)
                for i in T.serial(s * group // most_queries):
                    tile(q, keys, v, out, scores, sums, i * most_queries, head, seen, since, most_queries)
                for i in T.serial(s * group % most_queries):
                    tile(
                        q, keys, v, out, scores, sums,
                        s * group // most_queries * most_queries + i, head, seen, since, 1,
                    )  # fmt: skip

    return attention
