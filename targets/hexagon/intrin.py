"""The dot-product instructions the integer kernels are made of, as functions from TIR to TIR expressions.

All of them compute ``acc[c] + sum_b(w[c, b] * x[b])`` for b in 0..3 in each lane c, with w unsigned and x
signed, wrapping in int32. HVX calls that vrmpy and AVX512-VNNI vpdpbusd, so one loop nest serves both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import tirx as T  # noqa: N812 (the name TVM uses everywhere)

from targets.hexagon.tiling import Tiling

ALL_BYTES_128 = -0x7F7F7F80
"""The int32 whose four bytes are 128: as a weight it adds 128 times the sum of four activations."""


@dataclass(frozen=True)
class DotUnit:
    """How one kind of processor computes dot products of four bytes, and the tiling it runs fastest.

    ``dot(acc, w, x)``: ``lanes`` int32 accumulators, four weight bytes a lane packed as one int32, and one
    int32 that holds four activation bytes. ``row_sum(acc, x)``, where there is one, adds 128 times the sum of
    four activation bytes to each lane, for ``lanes`` * 4 activations; ``rotate(v, distance)`` moves lanes.
    ``anchor(a, b)``, where there is one, is ``a + b`` in a form LLVM does not look into.
    """

    name: str
    lanes: int
    tiling: Tiling
    dot: Callable[[Expr, Expr, Expr], Expr]
    row_sum: Callable[[Expr, Expr], Expr] | None = None
    rotate: Callable[[Expr, int], Expr] | None = None
    anchor: Callable[[Expr, Expr], Expr] | None = None


def constant(value: int, lanes: int) -> Expr:
    """An int32 vector whose lanes all hold ``value``."""
    return T.broadcast(tirx.const(value, "int32"), lanes)


def call_intrinsic(intrinsic: str, dtype: str, *args: Expr) -> Expr:
    """A call of an LLVM intrinsic without side effects."""
    return T.call_llvm_pure_intrin(T.llvm_lookup_intrinsic_id(intrinsic), *args, dtype=dtype)


def call_hvx(name: str, dtype: str, *args: Expr) -> Expr:
    """A call of an HVX instruction on vectors of 128 bytes."""
    return call_intrinsic(f"llvm.hexagon.V6.{name}.128B", dtype, *args)


def _vrmpy(acc: Expr, w: Expr, x: Expr) -> Expr:
    return call_hvx("vrmpybus.acc", "int32x32", acc, w, x)


def _vrmpy_row_sum(acc: Expr, x: Expr) -> Expr:
    return call_hvx("vrmpybusv.acc", "int32x32", acc, constant(ALL_BYTES_128, 32), x)


def rotate(vector: Expr, distance: int) -> Expr:
    """An HVX vector of 32 int32 whose lanes have moved down by ``distance``."""
    return call_hvx("vror", "int32x32", vector, tirx.const(4 * distance, "int32"))


def hexagon_add(a: Expr, b: Expr) -> Expr:
    """``a + b`` of int32 in a form LLVM does not look into."""
    return call_intrinsic("llvm.hexagon.A2.add", "int32", a, b)


def _vpdpbusd(acc: Expr, w: Expr, x: Expr) -> Expr:
    w_bytes = T.reinterpret(w, dtype="int8x64")
    x_bytes = T.reinterpret(T.broadcast(x, 16), dtype="int8x64")
    return call_intrinsic("llvm.x86.avx512.vpdpbusd.512", "int32x16", acc, w_bytes, x_bytes)


def _multiply_add(acc: Expr, w: Expr, x: Expr) -> Expr:
    for b in range(4):
        w_byte = (w >> constant(8 * b, 16)) & constant(255, 16)
        x_byte = (x << (24 - 8 * b)) >> 24  # the arithmetic shift extends the sign
        acc = acc + w_byte * T.broadcast(x_byte, 16)
    return acc


# Tilings for shapes without a rule or a tuning log of their own; they ran fastest.
HVX = DotUnit("hvx", 32, Tiling(rows=4, blocks=2, unroll=16), _vrmpy, _vrmpy_row_sum, rotate, hexagon_add)
VNNI = DotUnit("vnni", 16, Tiling(rows=4, blocks=2, unroll=1), _vpdpbusd)
GENERIC = DotUnit("generic", 16, Tiling(rows=4, blocks=1, unroll=1), _multiply_add)
