"""Activations beyond int8 in integer linears: a second, nearly empty matrix of upper bytes.

A 16-bit activation is ``low + 256 * high`` with ``low`` in -128 to 127, so ``high`` is zero for whatever int8
holds. ``x @ W = low @ W + (high @ W) * 256``: the first product is the dense kernel's, the second is computed
for the non-zero words (four neighbouring channels of a row) of ``high`` alone, with the same packed weights.
This is the product for CPUs; `targets.hexagon.outliers` has that for HVX.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import tirx as T  # noqa: N812 (the name TVM uses everywhere)

LARGEST = 32639
"""The largest value of two such bytes; the smallest is -32768."""
_COLUMNS = 32
_ALL_BYTES_128 = -0x7F7F7F80
# Words that are tested together: from 16 on LLVM does it with few instructions.
_WORDS = 16

Dot = Callable[[tirx.Expr, tirx.Expr, tirx.Expr], tirx.Expr]


def split_bytes(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``low`` and ``high``, int8, of integers from -32768 to ``LARGEST``."""
    x = x.astype(np.int32)
    high = (x + 128) >> 8
    return (x - 256 * high).astype(np.int8), high.astype(np.int8)


def emit_outliers(
    high: tirx.Buffer,
    w: tirx.Buffer,
    y: tirx.Buffer,
    rows: tuple[tirx.Expr, tirx.Expr],
    lanes: int,
    dot: Dot,
) -> None:
    """Emits ``y += (high @ (w - 128)) * 256`` for rows from ``rows[0]`` to ``rows[1]``.

    Args:
        high: [m, k] int8; w: packed weights [n/32, k/4, 32, 4] uint8; y: [m, n] int32.
        lanes, dot: a unit that adds products of four bytes to ``lanes`` int32.
    """
    steps = high.shape[1] // 4
    emit = _Words(high, w, y, lanes, dot)
    with T.serial(*rows) as row:
        with (
            T.serial(0, steps // _WORDS) as group,
            T.If(emit.any(row, group * _WORDS)),
            T.Then(),
            T.serial(0, _WORDS) as i,
        ):
            emit.add(row, group * _WORDS + i)
        with T.serial(0, steps % _WORDS) as rest:
            emit.add(row, steps // _WORDS * _WORDS + rest)


class _Words:
    """Emits the product of one word of activations with its rows of the weight."""

    def __init__(self, high: tirx.Buffer, w: tirx.Buffer, y: tirx.Buffer, lanes: int, dot: Dot) -> None:
        self.y, self.lanes, self.dot = y, lanes, dot
        self.steps = high.shape[1] // 4
        size = high.shape[0] * high.shape[1]
        weights = w.shape[0] * w.shape[1] * (4 * _COLUMNS)
        self.flat = T.decl_buffer((size,), "int8", data=high.data, align=4 * lanes)
        self.weights = T.decl_buffer((weights,), "uint8", data=w.data, align=4 * lanes)

    def any(self, row: tirx.Expr, step: tirx.Expr) -> tirx.Expr:
        """Whether one of the ``_WORDS`` words from ``step`` on is not zero."""
        at = T.bind(4 * (row * self.steps + step))
        found = [
            T.reinterpret(self.flat[tirx.Ramp(at + 8 * i, 1, 8)], dtype="int64") for i in range(_WORDS // 2)
        ]
        while len(found) > 1:
            found = [tirx.bitwise_or(*found[i : i + 2]) for i in range(0, len(found), 2)]
        return found[0] != tirx.const(0, "int64")

    def word(self, row: tirx.Expr, step: tirx.Expr) -> tirx.Expr:
        """Four activations as an int32."""
        return T.reinterpret(self.flat[tirx.Ramp(4 * (row * self.steps + step), 1, 4)], dtype="int32")

    def add(self, row: tirx.Expr, step: tirx.Expr) -> None:
        """Adds a word's products to all columns, if it is not zero."""
        word = T.bind(self.word(row, step))
        with T.If(word != 0), T.Then():
            offset = T.bind(-self.dot(self._constant(0), self._constant(_ALL_BYTES_128), word))
            with T.serial(0, self.y.shape[1] // _COLUMNS) as block:
                self._add_block(row, step, block, word, offset)

    def _add_block(
        self, row: tirx.Expr, step: tirx.Expr, block: tirx.Expr, word: tirx.Expr, offset: tirx.Expr
    ) -> None:
        """32 columns; ``offset`` takes back the 128 that weights are stored with."""
        parts = _COLUMNS // self.lanes
        for part in range(parts):
            at = 4 * self.lanes * ((block * self.steps + step) * parts + part)
            lanes = tirx.Ramp(block * _COLUMNS + part * self.lanes, 1, self.lanes)
            w = T.reinterpret(self.weights[tirx.Ramp(at, 1, 4 * self.lanes)], dtype=f"int32x{self.lanes}")
            product = self.dot(offset, w, word) << self._constant(8)
            T.buffer_store(self.y, self.y[row, lanes] + product, [row, lanes])

    def _constant(self, value: int) -> tirx.Expr:
        return T.broadcast(tirx.const(value, "int32"), self.lanes)
