"""Attention of many rows: a vector holds one element of 16 rows, and keys and values are read as scalars.

That way neither keys nor values have to be transposed, and highest scores and sums are taken along the keys
without crossing lanes. Only the queries are transposed, once, and the results back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx
from tvm.script import tirx as T  # noqa: N812

from targets.cpu import vector_math
from targets.cpu.attention_layout import BLOCK, FLOOR, MASKED, SUMS, Operands
from targets.cpu.kernel import CACHE_LINE, RegisterSum, column_panels, prefetch, register_sums, vector
from targets.cpu.transpose import LANES, transpose

# Sums of a tile in registers: this many vectors of 16.
_VECTORS = 16


@dataclass(frozen=True)
class _Scratch:
    """Buffers of a task for tiles of ``lanes`` rows.

    queries and results [tiles, head_dim, lanes], highest and seen [tiles, lanes], sums [tiles, 16, lanes].
    Of the block of keys at hand: keys and values [64, head_dim], next to each other because rows of the cache
    lie a multiple of 4 KiB apart and would evict each other; weights [64, lanes] of the tile at hand, first
    scores, then e^(score - highest).
    """

    lanes: int
    queries: tirx.Var
    results: tirx.Var
    highest: tirx.Var
    seen: tirx.Var
    sums: tirx.Var
    keys: tirx.Var
    values: tirx.Var
    weights: tirx.Var


def _scratch(tiles: int, lanes: int, head_dim: int) -> _Scratch:
    return _Scratch(
        lanes,
        queries=T.alloc_buffer((tiles, head_dim, lanes), "float32"),
        results=T.alloc_buffer((tiles, head_dim, lanes), "float32"),
        highest=T.alloc_buffer((tiles, lanes), "float32"),
        seen=T.alloc_buffer((tiles, lanes), "int32"),
        sums=T.alloc_buffer((tiles, SUMS, lanes), "float32"),
        keys=T.alloc_buffer((BLOCK, head_dim), "float32"),
        values=T.alloc_buffer((BLOCK, head_dim), "float32"),
        weights=T.alloc_buffer((BLOCK, lanes), "float32"),
    )


@dataclass(frozen=True)
class _Tile:
    """Rows ``first`` to ``last`` of a key head, at index ``at`` of the scratch; lanes beyond repeat it."""

    op: Operands
    scratch: _Scratch
    head: tirx.Expr
    at: tirx.Expr
    first: tirx.Expr
    last: tirx.Expr

    def start(self) -> None:
        """Queries into columns; no keys seen yet."""
        scratch, lanes = self.scratch, self.scratch.lanes
        with vector(lanes) as c:
            T.buffer_store(scratch.highest, T.float32(FLOOR), [self.at, c])
        with T.serial(T.int64(lanes)) as c:
            seen = T.Cast("int32", self.op.seen(T.min(self.first + c, self.last)))
            T.buffer_store(scratch.seen, seen, [self.at, c])
        for buffer, rows in ((scratch.sums, SUMS), (scratch.results, self.op.layout.head_dim)):
            with T.serial(T.int64(rows)) as i, vector(lanes) as c:
                T.buffer_store(buffer, T.float32(0), [self.at, i, c])
        self._load_queries()

    def _query(self, lane: tirx.Expr, e: tirx.Expr) -> tirx.Expr:
        row, group = T.bind(T.min(self.first + lane, self.last)), self.op.layout.group
        return self.op.q[0, row // group, self.head * group + row % group, e]

    def _load_queries(self) -> None:
        D, queries = self.op.layout.head_dim, self.scratch.queries
        scale = T.float32(self.op.layout.scale)
        with T.grid(T.int64(self.scratch.lanes // LANES), T.int64(D // LANES)) as (part, panel):
            transpose(
                lambda i: self._query(part * LANES + i, T.ramp(panel * LANES, 1, LANES)),
                lambda e, column: T.buffer_store(
                    queries,
                    column * T.Broadcast(scale, LANES),
                    [self.at, panel * LANES + e, T.ramp(part * LANES, 1, LANES)],
                ),
            )
        with T.grid(T.int64(self.scratch.lanes), T.int64(D % LANES)) as (lane, rest):
            e = D // LANES * LANES + rest
            T.buffer_store(queries, self._query(lane, e) * scale, [self.at, e, lane])

    def attend(self, begin: tirx.Expr) -> None:
        """Go on with the block of keys from ``begin``, which the scratch buffers hold."""
        lanes, tall = self.scratch.lanes, _VECTORS * LANES // self.scratch.lanes
        keys = T.bind(T.min(self.op.seen(self.last) - begin, T.int64(BLOCK)))
        groups = T.bind(T.ceildiv(keys, tall))
        top, decay = (T.alloc_buffer((lanes,), "float32") for _ in range(2))
        with vector(lanes) as c:
            T.buffer_store(top, self.scratch.highest[self.at, c], [c])
        with T.serial(groups) as g:
            self._score(top, begin, g * tall, tall)
        with T.serial(groups * tall, T.int64(BLOCK)) as j, vector(lanes) as c:
            T.buffer_store(self.scratch.weights, T.float32(MASKED), [j, c])
        self._softmax(top, decay)
        for start, panels, width in column_panels(self.op.layout.head_dim, tall):
            with T.serial(T.int64(panels)) as i:
                self._weigh_values(decay, begin, keys, start + i * width, width)

    def _score(self, top: tirx.Var, begin: tirx.Expr, j: tirx.Expr, count: int) -> None:
        """Scores of keys j .. j + count of the block, and the highest so far into ``top``."""
        scratch, lanes, at = self.scratch, self.scratch.lanes, self.at
        sums = register_sums(count, lanes)
        for acc in sums:
            with vector(lanes) as c:
                acc.store(T.float32(0), c)
        with T.serial(T.int64(self.op.layout.head_dim)) as e:
            self._read_ahead(self.op.k, begin, j // count * self.op.layout.head_dim + e)
            for acc in sums:
                with vector(lanes) as c:
                    key = scratch.keys[j + acc.index, e]
                    acc.store(vector_math.fma(key, scratch.queries[at, e, c], acc[c]), c)
        for acc in sums:
            key = j + acc.index
            with vector(lanes) as c:
                score = T.Select(self._sees(c, begin + key), acc[c], T.float32(MASKED))
                T.buffer_store(scratch.weights, score, [key, c])
            with vector(lanes) as c:
                T.buffer_store(top, T.max(top[c], scratch.weights[key, c]), [c])

    def _read_ahead(self, source: tirx.Var, begin: tirx.Expr, line: tirx.Expr) -> None:
        """Ask memory for a cache line of the next head's block, which lies where the hardware does not look.

        Only with few rows: more of them compute for longer than a block takes to arrive.
        """
        lines = self.op.layout.head_dim // CACHE_LINE
        if self.scratch.lanes == LANES and lines:
            prefetch(source, T.int64(0), begin + line // lines, self.head + 1, line % lines * CACHE_LINE)

    def _sees(self, lane: tirx.Expr, key: tirx.Expr) -> tirx.Expr:
        return self.op.visible(T.Cast("int32", key), self.scratch.seen[self.at, lane])

    def _softmax(self, top: tirx.Var, decay: tirx.Var) -> None:
        """Scores to weights; ``decay`` is what results and sums so far have to be multiplied with."""
        highest, weights, sums = self.scratch.highest, self.scratch.weights, self.scratch.sums
        lanes, at, exp = self.scratch.lanes, self.at, vector_math.exp_of_nonpositive
        with vector(lanes) as c:
            T.buffer_store(decay, exp(highest[at, c] - top[c]), [c])
        with vector(lanes) as c:
            T.buffer_store(highest, top[c], [at, c])
        with T.serial(T.int64(SUMS)) as i:
            for part in range(BLOCK // SUMS):
                with vector(lanes) as c:
                    row = part * SUMS + i
                    T.buffer_store(weights, exp(weights[row, c] - top[c]), [row, c])
            with vector(lanes) as c:
                first, second, third, fourth = (weights[part * SUMS + i, c] for part in range(BLOCK // SUMS))
                total = vector_math.fma(sums[at, i, c], decay[c], (first + second) + (third + fourth))
                T.buffer_store(sums, total, [at, i, c])

    def _weigh_values(
        self, decay: tirx.Var, begin: tirx.Expr, keys: tirx.Expr, start: tirx.Expr, width: int
    ) -> None:
        """Channels start .. start + width of the results: the keys that all rows see, then those some do."""
        lanes, at, results = self.scratch.lanes, self.at, self.scratch.results
        sums = register_sums(width, lanes)
        for acc in sums:
            with vector(lanes) as c:
                acc.store(results[at, start + acc.index, c] * decay[c], c)
        all_see = T.bind(T.max(T.min(self.op.seen(self.first) - begin, T.int64(BLOCK)), T.int64(0)))
        with T.serial(all_see) as j:
            self._read_ahead(self.op.v, begin, start * BLOCK // LANES + j)
            self._add_values(sums, j, start, lambda _, total, __: total)
        # A weight of 0 is not enough: 0 times an infinite value that a row must not see is not 0.
        with T.serial(all_see, keys) as j:
            self._add_values(
                sums, j, start, lambda c, total, old: T.Select(self._sees(c, begin + j), total, old)
            )
        for acc in sums:
            with vector(lanes) as c:
                T.buffer_store(results, acc[c], [at, start + acc.index, c])

    def _add_values(
        self,
        sums: list[RegisterSum],
        j: tirx.Expr,
        start: tirx.Expr,
        choose: Callable[[tirx.Expr, tirx.Expr, tirx.Expr], tirx.Expr],
    ) -> None:
        """Add key j's values; ``choose(lane, new sum, old sum)``."""
        for acc in sums:
            with vector(self.scratch.lanes) as c:
                value = self.scratch.values[j, start + acc.index]
                acc.store(choose(c, vector_math.fma(value, self.scratch.weights[j, c], acc[c]), acc[c]), c)

    def finish(self) -> None:
        """Divide by the sums, from the first partial sum to the last, and store the rows that exist."""
        at, D, lanes = self.at, self.op.layout.head_dim, self.scratch.lanes
        sums, results = self.scratch.sums, self.scratch.results
        with T.serial(T.int64(1), T.int64(SUMS)) as i, vector(lanes) as c:
            T.buffer_store(sums, sums[at, 0, c] + sums[at, i, c], [at, 0, c])
        with T.serial(T.int64(D)) as e, vector(lanes) as c:
            T.buffer_store(results, results[at, e, c] / sums[at, 0, c], [at, e, c])
        with T.grid(T.int64(lanes // LANES), T.int64(D // LANES)) as (part, panel):
            transpose(
                lambda e: results[at, panel * LANES + e, T.ramp(part * LANES, 1, LANES)],
                lambda i, row: self._store(part * LANES + i, T.ramp(panel * LANES, 1, LANES), row),
            )
        with T.grid(T.int64(lanes), T.int64(D % LANES)) as (lane, rest):
            e = D // LANES * LANES + rest
            self._store(lane, e, results[at, e, lane])

    def _store(self, lane: tirx.Expr, e: tirx.Expr, value: tirx.Expr) -> None:
        """Channels ``e`` of the result of the row in a lane, if there is one."""
        row, group = T.bind(self.first + lane), self.op.layout.group
        with T.If(row <= self.last), T.Then():
            self.op.out.store(row // group, self.head * group + row % group, e, value)


def _load_block(scratch: _Scratch, op: Operands, head: tirx.Expr, begin: tirx.Expr, count: tirx.Expr) -> None:
    """Keys and values begin .. begin + count of a head; 0 in the rest of the block."""
    D = op.layout.head_dim
    for to, source in ((scratch.keys, op.k), (scratch.values, op.v)):
        with T.serial(count) as j, vector(D) as c:
            T.buffer_store(to, source[0, begin + j, head, c], [j, c])
        with T.serial(count, T.int64(BLOCK)) as j, vector(D) as c:
            T.buffer_store(to, T.float32(0), [j, c])


def emit_tiles(op: Operands, lanes: int, heads: int, rows: int) -> None:
    """The kernel's body: tasks of ``heads`` neighbouring key heads and up to ``rows`` rows of each."""
    tiles_of_head = -(-rows // lanes)
    tasks = T.ceildiv(op.rows, rows)
    with T.parallel(op.layout.kv_heads // heads * tasks) as task:
        scratch = _scratch(heads * tiles_of_head, lanes, op.layout.head_dim)
        start = T.bind(task % tasks * rows)
        end = T.bind(T.min(start + rows, op.rows))
        tiles = T.bind(T.ceildiv(end - start, lanes))

        def tile(h: tirx.Expr, i: tirx.Expr) -> _Tile:
            head, at = T.bind(task // tasks * heads + h), T.bind(h * tiles_of_head + i)
            first = T.bind(start + i * lanes)
            return _Tile(op, scratch, head, at, first, T.bind(T.min(first + lanes, end) - 1))

        with T.grid(T.int64(heads), tiles) as (h, i):
            tile(h, i).start()
        first_block, seen = T.bind(op.first_block(start)), T.bind(op.seen(end - 1))
        with T.serial(T.ceildiv(seen, BLOCK) - first_block) as block, T.serial(T.int64(heads)) as h:
            begin = T.bind((first_block + block) * BLOCK)
            _load_block(
                scratch, op, task // tasks * heads + h, begin, T.bind(T.min(seen - begin, T.int64(BLOCK)))
            )
            with T.serial(tiles) as i:
                at_hand = tile(h, i)
                with T.If(op.seen(at_hand.last) > begin), T.Then():
                    at_hand.attend(begin)
        with T.grid(T.int64(heads), tiles) as (h, i):
            tile(h, i).finish()
