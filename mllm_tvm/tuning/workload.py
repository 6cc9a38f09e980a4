"""What is tuned: the integer linear as a plain tensor expression, and the decisions a trace can take on it.

The kernel is emitted for a `Tiling`, not made by loop transformations: a MetaSchedule trace samples the
numbers of the tiling and annotates the compute block with them. Search, cost model and database see an
ordinary trace; the builder reads the annotations back.
"""

from __future__ import annotations

from typing import NamedTuple

import tvm
from tvm import te
from tvm.s_tir import Schedule

from targets.hexagon.tiling import COLUMNS, Tiling, rule_tiling
from targets.packing import packed_shape

BLOCK = "linear_w8a8"
ROWS = (1, 2, 3, 4, 6, 8)
BLOCKS = (1, 2, 3, 4, 6, 8)
UNROLLS = (2, 4, 6, 8, 10, 12, 16, 20, 24, 32)
_ROW_PERIOD = 24
_BLOCK_PERIOD = 12
_WIDE_BLOCK_PERIOD = 24
_HVX_VECTORS = 32
_MULTIPLICATIONS = 256


class Shape(NamedTuple):
    """M rows, K inputs (a multiple of 4) and N outputs (a multiple of 32) of an integer linear."""

    m: int
    k: int
    n: int

    def __str__(self) -> str:
        return f"{self.m}x{self.k}x{self.n}"

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one call."""
        return self.m * self.k * self.n

    @property
    def limit(self) -> int:
        """Most multiply-accumulates a packet: 256, and 128 for one row, whose weights are used once."""
        return 128 if self.m == 1 else 256


def workload(shape: Shape) -> tvm.IRModule:
    """``y[m, n] = sum_k x[m, k] * (w[k, n] - 128)`` over packed weights, as an IRModule with ``main``."""
    m, k, n = shape
    x = te.placeholder((m, k), "int8", "x")
    w = te.placeholder(packed_shape(k, n), "uint8", "w")
    i = te.reduce_axis((0, k), "k")
    y = te.compute(
        (m, n),
        lambda row, column: te.sum(
            x[row, i].astype("int32")
            * (w[column // COLUMNS, i // 4, column % COLUMNS, i % 4].astype("int32") - 128),
            axis=i,
        ),
        name=BLOCK,
    )
    return tvm.IRModule({"main": te.create_prim_func([x, w, y])})


def sample_tiling(sch: Schedule) -> None:
    """The design space: samples each number of a tiling that the shape has room for."""
    for name, values in _choices(shape_of(sch.mod)).items():
        _decide(sch, name, values, None)


def rule_schedule(shape: Shape) -> Schedule:
    """The design space's schedule with the decisions of the rule, or the nearest smaller ones it offers."""
    sch = Schedule(workload(shape))
    rule = rule_tiling(*shape)
    for name, values in _choices(shape).items():
        nearest = max(value for value in values if value <= getattr(rule, name))
        _decide(sch, name, values, values.index(nearest))
    return sch


def _choices(shape: Shape) -> dict[str, list[int]]:
    return {
        "rows": [rows for rows in ROWS if rows <= shape.m],
        "blocks": [blocks for blocks in BLOCKS if blocks <= shape.n // COLUMNS],
        "unroll": list(UNROLLS),
    }


def _decide(sch: Schedule, name: str, values: list[int], index: int | None) -> None:
    decision = sch.sample_categorical(values, [1 / len(values)] * len(values), index)
    sch.annotate(sch.get_sblock(BLOCK), _key(name), decision)


def shape_of(mod: tvm.IRModule) -> Shape:
    """The shape of a workload."""
    x, _, y = mod["main"].params
    return Shape(int(x.shape[0]), int(x.shape[1]), int(y.shape[1]))


def tiling_of(sch: Schedule) -> Tiling:
    """The tiling a trace decided on."""
    annotations = sch.get(sch.get_sblock(BLOCK)).annotations
    return Tiling(*(int(annotations[_key(name)]) for name in ("rows", "blocks", "unroll")))


def fits_registers(tiling: Tiling) -> bool:
    """Whether the accumulators, one step's weights and a spare fit HVX's 32 vector registers."""
    return tiling.rows * tiling.blocks + tiling.blocks + 1 <= _HVX_VECTORS


def is_short(tiling: Tiling) -> bool:
    """Whether a loop iteration has at most 256 multiplications: LLVM takes seconds for longer ones."""
    return tiling.rows * tiling.blocks * tiling.unroll <= _MULTIPLICATIONS


def canonical(shape: Shape) -> Shape:
    """The shape that is tuned for ``shape``: the fewest rows and columns with the same rest blocks.

    Packets are linear in the number of equal blocks, so both rank tilings alike. Keeping the remainder of M
    by 24, and that of N by 384 (by 768 with few rows, where blocks are wide), keeps every rest block.
    """
    m, k, n = shape
    rows = 2 * _ROW_PERIOD
    columns = COLUMNS * (_BLOCK_PERIOD if m >= 4 else _WIDE_BLOCK_PERIOD)
    return Shape(
        m if m <= rows else rows + m % _ROW_PERIOD, k, n if n <= 2 * columns else columns + n % columns
    )


def _key(name: str) -> str:
    return f"mllm.{name}"
