"""How an integer linear kernel is cut: register blocks, loop unrolling, panels; and what that moves.

Memory model. A kernel takes its rows in panels. It keeps a panel of activations in the tightly coupled memory
(VTCM) and streams the weights past it, so activations and results cross the memory bus once and the weights
once a panel. In the VTCM, each register block re-reads its activations and its weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

from targets.errors import TargetError

COLUMNS = 32
ADDRESS_SPACE = (1 << 32) - (256 << 20)
"""Bytes of a 32-bit process that tensors can have; the rest is for code, stacks and the allocator."""
_STREAM_VECTORS = 16
_VECTOR_BYTES = 128


@dataclass(frozen=True)
class Tiling:
    """How a kernel is cut.

    A register block is ``rows`` x ``blocks`` of 32 columns. A loop iteration has at most ``unroll`` steps of
    four k, and more than half as many. The kernel passes over all weights for ``panel`` rows at a time; 0 is
    all rows. Raises TargetError when one of the first three is less than 1 or ``panel`` is negative.
    """

    rows: int
    blocks: int
    unroll: int
    panel: int = 0

    def __post_init__(self) -> None:
        if min(self.rows, self.blocks, self.unroll) < 1 or self.panel < 0:
            raise TargetError(
                f"bad {self}: rows, blocks and unroll must be at least 1, and panel at least 0 (all rows)"
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


def split_evenly(total: int, size: int) -> list[Run]:
    """Cuts ``range(total)`` into runs of blocks of ``size`` and one shorter rest."""
    count, rest = divmod(total, size)
    runs = [Run(0, count, size)] if count else []
    return [*runs, Run(count * size, 1, rest)] if rest else runs


def choose_unroll(steps: int, most: int) -> int:
    """The number of steps a loop iteration, in (most / 2, most], that leaves the shortest rest.

    The rest is straight-line code; when it is long, LLVM moves its loads up and spills them.
    """
    return min(range(most, most // 2, -1), key=lambda unroll: steps % unroll)


def rule_tiling(m: int, k: int, n: int) -> Tiling:
    """The HVX tiling for a shape nobody tuned.

    Four rows by two blocks balance loads and multiplications. One row uses each weight vector once, whatever
    the block; more blocks share the loads of its activations. Few steps leave a long loop no room.
    """
    if m < 4:
        return Tiling(m, min(8 // m, n // COLUMNS), 8)
    return Tiling(4, 2, 8 if k <= 128 else 16)


@dataclass(frozen=True)
class Traffic:
    """Bytes one call moves.

    ``memory``: across the memory bus. ``vtcm``: between VTCM and registers. ``resident``: what has to be in
    the VTCM at once (a panel of activations, and for each context two windows of its weight stream, one being
    filled).
    """

    memory: int
    vtcm: int
    resident: int


def traffic(m: int, k: int, n: int, tiling: Tiling, contexts: int = 1) -> Traffic:
    """What ``linear_w8a8`` of this shape and tiling moves on ``contexts`` contexts."""
    panel = min(tiling.panel or m, m)
    panels = math.ceil(m / panel)
    column_groups = math.ceil(n / (COLUMNS * tiling.blocks))
    row_groups = math.ceil(m / tiling.rows)
    return Traffic(
        memory=m * k + panels * k * n + 4 * m * n,
        vtcm=column_groups * m * k + row_groups * k * n + 4 * m * n,
        resident=panel * k + contexts * 2 * _STREAM_VECTORS * _VECTOR_BYTES * tiling.blocks,
    )


def tensor_bytes(m: int, k: int, n: int) -> int:
    """Bytes of x, the packed weights and y."""
    return m * k + k * n + 4 * m * n


def check_address_space(m: int, k: int, n: int) -> None:
    """Raises TargetError when the tensors of one call exceed the 32-bit address space."""
    excess = tensor_bytes(m, k, n) - ADDRESS_SPACE
    if excess > 0:
        raise TargetError(
            f"linear_w8a8 of M={m}, K={k}, N={n} needs {tensor_bytes(m, k, n)} bytes, {excess} more than "
            f"Hexagon's 32-bit address space can hold: split N over several linears"
        )


def fit_vtcm(m: int, k: int, n: int, tiling: Tiling, vtcm_bytes: int, contexts: int = 1) -> Tiling:
    """``tiling`` with the panel made as small as ``vtcm_bytes`` demands.

    Raises TargetError when not even one register block's rows fit.
    """
    resident = traffic(m, k, n, tiling, contexts).resident
    if resident <= vtcm_bytes:
        return tiling
    rows = min(tiling.rows, m)
    stream = resident - min(tiling.panel or m, m) * k
    panel = (vtcm_bytes - stream) // k // rows * rows
    if panel < rows:
        raise TargetError(
            f"linear_w8a8 of M={m}, K={k}, N={n} needs {rows * k + stream} bytes of VTCM for {rows} rows of "
            f"activations, but there are {vtcm_bytes}: choose a target with more VTCM or split K"
        )
    return replace(tiling, panel=panel)
