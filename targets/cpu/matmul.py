"""The float32 matrix product: a register tile that keeps its sums over all of K."""

from __future__ import annotations

from functools import cache

from tvm import tirx
from tvm.script import tirx as T  # noqa: N812

from targets.cpu.kernel import KERNEL_ATTRS, column_panels


@cache
def matmul_f32(K: int, N: int) -> tirx.PrimFunc:
    """PrimFunc ``(x [rows, K] f32, w [K, N] f32, y [rows, N] f32)`` with any number of rows: y = x @ w.

    Each element is a chain of fused multiply-adds in increasing k from 0 in every tile shape, so a row's
    result does not depend on the other rows.
    """

    @T.inline
    def tile(x, w, y, row, col, rows, width):  # type: ignore[no-untyped-def]
        acc = T.alloc_buffer((rows * width,), "float32", scope="local")
        for r in T.unroll(T.int64(rows)):
            for c in T.vectorized(T.int64(width)):
                acc[r * width + c] = T.float32(0)
        for k in T.serial(T.int64(K)):
            for r in T.unroll(T.int64(rows)):
                for c in T.vectorized(T.int64(width)):
                    acc[r * width + c] = T.call_llvm_pure_intrin(
                        "float32", "llvm.fma", x[row + r, k], w[k, col + c], acc[r * width + c]
                    )
        for r in T.unroll(T.int64(rows)):
            for c in T.vectorized(T.int64(width)):
                y[row + r, col + c] = acc[r * width + c]

    @T.inline
    def row_blocks(x, w, y, count, rows, first, width, start, panels):  # type: ignore[no-untyped-def]
        # The panel's weights stay in the second-level cache while all row blocks go over them.
        for j in T.serial(T.int64(panels)):
            for i in T.serial(count):
                tile(x, w, y, first + i * rows, start + j * width, rows, width)

    def all_columns(x, w, y, count, rows, first, widest):  # type: ignore[no-untyped-def]
        for start, panels, width in column_panels(N, widest):
            row_blocks(x, w, y, count, rows, first, width, start, panels)

    @T.prim_func(private=True, s_tir=True)
    def matmul(x_handle: T.handle, w_handle: T.handle, y_handle: T.handle) -> None:
        T.func_attr(KERNEL_ATTRS)
        rows = T.int64()
        x = T.match_buffer(x_handle, (rows, K), "float32")
        w = T.match_buffer(w_handle, (K, N), "float32")
        y = T.match_buffer(y_handle, (rows, N), "float32")
        with T.sblock("root"):
            all_columns(x, w, y, rows // 8, 8, 0, 32)
            all_columns(x, w, y, rows % 8, 1, rows // 8 * 8, 128)

    return matmul
