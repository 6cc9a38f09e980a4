"""What an integer MLP computes besides its linears, on the CPU: the device's bits, any number of rows."""

from __future__ import annotations

from functools import cache

from tvm import tirx
from tvm.script import tirx as T  # noqa: N812

from targets.cpu.kernel import KERNEL_ATTRS
from targets.cpu.linear import LANES, dot_product
from targets.glu import SEGMENTS, SHIFTS, depth_shift, emit_glu_element
from targets.outliers import emit_outliers


@cache
def glu_w8a8(k: int, channels: int) -> tirx.PrimFunc:
    """PrimFunc ``(sums, multipliers, shifts, table, low, high)``: the activation of `targets.glu`.

    ``sums [rows, 2 * columns] int32`` are those of linears of depth ``k``: gate, padding, up, padding. The
    parameters are ``multipliers [2, channels] int32``, ``shifts [4] int32`` and ``table [2, 128] int16``, the
    results ``low`` and ``high [rows, channels] int8``.
    """
    depth = depth_shift(k)

    def element(sums, multipliers, shifts, table, row, channel, half):  # type: ignore[no-untyped-def]
        return emit_glu_element(
            (sums[row, channel], sums[row, channel + half]),
            (multipliers[0, channel], multipliers[1, channel]),
            [shifts[i] for i in range(3)],
            lambda kind, segment: table[kind, segment],
            depth,
        )

    @T.prim_func(private=True, s_tir=True)
    def glu(
        sums_handle: T.handle,
        multipliers_handle: T.handle,
        shifts_handle: T.handle,
        table_handle: T.handle,
        low_handle: T.handle,
        high_handle: T.handle,
    ) -> None:
        T.func_attr(KERNEL_ATTRS)
        rows, columns = T.int64(), T.int64()
        sums = T.match_buffer(sums_handle, (rows, columns), "int32")
        multipliers = T.match_buffer(multipliers_handle, (T.int64(2), T.int64(channels)), "int32")
        shifts = T.match_buffer(shifts_handle, (T.int64(SHIFTS),), "int32")
        table = T.match_buffer(table_handle, (T.int64(2), T.int64(SEGMENTS)), "int16")
        low = T.match_buffer(low_handle, (rows, T.int64(channels)), "int8")
        high = T.match_buffer(high_handle, (rows, T.int64(channels)), "int8")
        with T.sblock("root"):
            for row in T.serial(rows):
                for channel in T.serial(T.int64(channels)):
                    h = T.bind(element(sums, multipliers, shifts, table, row, channel, columns // 2))
                    low[row, channel] = T.Cast("int8", h)
                    high[row, channel] = T.Cast("int8", (h + 128) >> 8)

    return glu


@cache
def outliers_w8a8(vnni: bool) -> tirx.PrimFunc:
    """PrimFunc ``(high [rows, K] int8, w packed, sums [rows, N] int32, y [rows, N] int32)``.

    ``y = sums + (high @ (w - 128)) * 256``, for an almost empty ``high`` (`targets.outliers`).
    """
    dot = dot_product(vnni)

    def add(high, w, y, rows):  # type: ignore[no-untyped-def]
        emit_outliers(high, w, y, (T.int64(0), rows), LANES, dot)

    @T.prim_func(private=True, s_tir=True)
    def outliers(
        high_handle: T.handle, w_handle: T.handle, sums_handle: T.handle, y_handle: T.handle
    ) -> None:
        T.func_attr(KERNEL_ATTRS)
        rows, K, N, panels, depth = T.int64(), T.int64(), T.int64(), T.int64(), T.int64()
        high = T.match_buffer(high_handle, (rows, K), "int8")
        w = T.match_buffer(w_handle, (panels, depth, 32, 4), "uint8")
        sums = T.match_buffer(sums_handle, (rows, N), "int32")
        y = T.match_buffer(y_handle, (rows, N), "int32")
        with T.sblock("root"):
            for row in T.serial(rows):
                for column in T.serial(N):
                    y[row, column] = sums[row, column]
            add(high, w, y, rows)

    return outliers
