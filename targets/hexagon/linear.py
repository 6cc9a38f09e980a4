"""The integer linear kernel: ``y = x @ (w - 128)``, exactly, for a static number of rows.

A register block of 4 rows x 2 blocks of 32 columns keeps both multiply slots of a Hexagon packet busy: four k
are 8 vrmpy = 4 packets, whose 8 other slots take 2 weight vectors and 4 activation words. Columns are the
outer loop, so weights are read from memory once and activations stay in the cache.

Each row and each column block is a stream with a base address of its own, which LLVM must not relate to the
others (``anchor``): it would address them all from one register, and with a large K each load would then
need an addition of a long constant, that is, packets.

The weights are stored + 128, which makes each result 128 * rowsum(x) too large, so accumulators start from
the negated row sum. A context sums its rows once; the sums live in the last 32 columns of its part of y until
its last block of columns overwrites them: the kernel needs no scratch memory and next to no stack.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T  # noqa: N812 (the name TVM uses everywhere)

from targets.errors import TargetError
from targets.hexagon.intrin import ALL_BYTES_128, GENERIC, HVX, VNNI, DotUnit, constant
from targets.hexagon.loops import EachBlock, each_block, share, split_contexts
from targets.hexagon.target import host_target, supports_vnni
from targets.hexagon.tiling import (
    COLUMNS,
    Run,
    Tiling,
    check_address_space,
    choose_unroll,
    rule_tiling,
    split,
    split_evenly,
)


def linear_w8a8(
    m: int,
    k: int,
    n: int,
    *,
    hvx: bool,
    name: str,
    tiling: Tiling | None = None,
    contexts: int = 1,
    zero_point: bool = True,
) -> tirx.PrimFunc:
    """The kernel ``name(x [m, k] int8, w [n/32, k/4, 32, 4] uint8, y [m, n] int32)``, all contiguous.

    ``hvx`` chooses Hexagon vector instructions. Each buffer must then start at a multiple of 128 bytes;
    nothing checks it, and an HVX load ignores the low address bits. Otherwise the kernel is for the CPU this
    runs on, with AVX512-VNNI where it has it, and buffers start at a multiple of 64 bytes. ``tiling``
    replaces the rule-based one. With ``contexts`` > 1 the rows or the columns of a panel are a parallel loop
    of up to that many parts (``split_contexts``). Without ``zero_point`` the kernel is the bare product
    ``x @ w`` of unsigned weights, which tells what the zero point costs.

    Raises TargetError unless m >= 1, k is a positive multiple of 4 and n of 32, and, for HVX, the tensors fit
    the 32-bit address space.
    """
    _check_shape(m, k, n)
    if hvx:
        check_address_space(m, k, n)
    return build_linear(m, k, n, choose_unit(m, k, n, hvx, tiling), name, contexts, zero_point)


def choose_unit(m: int, k: int, n: int, hvx: bool, tiling: Tiling | None = None) -> DotUnit:
    """The dot-product unit of HVX or of this CPU, with ``tiling`` or the one of the rule."""
    unit = HVX if hvx else VNNI if supports_vnni(host_target()) else GENERIC
    if hvx:
        tiling = tiling or rule_tiling(m, k, n)
    return unit if tiling is None else replace(unit, tiling=tiling)


def build_linear(
    m: int, k: int, n: int, unit: DotUnit, name: str, contexts: int = 1, zero_point: bool = True
) -> tirx.PrimFunc:
    """``linear_w8a8`` on a given dot-product unit."""
    _check_shape(m, k, n)
    if contexts < 1:
        raise TargetError(f"a kernel cannot use {contexts} contexts: expected at least 1")
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name(name)
        T.func_attr({"global_symbol": name, "tirx.noalias": True, "tirx.is_scheduled": True})
        align = 4 * unit.lanes
        x = T.arg("x", T.buffer((m, k), "int8", align=align))
        w = T.arg("w", T.buffer((n // COLUMNS, k // 4, COLUMNS, 4), "uint8", align=align))
        y = T.arg("y", T.buffer((m, n), "int32", align=align))
        emit_linear(x, w, y, unit, contexts, zero_point)
    return builder.get()


def emit_linear(
    x: tirx.Buffer, w: tirx.Buffer, y: tirx.Buffer, unit: DotUnit, contexts: int, zero_point: bool = True
) -> None:
    """Emits ``y = x @ (w - 128)`` into the current IRBuilder frame; buffers as of ``linear_w8a8``."""
    m, k, n = int(x.shape[0]), int(x.shape[1]), int(y.shape[1])
    _Kernel(m, k, n, unit, zero_point, x, w, y).emit(contexts)


def _check_shape(m: int, k: int, n: int) -> None:
    if m < 1 or k < 4 or k % 4 or n < COLUMNS or n % COLUMNS:
        raise TargetError(
            f"linear_w8a8 cannot have the shape M={m}, K={k}, N={n}: it needs M >= 1, "
            f"K a positive multiple of 4 and N a positive multiple of {COLUMNS} (pack_weight pads K and N)"
        )


class _Streams(NamedTuple):
    """Where the streams of a register block start: rows in words of x, column blocks in words of w / 32."""

    rows: list[Expr]
    blocks: list[Expr]


class _Kernel:
    """Emits the statements of one kernel into the current IRBuilder frame."""

    def __init__(
        self,
        m: int,
        k: int,
        n: int,
        unit: DotUnit,
        zero_point: bool,
        x: tirx.Buffer,
        w: tirx.Buffer,
        y: tirx.Buffer,
    ) -> None:
        self.m, self.steps, self.blocks, self.unit = m, k // 4, n // COLUMNS, unit
        self.zero_point = zero_point
        self.x, self.y = x, y
        self.flat_x = T.decl_buffer((m * k,), "int8", data=x.data, align=4 * unit.lanes)
        self.flat_w = T.decl_buffer((n * k,), "uint8", data=w.data, align=4 * unit.lanes)

    def emit(self, contexts: int) -> None:
        """All rows, a panel at a time."""
        tiling = self.unit.tiling
        for start, count, size in split_evenly(self.m, min(tiling.panel or self.m, self.m)):
            with T.serial(0, count) as p:
                self._panel(start + p * size, split(size, tiling.rows), contexts)

    def _panel(self, first: Expr, rows: list[Run], contexts: int) -> None:
        columns = split(self.blocks, self.unit.tiling.blocks)
        axis, parts = split_contexts(rows, columns, contexts)
        all_rows, all_columns = partial(each_block, rows), partial(each_block, columns)
        last = tirx.const(self.blocks - 1, "int32")
        if parts == 1:
            self._part(first, all_rows, all_columns, last)
            return
        with T.parallel(0, parts) as part:
            if axis == "rows":
                self._part(first, share(rows, part, parts)[0], all_columns, last)
            else:
                self._part(first, all_rows, *share(columns, part, parts))

    def _part(self, first: Expr, each_row: EachBlock, each_column: EachBlock, sums_at: Expr) -> None:
        """What one context does; the row sums are in column block ``sums_at``, its last."""
        if self.zero_point:
            each_row(lambda row, rows: self._row_sums(first + row, rows, sums_at))
        each_column(
            lambda block, blocks: each_row(
                lambda row, rows: self._tile(first + row, rows, block, blocks, sums_at)
            )
        )

    def _row_sums(self, row: Expr, rows: int, sums_at: Expr) -> None:
        """y[row : row + rows, 32 columns of block ``sums_at``] = -128 * rowsum(x)."""
        lanes = self.unit.lanes
        sums = self._accumulators(rows)
        for acc in sums:
            self._set(acc, constant(0, lanes))
        first = self._vector_row_sums(sums, row)
        self._steps(first, lambda step: self._add_row_sums(sums, row, step))
        for r, acc in enumerate(sums):
            for part in range(COLUMNS // lanes):
                self._store(row + r, sums_at, part, constant(0, lanes) - self._get(acc))

    def _vector_row_sums(self, sums: list[tirx.Buffer], row: Expr) -> int:
        """Sums whole vectors of activations where the unit can; returns the number of steps done."""
        unit = self.unit
        vectors = self.steps // unit.lanes
        if unit.row_sum is None or unit.rotate is None or not vectors:
            return 0
        with T.serial(0, vectors) as i:
            for r, acc in enumerate(sums):
                x = self.x.vload([row + r, i * 4 * unit.lanes], f"int8x{4 * unit.lanes}")
                self._set(acc, unit.row_sum(self._get(acc), T.reinterpret(x, dtype=f"int32x{unit.lanes}")))
        distance = unit.lanes // 2
        while distance:
            for acc in sums:
                self._set(acc, self._get(acc) + unit.rotate(self._get(acc), distance))
            distance //= 2
        return vectors * unit.lanes

    def _add_row_sums(self, sums: list[tirx.Buffer], row: Expr, step: Expr) -> None:
        weights = constant(ALL_BYTES_128, self.unit.lanes)
        for r, acc in enumerate(sums):
            x = self._load_x((row + r) * self.steps, step)
            self._set(acc, self.unit.dot(self._get(acc), weights, x))

    def _tile(self, row: Expr, rows: int, block: Expr, blocks: int, sums_at: Expr) -> None:
        """y[row : row + rows, 32 * block : 32 * (block + blocks)], held in registers."""
        per_block = COLUMNS // self.unit.lanes
        vectors = blocks * per_block
        accs = self._accumulators(rows * vectors)
        for q, acc in enumerate(accs):
            self._set(acc, self._initial(row + q // vectors, sums_at))
        streams = self._streams(row, rows, block, blocks)
        self._steps(0, lambda step: self._multiply(accs, streams, step))
        for q, acc in enumerate(accs):
            vector = q % vectors
            self._store(row + q // vectors, block + vector // per_block, vector % per_block, self._get(acc))

    def _initial(self, row: Expr, sums_at: Expr) -> Expr:
        lanes = self.unit.lanes
        return self.y[row, tirx.Ramp(COLUMNS * sums_at, 1, lanes)] if self.zero_point else constant(0, lanes)

    def _streams(self, row: Expr, rows: int, block: Expr, blocks: int) -> _Streams:
        return _Streams(
            [self._anchor(row * self.steps, r * self.steps) for r in range(rows)],
            [self._anchor(block * self.steps, b * self.steps) for b in range(blocks)],
        )

    def _anchor(self, start: Expr, offset: int) -> Expr:
        if self.unit.anchor is None:
            return start + offset
        return T.bind(self.unit.anchor(tirx.const(0, "int32") + start, tirx.const(offset, "int32")))

    def _multiply(self, accs: list[tirx.Buffer], streams: _Streams, step: Expr) -> None:
        vectors = len(accs) // len(streams.rows)
        for q, acc in enumerate(accs):
            w = self._load_w(streams.blocks, q % vectors, step)
            x = self._load_x(streams.rows[q // vectors], step)
            self._set(acc, self.unit.dot(self._get(acc), w, x))

    def _steps(self, first: int, body: Callable[[Expr], None]) -> None:
        """Steps ``first`` and up: a loop, ``unroll`` steps an iteration, then the rest in a straight line."""
        unroll = choose_unroll(self.steps - first, self.unit.tiling.unroll)
        count = (self.steps - first) // unroll
        if count:
            with T.serial(0, count) as i:
                for u in range(unroll):
                    body(first + i * unroll + u)
        for step in range(first + count * unroll, self.steps):
            body(tirx.const(step, "int32"))

    def _load_x(self, base: Expr, step: Expr) -> Expr:
        return T.reinterpret(self.flat_x[tirx.Ramp(4 * (base + step), 1, 4)], dtype="int32")

    def _load_w(self, bases: list[Expr], vector: int, step: Expr) -> Expr:
        # The factor stays outside, where TVM and LLVM see the alignment.
        lanes = self.unit.lanes
        per_block = COLUMNS // lanes
        at = 4 * lanes * ((bases[vector // per_block] + step) * per_block + vector % per_block)
        return T.reinterpret(self.flat_w[tirx.Ramp(at, 1, 4 * lanes)], dtype=f"int32x{lanes}")

    def _store(self, row: Expr, block: Expr, part: int, value: Expr) -> None:
        lanes = self.unit.lanes
        T.buffer_store(self.y, value, [row, tirx.Ramp(COLUMNS * block + part * lanes, 1, lanes)])

    def _accumulators(self, count: int) -> list[tirx.Buffer]:
        # Scope "global": TVM turns "local" vectors of this size into workspace calls.
        lanes = self.unit.lanes
        return [T.alloc_buffer((lanes,), "int32", align=4 * lanes) for _ in range(count)]

    def _get(self, acc: tirx.Buffer) -> Expr:
        return acc[tirx.Ramp(0, 1, self.unit.lanes)]

    def _set(self, acc: tirx.Buffer, value: Expr) -> None:
        T.buffer_store(acc, value, [tirx.Ramp(0, 1, self.unit.lanes)])
