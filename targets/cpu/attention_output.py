"""Where the attention kernels leave a finished row: as float32, or as what its integer linear reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import tvm_ffi
from tvm import tirx
from tvm.script import tirx as T  # noqa: N812

from targets.cpu import vector_math

# The largest integer; the smallest is its negative.
LIMIT = 127.0


@dataclass(frozen=True)
class Quantization:
    """How the result is quantized: by a step for each column or one for all; with the residual or without."""

    per_channel: bool
    residual: bool


class Output(Protocol):
    """Takes the elements of finished rows."""

    @property
    def results(self) -> tuple[tirx.Var, ...]:
        """The buffers it writes."""

    def store(self, position: tirx.Expr, head: tirx.Expr, channel: tirx.Expr, value: tirx.Expr, /) -> None:
        """Emit the store of a channel of a query head; or of several, ``channel`` and ``value`` vectors."""


@dataclass(frozen=True)
class FloatOutput:
    """``rows [1, s, heads, head_dim]`` float32."""

    rows: tirx.Var

    @property
    def results(self) -> tuple[tirx.Var, ...]:
        return (self.rows,)

    def store(self, position: tirx.Expr, head: tirx.Expr, channel: tirx.Expr, value: tirx.Expr) -> None:
        T.buffer_store(self.rows, value, [T.int64(0), position, head, channel])


@dataclass(frozen=True)
class QuantizedOutput:
    """``integers [s, heads * head_dim]`` int8 and, for a shadow path, ``residual`` float32 of that shape.

        scaled = x / step;  clipped = clip(round(scaled), -127, 127);  integers = int8(clipped)
        residual = 0 where round(scaled) == clipped, else scaled - clipped

    the float operations of the elementwise kernel that does this to a value in memory, so the same bits.
    ``step`` is [] or one for each column.
    """

    integers: tirx.Var
    residual: tirx.Var | None
    step: tirx.Var
    head_dim: int

    @property
    def results(self) -> tuple[tirx.Var, ...]:
        return (self.integers,) if self.residual is None else (self.integers, self.residual)

    def store(self, position: tirx.Expr, head: tirx.Expr, channel: tirx.Expr, value: tirx.Expr) -> None:
        place = [position, head * self.head_dim + channel]
        scaled = T.bind(value / self.step[tuple(place[1:]) if len(self.step.ty.shape) else ()])
        rounded = T.bind(vector_math.round_half_even(scaled))
        clipped = T.bind(T.max(T.min(rounded, T.float32(LIMIT)), T.float32(-LIMIT)))
        lanes = value.ty.dtype.lanes
        T.buffer_store(self.integers, T.Cast(str(tvm_ffi.dtype("int8").with_lanes(lanes)), clipped), place)
        if self.residual is not None:
            zero = tirx.const(0.0, str(value.ty))
            residual = T.Select(tirx.EQ(rounded, clipped), zero, scaled - clipped)
            T.buffer_store(self.residual, residual, place)
