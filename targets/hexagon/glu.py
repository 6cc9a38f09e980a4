"""The integer gated activation of `targets.glu` as a kernel, for HVX and for the CPU this runs on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import tirx as T  # noqa: N812 (the name TVM uses everywhere)

from targets.glu import GROUP, SEGMENTS, emit_glu_element
from targets.hexagon.intrin import call_hvx, constant

_WORDS = 32
_VECTORS = GROUP // _WORDS
# The groups of 16 segments that a table vector holds, as HVX numbers them: by the top half of the index byte.
_TABLE_GROUPS = ((0, 1, 2, 3), (4, 5, 6, 7))
# How far the instructions that shift and narrow words shift at most.
_MOST_SHIFT = 15


class TwoBytes(NamedTuple):
    """Low and high bytes of activations, [m, channels] int8 each (`targets.outliers`)."""

    low: tirx.Buffer
    high: tirx.Buffer


class GluBuffers(NamedTuple):
    """The parameters of a kernel, as `targets.glu` describes them."""

    multipliers: tirx.Buffer
    shifts: tirx.Buffer
    table: tirx.Buffer


def emit_glu(
    sums: tirx.Buffer, parameters: GluBuffers, h: TwoBytes, depth: int, hvx: bool, contexts: int
) -> None:
    """Emits ``h``, [m, channels] each, from ``sums [m, 2 * columns] int32``: gate, padding, up, padding.

    ``depth`` is the ``depth_shift`` of the sums. Rows are shared by up to ``contexts`` contexts.
    """
    rows, channels = (int(extent) for extent in h.low.shape)
    emit = _Rows(sums, parameters, h, depth)
    with share_rows(rows, contexts) as part:
        begin, end = part
        if not hvx:
            emit.scalars(begin, end)
            return
        with T.serial(0, channels // GROUP) as group:
            emit.vectors(begin, end, group * GROUP)
        if channels % GROUP:
            # The last group overlaps the one before it.
            emit.vectors(begin, end, tirx.const(channels - GROUP, "int32"))


@contextmanager
def share_rows(rows: int, contexts: int) -> Iterator[tuple[Expr, Expr]]:
    """A parallel loop over shares of the rows: (first row, end) of the share of a context."""
    parts = min(contexts, rows)
    with T.parallel(0, parts) if parts > 1 else T.serial(0, 1) as part:
        yield T.bind(part * rows // parts), T.bind((part + 1) * rows // parts)


class _Rows:
    """Emits loops over rows."""

    def __init__(self, sums: tirx.Buffer, parameters: GluBuffers, h: TwoBytes, depth: int) -> None:
        self.sums, self.parameters, self.h, self.depth = sums, parameters, h, depth
        self.up_column = int(sums.shape[1]) // 2

    def scalars(self, begin: Expr, end: Expr) -> None:
        """All channels of some rows, one by one; LLVM vectorizes what it can."""
        multipliers, shifts, table = self.parameters
        with T.serial(begin, end) as row, T.serial(0, self.h.low.shape[1]) as channel:
            value = emit_glu_element(
                (self.sums[row, channel], self.sums[row, channel + self.up_column]),
                (multipliers[0, channel], multipliers[1, channel]),
                [shifts[i] for i in range(3)],
                lambda kind, segment: table[kind, segment],
                self.depth,
            )
            value = T.bind(value)
            T.buffer_store(self.h.low, tirx.Cast("int8", value), [row, channel])
            T.buffer_store(self.h.high, tirx.Cast("int8", (value + 128) >> 8), [row, channel])

    def vectors(self, begin: Expr, end: Expr, channel: Expr) -> None:
        """128 channels of some rows."""
        constants = _Constants.load(self.parameters, channel, self.depth)
        # Results are shifted by one less than positions, or by one (`targets.glu`).
        with T.If(constants.position_shift <= _MOST_SHIFT):
            with T.Then():
                self._row_loop(begin, end, channel, constants)
            with T.Else():
                self._row_loop(begin, end, channel, constants._replace(far=True))

    def _row_loop(self, begin: Expr, end: Expr, channel: Expr, constants: _Constants) -> None:
        with T.serial(begin, end) as row:
            gate, up = (_load(self.sums, row, channel + offset) for offset in (0, self.up_column))
            for buffer, values in zip(self.h, _group(gate, up, constants), strict=True):
                result = T.reinterpret(values, dtype=f"int8x{GROUP}")
                T.buffer_store(buffer, result, [row, tirx.Ramp(channel, 1, GROUP)])


class _Constants(NamedTuple):
    """What does not change from row to row, in registers."""

    gate: list[Expr]
    up: list[Expr]
    start: list[Expr]
    rise: list[Expr]
    depth_shift: int
    position_shift: Expr
    up_shift: Expr
    out_shift: Expr
    limit: Expr
    half: Expr
    far: bool = False
    """Words are shifted by more than one instruction shifts and narrows them."""

    @staticmethod
    def load(parameters: GluBuffers, channel: Expr, shift: int) -> _Constants:
        position_shift, up_shift, out_shift = (T.bind(parameters.shifts[i]) for i in range(3))
        largest, one = (tirx.const(value, "int32") for value in (2**31 - 1, 1))
        return _Constants(
            _load(parameters.multipliers, tirx.const(0, "int32"), channel),
            _load(parameters.multipliers, tirx.const(1, "int32"), channel),
            _load_table(parameters.table, 0),
            _load_table(parameters.table, 1),
            shift,
            position_shift,
            up_shift,
            out_shift,
            T.bind(largest >> up_shift),
            T.bind((one << out_shift) >> 1),
        )


def _load(buffer: tirx.Buffer, row: Expr, column: Expr) -> list[Expr]:
    at = (tirx.Ramp(column + i * _WORDS, 1, _WORDS) for i in range(_VECTORS))
    return [T.bind(buffer[row, lanes]) for lanes in at]


def _load_table(table: tirx.Buffer, kind: int) -> list[Expr]:
    """A row of the table as vlut16 wants it: entry 32 o + w of a vector in half o of word w."""
    halves = SEGMENTS // 2
    rows = (table[kind, tirx.Ramp(i * halves, 1, halves)] for i in range(2))
    return [T.bind(_hvx("vshuffh", T.reinterpret(row, dtype="int32x32"))) for row in rows]


def _group(gate: list[Expr], up: list[Expr], c: _Constants) -> tuple[Expr, Expr]:
    """128 results: a vector of low bytes and one of high bytes."""
    g = [_fraction(_shifted(v, c.depth_shift), m) for v, m in zip(gate, c.gate, strict=True)]
    u = [_fraction(_shifted(v, c.depth_shift), m) for v, m in zip(up, c.up, strict=True)]
    curve = _curve(g, c)
    products = [_product(*operands, c) for operands in zip(g, curve, u, strict=True)]
    # 128 more, saturated: the upper byte is rounded, and the lower one lacks only its sign.
    h = [T.bind(_hvx("vaddhsat", _narrow(pair, c), _halfwords(128))) for pair in _pairs(products)]
    low = _hvx("vxor", _bytes("vpackeb", h), constant(-0x7F7F7F80, _WORDS))
    return low, _bytes("vpackob", h)


def _pairs(vectors: list[Expr]) -> tuple[tuple[Expr, Expr], tuple[Expr, Expr]]:
    """Vectors that share one of halfwords: so paired, `_bytes` only has to separate even and odd ones."""
    return (vectors[0], vectors[2]), (vectors[1], vectors[3])


def _bytes(pack: str, h: list[Expr]) -> Expr:
    """A byte of each halfword, in the order of the channels."""
    return _hvx("vdealb", _hvx(pack, h[1], h[0]))


def _halfwords(value: int) -> Expr:
    return constant(value << 16 | value, _WORDS)


def _narrow(pair: tuple[Expr, Expr], c: _Constants) -> Expr:
    """Results of 16 bits: those of the first vector in the lower halves of words."""
    if not c.far:
        return _hvx("vasrwhrndsat", pair[1], pair[0], c.out_shift)
    half = T.broadcast(c.half, _WORDS)
    shifted = [_hvx("vasrw", _hvx("vaddw", v, half), c.out_shift) for v in pair]
    return _hvx("vsatwh", shifted[1], shifted[0])


def _position(pair: tuple[Expr, Expr], c: _Constants) -> Expr:
    """Twice the table position, as `_narrow`."""
    if not c.far:
        return T.bind(_hvx("vasrwhsat", pair[1], pair[0], c.position_shift))
    shifted = [_hvx("vasrw", v, c.position_shift) for v in pair]
    return T.bind(_hvx("vsatwh", shifted[1], shifted[0]))


def _curve(g: list[Expr], c: _Constants) -> list[Expr]:
    """act(x) / x for 128 gates: four vectors with the value in the upper half of each word."""
    positions = [_position(pair, c) for pair in _pairs(g)]
    index = _hvx("vshuffob", positions[1], positions[0])
    index = T.bind(_hvx("vavgub", index, constant(0, _WORDS)))
    start, rise = _look_up(index, c.start), _look_up(index, c.rise)
    values = [_interpolate(position, start, rise, i) for i, position in enumerate(positions)]
    return [*(T.bind(_hvx("vshufeh", v, v)) for v in values), *values]


def _look_up(index: Expr, table: list[Expr]) -> Expr:
    """Table entries for 128 index bytes: a pair, even bytes' entries in its first vector."""
    found = None
    for vector, groups in zip(table, _TABLE_GROUPS, strict=True):
        for group in groups:
            which = tirx.const(group, "int32")
            if found is None:
                found = _hvx_pair("vlutvwh", index, vector, which)
            else:
                found = _hvx_pair("vlutvwh.oracc", found, index, vector, which)
    return T.bind(found)


def _interpolate(position: Expr, start: Expr, rise: Expr, half: int) -> Expr:
    fraction = _hvx("vand", _hvx("vaslh", position, tirx.const(6, "int32")), constant(0x7F807F80, _WORDS))
    return T.bind(_hvx("vaddh", _half(start, half), _hvx("vmpyhvsrs", _half(rise, half), fraction)))


def _product(g: Expr, curve: Expr, u: Expr, c: _Constants) -> Expr:
    activated = T.bind(_hvx("vmpyowh.rnd", g, curve))
    limit = T.broadcast(c.limit, _WORDS)
    clipped = _hvx("vmaxw", _hvx("vminw", u, limit), constant(0, _WORDS) - limit)
    return _fraction(activated, T.bind(_hvx("vaslw", clipped, c.up_shift)))


def _fraction(a: Expr, b: Expr) -> Expr:
    """floor((a * b + 2 ** 30) / 2 ** 31) of words."""
    return T.bind(_hvx("vmpyowh.rnd.sacc", _hvx("vmpyewuh", a, b), a, b))


def _shifted(v: Expr, shift: int) -> Expr:
    limit = (2**31 - 1) >> shift
    clipped = _hvx("vmaxw", _hvx("vminw", v, constant(limit, _WORDS)), constant(-limit, _WORDS))
    return T.bind(_hvx("vaslw", clipped, tirx.const(shift, "int32")))


def _half(pair: Expr, half: int) -> Expr:
    return _hvx("hi" if half else "lo", pair)


def _hvx(name: str, *args: Expr) -> Expr:
    return call_hvx(name, f"int32x{_WORDS}", *args)


def _hvx_pair(name: str, *args: Expr) -> Expr:
    return call_hvx(name, f"int32x{2 * _WORDS}", *args)
