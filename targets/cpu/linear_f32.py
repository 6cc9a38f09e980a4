"""The float32 linear: register tiles over weights that were packed into panels of columns."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from tvm import tirx
from tvm.script import tirx as T  # noqa: N812

from targets.cpu import vector_math
from targets.cpu.kernel import CACHE_LINE, KERNEL_ATTRS, prefetch, register_sums, vector
from targets.packing import COLUMNS

# A tile of 8 x 32 sums takes 16 of 32 vector registers, and reuses each weight 8 times.
_ROWS = 8
# Rows of a panel that stay in the first-level cache while all rows of x go over them.
_DEPTH = 256
# How many rows of a panel the first tile reads ahead: memory takes longer than the hardware looks ahead.
_AHEAD = 24
# Panels and rows of them that a single row goes over at a time: several sums hide the latency of one.
_SINGLE_PANELS = 4
_SINGLE_DEPTH = 64
# Panels of a task.
_TASK = 8


@dataclass(frozen=True)
class _Product:
    """y [rows, N] = x [rows, K] @ w, with w [panels, K, 32]: all float32."""

    x: tirx.Var
    w: tirx.Var
    y: tirx.Var
    rows: tirx.Expr
    K: int

    def panels(self, first: tirx.Expr, count: int) -> None:
        """Emit the product for ``count`` panels from ``first``."""
        if not count:
            return
        with T.If(self.rows >= _ROWS), T.Then():
            for start, depth, blocks in _blocks(self.K, _DEPTH):
                with T.serial(T.int64(blocks)) as block, T.serial(T.int64(count)) as j:
                    self._row_tiles(first + j, T.bind(start + block * depth), depth)
        for start, depth, blocks in _blocks(self.K, _SINGLE_DEPTH):
            with T.serial(T.int64(blocks)) as block:
                self._single_rows(first, count, T.bind(start + block * depth), depth)

    def _row_tiles(self, panel: tirx.Expr, k: tirx.Expr, depth: int) -> None:
        self._tile(panel, 1, k, depth, T.int64(0), _ROWS, reads_ahead=True)
        with T.serial(T.int64(1), self.rows // _ROWS) as i:
            self._tile(panel, 1, k, depth, i * _ROWS, _ROWS)

    def _single_rows(self, first: tirx.Expr, count: int, k: tirx.Expr, depth: int) -> None:
        for start, size, groups in _blocks(count, _SINGLE_PANELS):
            with T.serial(T.int64(groups)) as j, T.serial(self.rows % _ROWS) as i:
                row = self.rows // _ROWS * _ROWS + i
                self._tile(first + start + j * size, size, k, depth, row, 1)

    def _tile(
        self,
        panel: tirx.Expr,
        panels: int,
        k: tirx.Expr,
        depth: int,
        row: tirx.Expr,
        rows: int,
        reads_ahead: bool = False,
    ) -> None:
        """Add x[row .. row + rows, k .. k + depth] @ w[panel .. panel + panels, k .. k + depth] to y.

        ``reads_ahead``: ask memory for the rows of the panel to come.
        """
        sums = register_sums(rows * panels, COLUMNS)
        places = [(acc, row + i // panels, panel + i % panels) for i, acc in enumerate(sums)]
        for acc, r, p in places:
            with vector(COLUMNS) as c:
                acc.store(T.if_then_else(k == 0, T.float32(0), self.y[r, p * COLUMNS + c]), c)
        with T.serial(T.int64(depth)) as i:
            for line in range(0, COLUMNS if reads_ahead else 0, CACHE_LINE):
                prefetch(self.w, panel, k + i + _AHEAD, T.int64(line))
            for acc, r, p in places:
                with vector(COLUMNS) as c:
                    acc.store(vector_math.fma(self.x[r, k + i], self.w[p, k + i, c], acc[c]), c)
        for acc, r, p in places:
            with vector(COLUMNS) as c:
                T.buffer_store(self.y, acc[c], [r, p * COLUMNS + c])


def _blocks(extent: int, size: int) -> list[tuple[int, int, int]]:
    """(start, size, number) of the blocks of an axis: whole ones, then the rest."""
    pieces = [(0, size, extent // size), (extent // size * size, extent % size, 1)]
    return [(start, width, number) for start, width, number in pieces if width and number]


@cache
def linear_f32(K: int, panels: int) -> tirx.PrimFunc:
    """PrimFunc ``(x [rows, K], w [panels, K, 32], y [rows, 32 panels])``, all float32, any rows: y = x @ w.

    Each element is a chain of fused multiply-adds in increasing k from 0 in every tile shape, so a row's
    result does not depend on the other rows, nor on the number of threads.
    """

    @T.prim_func(private=True, s_tir=True)
    def linear(x_handle: T.handle, w_handle: T.handle, y_handle: T.handle) -> None:
        T.func_attr(KERNEL_ATTRS)
        rows = T.int64()
        x = T.match_buffer(x_handle, (rows, K), "float32")
        w = T.match_buffer(w_handle, (panels, K, COLUMNS), "float32")
        y = T.match_buffer(y_handle, (rows, panels * COLUMNS), "float32")
        with T.sblock("root"):
            T.reads(x[:, :], w[:, :, :])
            T.writes(y[:, :])
            product = T.meta_var(_Product(x, w, y, rows, K))
            for task in T.parallel(T.int64(panels // _TASK)):
                product.panels(task * _TASK, _TASK)
            product.panels(T.int64(panels // _TASK * _TASK), panels % _TASK)

    return linear
