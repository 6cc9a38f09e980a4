"""Raises the arithmetic of norms and activations to single operations, as nodes are read."""

from __future__ import annotations

from mllm_tvm.frontend.onnx.dims import ONE
from mllm_tvm.frontend.onnx.tensor import Tensor, elementwise, is_scalar, scalar, source


def multiply(a: Tensor, b: Tensor) -> Tensor:
    """``a * b``, or the SiLU, norm or scaled norm that it completes."""
    for x, other in ((a, b), (b, a)):
        if other.op == "sigmoid" and source(other.inputs[0]) is source(x):
            return Tensor("silu", (x,), x.dims)
        epsilon = _inverse_deviation(other, x)
        if epsilon is not None:
            return _normalized(x, epsilon)
        if x.op in ("normalized", "standardized") and _is_row(other, x):
            op = "rms_norm" if x.op == "normalized" else "layer_norm"
            return Tensor(op, (x.inputs[0], other), x.dims, x.attrs)
    return elementwise("multiply", a, b)


def divide(a: Tensor, b: Tensor) -> Tensor:
    """``a / b``, or the norm that it completes."""
    epsilon = _deviation(b, a)
    return elementwise("divide", a, b) if epsilon is None else _normalized(a, epsilon)


def add(a: Tensor, b: Tensor) -> Tensor:
    """``a + b``, or the layer norm whose bias it adds."""
    for x, bias in ((a, b), (b, a)):
        if x.op == "layer_norm" and len(x.inputs) == 2 and _is_row(bias, x):
            return Tensor("layer_norm", (*x.inputs, bias), x.dims, x.attrs)
    return elementwise("add", a, b)


def _is_row(weight: Tensor, x: Tensor) -> bool:
    """Whether a constant scales the last axis of ``x`` only."""
    return (
        weight.op == "const"
        and weight.dims[-1:] == x.dims[-1:]
        and all(dim == ONE for dim in weight.dims[:-1])
    )


def _normalized(x: Tensor, epsilon: float) -> Tensor:
    """RMS norm without a weight; of ``y - mean(y)`` it is a layer norm of ``y``."""
    if x.op == "subtract" and _is_mean_of(x.inputs[1], x.inputs[0]):
        return Tensor("standardized", (x.inputs[0],), x.dims, {"epsilon": epsilon})
    return Tensor("normalized", (x,), x.dims, {"epsilon": epsilon})


def _inverse_deviation(y: Tensor, x: Tensor) -> float | None:
    """The epsilon of ``y = 1 / sqrt(mean(x * x) + epsilon)``; None when ``y`` is something else."""
    if y.op == "divide" and scalar(y.inputs[0]) == 1:
        return _deviation(y.inputs[1], x)
    if y.op == "reciprocal":
        return _deviation(y.inputs[0], x)
    if y.op == "power" and scalar(y.inputs[1]) == -0.5:
        return _variance(y.inputs[0], x)
    return None


def _deviation(y: Tensor, x: Tensor) -> float | None:
    if y.op == "sqrt" or (y.op == "power" and scalar(y.inputs[1]) == 0.5):
        return _variance(y.inputs[0], x)
    return None


def _variance(y: Tensor, x: Tensor) -> float | None:
    if y.op != "add":
        return None
    for mean, epsilon in (y.inputs, y.inputs[::-1]):
        if is_scalar(epsilon) and mean.op == "mean" and _is_square_of(mean.inputs[0], x):
            return scalar(epsilon) if _over_last(mean) else None
    return None


def _is_square_of(y: Tensor, x: Tensor) -> bool:
    if y.op == "power":
        return y.inputs[0] is x and scalar(y.inputs[1]) == 2
    return y.op == "multiply" and y.inputs[0] is x and y.inputs[1] is x


def _is_mean_of(y: Tensor, x: Tensor) -> bool:
    return y.op == "mean" and y.inputs[0] is x and _over_last(y)


def _over_last(mean: Tensor) -> bool:
    rank = len(mean.inputs[0].dims)
    return bool(mean.attrs["axes"] == [rank - 1] and mean.attrs["keepdims"])
