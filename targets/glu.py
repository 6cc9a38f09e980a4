"""The integer gated activation between the linears of an MLP: what it computes, in NumPy and as TIR.

``h = round(act(gate) * up / step)``, 16 bits, from the int32 sums of the gate and up projections, in 32-bit
fixed point, without calibration of its own: all formats follow from the linears' scales. What int8 does not
hold of ``h`` goes to a second byte (`targets.outliers`).

    multiply(a, b) = floor((a * b + 2 ** 30) / 2 ** 31)              (one fractional multiplication of HVX)
    g = multiply(clip(gate) << depth_shift, gate_multiplier)         gate value * 2 ** gate_bits
    u = multiply(clip(up) << depth_shift, up_multiplier)             up value / step, in a format of its own
    c = curve(g), 0 to 32767                                         act(x) / x, piecewise linear over |x| < 8
    p = multiply((g * c + 2 ** 14) >> 15, clip(u) << up_shift)
    h = clip((p + half) >> out_shift, -32768, 32639)

``act(x) / x`` is a smooth step from 0 to 1 for SiLU and both GELUs, so a table of 128 segments of it is exact
to 5e-4 everywhere, however large the values are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import tirx as T  # noqa: N812 (the name TVM uses everywhere)

from targets.errors import TargetError
from targets.outliers import LARGEST

GROUP = 128
"""The fewest channels: kernels compute that many at a time."""
SEGMENTS = 128
SHIFTS = 4
"""Length of the shift vector: table position, up, out, and one unused."""
_CURVE_RANGE = 8.0
_POSITION_BITS = 12
_UP_BITS = 18
_LARGEST = 2**31 - 1


def _silu(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def _gelu(x: float) -> float:
    return (1 + math.erf(x / math.sqrt(2))) / 2


def _gelu_tanh(x: float) -> float:
    return (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2


CURVES: dict[str, Callable[[float], float]] = {"silu": _silu, "gelu": _gelu, "gelu_tanh": _gelu_tanh}
"""Activation -> its value divided by its argument."""


def activation_table(activation: str) -> np.ndarray:
    """[2, 128] int16: ``act(x) / x`` * 32767 at each segment's start, and the rise over the segment.

    Segment i of -64 to 63, at index i modulo 128, starts at x = i / 8. The curve ends at exactly 0 and 1.
    Raises TargetError for an unknown activation.
    """
    if activation not in CURVES:
        raise TargetError(f"activation {activation!r} has no integer form: expected one of {sorted(CURVES)}")
    half = SEGMENTS // 2
    points = [CURVES[activation](i * _CURVE_RANGE / half) for i in range(-half, half + 1)]
    values = np.rint(np.array([0.0, *points[1:-1], 1.0]) * 32767).astype(np.int32)
    return np.roll(np.stack([values[:-1], np.diff(values)]), half, axis=1).astype(np.int16)


def depth_shift(k: int) -> int:
    """How far sums of ``k`` products of int8 can be shifted left within int32.

    With outliers, sums can exceed what int8 inputs reach; they are clipped there.
    """
    return 31 - math.ceil(math.log2(127 * 128 * k + 1))


@dataclass(frozen=True)
class GluFormat:
    """The fixed-point parameters: ``multipliers`` [2, channels] of gate and up, ``shifts`` [4], all int32."""

    multipliers: np.ndarray
    shifts: np.ndarray


def glu_format(k: int, gate_scale: np.ndarray, up_scale: np.ndarray, step: np.ndarray) -> GluFormat:
    """The parameters for linears of depth ``k``.

    Args:
        gate_scale, up_scale: what one unit of a channel's sum is worth, [channels] float32.
        step: the int8 step of the result, [channels] or a scalar.

    Raises:
        TargetError: scales so large that the format has no bits left.
    """
    room = 31 - depth_shift(k)
    up_ratio = np.asarray(up_scale, np.float64) / step
    gate_bits, up_bits = _bits(gate_scale, room), min(_bits(up_ratio, room), _UP_BITS)
    # Fewer bits of the gate are made up for by more of the other factor, whose limit is then lower.
    up_shift = max(_UP_BITS - up_bits, 0) + max(_POSITION_BITS + 2 - gate_bits, 0)
    out_shift = gate_bits + up_bits + up_shift - 31
    if gate_bits < _POSITION_BITS or up_shift > 24:
        raise TargetError(
            f"gate scales up to {np.max(gate_scale):.3g}, up scales up to {np.max(up_ratio):.3g} steps: too "
            f"large for the integer activation at depth {k}; keep this MLP's activation on the CPU"
        )
    multipliers = [_multiplier(s, room + b) for s, b in ((gate_scale, gate_bits), (up_ratio, up_bits))]
    shifts = np.array([gate_bits - _POSITION_BITS, up_shift, out_shift, 0], np.int32)
    return GluFormat(np.stack(multipliers), shifts)


def _bits(scale: np.ndarray, room: int) -> int:
    """Most fractional bits with which ``scale`` is below 2 ** 31 after a shift by ``room``."""
    peak = float(np.max(scale))
    return 30 - room - math.floor(math.log2(peak)) if peak > 0 else _UP_BITS


def _multiplier(scale: np.ndarray, shift: int) -> np.ndarray:
    return np.minimum(np.rint(np.asarray(scale, np.float64) * 2.0**shift), _LARGEST).astype(np.int32)


def glu_reference(sums: np.ndarray, k: int, fmt: GluFormat, table: np.ndarray) -> np.ndarray:
    """``h`` [rows, channels] int16 for ``sums`` [rows, 2 * columns] int32: gate, padding, up, padding."""
    channels = fmt.multipliers.shape[1]
    largest = _LARGEST >> depth_shift(k)
    clipped = np.clip(sums.reshape(len(sums), 2, -1)[:, :, :channels].astype(np.int64), -largest, largest)
    shifted = clipped << depth_shift(k)
    g, u = (_multiply(shifted[:, i], fmt.multipliers[i]) for i in (0, 1))
    position_shift, up_shift, out_shift, _ = (int(s) for s in fmt.shifts)
    position = np.clip(g >> position_shift, -32768, 32767) >> 1
    segment, fraction = (position >> 8) % SEGMENTS, position & 255
    start, rise = table.astype(np.int64)
    curve = start[segment] + ((rise[segment] * fraction + 128) >> 8)
    limit = _LARGEST >> up_shift
    product = _multiply((g * curve + 2**14) >> 15, np.clip(u, -limit, limit) << up_shift)
    return np.clip((product + (1 << out_shift >> 1)) >> out_shift, -32768, LARGEST).astype(np.int16)


def _multiply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b.astype(np.int64) + 2**30) >> 31


Pair = tuple[tirx.Expr, tirx.Expr]


def emit_glu_element(
    sums: Pair,
    multipliers: Pair,
    shifts: Sequence[tirx.Expr],
    table: Callable[[int, tirx.Expr], tirx.Expr],
    depth: int,
) -> tirx.Expr:
    """One result, int32, as TIR in the current IRBuilder frame; integers wrap nowhere.

    Args:
        sums, multipliers: the gate's and the up projection's, int32.
        shifts: the first three of the format.
        table: (row, segment) -> an entry of the activation table, int16.
        depth: ``depth_shift`` of the linears.
    """
    position_shift, up_shift, out_shift = shifts
    largest = _LARGEST >> depth
    clipped = [tirx.min(tirx.max(value, _int32(-largest)), _int32(largest)) for value in sums]
    g, u = (T.bind(_fraction(value << depth, m)) for value, m in zip(clipped, multipliers, strict=True))
    position = T.bind(tirx.min(tirx.max(g >> position_shift, _int32(-32768)), _int32(32767)) >> 1)
    start, rise = (tirx.Cast("int32", table(i, (position >> 8) & (SEGMENTS - 1))) for i in (0, 1))
    curve = start + ((rise * (position & 255) + 128) >> 8)
    activated = tirx.Cast("int64", g) * tirx.Cast("int64", curve) + _int64(2**14)
    limit = T.bind(_int32(_LARGEST) >> up_shift)
    factor = tirx.min(tirx.max(u, _int32(0) - limit), limit) << up_shift
    product = _fraction(tirx.Cast("int32", activated >> _int64(15)), factor)
    rounded = (product + ((_int32(1) << out_shift) >> 1)) >> out_shift
    return tirx.min(tirx.max(rounded, _int32(-32768)), _int32(LARGEST))


def _fraction(a: tirx.Expr, b: tirx.Expr) -> tirx.Expr:
    product = tirx.Cast("int64", a) * tirx.Cast("int64", b) + _int64(2**30)
    return tirx.Cast("int32", product >> _int64(31))


def _int32(value: int) -> tirx.Expr:
    return tirx.const(value, "int32")


def _int64(value: int) -> tirx.Expr:
    return tirx.const(value, "int64")
