"""The float32 matrix product: register tiles over blocks of the depth that fit the first-level cache."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from tvm import tirx
from tvm.script import tirx as T  # noqa: N812

from targets.cpu import vector_math
from targets.cpu.kernel import CACHE_LINE, KERNEL_ATTRS, column_panels, prefetch, register_sums, vector

# A tile of 8 x 32 sums takes 16 of 32 vector registers, and reuses each weight 8 times.
_ROWS = 8
_PANEL = 32
# Rows of w in a panel: with 8 rows of x it about fits the first-level cache.
_DEPTH = 256
# A single row's sums, and rows of w they go over at a time: few enough pages for the hardware to read ahead.
_SINGLE_PANEL = 128
_SINGLE_DEPTH = 32
# Columns of a task.
_TASK = 512


@dataclass(frozen=True)
class _Product:
    """y [rows, N] = x [rows, K] @ w [K, N], all float32."""

    x: tirx.Var
    w: tirx.Var
    y: tirx.Var
    rows: tirx.Expr
    K: int

    def columns(self, first: tirx.Expr, count: int) -> None:
        """Emit the product for ``count`` columns from ``first``."""
        with T.If(self.rows >= _ROWS), T.Then():
            panel = T.alloc_buffer((_DEPTH, _PANEL), "float32")
            for start, depth, blocks in _blocks(self.K, _DEPTH):
                with T.serial(T.int64(blocks)) as block:
                    k = T.bind(start + block * depth)
                    self._row_blocks(panel, k, depth, first, count)
        for start, depth, blocks in _blocks(self.K, _SINGLE_DEPTH):
            with T.serial(T.int64(blocks)) as block:
                self._single_rows(T.bind(start + block * depth), depth, first, count)

    def _row_blocks(self, panel: tirx.Var, k: tirx.Expr, depth: int, first: tirx.Expr, count: int) -> None:
        for start, panels, width in column_panels(count, _PANEL):
            with T.serial(T.int64(panels)) as j:
                column = T.bind(first + start + j * width)
                # Rows of w that lie a multiple of 4 KiB apart would evict each other from the cache.
                with T.serial(T.int64(depth)) as i, vector(width) as c:
                    T.buffer_store(panel, self.w[k + i, column + c], [i, c])
                place = (panel, T.int64(0), T.int64(0))
                # The first rows ask memory for the next panel, which the hardware does not foresee.
                self._tile(place, k, depth, T.int64(0), _ROWS, column, width, reads_ahead=True)
                with T.serial(T.int64(1), self.rows // _ROWS) as i:
                    self._tile(place, k, depth, i * _ROWS, _ROWS, column, width)

    def _single_rows(self, k: tirx.Expr, depth: int, first: tirx.Expr, count: int) -> None:
        for start, panels, width in column_panels(count, _SINGLE_PANEL):
            with T.serial(T.int64(panels)) as j, T.serial(self.rows % _ROWS) as i:
                column = T.bind(first + start + j * width)
                row = self.rows // _ROWS * _ROWS + i
                self._tile((self.w, k, column), k, depth, row, 1, column, width)

    def _tile(
        self,
        place: tuple[tirx.Var, tirx.Expr, tirx.Expr],
        k: tirx.Expr,
        depth: int,
        row: tirx.Expr,
        rows: int,
        column: tirx.Expr,
        width: int,
        reads_ahead: bool = False,
    ) -> None:
        """Add x[row .. row + rows, k .. k + depth] @ w[k .. k + depth, column .. column + width] to y.

        ``place``: buffer, row and column where that part of w lies. ``reads_ahead``: bring the columns after
        it into the cache.
        """
        weights, first_row, first_column = place
        sums = register_sums(rows, width)
        for acc in sums:
            with vector(width) as c:
                before = self.y[row + acc.index, column + c]
                acc.store(T.if_then_else(k == 0, T.float32(0), before), c)
        with T.serial(T.int64(depth)) as i:
            for line in range(0, width if reads_ahead else 0, CACHE_LINE):
                prefetch(self.w, k + i, column + width + line)
            for acc in sums:
                with vector(width) as c:
                    factor = self.x[row + acc.index, k + i]
                    acc.store(vector_math.fma(factor, weights[first_row + i, first_column + c], acc[c]), c)
        for acc in sums:
            with vector(width) as c:
                T.buffer_store(self.y, acc[c], [row + acc.index, column + c])


def _blocks(K: int, depth: int) -> list[tuple[int, int, int]]:
    """(start, depth, number) of the blocks of K: whole ones, then the rest."""
    pieces = [(0, depth, K // depth), (K // depth * depth, K % depth, 1)]
    return [(start, size, number) for start, size, number in pieces if size and number]


@cache
def matmul_f32(K: int, N: int) -> tirx.PrimFunc:
    """PrimFunc ``(x [rows, K] f32, w [K, N] f32, y [rows, N] f32)`` with any number of rows: y = x @ w.

    Each element is a chain of fused multiply-adds in increasing k from 0 in every tile shape, so a row's
    result does not depend on the other rows, nor on the number of threads.
    """

    @T.prim_func(private=True, s_tir=True)
    def matmul(x_handle: T.handle, w_handle: T.handle, y_handle: T.handle) -> None:
        T.func_attr(KERNEL_ATTRS)
        rows = T.int64()
        x = T.match_buffer(x_handle, (rows, K), "float32")
        w = T.match_buffer(w_handle, (K, N), "float32")
        y = T.match_buffer(y_handle, (rows, N), "float32")
        with T.sblock("root"):
            T.reads(x[:, :], w[:, :])
            T.writes(y[:, :])
            product = T.meta_var(_Product(x, w, y, rows, K))
            for task in T.parallel(T.int64(N // _TASK)):
                product.columns(task * _TASK, _TASK)
            product.columns(T.int64(N // _TASK * _TASK), N % _TASK)

    return matmul
