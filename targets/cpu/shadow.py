"""The shadow (outlier) linear: a product with a matrix that is almost all zeros."""

from __future__ import annotations

from functools import cache

from tvm import tirx
from tvm.script import tirx as T  # noqa: N812

from targets.cpu import vector_math
from targets.cpu.errors import LoweringError
from targets.cpu.kernel import KERNEL_ATTRS

# Residuals looked at together.
_BLOCK = 16
_LANES = 64


@cache
def shadow_linear(dtype: str, hot: bool = False) -> tirx.PrimFunc:
    """PrimFunc ``(residual [rows, K] f32, w [K, N] dtype, y [rows, N] f32)``: y = residual @ w.

    For any number of rows, K and N: one kernel serves all layers. Costs a look at each residual and one row
    of ``w`` for each that is not zero. Each output is a chain of fused multiply-adds in increasing k over the
    non-zero residuals of its row alone. ``dtype``: float16 or float32; raises LoweringError for another.

    ``hot``: after ``w`` come ``hot_slot [K] int32, hot_rows [H, N] dtype, counts [2] int64``. Row k of ``w``
    is then read from ``hot_rows[hot_slot[k]]`` unless the slot is negative, and the kernel adds to ``counts``
    how many rows it read from ``hot_rows`` and from ``w``.
    """
    if dtype not in ("float16", "float32"):
        raise LoweringError(f"shadow_linear with {dtype} weights: expected float16 or float32")

    @T.inline
    def add_row(residual, w, y, row, k, w_row, N):  # type: ignore[no-untyped-def]
        for panel in T.serial(N // _LANES):
            for c in T.vectorized(T.int64(_LANES)):
                y[row, panel * _LANES + c] = vector_math.fma(
                    residual[row, k],
                    T.Cast("float32", w[w_row, panel * _LANES + c]),
                    y[row, panel * _LANES + c],
                )
        for c in T.serial(N // _LANES * _LANES, N):
            y[row, c] = vector_math.fma(residual[row, k], T.Cast("float32", w[w_row, c]), y[row, c])

    @T.inline
    def add_hot_or_cold(residual, w, slots, hot_rows, counts, y, row, k, N):  # type: ignore[no-untyped-def]
        if slots[k] >= 0:
            counts[0] = counts[0] + T.int64(1)
            add_row(residual, hot_rows, y, row, k, T.Cast("int64", slots[k]), N)
        else:
            counts[1] = counts[1] + T.int64(1)
            add_row(residual, w, y, row, k, k, N)

    @T.inline
    def product(residual, y, rows, K, N, add):  # type: ignore[no-untyped-def]
        bits = T.decl_buffer((rows * K,), "int32", data=residual.data)
        for i in T.serial(rows):
            for j in T.serial(N):
                y[i, j] = T.float32(0)
            for block in T.serial(K // _BLOCK):
                any_bit = T.meta_var(
                    T.call_llvm_pure_intrin(
                        "int32", "llvm.vector.reduce.or", bits[T.ramp(i * K + block * _BLOCK, 1, _BLOCK)]
                    )
                )
                if any_bit != 0:
                    for k in T.serial(block * _BLOCK, block * _BLOCK + _BLOCK):
                        if residual[i, k] != T.float32(0):
                            add(i, k)
            for k in T.serial(K // _BLOCK * _BLOCK, K):
                if residual[i, k] != T.float32(0):
                    add(i, k)

    if hot:

        @T.prim_func(private=True, s_tir=True)
        def shadow_with_hot_rows(
            residual_handle: T.handle,
            w_handle: T.handle,
            slots_handle: T.handle,
            hot_handle: T.handle,
            counts_handle: T.handle,
            y_handle: T.handle,
        ) -> None:
            T.func_attr(KERNEL_ATTRS)
            rows, K, N, H = T.int64(), T.int64(), T.int64(), T.int64()
            residual = T.match_buffer(residual_handle, (rows, K), "float32")
            w = T.match_buffer(w_handle, (K, N), dtype)
            slots = T.match_buffer(slots_handle, (K,), "int32")
            hot_rows = T.match_buffer(hot_handle, (H, N), dtype)
            counts = T.match_buffer(counts_handle, (2,), "int64")
            y = T.match_buffer(y_handle, (rows, N), "float32")
            with T.sblock("root"):
                product(
                    residual,
                    y,
                    rows,
                    K,
                    N,
                    lambda i, k: add_hot_or_cold(residual, w, slots, hot_rows, counts, y, i, k, N),
                )

        return shadow_with_hot_rows

    @T.prim_func(private=True, s_tir=True)
    def shadow(residual_handle: T.handle, w_handle: T.handle, y_handle: T.handle) -> None:
        T.func_attr(KERNEL_ATTRS)
        rows, K, N = T.int64(), T.int64(), T.int64()
        residual = T.match_buffer(residual_handle, (rows, K), "float32")
        w = T.match_buffer(w_handle, (K, N), dtype)
        y = T.match_buffer(y_handle, (rows, N), "float32")
        with T.sblock("root"):
            product(residual, y, rows, K, N, lambda i, k: add_row(residual, w, y, i, k, k, N))

    return shadow
