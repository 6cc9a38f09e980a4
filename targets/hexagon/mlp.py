"""A gated MLP as one kernel: gate and up linear, integer activation, down linear, without leaving the NPU.

Inputs of linears have 16 bits, in two bytes: what exceeds int8 is not clipped, and needs no shadow path.
"""

from __future__ import annotations

from typing import NamedTuple

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T  # noqa: N812 (the name TVM uses everywhere)

from targets.errors import TargetError
from targets.glu import GROUP, SEGMENTS, SHIFTS, depth_shift
from targets.hexagon.glu import GluBuffers, TwoBytes, emit_glu, share_rows
from targets.hexagon.intrin import DotUnit
from targets.hexagon.linear import choose_unit, emit_linear
from targets.hexagon.outliers import emit_sparse
from targets.hexagon.tiling import COLUMNS, Tiling, check_address_space
from targets.outliers import emit_outliers


class MlpShape(NamedTuple):
    """M rows of K inputs, ``channels`` between the linears (padded to ``columns`` each), N outputs."""

    m: int
    k: int
    channels: int
    n: int

    @property
    def columns(self) -> int:
        """Columns of one projection in the packed weight, and of its sums."""
        return -(-self.channels // COLUMNS) * COLUMNS

    @property
    def linears(self) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """(M, K, N) of the two linears."""
        return (self.m, self.k, 2 * self.columns), (self.m, self.channels, self.n)


def mlp_w8a8(
    shape: MlpShape,
    *,
    hvx: bool,
    name: str,
    tilings: tuple[Tiling | None, Tiling | None] = (None, None),
    contexts: int = 1,
) -> tirx.PrimFunc:
    """The kernel ``name(x, gate_up, multipliers, shifts, table, down, sums, h, y)``, all contiguous.

    ``x`` and ``h`` are two arguments each, low and high bytes (`targets.outliers`): ``x`` [m, k] and ``h``
    [m, channels] int8; ``y`` is [m, n] int32; ``gate_up`` and ``down`` packed weights as of
    ``linear_w8a8``; ``multipliers [2, channels] int32``, ``shifts [4] int32`` and ``table [2, 128] int16`` as
    of ``targets.glu``. ``sums [m, 2 * columns] int32`` and ``h`` are scratch memory (LLVM knows of arguments
    that they are aligned and do not overlap). Alignment, ``hvx``, ``tilings`` and ``contexts`` as of
    ``linear_w8a8``.

    Raises TargetError for a shape ``linear_w8a8`` cannot have, or fewer than 128 channels.
    """
    _check_shape(shape)
    units = [choose_unit(*s, hvx, tiling) for s, tiling in zip(shape.linears, tilings, strict=True)]
    if hvx:
        for linear in shape.linears:
            check_address_space(*linear)
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name(name)
        T.func_attr({"global_symbol": name, "tirx.noalias": True, "tirx.is_scheduled": True})
        a = _Arguments.of(shape, 4 * units[0].lanes)
        _emit_linear(a.x, a.gate_up, a.sums, units[0], hvx, contexts)
        emit_glu(a.sums, a.parameters, a.h, depth_shift(shape.k), hvx, contexts)
        _emit_linear(a.h, a.down, a.y, units[1], hvx, contexts)
    return builder.get()


def _emit_linear(
    x: TwoBytes, w: tirx.Buffer, y: tirx.Buffer, unit: DotUnit, hvx: bool, contexts: int
) -> None:
    emit_linear(x.low, w, y, unit, contexts)
    with share_rows(int(y.shape[0]), contexts) as rows:
        if hvx:
            emit_sparse(x.high, w, y, rows)
        else:
            emit_outliers(x.high, w, y, rows, unit.lanes, unit.dot)


class _Arguments(NamedTuple):
    x: TwoBytes
    gate_up: tirx.Buffer
    parameters: GluBuffers
    down: tirx.Buffer
    sums: tirx.Buffer
    h: TwoBytes
    y: tirx.Buffer

    @staticmethod
    def of(shape: MlpShape, align: int) -> _Arguments:
        def argument(name: str, extents: tuple[int, ...], dtype: str) -> tirx.Buffer:
            return T.arg(name, T.buffer(extents, dtype, align=align))

        def activation(name: str, columns: int) -> TwoBytes:
            return TwoBytes(
                *(argument(f"{name}_{half}", (shape.m, columns), "int8") for half in TwoBytes._fields)
            )

        def weight(name: str, k: int, n: int) -> tirx.Buffer:
            return argument(name, (n // COLUMNS, k // 4, COLUMNS, 4), "uint8")

        (m, k, sums), (_, channels, n) = shape.linears
        return _Arguments(
            activation("x", k),
            weight("gate_up", k, sums),
            GluBuffers(
                argument("multipliers", (2, channels), "int32"),
                argument("shifts", (SHIFTS,), "int32"),
                argument("table", (2, SEGMENTS), "int16"),
            ),
            weight("down", channels, n),
            argument("sums", (m, sums), "int32"),
            activation("h", channels),
            argument("y", (m, n), "int32"),
        )


def _check_shape(shape: MlpShape) -> None:
    m, k, channels, n = shape
    if m < 1 or k < 4 or k % 4 or channels < GROUP or channels % 4 or n < COLUMNS or n % COLUMNS:
        raise TargetError(
            f"mlp_w8a8 cannot have the shape M={m}, K={k}, {channels} channels, N={n}: it needs M >= 1, "
            f"multiples of 4 for K and channels, at least {GROUP} channels, and N a multiple of {COLUMNS}"
        )
