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
# The layout of packed weights (see targets.packing): columns of a block, rows in a 32-bit word.
_COLUMNS = 32
_ROWS = 4
_ZERO_POINT = 128


@cache
def shadow_linear(dtype: str, per_channel: bool = False, first: int = 0) -> tirx.PrimFunc:
    """``y = (residual * step) @ w``, with float rows for hot channels and int8 rows for the others.

    PrimFunc ``(residual [rows, K] f32, packed [blocks, K/4, 32, 4] u8, column_scale [N] f32, step [] f32,
    hot_slot [K] i32, hot [H, N] dtype, counts [4] i64, y [rows, N] f32)`` for any number of rows, K, N and H:
    one kernel serves all layers.

        y[i, n] = sum(hot k) residual[i, k] * step[k] * hot[hot_slot[k], n]
                + column_scale[n] * sum(cold k) residual[i, k] * int8[k, n]

    ``residual`` is in int8 steps of the input; ``per_channel``: ``step`` is [K]. Channel k is hot when its
    slot is not negative, cold when it is -1, and left out below. ``int8`` begins at block ``first`` of
    ``packed``. A row's non-zero residuals are gathered into a list; everything after is proportional to its
    length. The sums are chains of fused multiply-adds in an order that depends on the row alone. ``counts``
    grows by the hot rows read, the cold rows read, the residuals looked at and their rows.

    ``dtype``: float16 or float32; raises LoweringError for another.
    """
    if dtype not in ("float16", "float32"):
        raise LoweringError(f"shadow_linear with {dtype} rows: expected float16 or float32")

    @T.inline
    def note(residual, slots, found, ends, i, k):  # type: ignore[no-untyped-def]
        # Hot channels fill the list from the front, cold ones from the back.
        if residual[i, k] != T.float32(0):
            if slots[k] >= 0:
                found[ends[0]] = T.Cast("int32", k)
                ends[0] = ends[0] + T.int64(1)
            if slots[k] == -1:
                ends[1] = ends[1] - T.int64(1)
                found[ends[1]] = T.Cast("int32", k)

    @T.inline
    def gather(residual, bits, slots, found, ends, i, K):  # type: ignore[no-untyped-def]
        ends[0] = T.int64(0)
        ends[1] = K
        for block in T.serial(K // _BLOCK):
            any_bit = T.meta_var(
                T.call_llvm_pure_intrin(
                    "int32", "llvm.vector.reduce.or", bits[T.ramp(i * K + block * _BLOCK, 1, _BLOCK)]
                )
            )
            if any_bit != 0:
                for k in T.serial(block * _BLOCK, block * _BLOCK + _BLOCK):
                    note(residual, slots, found, ends, i, k)
        for k in T.serial(K // _BLOCK * _BLOCK, K):
            note(residual, slots, found, ends, i, k)

    @T.inline
    def zero(sums):  # type: ignore[no-untyped-def]
        for c in T.vectorized(_COLUMNS):
            sums[c] = T.float32(0)

    @T.inline
    def add_hot(residual, step, slots, hot, sums, i, k, begin, columns):  # type: ignore[no-untyped-def]
        for c in columns():
            sums[c] = vector_math.fma(
                residual[i, k] * (step[k] if per_channel else step[()]),
                T.Cast("float32", hot[T.Cast("int64", slots[k]), begin + c]),
                sums[c],
            )

    @T.inline
    def add_cold(residual, words, depth, sums, i, k, panel, columns):  # type: ignore[no-untyped-def]
        for c in columns():
            sums[c] = vector_math.fma(
                residual[i, k],
                T.Cast(
                    "float32",
                    (
                        (
                            words[((first + panel) * depth + k // _ROWS) * _COLUMNS + c]
                            >> T.Cast("int32", k % _ROWS * 8)
                        )
                        & 255
                    )
                    - _ZERO_POINT,
                ),
                sums[c],
            )

    @T.inline
    def store(y, scale, hot_sums, cold_sums, i, begin, columns):  # type: ignore[no-untyped-def]
        for c in columns():
            y[i, begin + c] = vector_math.fma(cold_sums[c], scale[begin + c], hot_sums[c])

    @T.inline
    def panel_of_row(arrays, lists, i, panel, columns, K):  # type: ignore[no-untyped-def]
        residual, words, scale, step, slots, hot, y, depth = T.meta_var(arrays)
        found, ends, hot_sums, cold_sums = T.meta_var(lists)
        zero(hot_sums)
        zero(cold_sums)
        for j in T.serial(ends[0]):
            add_hot(
                residual, step, slots, hot, hot_sums, i, T.Cast("int64", found[j]), panel * _COLUMNS, columns
            )
        for j in T.serial(ends[1], K):
            add_cold(residual, words, depth, cold_sums, i, T.Cast("int64", found[j]), panel, columns)
        store(y, scale, hot_sums, cold_sums, i, panel * _COLUMNS, columns)

    @T.prim_func(private=True, s_tir=True)
    def shadow(
        residual_handle: T.handle,
        packed_handle: T.handle,
        scale_handle: T.handle,
        step_handle: T.handle,
        slots_handle: T.handle,
        hot_handle: T.handle,
        counts_handle: T.handle,
        y_handle: T.handle,
    ) -> None:
        T.func_attr(KERNEL_ATTRS)
        rows, K, N, H, blocks, depth = T.int64(), T.int64(), T.int64(), T.int64(), T.int64(), T.int64()
        residual = T.match_buffer(residual_handle, (rows, K), "float32")
        packed = T.match_buffer(packed_handle, (blocks, depth, _COLUMNS, _ROWS), "uint8")
        scale = T.match_buffer(scale_handle, (N,), "float32")
        step = T.match_buffer(step_handle, (K,) if per_channel else (), "float32")
        slots = T.match_buffer(slots_handle, (K,), "int32")
        hot = T.match_buffer(hot_handle, (H, N), dtype)
        counts = T.match_buffer(counts_handle, (4,), "int64")
        y = T.match_buffer(y_handle, (rows, N), "float32")
        with T.sblock("root"):
            bits = T.decl_buffer((rows * K,), "int32", data=residual.data)
            words = T.decl_buffer((blocks * depth * _COLUMNS,), "int32", data=packed.data)
            found = T.alloc_buffer((K,), "int32")
            ends = T.alloc_buffer((2,), "int64")
            hot_sums = T.alloc_buffer((_COLUMNS,), "float32")
            cold_sums = T.alloc_buffer((_COLUMNS,), "float32")
            arrays = T.meta_var((residual, words, scale, step, slots, hot, y, depth))
            counts[2] = counts[2] + rows * K
            counts[3] = counts[3] + rows
            lists = T.meta_var((found, ends, hot_sums, cold_sums))
            for i in T.serial(rows):
                gather(residual, bits, slots, found, ends, i, K)
                counts[0] = counts[0] + ends[0]
                counts[1] = counts[1] + K - ends[1]
                for panel in T.serial(N // _COLUMNS):
                    panel_of_row(arrays, lists, i, panel, lambda: T.vectorized(T.int64(_COLUMNS)), K)
                for panel in T.serial(N // _COLUMNS, T.ceildiv(N, _COLUMNS)):
                    panel_of_row(arrays, lists, i, panel, lambda: T.serial(N - N // _COLUMNS * _COLUMNS), K)

    return shadow
