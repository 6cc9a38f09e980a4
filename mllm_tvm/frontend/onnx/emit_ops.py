"""How each operation of a :class:`Tensor` is emitted."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from tvm import relax, tirx

from mllm_tvm.frontend.onnx.dims import row_axes, row_dims
from mllm_tvm.frontend.onnx.parameters import Parameter
from mllm_tvm.frontend.onnx.tensor import Tensor, source

if TYPE_CHECKING:
    from mllm_tvm.frontend.onnx.emit import Emitter

Emit = Callable[["Emitter", Tensor], relax.Expr]


def _unary(op: Callable[[relax.Expr], relax.Expr]) -> Emit:
    return lambda e, x: e.emit(op(e.rows(x.inputs[0])))


def _elementwise(op: Callable[..., relax.Expr]) -> Emit:
    return lambda e, x: e.emit(op(*(e.aligned(operand, x) for operand in x.inputs)))


def _embedding(e: Emitter, x: Tensor) -> relax.Expr:
    table = e.weight(x.inputs[0], keep_float16=True)
    rows = e.emit(relax.op.take(table, e.input_ids, axis=0, mode="clip"))
    return e.emit(relax.op.astype(rows, "float32"))


def _linear(e: Emitter, x: Tensor) -> relax.Expr:
    weight = e.weight(x.inputs[1])
    e.linears[weight.name] = str(e.importer.stored_dtype(x.inputs[1]))
    return e.emit(relax.op.matmul(e.rows(x.inputs[0]), weight))


def _reciprocal(e: Emitter, x: Tensor) -> relax.Expr:
    return e.emit(relax.op.divide(relax.const(1.0, "float32"), e.rows(x.inputs[0])))


def _reshape(e: Emitter, x: Tensor) -> relax.Expr:
    # Attention's own layout, [1, seq, heads, head_dim], is reshaped but once.
    y = x.inputs[0]
    rows = e.values[y] if y.op == "attention" else e.rows(y)
    return e.emit(relax.op.reshape(rows, e.extents(row_dims(x.dims))))


def _expand(e: Emitter, x: Tensor) -> relax.Expr:
    return e.emit(relax.op.broadcast_to(e.aligned(x.inputs[0], x), e.extents(row_dims(x.dims))))


def _slice(e: Emitter, x: Tensor) -> relax.Expr:
    attrs = x.attrs
    steps = None if attrs["step"] == 1 else [attrs["step"]]
    rows = e.rows(x.inputs[0])
    part = e.emit(relax.op.strided_slice(rows, [attrs["axis"]], [attrs["start"]], [attrs["stop"]], steps))
    # An axis of one element is left out of the layout.
    removed = len(row_dims(x.dims)) < len(row_dims(x.inputs[0].dims))
    return e.emit(relax.op.squeeze(part, [attrs["axis"]])) if removed else part


def _concat(e: Emitter, x: Tensor) -> relax.Expr:
    parts = [e.aligned(part, x) for part in x.inputs]
    return e.emit(relax.op.concat(parts, axis=row_axes(x.dims).index(x.attrs["axis"])))


def _mean(e: Emitter, x: Tensor) -> relax.Expr:
    source_axes = row_axes(x.inputs[0].dims)
    axes = [source_axes.index(axis) for axis in x.attrs["axes"] if axis in source_axes]
    return e.emit(relax.op.mean(e.rows(x.inputs[0]), axes, keepdims=False))


def _norm_weight(e: Emitter, x: Tensor, weight: Tensor | None, fill: float) -> relax.Expr:
    size = x.dims[-1].const
    if weight is not None:
        return e.weight(weight, [size])
    name = f"{'ones' if fill else 'zeros'}.{size}"
    return e.parameter(name, Parameter((size,), "float32", lambda: np.full(size, fill, np.float32)))


def _rms_norm(e: Emitter, x: Tensor) -> relax.Expr:
    weight = _norm_weight(e, x, x.inputs[1] if len(x.inputs) > 1 else None, 1.0)
    rows = e.rows(x.inputs[0])
    return e.emit(relax.op.nn.rms_norm(rows, weight, axes=[-1], epsilon=x.attrs["epsilon"]))


def _layer_norm(e: Emitter, x: Tensor) -> relax.Expr:
    weight = _norm_weight(e, x, x.inputs[1] if len(x.inputs) > 1 else None, 1.0)
    bias = _norm_weight(e, x, x.inputs[2] if len(x.inputs) > 2 else None, 0.0)
    rows = e.rows(x.inputs[0])
    return e.emit(relax.op.nn.layer_norm(rows, weight, bias, axes=[-1], epsilon=x.attrs["epsilon"]))


def _attention(e: Emitter, x: Tensor) -> relax.Expr:
    info = e.importer.layers[x.attrs["layer"]]
    query, key, value = x.inputs
    q = e.heads(query, info.heads, info.head_dim)
    k, v = e.append(x.attrs["layer"], (key, value))
    q, k, v = (e.emit(relax.op.expand_dims(y, [0])) for y in (q, k, v))
    usual = math.isclose(x.attrs["scale"], info.head_dim**-0.5, rel_tol=1e-5)
    scale = None if usual else tirx.FloatImm("float32", x.attrs["scale"])
    window = x.attrs["window"]
    return e.emit(relax.op.nn.attention(q, k, v, scale=scale, causal_mask="BottomRight", window_size=window))


EMITTERS: dict[str, Emit] = {
    **{
        op: _elementwise(getattr(relax.op, op))
        for op in ("add", "divide", "maximum", "minimum", "multiply", "power", "subtract")
    },
    **{
        op: _unary(getattr(relax.op, op))
        for op in ("abs", "erf", "exp", "negative", "sigmoid", "sqrt", "tanh")
    },
    **{op: _unary(getattr(relax.op.nn, op)) for op in ("gelu", "gelu_tanh", "relu", "silu")},
    "attention": _attention,
    "concat": _concat,
    "embedding": _embedding,
    "expand": _expand,
    "input_ids": lambda e, x: e.input_ids,
    "layer_norm": _layer_norm,
    "linear": _linear,
    "mean": _mean,
    "normalized": _rms_norm,
    "permute": lambda e, x: e.emit(relax.op.permute_dims(e.rows(x.inputs[0]), x.attrs["order"])),
    "reciprocal": _reciprocal,
    "reshape": _reshape,
    "rms_norm": _rms_norm,
    "slice": _slice,
    "standardized": _layer_norm,
    "view": lambda e, x: e.rows(source(x)),
}
"""Operation -> how it is emitted."""
