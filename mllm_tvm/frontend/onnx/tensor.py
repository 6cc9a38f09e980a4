"""Activations of a graph: a small expression language between ONNX nodes and Relax.

A :class:`Tensor` has the extents of the ONNX value, but a layout of its own: without extents of 1 and with
the token axis first (``dims.row_axes``). So moving the token axis (Transpose of heads and tokens) and adding
or dropping extents of 1 are views, which cost nothing and do not hide what they are a view of.

The constructors simplify as they go; what they cannot express raises :class:`UnsupportedError`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mllm_tvm.frontend.onnx.dims import (
    ONE,
    Dim,
    Dims,
    is_merged,
    row_axes,
    row_dims,
    text,
    token_axis,
    unmerged,
)


class UnsupportedError(Exception):
    """An operator outside of what can be imported; the message says what was expected."""


@dataclass(frozen=True, eq=False)
class Tensor:
    """A value: the operation that computes it, its inputs and its extents.

    ``const`` (attribute ``name``) is a constant of the graph, ``table`` a value that depends on positions and
    lengths only; both are computed by the evaluator. ``input_ids`` and ``cache`` are inputs. The other
    operations are those of ``emit.EMITTERS`` and, before raising, ``softmax``, ``scores`` (a product of two
    activations) and ``is_nan``.
    """

    op: str
    inputs: tuple[Tensor, ...]
    dims: Dims
    attrs: Mapping[str, Any] = field(default_factory=dict)


def source(x: Tensor) -> Tensor:
    """What ``x`` is a view of."""
    return x.inputs[0] if x.op == "view" else x


def is_scalar(x: Tensor) -> bool:
    """Whether ``x`` is a constant of one element."""
    return x.op == "const" and all(dim == ONE for dim in x.dims)


def scalar(x: Tensor) -> float | None:
    """The value of a constant of one element; None for any other tensor."""
    return float(x.attrs["value"]) if is_scalar(x) else None


def view(x: Tensor, dims: Dims) -> Tensor:
    """``x`` with other extents but the same layout."""
    base = source(x)
    return base if base.dims == dims else Tensor("view", (base,), dims)


def reshape(x: Tensor, dims: Dims) -> Tensor:
    """Reshape that leaves the tokens alone."""
    before, after = _without_ones(x.dims), _without_ones(dims)
    if before == after:
        return view(x, dims)
    if not _keeps_tokens(before, after):
        raise UnsupportedError(
            f"reshapes {text(x.dims)} to {text(dims)}: expected to keep its tokens on one axis"
        )
    base = source(x)
    # A reshape of a reshape is one reshape.
    return Tensor("reshape", base.inputs if base.op == "reshape" else (base,), dims)


def _without_ones(dims: Dims) -> list[Dim]:
    return [part for dim in dims for part in unmerged(dim) if part != ONE]


def _keeps_tokens(before: Sequence[Dim], after: Sequence[Dim]) -> bool:
    at, to = token_axis(tuple(before)), token_axis(tuple(after))
    if at is None or to is None or before[at] != after[to]:
        return False
    return _count(before[:at]) == _count(after[:to]) and _count(before[at:]) == _count(after[to:])


def _count(dims: Sequence[Dim]) -> int:
    return math.prod(dim.const for dim in dims if dim.is_static)


def transpose(x: Tensor, order: Sequence[int]) -> Tensor:
    """Axis ``i`` of the result is axis ``order[i]`` of ``x``."""
    dims = tuple(x.dims[axis] for axis in order)
    if token_axis(dims) is None or is_merged(dims):
        raise UnsupportedError(f"transposes {text(x.dims)}: expected one axis of tokens")
    before = row_axes(x.dims)
    permutation = [before.index(order[axis]) for axis in row_axes(dims)]
    if permutation == sorted(permutation):
        return view(x, dims)
    return Tensor("permute", (source(x),), dims, {"order": permutation})


def elementwise(op: str, *operands: Tensor) -> Tensor:
    """An operation on each element, operands broadcast; removes those that do nothing."""
    dims = broadcast(*(operand.dims for operand in operands))
    if len(operands) == 2:
        for neutral, other in (operands, operands[::-1]):
            right = neutral is operands[1]
            if other.dims == dims and _is_neutral(op, scalar(neutral), right):
                return other
    return Tensor(op, tuple(operands), dims)


def _is_neutral(op: str, value: float | None, right: bool) -> bool:
    if op in ("add", "multiply"):
        return value == (0 if op == "add" else 1)
    return right and value == {"subtract": 0, "divide": 1, "power": 1}.get(op, math.nan)


def broadcast(*shapes: Dims) -> Dims:
    """The extents of an elementwise operation."""
    rank = max(map(len, shapes))
    padded = [(ONE,) * (rank - len(dims)) + dims for dims in shapes]
    result = []
    for extents in zip(*padded, strict=True):
        longer = {dim for dim in extents if dim != ONE}
        if len(longer) > 1:
            raise UnsupportedError(f"cannot broadcast {' and '.join(map(text, shapes))}")
        result.append(longer.pop() if longer else ONE)
    return tuple(result)


def expand(x: Tensor, dims: Dims) -> Tensor:
    """``x`` repeated along axes of extent 1."""
    wanted = broadcast(x.dims, dims)
    padded = (ONE,) * (len(wanted) - len(x.dims)) + x.dims
    if row_dims(padded) == row_dims(wanted):
        return view(x, wanted)
    return Tensor("expand", (view(x, padded),), wanted)


def cut(x: Tensor, axis: int, start: int, stop: int, step: int = 1) -> Tensor:
    """The elements ``start``, ``start + step``, ... before ``stop`` of a static axis."""
    extent = x.dims[axis].const
    if (start, stop, step) == (0, extent, 1):
        return x
    length = len(range(start, stop, step))
    if length == 0 or extent == 1 or is_merged(x.dims):
        raise UnsupportedError(f"slices axis {axis} of {text(x.dims)} : expected a part of it")
    dims = (*x.dims[:axis], Dim(const=length), *x.dims[axis + 1 :])
    at = row_axes(x.dims).index(axis)
    # A length of 1 disappears from the layout.
    return Tensor("slice", (x,), dims, {"axis": at, "start": start, "stop": stop, "step": step})


def concat(parts: Sequence[Tensor], axis: int) -> Tensor:
    """Joins values along a static axis, or new rows to a cache along the token axis."""
    parts = [part for part in parts if Dim() not in part.dims]  # of no elements
    if len(parts) == 1:
        return parts[0]
    axis %= len(parts[0].dims)
    joined = [part.dims[axis] for part in parts]
    total = Dim(*(sum(getattr(dim, name) for dim in joined) for name in ("seq", "past", "const")))
    first = parts[0].dims
    if any(part.dims[:axis] + part.dims[axis + 1 :] != first[:axis] + first[axis + 1 :] for part in parts):
        raise UnsupportedError(f"joins {' and '.join(text(part.dims) for part in parts)} on axis {axis}")
    dims = (*first[:axis], total, *first[axis + 1 :])
    if total.is_static and not is_merged(dims):
        return Tensor("concat", tuple(parts), dims, {"axis": axis})
    if len(parts) == 2 and source(parts[0]).op == "cache":
        return Tensor("append", (source(parts[0]), parts[1]), dims)
    raise UnsupportedError(
        "joins tokens: expected earlier keys or values (an input), then those of the new tokens"
    )
