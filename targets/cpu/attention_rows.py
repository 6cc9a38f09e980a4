"""Attention of few rows, as in decode: a vector holds a row's scores of 16 keys or 16 channels of its result.

Keys are transposed 16 x 16 in registers on the way; the time is that of reading keys and values once. A task
goes over the keys with several neighbouring heads, so that it reads long pieces of each row of the cache.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx
from tvm.script import tirx as T  # noqa: N812

from targets.cpu import vector_math
from targets.cpu.attention_layout import BLOCK, FLOOR, MASKED, SUMS, Operands
from targets.cpu.kernel import column_panels, vector
from targets.cpu.transpose import LANES, transpose

# More rows are worth a vector of rows.
MOST_ROWS = 15
_PANEL = 128


@dataclass(frozen=True)
class _Scratch:
    """Buffers of a task.

    keys [head_dim, 64] of the block at hand; for each row of each of its heads queries and results
    [rows, head_dim], highest [rows, 1] and sums [rows, 16].
    """

    keys: tirx.Var
    queries: tirx.Var
    results: tirx.Var
    highest: tirx.Var
    sums: tirx.Var


def _scratch(rows: int, head_dim: int) -> _Scratch:
    return _Scratch(
        keys=T.alloc_buffer((head_dim, BLOCK), "float32"),
        queries=T.alloc_buffer((rows, head_dim), "float32"),
        results=T.alloc_buffer((rows, head_dim), "float32"),
        highest=T.alloc_buffer((rows, 1), "float32"),
        sums=T.alloc_buffer((rows, SUMS), "float32"),
    )


def _load_keys(scratch: _Scratch, op: Operands, head: tirx.Expr, begin: tirx.Expr, count: tirx.Expr) -> None:
    """Keys begin .. begin + count of a head into columns; 0 in the others."""
    D, keys = op.layout.head_dim, scratch.keys

    def copy(first_key: tirx.Expr, first_channel: int) -> None:
        with T.grid(count - first_key, T.int64(D - first_channel)) as (j, e):
            column, channel = first_key + j, first_channel + e
            T.buffer_store(keys, op.k[0, begin + column, head, channel], [channel, column])

    with T.grid(count // LANES, T.int64(D // LANES)) as (i, panel):
        transpose(
            lambda r: op.k[0, begin + i * LANES + r, head, T.ramp(panel * LANES, 1, LANES)],
            lambda e, column: T.buffer_store(keys, column, [panel * LANES + e, T.ramp(i * LANES, 1, LANES)]),
        )
    copy(T.bind(count // LANES * LANES), 0)
    if D % LANES:
        copy(T.int64(0), D // LANES * LANES)
    with T.grid(T.int64(D), BLOCK - count) as (e, rest):
        T.buffer_store(keys, T.float32(0), [e, count + rest])


def _fold(combine: Callable[[tirx.Expr, tirx.Expr], tirx.Expr], values: tirx.Var) -> tirx.Expr:
    """16 lanes out of a vector of each quarter of 64 values."""
    first, second, third, fourth = (values[T.ramp(i * LANES, 1, LANES)] for i in range(BLOCK // LANES))
    return combine(combine(first, second), combine(third, fourth))


@dataclass(frozen=True)
class _Row:
    """A row of a key head, at index ``at`` of the scratch buffers."""

    op: Operands
    scratch: _Scratch
    head: tirx.Expr
    at: tirx.Expr
    row: tirx.Expr

    def _place(self) -> tuple[tirx.Expr, tirx.Expr]:
        """Position and head of the row's query."""
        group = self.op.layout.group
        return self.row // group, self.head * group + self.row % group

    def start(self) -> None:
        """No keys seen yet."""
        scratch, at, scale = self.scratch, self.at, T.float32(self.op.layout.scale)
        T.buffer_store(scratch.highest, T.float32(FLOOR), [at, 0])
        with vector(SUMS) as c:
            T.buffer_store(scratch.sums, T.float32(0), [at, c])
        with T.serial(T.int64(self.op.layout.head_dim)) as e:
            T.buffer_store(scratch.results, T.float32(0), [at, e])
            T.buffer_store(scratch.queries, self.op.q[0, *self._place(), e] * scale, [at, e])

    def attend(self, begin: tirx.Expr, seen: tirx.Expr) -> None:
        """Go on with the block of keys from ``begin``; the row sees the keys up to ``seen``."""
        weights = T.alloc_buffer((BLOCK,), "float32")
        self._score(weights, begin, seen)
        decay = self._softmax(weights)
        keys = T.bind(T.min(seen - begin, T.int64(BLOCK)))
        for start, panels, width in column_panels(self.op.layout.head_dim, _PANEL):
            for i in range(panels):
                self._weigh_values(weights, decay, begin, keys, start + i * width, width)

    def _score(self, weights: tirx.Var, begin: tirx.Expr, seen: tirx.Expr) -> None:
        scratch = self.scratch
        with vector(BLOCK) as c:
            T.buffer_store(weights, T.float32(0), [c])
        with T.serial(T.int64(self.op.layout.head_dim)) as e, vector(BLOCK) as c:
            score = vector_math.fma(scratch.keys[e, c], scratch.queries[self.at, e], weights[c])
            T.buffer_store(weights, score, [c])
        with vector(BLOCK) as c:
            visible = self.op.visible(T.Cast("int32", begin + c), T.Cast("int32", seen))
            T.buffer_store(weights, T.Select(visible, weights[c], T.float32(MASKED)), [c])

    def _softmax(self, weights: tirx.Var) -> tirx.Var:
        """Scores to weights; returns what results and sums so far have to be multiplied with."""
        highest, sums, at = self.scratch.highest, self.scratch.sums, self.at
        exp, lanes = vector_math.exp_of_nonpositive, T.ramp(0, 1, SUMS)
        of_block = T.call_llvm_pure_intrin("float32", "llvm.vector.reduce.fmax", _fold(T.max, weights))
        top = T.bind(T.max(highest[at, 0], of_block))
        decay = T.bind(exp(highest[at, 0] - top))
        T.buffer_store(highest, top, [at, 0])
        with vector(BLOCK) as c:
            T.buffer_store(weights, exp(weights[c] - top), [c])
        total = tirx.call_llvm_pure_intrin(
            f"float32x{SUMS}",
            "llvm.fma",
            sums[at, lanes],
            T.Broadcast(decay, SUMS),
            _fold(operator.add, weights),
        )
        T.buffer_store(sums, total, [at, lanes])
        return decay

    def _weigh_values(
        self, weights: tirx.Var, decay: tirx.Var, begin: tirx.Expr, keys: tirx.Expr, start: int, width: int
    ) -> None:
        """Channels start .. start + width of the result."""
        acc, results, at = T.alloc_buffer((width,), "float32"), self.scratch.results, self.at
        with vector(width) as c:
            T.buffer_store(acc, results[at, start + c] * decay, [c])
        with T.serial(keys) as j, vector(width) as c:
            value = self.op.v[0, begin + j, self.head, start + c]
            T.buffer_store(acc, vector_math.fma(value, weights[j], acc[c]), [c])
        with vector(width) as c:
            T.buffer_store(results, acc[c], [at, start + c])

    def finish(self) -> None:
        """Divide by the sum, from the first partial sum to the last."""
        partial = self.scratch.sums[self.at, T.ramp(0, 1, SUMS)]
        total = T.bind(T.call_llvm_pure_intrin("float32", "llvm.vector.reduce.fadd", T.float32(0), partial))
        with T.serial(T.int64(self.op.layout.head_dim)) as e:
            self.op.out.store(*self._place(), e, self.scratch.results[self.at, e] / total)


def emit_rows(op: Operands) -> None:
    """The kernel's body for at most 15 rows of a key head: tasks of a few key heads."""
    heads = op.layout.neighbours
    with T.parallel(T.int64(op.layout.kv_heads // heads)) as task:
        scratch = _scratch(heads * MOST_ROWS, op.layout.head_dim)

        def row(h: tirx.Expr, i: tirx.Expr) -> _Row:
            return _Row(op, scratch, T.bind(task * heads + h), T.bind(h * MOST_ROWS + i), i)

        with T.grid(T.int64(heads), op.rows) as (h, i):
            row(h, i).start()
        first_block, last = T.bind(op.first_block(T.int64(0))), T.bind(op.seen(op.rows - 1))
        with T.serial(T.ceildiv(last, BLOCK) - first_block) as block, T.serial(T.int64(heads)) as h:
            begin = T.bind((first_block + block) * BLOCK)
            _load_keys(scratch, op, task * heads + h, begin, T.bind(T.min(last - begin, T.int64(BLOCK))))
            with T.serial(op.rows) as i:
                seen = T.bind(op.seen(i))
                with T.If(seen > begin), T.Then():
                    row(h, i).attend(begin, seen)
        with T.grid(T.int64(heads), op.rows) as (h, i):
            row(h, i).finish()
