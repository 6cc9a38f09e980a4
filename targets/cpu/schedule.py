"""Schedule rules: every PrimFunc that is not a hand-written kernel gets vectorized loops.

Runs after FuseTIR. Producers are inlined into their consumers; each block left is elementwise (its last axis
is vectorized), a reduction over its last axis (vectorized partial sums, then their sum in a fixed order) or a
contraction (the last output axis is vectorized). Only static axes are split, never the rows, so a row is
computed by the same operations whatever the number of rows. Threads share the rows where none needs another.
"""

from __future__ import annotations

import logging
import math

import tvm
from tvm import s_tir, tirx
from tvm.s_tir.schedule import LoopRV, SBlockRV, Schedule, ScheduleError
from tvm.tirx.buffer import BufferType

from targets.cpu.kernel import IS_SCHEDULED, TRANSCENDENTAL
from targets.cpu.loops import blocks, is_spatial, merge_results, merge_rows, parallelize_rows, shrink_buffers

logger = logging.getLogger(__name__)

_WIDEST = 32
# Partial results of a reduction: enough to hide the latency of one. They are combined to so few first.
_REDUCED = 64
_FEW = 16
_NARROWEST = 4


@tvm.transform.module_pass(opt_level=0, name="ScheduleForCpu")
def schedule_for_cpu(mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
    """Schedule the module's PrimFuncs; a block that no rule fits keeps its default loops and is logged."""
    scheduled = mod.clone()
    for gvar, func in mod.functions_items():
        if isinstance(func, tirx.PrimFunc) and IS_SCHEDULED not in (func.attrs or {}):
            scheduled[gvar] = schedule_primfunc(func, gvar.name_hint)
    return scheduled


def schedule_primfunc(func: tirx.PrimFunc, name: str) -> tirx.PrimFunc:
    """The scheduled form of one PrimFunc made of s_tir blocks."""
    sch = Schedule(func, error_render_level="none")
    lanes = _common_lanes(sch, func)
    _inline_producers(sch)
    for block in blocks(sch):
        if not _schedule_block(sch, block, lanes):
            logger.warning("no vectorizing schedule for block %s of %s", sch.get(block).name_hint, name)
    merge_results(sch)
    is_row_by_row = merge_rows(sch)
    scheduled = sch.mod["main"]
    if is_row_by_row:
        scheduled = parallelize_rows(shrink_buffers(sch.mod)["main"])
    return scheduled.with_attr(IS_SCHEDULED, True)


def _common_lanes(sch: Schedule, func: tirx.PrimFunc) -> int:
    """The widest vector that divides every buffer's last axis, so that none crosses pieces of a concat."""
    variables = [*func.params, *sch.get(sch.get_sblock("root")).alloc_buffers]
    shapes = [var.ty.shape for var in variables if isinstance(var.ty, BufferType)]
    last = [shape[-1] for shape in shapes if len(shape)]
    extents = [int(extent) for extent in last if isinstance(extent, tirx.IntImm)]
    common = math.gcd(*(extent for extent in extents if extent > 1))
    return math.gcd(common, _WIDEST) if common else 1


def _inline_producers(sch: Schedule) -> None:
    outputs = {sch.get(block).name_hint for block in sch.get_output_blocks(sch.get_sblock("root"))}
    costly = {sch.get(block).name_hint for block in blocks(sch) if _is_transcendental(sch.get(block))}
    for block in blocks(sch):
        name = sch.get(block).name_hint
        consumers = [sch.get(consumer).name_hint for consumer in sch.get_consumers(block)]
        is_repeated = name in costly and len(consumers) > 1
        if name in outputs or is_repeated or not _worth_inlining(sch, block):
            continue
        try:
            sch.compute_inline(block)
        except ScheduleError as error:
            logger.debug("block %s is not inlined: %s", name, error)
        else:
            costly.update(consumers if name in costly else ())


def _is_transcendental(block: s_tir.SBlock) -> bool:
    return TRANSCENDENTAL in block.annotations


def _worth_inlining(sch: Schedule, block: SBlockRV) -> bool:
    """Not a reduction, nor one value a row that inlining would compute for each element, nor what a reduction
    and its followers need: a row of it stays in the cache between them."""
    stmt = sch.get(block)
    consumers = [sch.get(consumer) for consumer in sch.get_consumers(block)]
    follows_reduction = any(not is_spatial(sch.get(producer)) for producer in sch.get_producers(block))
    is_broadcast = any(len(consumer.iter_vars) > len(stmt.iter_vars) for consumer in consumers)
    is_kept = len(consumers) > 1 and not all(is_spatial(consumer) for consumer in consumers)
    return is_spatial(stmt) and not (follows_reduction and is_broadcast) and not is_kept


def _schedule_block(sch: Schedule, block: SBlockRV, lanes: int) -> bool:
    stmt = sch.get(block)
    loops = sch.get_loops(block)
    if len(loops) != len(stmt.iter_vars):
        return False
    if is_spatial(stmt):
        if loops:
            _vectorize(sch, loops[-1], lanes)
        return True
    try:
        if _is_contraction(stmt):
            return _schedule_contraction(sch, block)
        return _schedule_row_reduction(sch, block)
    except ScheduleError as error:
        logger.debug("block %s: %s", stmt.name_hint, error)
        return False


def _static_extent(sch: Schedule, loop: LoopRV) -> int | None:
    extent = sch.get(loop).extent
    return int(extent) if isinstance(extent, tirx.IntImm) else None


def _vectorize(sch: Schedule, loop: LoopRV, lanes: int) -> None:
    """Vectorize a loop by ``lanes``.

    One that they do not divide stays as it is: with a condition on the last vector TVM would make all of them
    scalar, while LLVM vectorizes the plain loop and its rest about as well.
    """
    extent = _static_extent(sch, loop)
    width = math.gcd(extent, lanes) if extent else 1
    if width >= _NARROWEST:
        sch.vectorize(sch.split(loop, factors=[None, width])[1])


def _is_contraction(block: s_tir.SBlock) -> bool:
    """Whether an operand has the output's last axis as its last and a reduced axis among the others."""
    spatial = [iv.var for iv in block.iter_vars if iv.iter_type == tirx.IterVar.DataPar]
    reduced = [iv.var for iv in block.iter_vars if iv.iter_type != tirx.IterVar.DataPar]

    def indexes(region: tirx.TensorRegion) -> bool:
        *outer, last = [axis.min for axis in region.region]
        return last.same_as(spatial[-1]) and any(axis.same_as(var) for axis in outer for var in reduced)

    return bool(spatial) and any(indexes(read) for read in block.reads if len(read.region))


def _schedule_contraction(sch: Schedule, block: SBlockRV) -> bool:
    """Rows, then the reduced axes, then a vector of outputs that takes one step of the sum at a time."""
    kinds = [iv.iter_type == tirx.IterVar.DataPar for iv in sch.get(block).iter_vars]
    loops = sch.get_loops(block)
    spatial = [loop for loop, is_spatial in zip(loops, kinds, strict=True) if is_spatial]
    reduced = [loop for loop, is_spatial in zip(loops, kinds, strict=True) if not is_spatial]
    extent = _static_extent(sch, spatial[-1])
    width = math.gcd(extent, 2 * _WIDEST) if extent else 1
    if width < _NARROWEST:
        return False
    outer, inner = sch.split(spatial[-1], factors=[None, width])
    sch.reorder(*spatial[:-1], outer, *reduced, inner)
    sch.vectorize(inner)
    init = sch.decompose_reduction(block, reduced[0])
    sch.vectorize(sch.get_loops(init)[-1])
    return True


def _partial_results(sch: Schedule, block: SBlockRV, width: int) -> None:
    """Let the last reduced axis of ``block`` be ``width`` partial results, computed as a vector before it."""
    _, inner = sch.split(sch.get_loops(block)[-1], factors=[None, width])
    partial = sch.rfactor(inner, factor_axis=len(sch.get_loops(block)) - 2)
    *_, step, lane = sch.get_loops(partial)
    sch.vectorize(lane)
    init = sch.decompose_reduction(partial, step)
    sch.vectorize(sch.get_loops(init)[-1])


def _schedule_row_reduction(sch: Schedule, block: SBlockRV) -> bool:
    """Vectors of partial results over the row, then their combination in a fixed order."""
    loop = sch.get_loops(block)[-1]
    extent = _static_extent(sch, loop)
    width = math.gcd(extent, _REDUCED) if extent else 1
    if width < _NARROWEST:
        return False
    _partial_results(sch, block, width)
    if width > _FEW:
        _partial_results(sch, block, _FEW)
    return True
