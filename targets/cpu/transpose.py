"""Transposing 16 x 16 float32 elements in vector registers."""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx
from tvm.script import tirx as T  # noqa: N812

LANES = 16


def _swap(low: tirx.Expr, high: tirx.Expr, bit: int) -> tuple[tirx.Expr, tirx.Expr]:
    """Two rows whose indexes differ in ``bit``, after exchanging it with that bit of the lane."""

    def pick(into_high: bool) -> tirx.Expr:
        # Lane l of row i comes from the row and lane that have each other's bit.
        lanes = [
            (lane & ~bit | (bit if into_high else 0)) + (LANES if lane & bit else 0) for lane in range(LANES)
        ]
        return tirx.Shuffle([low, high], [tirx.const(lane, "int32") for lane in lanes])

    return pick(False), pick(True)


def transpose(load: Callable[[int], tirx.Expr], store: Callable[[int, tirx.Expr], None]) -> None:
    """Emit ``store(j, column j)`` of the 16 rows ``load(i)``, all vectors of 16 float32.

    Four rounds, each of which exchanges one bit of the row number with that of the lane number.
    """
    rows = [T.bind(load(i)) for i in range(LANES)]
    for bit in (1, 2, 4, 8):
        for i in range(LANES):
            if not i & bit:
                rows[i], rows[i | bit] = (T.bind(row) for row in _swap(rows[i], rows[i | bit], bit))
    for i in range(LANES):
        store(i, rows[i])
