"""The integer linear kernel: ``y = x @ (w - 128)``, exactly, for a static number of rows.

A register block of 4 rows x 2 blocks of 32 columns keeps both multiply slots of a Hexagon packet busy: four k
are 8 vrmpy = 4 packets, whose 8 load slots take 2 weight vectors and 4 activation words. Columns are the
outer loop, so weights are read from memory once and activations stay in the cache.

The weights are stored + 128, which makes each result 128 * rowsum(x) too large, so accumulators start from
the negated row sum. Row sums are computed once, and live in the last 32 columns of y until the last block of
columns overwrites them: the kernel needs no scratch memory and next to no stack.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T  # noqa: N812 (the name TVM uses everywhere)

from targets.errors import TargetError
from targets.hexagon.intrin import ALL_BYTES_128, GENERIC, HVX, VNNI, DotUnit, Tiling, constant
from targets.hexagon.target import host_target, supports_vnni

COLUMNS = 32


def linear_w8a8(
    m: int, k: int, n: int, *, hvx: bool, name: str, tiling: Tiling | None = None
) -> tirx.PrimFunc:
    """The kernel ``name(x [m, k] int8, w [n/32, k/4, 32, 4] uint8, y [m, n] int32)``, all contiguous.

    ``hvx`` chooses Hexagon vector instructions. Each buffer must then start at a multiple of 128 bytes;
    nothing checks it, and an HVX load ignores the low address bits. Otherwise the kernel is for the CPU this
    runs on, with AVX512-VNNI where it has it, and buffers start at a multiple of 64 bytes. Raises TargetError
    unless m >= 1, k is a positive multiple of 4 and n of 32. ``tiling`` replaces the default one.
    """
    unit = HVX if hvx else VNNI if supports_vnni(host_target()) else GENERIC
    return build_linear(m, k, n, unit if tiling is None else replace(unit, tiling=tiling), name)


def build_linear(m: int, k: int, n: int, unit: DotUnit, name: str) -> tirx.PrimFunc:
    """``linear_w8a8`` on a given dot-product unit."""
    _check_shape(m, k, n)
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name(name)
        T.func_attr({"global_symbol": name, "tirx.noalias": True, "tirx.is_scheduled": True})
        align = 4 * unit.lanes
        x = T.arg("x", T.buffer((m, k), "int8", align=align))
        w = T.arg("w", T.buffer((n // COLUMNS, k // 4, COLUMNS, 4), "uint8", align=align))
        y = T.arg("y", T.buffer((m, n), "int32", align=align))
        _Kernel(m, k, n, unit, x, w, y).emit()
    return builder.get()


def _check_shape(m: int, k: int, n: int) -> None:
    if m < 1 or k < 4 or k % 4 or n < COLUMNS or n % COLUMNS:
        raise TargetError(
            f"linear_w8a8 cannot have the shape M={m}, K={k}, N={n}: it needs M >= 1, "
            f"K a positive multiple of 4 and N a positive multiple of {COLUMNS} (pack_weight pads K and N)"
        )


class Run(NamedTuple):
    """``repeats`` equal blocks of ``size``, the first at ``start``."""

    start: int
    repeats: int
    size: int


def split(total: int, size: int) -> list[Run]:
    """Cuts ``range(total)`` into runs of blocks of ``size`` and a rest, but leaves no lone 1 where it can.

    A block of one row or column loads a weight vector or an activation for each multiplication.

    >>> split(9, 4)
    [Run(start=0, repeats=1, size=4), Run(start=4, repeats=1, size=3), Run(start=7, repeats=1, size=2)]
    """
    count, rest = divmod(total, size)
    tail = [rest] if rest else []
    if rest == 1 and count:
        count -= 1
        tail = [size - 1, 2] if size > 2 else [size + 1]
    runs = [Run(0, count, size)] if count else []
    start = count * size
    for block in tail:
        runs.append(Run(start, 1, block))
        start += block
    return runs


def choose_unroll(steps: int, most: int) -> int:
    """The number of steps a loop iteration, in (most / 2, most], that leaves the shortest rest.

    The rest is straight-line code; when it is long, LLVM moves its loads up and spills them.
    """
    return min(range(most, most // 2, -1), key=lambda unroll: steps % unroll)


class _Kernel:
    """Emits the statements of one kernel into the current IRBuilder frame."""

    def __init__(
        self, m: int, k: int, n: int, unit: DotUnit, x: tirx.Buffer, w: tirx.Buffer, y: tirx.Buffer
    ) -> None:
        self.steps, self.n, self.unit = k // 4, n, unit
        self.x, self.w, self.y = x, w, y
        self.row_runs = split(m, unit.tiling.rows)
        self.block_runs = split(n // COLUMNS, unit.tiling.blocks)

    def emit(self) -> None:
        for start, count, rows in self.row_runs:
            with T.serial(0, count) as i:
                self._row_sums(start + i * rows, rows)
        for start, count, blocks in self.block_runs:
            with T.serial(0, count) as j:
                for row_start, row_count, rows in self.row_runs:
                    with T.serial(0, row_count) as i:
                        self._tile(row_start + i * rows, rows, start + j * blocks, blocks)

    def _row_sums(self, row: Expr, rows: int) -> None:
        """y[row : row + rows, n - 32 : n] = -128 * rowsum(x)."""
        lanes = self.unit.lanes
        sums = self._accumulators(rows)
        for acc in sums:
            self._set(acc, constant(0, lanes))
        first = self._vector_row_sums(sums, row)
        self._steps(first, lambda step: self._add_row_sums(sums, row, step))
        for r, acc in enumerate(sums):
            for lane in range(self.n - COLUMNS, self.n, lanes):
                T.buffer_store(
                    self.y, constant(0, lanes) - self._get(acc), [row + r, tirx.Ramp(lane, 1, lanes)]
                )

    def _vector_row_sums(self, sums: list[tirx.Buffer], row: Expr) -> int:
        """Sums whole vectors of activations where the unit can; returns the number of steps done."""
        unit = self.unit
        vectors = self.steps // unit.lanes
        if unit.row_sum is None or unit.rotate is None or not vectors:
            return 0
        with T.serial(0, vectors) as i:
            for r, acc in enumerate(sums):
                x = self._load_x(row + r, i * unit.lanes, unit.lanes)
                self._set(acc, unit.row_sum(self._get(acc), x))
        distance = unit.lanes // 2
        while distance:
            for acc in sums:
                self._set(acc, self._get(acc) + unit.rotate(self._get(acc), distance))
            distance //= 2
        return vectors * unit.lanes

    def _add_row_sums(self, sums: list[tirx.Buffer], row: Expr, step: Expr) -> None:
        weights = constant(ALL_BYTES_128, self.unit.lanes)
        for r, acc in enumerate(sums):
            self._set(acc, self.unit.dot(self._get(acc), weights, self._load_x(row + r, step, 1)))

    def _tile(self, row: Expr, rows: int, block: Expr, blocks: int) -> None:
        """y[row : row + rows, 32 * block : 32 * (block + blocks)], held in registers."""
        vectors = blocks * COLUMNS // self.unit.lanes
        accs = self._accumulators(rows * vectors)
        for q, acc in enumerate(accs):
            lanes = tirx.Ramp(self.n - COLUMNS, 1, self.unit.lanes)
            self._set(acc, self.y[row + q // vectors, lanes])
        self._steps(0, lambda step: self._multiply(accs, row, block, vectors, step))
        for q, acc in enumerate(accs):
            lanes = tirx.Ramp(block * COLUMNS + q % vectors * self.unit.lanes, 1, self.unit.lanes)
            T.buffer_store(self.y, self._get(acc), [row + q // vectors, lanes])

    def _multiply(self, accs: list[tirx.Buffer], row: Expr, block: Expr, vectors: int, step: Expr) -> None:
        for q, acc in enumerate(accs):
            w = self._load_w(block, q % vectors, step)
            self._set(acc, self.unit.dot(self._get(acc), w, self._load_x(row + q // vectors, step, 1)))

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

    def _load_x(self, row: Expr, step: Expr, words: int) -> Expr:
        dtype = "int32" if words == 1 else f"int32x{words}"
        return T.reinterpret(self.x.vload([row, 4 * step], f"int8x{4 * words}"), dtype=dtype)

    def _load_w(self, block: Expr, vector: int, step: Expr) -> Expr:
        lanes = self.unit.lanes
        per_block = COLUMNS // lanes
        at = [block + vector // per_block, step, vector % per_block * lanes, 0]
        return T.reinterpret(self.w.vload(at, f"uint8x{4 * lanes}"), dtype=f"int32x{lanes}")

    def _accumulators(self, count: int) -> list[tirx.Buffer]:
        lanes = self.unit.lanes
        return [T.alloc_buffer((lanes,), "int32", align=4 * lanes) for _ in range(count)]

    def _get(self, acc: tirx.Buffer) -> Expr:
        return acc[tirx.Ramp(0, 1, self.unit.lanes)]

    def _set(self, acc: tirx.Buffer, value: Expr) -> None:
        T.buffer_store(acc, value, [tirx.Ramp(0, 1, self.unit.lanes)])
