"""Rotary embeddings as fused operators do them: whole heads, by tables of half their channels."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from mllm_tvm.frontend.onnx.dims import ONE, SEQ, Dim, text
from mllm_tvm.frontend.onnx.importer import Importer
from mllm_tvm.frontend.onnx.tensor import Tensor, UnsupportedError, concat, cut, elementwise, reshape, view


@dataclass(frozen=True)
class Rotary:
    """How to rotate heads: cosines and sines of the new tokens, [1, seq, channels / 2], and the pairing."""

    cos: Tensor
    sin: Tensor
    interleaved: bool

    def rotate(self, x: Tensor) -> Tensor:
        """``x [1, seq, heads, head_dim]`` with its first channels rotated by the tokens' positions."""
        width = 2 * self.cos.dims[-1].const
        size = x.dims[-1].const
        if width > size or self.cos.dims != self.sin.dims:
            raise UnsupportedError(
                f"rotates heads of {size} by tables {text(self.cos.dims)}: expected {size // 2}"
            )
        rotated = cut(x, 3, 0, width)
        rotated = self._interleaved(rotated) if self.interleaved else self._halves(rotated)
        return rotated if width == size else concat([rotated, cut(x, 3, width, size)], 3)

    def _halves(self, x: Tensor) -> Tensor:
        half = self.cos.dims[-1].const
        swapped = concat([elementwise("negative", cut(x, 3, half, 2 * half)), cut(x, 3, 0, half)], 3)
        straight = elementwise("multiply", x, _each_head(self.cos, 2))
        return elementwise("add", straight, elementwise("multiply", swapped, _each_head(self.sin, 2)))

    def _interleaved(self, x: Tensor) -> Tensor:
        pairs = reshape(x, (*x.dims[:3], self.cos.dims[-1], Dim(const=2)))
        even, odd = (view(cut(pairs, 4, i, i + 1), pairs.dims[:4]) for i in (0, 1))
        cos, sin = _each_head(self.cos, 1), _each_head(self.sin, 1)
        real = elementwise("subtract", elementwise("multiply", even, cos), elementwise("multiply", odd, sin))
        imaginary = elementwise("add", elementwise("multiply", even, sin), elementwise("multiply", odd, cos))
        joined = concat([view(part, (*part.dims, ONE)) for part in (real, imaginary)], 4)
        return reshape(joined, x.dims)


def _each_head(table: Tensor, repeat: int) -> Tensor:
    """A table [1, seq, n] as [1, seq, 1, repeat * n], its columns repeated."""
    channels = Dim(const=repeat * table.dims[2].const)
    return Tensor("table", (), (ONE, SEQ, ONE, channels), {**table.attrs, "repeat": repeat})


def read_rotary(importer: Importer, cos: str, sin: str, positions: str | None, interleaved: bool) -> Rotary:
    """Reads how a fused operator rotates.

    Args:
        importer: the graph so far.
        cos: name of the table of cosines, [positions, n].
        sin: name of the table of sines.
        positions: name of the tokens' positions; None when the tables have their rows already.
        interleaved: pairs are neighbours, not halves.

    Raises:
        UnsupportedError: the tables do not have one row for each new token.
    """
    tables = [importer.operand(_rows(importer, name, positions)) for name in (cos, sin)]
    for table in tables:
        if table.op != "table" or len(table.dims) != 3 or table.dims[:2] != (ONE, SEQ):
            raise UnsupportedError(f"rotates by {text(table.dims)}: expected rows of a table, [1, seq, n]")
    return Rotary(tables[0], tables[1], interleaved)


def _rows(importer: Importer, table: str, positions: str | None) -> str:
    if positions is None:
        return table
    name = f"{table}[{positions}]"
    if name not in importer.evaluator.producers:
        importer.evaluator.add(onnx.helper.make_node("Gather", [table, positions], [name]))
    return name
