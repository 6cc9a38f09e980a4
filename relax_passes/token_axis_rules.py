"""The exact token-axis rule of each op (see ``analyze_token_axis``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tvm import ir, relax, tirx
from tvm_ffi import structural_equal

from .errors import PassError
from .graph import LINEAR_W8A8, MLP_W8A8, SHADOW_LINEAR, op_name, operands


@dataclass(frozen=True)
class TokenAxis:
    """A value's token axis and how many tokens it holds (``seq``, or ``past + seq`` for a cache)."""

    axis: int
    tokens: ir.Expr

    def moved(self, axis: int) -> TokenAxis:
        return TokenAxis(axis, self.tokens)

    def same(self, other: TokenAxis) -> bool:
        return self.axis == other.axis and structural_equal(self.tokens, other.tokens)


Axes = Sequence[TokenAxis | None]
Result = tuple[TokenAxis | None, bool]
Rule = Callable[[relax.Call, Axes], Result]


def _rank(expr: relax.Expr) -> int:
    return int(expr.ty.ndim)


def _fail(call: relax.Call, why: str) -> PassError:
    return PassError(f"op {op_name(call)}: {why}")


def _elementwise(call: relax.Call, axes: Axes) -> Result:
    rank = _rank(call)
    aligned = [
        axis.moved(axis.axis + rank - _rank(operand))
        for operand, axis in zip(operands(call), axes, strict=True)
        if axis is not None
    ]
    if not all(axis.same(aligned[0]) for axis in aligned):
        raise _fail(call, f"operands have different token axes {[(a.axis, str(a.tokens)) for a in aligned]}")
    return aligned[0], False


def _matmul(call: relax.Call, axes: Axes) -> Result:
    left, right = axes
    if left is not None and right is None and left.axis != _rank(call.args[0]) - 1:
        return left.moved(left.axis + _rank(call) - _rank(call.args[0])), False
    if left is not None and right is not None:
        return left, True
    raise _fail(call, "contracts or permutes the token axis against a weight; expected tokens on the left")


def _attention(call: relax.Call, axes: Axes) -> Result:
    if axes[0] is None:
        raise _fail(call, "the query has no token axis")
    return axes[0], True


def _reduced_axes(call: relax.Call) -> list[int]:
    found = call.attrs.axes if hasattr(call.attrs, "axes") else call.attrs.axis
    reduced = [found] if isinstance(found, int) else found
    return [int(axis) % _rank(call.args[0]) for axis in reduced]


def _normalization(call: relax.Call, axes: Axes) -> Result:
    axis = axes[0]
    if axis is None:
        raise _fail(call, "only a weight depends on tokens")
    return axis, axis.axis in _reduced_axes(call)


def _reduction(call: relax.Call, axes: Axes) -> Result:
    axis, mixes = _normalization(call, axes)
    reduced = _reduced_axes(call)
    if mixes or axis is None:
        raise _fail(call, "reduces the token axis")
    removed = 0 if call.attrs.keepdims else sum(i < axis.axis for i in reduced)
    return axis.moved(axis.axis - removed), False


def _take(call: relax.Call, axes: Axes) -> Result:
    table, index = axes
    if table is not None or index is None:
        raise _fail(call, "expected token indices into a table without tokens")
    at = int(call.attrs.axis) if call.attrs.axis is not None else 0
    return index.moved(index.axis + at), False


def _reshape(call: relax.Call, axes: Axes) -> Result:
    axis = _the(call, axes)
    before = call.args[0].ty.shape.values
    after = call.ty.shape.values
    head = _product(before[: axis.axis])
    for i, extent in enumerate(after):
        if structural_equal(extent, axis.tokens) and _product(after[:i]) == head:
            return axis.moved(i), False
    raise _fail(call, f"the token axis {axis.axis} of {list(before)} is not an axis of {list(after)}")


def _product(extents: Sequence[ir.Expr]) -> int:
    product = 1
    for extent in extents:
        product *= int(extent) if isinstance(extent, tirx.IntImm) else 0
    return product


def _the(call: relax.Call, axes: Axes) -> TokenAxis:
    if axes[0] is None:
        raise _fail(call, "its first operand has no token axis")
    return axes[0]


def _expand_dims(call: relax.Call, axes: Axes) -> Result:
    axis = _the(call, axes)
    added = sorted(int(i) % _rank(call) for i in call.attrs.axis)
    kept = [i for i in range(_rank(call)) if i not in added]
    return axis.moved(kept[axis.axis]), False


def _squeeze(call: relax.Call, axes: Axes) -> Result:
    axis = _the(call, axes)
    removed = {int(i) % _rank(call.args[0]) for i in call.attrs.axis}
    if axis.axis in removed:
        raise _fail(call, "removes the token axis")
    return axis.moved(axis.axis - sum(i < axis.axis for i in removed)), False


def _permute_dims(call: relax.Call, axes: Axes) -> Result:
    axis = _the(call, axes)
    rank = _rank(call)
    order = [int(i) % rank for i in call.attrs.axes] if call.attrs.axes else list(reversed(range(rank)))
    return axis.moved(order.index(axis.axis)), False


def _broadcast_to(call: relax.Call, axes: Axes) -> Result:
    axis = _the(call, axes)
    return axis.moved(axis.axis + _rank(call) - _rank(call.args[0])), False


def _along_axis(call: relax.Call, axes: Axes) -> Result:
    """split, concat: token-wise unless they cut or join the token axis itself."""
    present = [axis for axis in axes if axis is not None]
    along = int(call.attrs.axis) % _rank(operands(call)[0])
    if present[0].axis != along:
        if len(present) != len(axes) or not all(axis.same(present[0]) for axis in present):
            raise _fail(call, "operands have different token axes")
        return present[0], False
    if op_name(call) == "relax.split":
        raise _fail(call, "cuts the token axis")
    return TokenAxis(along, call.ty.shape.values[along]), True


def _strided_slice(call: relax.Call, axes: Axes) -> Result:
    axis = _the(call, axes)
    if axis.axis in {int(i) % _rank(call) for i in call.args[1]}:
        raise _fail(call, "slices the token axis")
    return axis, False


def _pad(call: relax.Call, axes: Axes) -> Result:
    axis = _the(call, axes)
    widths = [int(width) for width in call.attrs.pad_width]
    if any(widths[2 * axis.axis : 2 * axis.axis + 2]):
        raise _fail(call, "pads the token axis")
    return axis, False


def _first_operand(call: relax.Call, axes: Axes) -> Result:
    return _the(call, axes), False


_ELEMENTWISE = (
    "abs",
    "add",
    "astype",
    "clip",
    "cos",
    "divide",
    "equal",
    "erf",
    "exp",
    "greater",
    "greater_equal",
    "less",
    "less_equal",
    "logical_and",
    "logical_not",
    "maximum",
    "minimum",
    "multiply",
    "negative",
    "nn.gelu",
    "nn.gelu_tanh",
    "nn.relu",
    "nn.silu",
    "not_equal",
    "power",
    "round",
    "rsqrt",
    "sigmoid",
    "sin",
    "sqrt",
    "square",
    "subtract",
    "tanh",
    "where",
)

RULES: dict[str, Rule] = {
    **{f"relax.{name}": _elementwise for name in _ELEMENTWISE},
    "relax.matmul": _matmul,
    "relax.nn.attention": _attention,
    "relax.nn.rms_norm": _normalization,
    "relax.nn.layer_norm": _normalization,
    "relax.nn.softmax": _normalization,
    "relax.max": _reduction,
    "relax.mean": _reduction,
    "relax.take": _take,
    "relax.reshape": _reshape,
    "relax.expand_dims": _expand_dims,
    "relax.squeeze": _squeeze,
    "relax.permute_dims": _permute_dims,
    "relax.broadcast_to": _broadcast_to,
    "relax.split": _along_axis,
    "relax.concat": _along_axis,
    "relax.strided_slice": _strided_slice,
    "relax.nn.pad": _pad,
    LINEAR_W8A8: _first_operand,
    MLP_W8A8: _first_operand,
    SHADOW_LINEAR: _first_operand,
}
"""Op name -> its exact rule: the operands' token axes in, the result's token axis and whether it mixes out.
"""
