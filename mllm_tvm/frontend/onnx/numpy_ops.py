"""ONNX operators on NumPy arrays: for the part of a graph that depends on lengths and positions only.

Shapes, masks, rotary angles and constants are computed here; activations never are. An operator takes its
node and its input arrays (None for an absent optional one) and returns its outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx

Array = np.ndarray
Attributes = Mapping[str, Any]
NumpyOp = Callable[..., Any]


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """The attributes of a node, strings decoded."""
    found = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in found.items()}


def axes_of(attrs: Attributes, given: Array | None) -> list[int] | None:
    """Axes of an operator, from its input (newer opsets) or its attribute; None when it has neither."""
    if given is not None:
        return [int(axis) for axis in np.atleast_1d(given)]
    axes = attrs.get("axes")
    return None if axes is None else [int(axis) for axis in axes]


def reshape_target(shape: Sequence[int], target: Sequence[int], allow_zero: bool) -> list[int]:
    """The resulting shape of Reshape, with 0 (copied) and -1 (inferred) resolved."""
    extents = [shape[i] if extent == 0 and not allow_zero else int(extent) for i, extent in enumerate(target)]
    if -1 in extents:
        known = math.prod(extent for extent in extents if extent != -1)
        extents[extents.index(-1)] = math.prod(shape) // max(known, 1)
    return extents


def slices(rank: int, attrs: Attributes, arrays: Sequence[Array | None]) -> list[slice]:
    """The slice of each axis of Slice; ``arrays`` are its inputs starts, ends, axes and steps, if any."""
    given = [None if array is None else [int(i) for i in array] for array in arrays]
    starts, ends, axes, steps = [*given, None, None, None, None][:4]
    starts, ends = starts or list(attrs.get("starts", ())), ends or list(attrs.get("ends", ()))
    axes = axes or list(attrs.get("axes", range(len(starts))))
    steps = steps or [1] * len(starts)
    found = [slice(None)] * rank
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        # Going backwards past the first element cannot be written as a Python end index.
        last = None if step < 0 and end < -(2**31) else end
        found[axis % rank] = slice(start, last, step)
    return found


def _divide(a: Array, b: Array) -> Array:
    if np.issubdtype(a.dtype, np.integer):
        return np.trunc(a / b).astype(a.dtype)
    return np.asarray(a / b)


def _reshape(attrs: Attributes, x: Array, target: Array) -> Array:
    return x.reshape(reshape_target(x.shape, list(target), bool(attrs.get("allowzero"))))


def _unsqueeze(attrs: Attributes, x: Array, axes: Array | None = None) -> Array:
    return np.expand_dims(x, tuple(axes_of(attrs, axes) or ()))


def _squeeze(attrs: Attributes, x: Array, axes: Array | None = None) -> Array:
    found = axes_of(attrs, axes)
    return np.squeeze(x, None if found is None else tuple(found))


def _slice(attrs: Attributes, x: Array, *arrays: Array | None) -> Array:
    return x[tuple(slices(x.ndim, attrs, arrays))]


def _gather(attrs: Attributes, x: Array, indices: Array) -> Array:
    return np.take(x, indices, axis=attrs.get("axis", 0))


def _gather_nd(attrs: Attributes, x: Array, indices: Array) -> Array:
    if attrs.get("batch_dims", 0):
        raise NotImplementedError("batch_dims")
    return np.asarray(x[tuple(np.moveaxis(indices, -1, 0))])


def _gather_elements(attrs: Attributes, x: Array, indices: Array) -> Array:
    return np.take_along_axis(x, indices, axis=attrs.get("axis", 0))


def _scatter_nd(attrs: Attributes, x: Array, indices: Array, updates: Array) -> Array:
    if attrs.get("reduction", "none") != "none":
        raise NotImplementedError("reduction")
    result = x.copy()
    result[tuple(np.moveaxis(indices, -1, 0))] = updates
    return result


def _expand(_: Attributes, x: Array, shape: Array) -> Array:
    return np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(int(i) for i in shape)))


def _cast(attrs: Attributes, x: Array) -> Array:
    return x.astype(onnx.helper.tensor_dtype_to_np_dtype(attrs["to"]))


def _constant(attrs: Attributes) -> Array:
    if "value" in attrs:
        return np.asarray(onnx.numpy_helper.to_array(attrs["value"]))
    name, value = next(iter(attrs.items()))
    if "string" in name or "sparse" in name:
        raise NotImplementedError(name)
    return np.asarray(value, np.float32 if "float" in name else np.int64)


def _constant_of_shape(attrs: Attributes, shape: Array) -> Array:
    value = onnx.numpy_helper.to_array(attrs["value"]) if "value" in attrs else np.zeros(1, np.float32)
    return np.full(tuple(int(i) for i in shape), np.asarray(value).ravel()[0])


def _range(_: Attributes, start: Array, limit: Array, delta: Array) -> Array:
    return np.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)


def _cumsum(attrs: Attributes, x: Array, axis: Array) -> Array:
    at = int(np.ravel(axis)[0])
    ordered = np.flip(x, at) if attrs.get("reverse") else x
    summed = np.cumsum(ordered, axis=at, dtype=x.dtype)
    summed = summed - ordered if attrs.get("exclusive") else summed
    return np.flip(summed, at) if attrs.get("reverse") else summed


def _trilu(attrs: Attributes, x: Array, k: Array | None = None) -> Array:
    diagonal = 0 if k is None else int(np.ravel(k)[0])
    return np.triu(x, diagonal) if attrs.get("upper", 1) else np.tril(x, diagonal)


def _clip(attrs: Attributes, x: Array, low: Array | None = None, high: Array | None = None) -> Array:
    low = attrs.get("min") if low is None else low
    high = attrs.get("max") if high is None else high
    return x if low is None and high is None else np.clip(x, low, high)


def _flatten(attrs: Attributes, x: Array) -> Array:
    axis = attrs.get("axis", 1)
    return x.reshape(math.prod(x.shape[:axis]), -1)


def _split(attrs: Attributes, x: Array, sizes: Array | None = None) -> list[Array]:
    axis = attrs.get("axis", 0) % x.ndim
    lengths = split_sizes(attrs, x.shape[axis], sizes)
    return np.split(x, np.cumsum(lengths)[:-1], axis=axis)


def split_sizes(attrs: Attributes, extent: int, sizes: Array | None) -> list[int]:
    """How long the parts of Split are."""
    if sizes is not None or "split" in attrs:
        return [int(size) for size in (attrs["split"] if sizes is None else sizes)]
    parts = int(attrs["num_outputs"])
    size = -(-extent // parts)
    return [size] * (parts - 1) + [extent - size * (parts - 1)]


def _shape(attrs: Attributes, x: Array) -> Array:
    return np.array(x.shape[slice(attrs.get("start", 0), attrs.get("end"))], np.int64)


def _reduce(function: Callable[..., Any]) -> NumpyOp:
    def apply(attrs: Attributes, x: Array, axes: Array | None = None) -> Array:
        found = axes_of(attrs, axes)
        if not found and attrs.get("noop_with_empty_axes"):
            return x
        over = tuple(found) if found else None
        return np.asarray(function(x, axis=over, keepdims=bool(attrs.get("keepdims", 1))), x.dtype)

    return apply


def _plain(function: Callable[..., Any]) -> NumpyOp:
    return lambda _, *arrays: function(*arrays)


def _same_dtype(function: Callable[..., Any]) -> NumpyOp:
    return lambda _, x, *more: np.asarray(function(x, *more)).astype(x.dtype)


def _fold(function: Callable[[Array, Array], Array]) -> NumpyOp:
    def apply(_: Attributes, first: Array, *more: Array) -> Array:
        for array in more:
            first = function(first, array)
        return first

    return apply


NUMPY_OPS: dict[str, NumpyOp] = {
    "Abs": _plain(np.abs),
    "Add": _plain(np.add),
    "And": _plain(np.logical_and),
    "Cast": _cast,
    "CastLike": _plain(lambda x, like: x.astype(like.dtype)),
    "Ceil": _plain(np.ceil),
    "Clip": _clip,
    "Concat": lambda attrs, *arrays: np.concatenate(arrays, axis=attrs["axis"]),
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Cos": _plain(np.cos),
    "CumSum": _cumsum,
    "Div": _plain(_divide),
    "Equal": _plain(np.equal),
    "Exp": _plain(np.exp),
    "Expand": _expand,
    "Flatten": _flatten,
    "Floor": _plain(np.floor),
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Greater": _plain(np.greater),
    "GreaterOrEqual": _plain(np.greater_equal),
    "Identity": _plain(lambda x: x),
    "IsInf": _plain(np.isinf),
    "IsNaN": _plain(np.isnan),
    "Less": _plain(np.less),
    "LessOrEqual": _plain(np.less_equal),
    "Log": _plain(np.log),
    "MatMul": _plain(np.matmul),
    "Max": _fold(np.maximum),
    "Min": _fold(np.minimum),
    "Mod": lambda attrs, a, b: np.fmod(a, b) if attrs.get("fmod") else np.mod(a, b),
    "Mul": _plain(np.multiply),
    "Neg": _plain(np.negative),
    "Not": _plain(np.logical_not),
    "Or": _plain(np.logical_or),
    "Pow": _same_dtype(np.power),
    "Range": _range,
    "Reciprocal": _same_dtype(lambda x: 1 / x),
    "ReduceMax": _reduce(np.max),
    "ReduceMean": _reduce(np.mean),
    "ReduceMin": _reduce(np.min),
    "ReduceProd": _reduce(np.prod),
    "ReduceSum": _reduce(np.sum),
    "Reshape": _reshape,
    "Round": _plain(np.round),
    "ScatterND": _scatter_nd,
    "Shape": _shape,
    "Sigmoid": _same_dtype(lambda x: 1 / (1 + np.exp(-x))),
    "Sign": _plain(np.sign),
    "Sin": _plain(np.sin),
    "Size": _plain(lambda x: np.array(x.size, np.int64)),
    "Slice": _slice,
    "Split": _split,
    "Sqrt": _plain(np.sqrt),
    "Squeeze": _squeeze,
    "Sub": _plain(np.subtract),
    "Sum": _fold(np.add),
    "Tanh": _plain(np.tanh),
    "Tile": _plain(lambda x, repeats: np.tile(x, [int(i) for i in repeats])),
    "Transpose": lambda attrs, x: x.transpose(attrs.get("perm")),
    "Trilu": _trilu,
    "Unsqueeze": _unsqueeze,
    "Where": _plain(np.where),
    "Xor": _plain(np.logical_xor),
}
"""Operator -> its function ``(attributes, *inputs) -> output or list of outputs``."""
