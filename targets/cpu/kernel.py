"""What hand-written kernels, legalizers and schedule rules agree on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

from tvm import tirx
from tvm.script import tirx as T  # noqa: N812

# Set on a PrimFunc whose loops are final.
IS_SCHEDULED = "tirx.is_scheduled"
# Set on a block that evaluates a transcendental function: worth a buffer when it has several consumers.
TRANSCENDENTAL = "mllm.transcendental"
# FuseOps' number for a kernel whose every element has a place of its own in the result's.
INJECTIVE_PATTERN = 2
# FuseOps' number for a kernel with a loop structure of its own, which is not fused into a neighbour.
OPAQUE_PATTERN = 8

# Float32 elements that a cache fetches together.
CACHE_LINE = 16

KERNEL_ATTRS = {"op_pattern": OPAQUE_PATTERN, IS_SCHEDULED: True, "tirx.noalias": True}


# TVM takes larger buffers, and those of scope "local", from the heap. LLVM keeps such sums in registers only
# if it can prove that no argument points there; it cannot in a module of several functions, where kernels ran
# at less than half the speed.
_MOST_STACK_BYTES = 1023


def register_groups(rows: int, columns: int) -> list[tuple[int, int]]:
    """(first row, rows) of the buffers for a tile of 4-byte sums, each small enough for the stack."""
    most = max(1, _MOST_STACK_BYTES // (4 * columns))
    count = -(-rows // most)
    size = -(-rows // count)
    return [(start, min(size, rows - start)) for start in range(0, rows, size)]


def column_panels(columns: int, widest: int) -> Iterator[tuple[int, int, int]]:
    """(first column, number of panels, panel width): what fits of ``widest``, the rest by halved widths."""
    start, width = 0, widest
    while start < columns:
        panels = (columns - start) // width
        if panels:
            yield start, panels, width
        start, width = start + panels * width, width // 2


@dataclass(frozen=True)
class RegisterSum:
    """A vector of float32 sums that LLVM keeps in registers: number ``index`` of a tile's."""

    index: int
    buffer: tirx.Var
    start: int

    def __getitem__(self, lane: tirx.Expr) -> tirx.Expr:
        return self.buffer[self.start + lane]

    def store(self, value: tirx.Expr, lane: tirx.Expr) -> None:
        """Emit the new value of a lane."""
        T.buffer_store(self.buffer, value, [self.start + lane])


def register_sums(count: int, lanes: int) -> list[RegisterSum]:
    """Emit the buffers of ``count`` vectors of ``lanes`` sums."""
    return [
        RegisterSum(first + i, buffer, i * lanes)
        for first, size in register_groups(count, lanes)
        for buffer in [T.alloc_buffer((size * lanes,), "float32")]
        for i in range(size)
    ]


def vector(lanes: int) -> AbstractContextManager[tirx.Var]:
    """A loop over the lanes of a vector."""
    return T.vectorized(T.int64(lanes))


def prefetch(buffer: tirx.Var, *index: tirx.Expr) -> None:
    """Emit a request for an element's cache line; it may lie out of bounds."""
    address = T.address_of(buffer[index])
    # For reading, into all caches, data.
    T.evaluate(T.call_llvm_intrin("void", "llvm.prefetch", address, T.int32(0), T.int32(3), T.int32(1)))
