"""The integer gated activation of `targets.glu` on the CPU: the same integers, any number of rows."""

from __future__ import annotations

from functools import cache

from tvm import tirx
from tvm.script import tirx as T  # noqa: N812

from targets.cpu.kernel import KERNEL_ATTRS
from targets.glu import SEGMENTS, SHIFTS, depth_shift, emit_glu_element


@cache
def glu_w8a8(k: int, channels: int) -> tirx.PrimFunc:
    """PrimFunc ``(sums [rows, 2 * columns] int32, multipliers, shifts, table, h [rows, channels] int8)``.

    ``sums`` are those of linears of depth ``k``: gate, padding, up, padding. The parameters are
    ``multipliers [2, channels] int32``, ``shifts [4] int32`` and ``table [2, 128] int16``.
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
        sums_handle: T.handle, m_handle: T.handle, s_handle: T.handle, t_handle: T.handle, h_handle: T.handle
    ) -> None:
        T.func_attr(KERNEL_ATTRS)
        rows, columns = T.int64(), T.int64()
        sums = T.match_buffer(sums_handle, (rows, columns), "int32")
        multipliers = T.match_buffer(m_handle, (T.int64(2), T.int64(channels)), "int32")
        shifts = T.match_buffer(s_handle, (T.int64(SHIFTS),), "int32")
        table = T.match_buffer(t_handle, (T.int64(2), T.int64(SEGMENTS)), "int16")
        h = T.match_buffer(h_handle, (rows, T.int64(channels)), "int8")
        with T.sblock("root"):
            for row in T.serial(rows):
                for channel in T.serial(T.int64(channels)):
                    h[row, channel] = element(sums, multipliers, shifts, table, row, channel, columns // 2)

    return glu
