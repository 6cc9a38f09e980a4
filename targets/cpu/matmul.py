"""The float32 matrix product: a register tile that keeps its sums over all of K."""

from __future__ import annotations

from functools import cache

from tvm import tirx
from tvm.script import tirx as T  # noqa: N812

from targets.cpu import vector_math
from targets.cpu.kernel import KERNEL_ATTRS, column_panels, register_groups

# A tile of 8 x 32 sums takes 16 of 32 vector registers, and reuses each weight 8 times.
_ROWS = 8
_PANEL = 32


@cache
def matmul_f32(K: int, N: int) -> tirx.PrimFunc:
    """PrimFunc ``(x [rows, K] f32, w [K, N] f32, y [rows, N] f32)`` with any number of rows: y = x @ w.

    Each element is a chain of fused multiply-adds in increasing k from 0 in every tile shape, so a row's
    result does not depend on the other rows.
    """

    @T.inline
    def zero(acc, rows, width):  # type: ignore[no-untyped-def]
        for r in T.unroll(T.int64(rows)):
            for c in T.vectorized(T.int64(width)):
                acc[r * width + c] = T.float32(0)

    @T.inline
    def step(acc, x, w, k, row, w_col, rows, width):  # type: ignore[no-untyped-def]
        for r in T.unroll(T.int64(rows)):
            for c in T.vectorized(T.int64(width)):
                acc[r * width + c] = vector_math.fma(x[row + r, k], w[k, w_col + c], acc[r * width + c])

    @T.inline
    def store(acc, y, row, y_col, rows, width):  # type: ignore[no-untyped-def]
        for r in T.unroll(T.int64(rows)):
            for c in T.vectorized(T.int64(width)):
                y[row + r, y_col + c] = acc[r * width + c]

    def tile(x, w, y, row, w_col, y_col, rows, width):  # type: ignore[no-untyped-def]
        groups = register_groups(rows, width)
        accs = [T.alloc_buffer((count * width,), "float32") for _, count in groups]
        for acc, (_, count) in zip(accs, groups, strict=True):
            zero(acc, count, width)
        with T.serial(T.int64(K)) as k:
            for acc, (first, count) in zip(accs, groups, strict=True):
                step(acc, x, w, k, row + first, w_col, count, width)
        for acc, (first, count) in zip(accs, groups, strict=True):
            store(acc, y, row + first, y_col, count, width)

    @T.inline
    def row_blocks(x, w, y, panel, blocks, start, panels, width):  # type: ignore[no-untyped-def]
        for j in T.serial(T.int64(panels)):
            # Rows of w that lie a multiple of 4 KiB apart would evict each other from the cache.
            for k in T.serial(T.int64(K)):
                for c in T.vectorized(T.int64(width)):
                    panel[k, c] = w[k, start + j * width + c]
            for i in T.serial(blocks):
                tile(x, panel, y, i * _ROWS, 0, start + j * width, _ROWS, width)

    @T.inline
    def single_rows(x, w, y, first, count, start, panels, width):  # type: ignore[no-untyped-def]
        for j in T.serial(T.int64(panels)):
            for i in T.serial(count):
                tile(x, w, y, first + i, start + j * width, start + j * width, 1, width)

    def all_row_blocks(x, w, y, panel, blocks):  # type: ignore[no-untyped-def]
        for columns in column_panels(N, _PANEL):
            row_blocks(x, w, y, panel, blocks, *columns)

    def all_single_rows(x, w, y, first, count):  # type: ignore[no-untyped-def]
        for columns in column_panels(N, 4 * _PANEL):
            single_rows(x, w, y, first, count, *columns)

    @T.prim_func(private=True, s_tir=True)
    def matmul(x_handle: T.handle, w_handle: T.handle, y_handle: T.handle) -> None:
        T.func_attr(KERNEL_ATTRS)
        rows = T.int64()
        x = T.match_buffer(x_handle, (rows, K), "float32")
        w = T.match_buffer(w_handle, (K, N), "float32")
        y = T.match_buffer(y_handle, (rows, N), "float32")
        with T.sblock("root"):
            if rows >= _ROWS:
                panel = T.alloc_buffer((K, _PANEL), "float32")
                all_row_blocks(x, w, y, panel, rows // _ROWS)
            all_single_rows(x, w, y, rows // _ROWS * _ROWS, rows % _ROWS)

    return matmul
