"""Loops over register blocks, in TIR: all of them, or the share of one hardware context."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import tirx as T  # noqa: N812 (the name TVM uses everywhere)

from targets.hexagon.tiling import COLUMNS, Run

EmitBlock = Callable[[Expr, int], None]
EachBlock = Callable[[EmitBlock], None]
"""Emits loops; the argument emits their body from the start of a block and its size."""

_ROW_SUM_COLUMNS = 2
"""The sum of a row takes as many packets as this many of its columns."""
_PREFER_COLUMNS = 1.02


class ContextSplit(NamedTuple):
    """Contexts share the rows or the columns of a panel, in ``parts``."""

    axis: Literal["rows", "columns"]
    parts: int


def split_contexts(rows: Sequence[Run], columns: Sequence[Run], contexts: int) -> ContextSplit:
    """The split that leaves the busiest context least to do, for blocks of rows and of 32 columns.

    Columns unless rows are clearly better: then a weight is read by one context only. But each context then
    sums all rows, and a few blocks of columns may be no multiple of the contexts.
    """
    row_parts, column_parts = (min(contexts, runs[0].repeats) for runs in (rows, columns))
    by_rows = _largest_share(rows, row_parts) * (COLUMNS * _total(columns) + _ROW_SUM_COLUMNS)
    by_columns = _total(rows) * (COLUMNS * _largest_share(columns, column_parts) + _ROW_SUM_COLUMNS)
    if by_rows * _PREFER_COLUMNS < by_columns:
        return ContextSplit("rows", row_parts)
    return ContextSplit("columns", column_parts)


def each_block(runs: Sequence[Run], emit: EmitBlock) -> None:
    """Loops over all blocks."""
    for start, count, size in runs:
        with T.serial(0, count) as i:
            emit(start + i * size, size)


def share(runs: Sequence[Run], part: Expr, parts: int) -> tuple[EachBlock, Expr]:
    """Loops over the blocks of context ``part`` of ``parts``, and the last index of its last block.

    Contexts share the first run, those with a small number get the larger shares, and the last one also has
    the rest.
    """
    main, rest = runs[0], runs[1:]
    begin, end = (T.bind(((part + i) * main.repeats + parts - 1) // parts) for i in (0, 1))

    def each(emit: EmitBlock) -> None:
        with T.serial(begin, end) as j:
            emit(j * main.size, main.size)
        if rest:
            with T.If(part == parts - 1), T.Then():
                each_block(rest, emit)

    last = end * main.size - 1
    if rest:
        last = tirx.Select(part == parts - 1, tirx.const(_total(runs) - 1, "int32"), last)
    return each, T.bind(last)


def _largest_share(runs: Sequence[Run], parts: int) -> int:
    main = runs[0]
    rest = _total(runs) - main.repeats * main.size
    return max(-(-main.repeats // parts) * main.size, main.repeats // parts * main.size + rest)


def _total(runs: Sequence[Run]) -> int:
    return sum(run.repeats * run.size for run in runs)
