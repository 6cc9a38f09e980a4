"""The integer linear of the CPU: exact, any number of rows, in the weight layout of the device kernels."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from tvm import tirx
from tvm.script import tirx as T  # noqa: N812

from targets.cpu.kernel import KERNEL_ATTRS, register_groups

# An int32 vector of 16 columns: half a panel of the packed weights.
LANES = 16
_PANEL = 32

Dot = Callable[[tirx.Expr, tirx.Expr, tirx.Expr], tirx.Expr]


def _dot_vnni(acc: tirx.Expr, weights: tirx.Expr, activations: tirx.Expr) -> tirx.Expr:
    return tirx.call_llvm_pure_intrin(
        "int32x16",
        "llvm.x86.avx512.vpdpbusd.512",
        acc,
        tirx.reinterpret("uint8x64", weights),
        tirx.reinterpret("int8x64", tirx.Broadcast(activations, LANES)),
    )


def _dot_plain(acc: tirx.Expr, weights: tirx.Expr, activations: tirx.Expr) -> tirx.Expr:
    for byte in range(4):
        # Shifting up first makes the shift down extend the sign.
        activation = (activations << (24 - 8 * byte)) >> 24
        weight = (weights >> tirx.Broadcast(tirx.const(8 * byte, "int32"), LANES)) & tirx.Broadcast(
            tirx.const(255, "int32"), LANES
        )
        acc = acc + weight * tirx.Broadcast(activation, LANES)
    return acc


def dot_product(vnni: bool) -> Dot:
    """``dot(acc, weights, four activations)``: ``LANES`` int32 plus products of four bytes each."""
    return _dot_vnni if vnni else _dot_plain


@cache
def linear_w8a8(vnni: bool) -> tirx.PrimFunc:
    """PrimFunc ``(x [rows, K] int8, w [N/32, K/4, 32, 4] uint8, y [rows, N] int32)``: y = x @ (w - 128).

    Exact, for any number of rows, K and N: one kernel serves all layers. ``vnni``: use ``vpdpbusd``, which
    takes these signs and never saturates.
    """
    dot = dot_product(vnni)

    @T.inline
    def zero(acc, rows):  # type: ignore[no-untyped-def]
        for r in T.unroll(T.int64(rows)):
            for c in T.vectorized(T.int64(_PANEL)):
                acc[r * _PANEL + c] = 0

    @T.inline
    def step(acc, x, w, row, panel, k, depth, rows):  # type: ignore[no-untyped-def]
        # x and w as int32: four bytes of a row, and a column's four bytes next to those of its neighbours.
        for half in T.unroll(T.int64(2)):
            for r in T.unroll(T.int64(rows)):
                acc[T.ramp((r * 2 + half) * LANES, 1, LANES)] = dot(
                    acc[T.ramp((r * 2 + half) * LANES, 1, LANES)],
                    w[T.ramp(((panel * depth + k) * 2 + half) * LANES, 1, LANES)],
                    x[(row + r) * depth + k],
                )

    @T.inline
    def add(acc, other, rows):  # type: ignore[no-untyped-def]
        for c in T.vectorized(T.int64(rows * _PANEL)):
            acc[c] = acc[c] + other[c]

    @T.inline
    def store(acc, y, row_sums, row, panel, rows):  # type: ignore[no-untyped-def]
        for r in T.unroll(T.int64(rows)):
            for c in T.vectorized(T.int64(_PANEL)):
                y[row + r, panel * _PANEL + c] = acc[r * _PANEL + c] - row_sums[row + r] * 128

    def tile(x, w, y, row_sums, row, panel, depth, rows, parts):  # type: ignore[no-untyped-def]
        # sums[p][g]: the p-th partial sums of the g-th group of rows.
        groups = register_groups(rows, _PANEL)
        sums = [[T.alloc_buffer((count * _PANEL,), "int32") for _, count in groups] for _ in range(parts)]

        def steps(k, part):  # type: ignore[no-untyped-def]
            for acc, (first, count) in zip(sums[part], groups, strict=True):
                step(acc, x, w, row + first, panel, k, depth, count)

        for accs in sums:
            for acc, (_, count) in zip(accs, groups, strict=True):
                zero(acc, count)
        with T.serial(depth // parts) as k:
            for part in range(parts):
                steps(k * parts + part, part)
        if parts > 1:
            with T.serial(depth % parts) as k:
                steps(depth // parts * parts + k, 0)
        for g, (first, count) in enumerate(groups):
            for accs in sums[1:]:
                add(sums[0][g], accs[g], count)
            store(sums[0][g], y, row_sums, row + first, panel, count)

    @T.prim_func(private=True, s_tir=True)
    def linear(x_handle: T.handle, w_handle: T.handle, y_handle: T.handle) -> None:
        T.func_attr(KERNEL_ATTRS)
        rows, K, N, panels, depth = T.int64(), T.int64(), T.int64(), T.int64(), T.int64()
        x = T.match_buffer(x_handle, (rows, K), "int8")
        w = T.match_buffer(w_handle, (panels, depth, _PANEL, 4), "uint8")
        y = T.match_buffer(y_handle, (rows, N), "int32")
        with T.sblock("root"):
            x_words = T.decl_buffer((rows * depth,), "int32", data=x.data)
            w_words = T.decl_buffer((panels * depth * _PANEL,), "int32", data=w.data)
            row_sums = T.alloc_buffer((rows,), "int32")
            for i in T.serial(rows):
                row_sums[i] = 0
                for k in T.serial(K):
                    row_sums[i] = row_sums[i] + T.Cast("int32", x[i, k])
            # A panel stays in the first-level cache while all rows go over it.
            for j in T.parallel(panels):
                for i in T.serial(rows // 8):
                    tile(x_words, w_words, y, row_sums, i * 8, j, depth, 8, 1)
                # Alone, a row needs several partial sums to hide the latency of one.
                for i in T.serial(rows % 8):
                    tile(x_words, w_words, y, row_sums, rows // 8 * 8 + i, j, depth, 1, 4)

    return linear
