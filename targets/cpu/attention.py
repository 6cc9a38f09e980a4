"""Grouped-query attention over any number of new and cached tokens, one query row at a time in exact order.

For each key/value head the keys are transposed once into blocks of 64, so that a vector holds one element of
64 keys. The queries that read this head (its group's heads of every row) then go over them in tiles of four.
Tiles share loads only: each query's scores, sum and output are chains in an order that depends on its own
position alone, so a row is bit-identical in a chunk of any length.
"""

from __future__ import annotations

import operator
from functools import cache

from tvm import tirx
from tvm.script import tirx as T  # noqa: N812

from targets.cpu import vector_math
from targets.cpu.kernel import KERNEL_ATTRS, column_panels
from targets.errors import TargetError

_KEYS = 64
_MASKED = -3.0e38


@cache
def attention(heads: int, kv_heads: int, head_dim: int, scale: float, causal: bool) -> tirx.PrimFunc:
    """PrimFunc ``(q [1, s, heads, d], k [1, t, kv_heads, d], v like k, out like q)``, all float32.

    out = softmax(scale * q k^T) v; with ``causal``, query i sees the first t - s + i + 1 keys (t >= s).
    Raises TargetError when ``heads`` is not a multiple of ``kv_heads``.
    """
    if heads % kv_heads:
        raise TargetError(
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

    @T.inline
    def fold(values, combine, width):  # type: ignore[no-untyped-def]
        for c in T.vectorized(T.int64(width)):
            values[c] = combine(values[c], values[width + c])

    def fold_all(values, combine):  # type: ignore[no-untyped-def]
        width = _KEYS // 2
        while width:
            fold(values, combine, width)
            width //= 2

    @T.inline
    def score(q, keys, scores, first, head, blocks, seen, queries):  # type: ignore[no-untyped-def]
        for block in T.serial(blocks):
            acc = T.alloc_buffer((queries * _KEYS,), "float32", scope="local")
            for r in T.unroll(T.int64(queries)):
                for c in T.vectorized(T.int64(_KEYS)):
                    acc[r * _KEYS + c] = T.float32(0)
            for e in T.serial(T.int64(D)):
                for r in T.unroll(T.int64(queries)):
                    for c in T.vectorized(T.int64(_KEYS)):
                        acc[r * _KEYS + c] = vector_math.fma(
                            q[0, (first + r) // group, head * group + (first + r) % group, e],
                            keys[block, e, c],
                            acc[r * _KEYS + c],
                        )
            for r in T.unroll(T.int64(queries)):
                for c in T.vectorized(T.int64(_KEYS)):
                    scores[r, block * _KEYS + c] = T.Select(
                        block * _KEYS + c < seen((first + r) // group),
                        acc[r * _KEYS + c] * T.float32(scale),
                        T.float32(_MASKED),
                    )

    @T.inline
    def softmax(scores, r, blocks, sums):  # type: ignore[no-untyped-def]
        # Leaves e^(score - highest) in scores and their sum in sums[r].
        highest = T.alloc_buffer((_KEYS,), "float32", scope="local")
        total = T.alloc_buffer((_KEYS,), "float32", scope="local")
        for c in T.vectorized(T.int64(_KEYS)):
            highest[c] = T.float32(_MASKED)
            total[c] = T.float32(0)
        for block in T.serial(blocks):
            for c in T.vectorized(T.int64(_KEYS)):
                highest[c] = T.max(highest[c], scores[r, block * _KEYS + c])
        fold_all(highest, tirx.max)
        for block in T.serial(blocks):
            for c in T.vectorized(T.int64(_KEYS)):
                scores[r, block * _KEYS + c] = vector_math.exp(scores[r, block * _KEYS + c] - highest[0])
            for c in T.vectorized(T.int64(_KEYS)):
                total[c] = total[c] + scores[r, block * _KEYS + c]
        fold_all(total, operator.add)
        sums[r] = total[0]

    @T.inline
    def add_value(acc, scores, v, head, key, r, start, width):  # type: ignore[no-untyped-def]
        for c in T.vectorized(T.int64(width)):
            acc[r * D + start + c] = vector_math.fma(
                scores[r, key], v[0, key, head, start + c], acc[r * D + start + c]
            )

    @T.inline
    def write(out, acc, sums, row, out_head, r, start, width):  # type: ignore[no-untyped-def]
        for c in T.vectorized(T.int64(width)):
            out[0, row, out_head, start + c] = acc[r * D + start + c] / sums[r]

    @T.inline
    def clear(acc, start, width):  # type: ignore[no-untyped-def]
        for c in T.vectorized(T.int64(width)):
            acc[start + c] = T.float32(0)

    def clear_all(acc, queries):  # type: ignore[no-untyped-def]
        for r in range(queries):
            for start, width in panels:
                clear(acc, r * D + start, width)

    def add_values(acc, scores, v, head, key, queries):  # type: ignore[no-untyped-def]
        for r in queries:
            for start, width in panels:
                add_value(acc, scores, v, head, key, r, start, width)

    @T.inline
    def add_own_values(acc, scores, v, head, r, begin, end):  # type: ignore[no-untyped-def]
        for key in T.serial(begin, end):
            add_values(acc, scores, v, head, key, (r,))

    def finish(out, acc, sums, scores, v, first, head, seen, queries):  # type: ignore[no-untyped-def]
        for r in range(queries):
            row = (first + r) // group
            if r:
                add_own_values(acc, scores, v, head, r, seen(first // group), seen(row))
            for start, width in panels:
                write(out, acc, sums, row, head * group + (first + r) % group, r, start, width)

    @T.inline
    def tile(q, keys, v, out, scores, sums, first, head, seen, queries):  # type: ignore[no-untyped-def]
        score(
            q,
            keys,
            scores,
            first,
            head,
            T.ceildiv(seen((first + queries - 1) // group), _KEYS),
            seen,
            queries,
        )
        for r in T.serial(T.int64(queries)):
            softmax(scores, r, T.ceildiv(seen((first + r) // group), _KEYS), sums)
        acc = T.alloc_buffer((queries * D,), "float32", scope="local")
        clear_all(acc, queries)
        # The keys that all queries of the tile see, then the rest of each.
        for key in T.serial(seen(first // group)):
            add_values(acc, scores, v, head, key, range(queries))
        finish(out, acc, sums, scores, v, first, head, seen, queries)

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
            for head in T.serial(T.int64(kv_heads)):
                for block in T.serial(t // _KEYS):
                    transpose_keys(k, keys, head, block, T.int64(_KEYS))
                if t % _KEYS > 0:
                    transpose_keys(k, keys, head, t // _KEYS, t % _KEYS)
                for i in T.serial(s * group // most_queries):
                    tile(q, keys, v, out, scores, sums, i * most_queries, head, seen, most_queries)
                for i in T.serial(s * group % most_queries):
                    tile(
                        q, keys, v, out, scores, sums,
                        s * group // most_queries * most_queries + i, head, seen, 1,
                    )  # fmt: skip

    return attention
