"""The shadow (outlier) linear: a product with a matrix that is almost all zeros."""

from __future__ import annotations

from functools import cache

from tvm import tirx
from tvm.script import tirx as T  # noqa: N812

from targets.cpu.errors import LoweringError
from targets.cpu.kernel import KERNEL_ATTRS, column_panels

_BLOCK = 16


@cache
def shadow_linear(K: int, N: int, dtype: str) -> tirx.PrimFunc:
    """PrimFunc ``(residual [rows, K] f32, w [K, N] dtype, y [rows, N] f32)``: y = residual @ w.

    Costs a look at each residual and one row of ``w`` for each that is not zero. Each output is a chain of
    fused multiply-adds in increasing k over the non-zero residuals of its row alone. ``dtype``: float16 or
    float32.
    Raises LoweringError for another dtype.
    """
    if dtype not in ("float16", "float32"):
        raise LoweringError(f"shadow_linear with {dtype} weights: expected float16 or float32")

    @T.inline
    def add_columns(residual, w, y, row, k, start, count, width):  # type: ignore[no-untyped-def]
        for j in T.serial(T.int64(count)):
            for c in T.vectorized(T.int64(width)):
                y[row, start + j * width + c] = T.call_llvm_pure_intrin(
                    "float32",
                    "llvm.fma",
                    residual[row, k],
                    T.Cast("float32", w[k, start + j * width + c]),
                    y[row, start + j * width + c],
                )

    def add_row(residual, w, y, row, k):  # type: ignore[no-untyped-def]
        for start, count, width in column_panels(N, 64):
            add_columns(residual, w, y, row, k, start, count, width)

    @T.inline
    def add_if_nonzero(residual, w, y, row, k):  # type: ignore[no-untyped-def]
        if residual[row, k] != T.float32(0):
            add_row(residual, w, y, row, k)

    @T.prim_func(private=True, s_tir=True)
    def shadow(residual_handle: T.handle, w_handle: T.handle, y_handle: T.handle) -> None:
        T.func_attr(KERNEL_ATTRS)
        rows = T.int64()
        residual = T.match_buffer(residual_handle, (rows, K), "float32")
        w = T.match_buffer(w_handle, (K, N), dtype)
        y = T.match_buffer(y_handle, (rows, N), "float32")
        with T.sblock("root"):
            bits = T.decl_buffer((rows * K,), "int32", data=residual.data)
            for i in T.serial(rows):
                for j in T.serial(T.int64(N)):
                    y[i, j] = T.float32(0)
                for block in T.serial(T.int64(K // _BLOCK)):
                    if (
                        T.call_llvm_pure_intrin(
                            "int32", "llvm.vector.reduce.or", bits[T.ramp(i * K + block * _BLOCK, 1, _BLOCK)]
                        )
                        != 0
                    ):
                        for k in T.serial(T.int64(_BLOCK)):
                            add_if_nonzero(residual, w, y, i, block * _BLOCK + k)
                for k in T.serial(T.int64(K % _BLOCK)):
                    add_if_nonzero(residual, w, y, i, K // _BLOCK * _BLOCK + k)

    return shadow
