"""Merges the loops of a scheduled function's blocks: over the rows, and over the elements of its results."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import tvm
from tvm import s_tir, tirx
from tvm.s_tir.schedule import LoopRV, SBlockRV, Schedule, ScheduleError

logger = logging.getLogger(__name__)


def blocks(sch: Schedule) -> list[SBlockRV]:
    """The function's blocks in the order of the program."""
    return list(sch.get_child_blocks(sch.get_sblock("root")))


def is_spatial(block: s_tir.SBlock) -> bool:
    """Whether it reduces no axis."""
    return all(iv.iter_type == tirx.IterVar.DataPar for iv in block.iter_vars)


def merge_results(sch: Schedule) -> None:
    """One loop for all results of one shape, in which the compiler computes once what they have in common.

    It is where the last of them was: nothing needs the others before.
    """
    nests: dict[tuple[str, ...], list[LoopRV]] = {}
    for block in blocks(sch):
        loops = sch.get_loops(block)
        serial = [loop for loop in loops if sch.get(loop).kind == tirx.ForKind.SERIAL]
        if serial and is_spatial(sch.get(block)) and not sch.get_consumers(block):
            shape = tuple(f"{sch.get(loop).kind} {sch.get(loop).extent}" for loop in loops)
            nests.setdefault(shape, []).append(serial[-1])
    for loops in nests.values():
        if len(loops) > 1:
            _merge(sch, loops)


def merge_rows(sch: Schedule) -> bool:
    """One loop over the rows for all blocks: what one wrote of a row is in the cache for the next.

    Returns whether there is one loop now, whose turns need nothing of each other.
    """
    outer = [sch.get_loops(block)[:1] for block in blocks(sch)]
    if not all(outer) or not all(_is_row_by_row(sch, sch.get(block)) for block in blocks(sch)):
        return False
    loops = {sch.get(loop).loop_var: loop for (loop,) in outer}
    return len(loops) < 2 or _merge(sch, loops.values())


def _merge(sch: Schedule, loops: Iterable[LoopRV]) -> bool:
    try:
        sch.merge(*loops)
    except ScheduleError as error:
        logger.debug("loops are not merged: %s", error)
        return False
    return True


def shrink_buffers(mod: tvm.IRModule) -> tvm.IRModule:
    """Intermediates of a row are allocated in the loop over the rows, for one row."""
    passes = [
        s_tir.transform.LowerInitBlock(),
        s_tir.transform.PlanAndUpdateBufferAllocationLocation(),
        s_tir.transform.ConvertBlocksToOpaque(),
        s_tir.transform.CompactBufferAllocation(),
    ]
    return tvm.transform.Sequential(passes)(mod)


def parallelize_rows(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Share the turns of the one outermost loop among threads, if it is over the rows.

    ``Schedule.parallel`` refuses it: it does not see that what is read was written in the same turn.
    """
    root = func.body.block
    loop = root.body
    if isinstance(loop.extent, tirx.IntImm):
        return func
    loop = tirx.For(loop.loop_var, loop.min, loop.extent, tirx.ForKind.PARALLEL, loop.body)
    block = s_tir.SBlock(root.iter_vars, root.reads, root.writes, root.name_hint, loop)
    return func.with_body(s_tir.SBlockRealize([], True, block))


def _is_row_by_row(sch: Schedule, block: s_tir.SBlock) -> bool:
    """Whether the block's one axis of symbolic extent is the first index of all intermediates it accesses."""
    rows = [iv.var for iv in block.iter_vars if not isinstance(iv.dom.extent, tirx.IntImm)]
    intermediates = list(sch.get(sch.get_sblock("root")).alloc_buffers)
    accessed = [read for read in block.reads if any(read.source.same_as(var) for var in intermediates)]
    first = [access.region[0] for access in (*accessed, *block.writes) if len(access.region)]
    return len(rows) == 1 and all(axis.min.same_as(rows[0]) and int(axis.extent) == 1 for axis in first)
