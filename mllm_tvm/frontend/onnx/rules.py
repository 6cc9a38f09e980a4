"""Rules of the plain ONNX operators on activations."""

from __future__ import annotations

from mllm_tvm.frontend.onnx import attention, norms
from mllm_tvm.frontend.onnx.dims import ONE, Dim, text
from mllm_tvm.frontend.onnx.importer import Importer
from mllm_tvm.frontend.onnx.layout_rules import LAYOUT_RULES
from mllm_tvm.frontend.onnx.node import Node, Rule
from mllm_tvm.frontend.onnx.numpy_ops import axes_of
from mllm_tvm.frontend.onnx.tensor import (
    Tensor,
    UnsupportedError,
    broadcast,
    cut,
    elementwise,
    source,
    view,
)

_ELEMENTWISE = {
    "Abs": "abs",
    "Erf": "erf",
    "Exp": "exp",
    "Max": "maximum",
    "Min": "minimum",
    "Neg": "negative",
    "Pow": "power",
    "Reciprocal": "reciprocal",
    "Relu": "relu",
    "Sigmoid": "sigmoid",
    "Sqrt": "sqrt",
    "Sub": "subtract",
    "Tanh": "tanh",
}


def _embedding(table: Tensor, ids: Tensor) -> Tensor:
    """Rows of a constant table for the token ids."""
    if table.op != "const" or len(table.dims) != 2 or source(ids).op != "input_ids":
        raise UnsupportedError(
            "picks values by an activation: expected rows of a constant table, by token ids"
        )
    return Tensor("embedding", (table, source(ids)), (*ids.dims, table.dims[1]))


def _elementwise(op: str) -> Rule:
    def rule(_: Importer, node: Node) -> Tensor:
        operands = [node.operand(slot) for slot in range(len(node.proto.input))]
        return elementwise(op, *operands)

    return rule


def _same(_: Importer, node: Node) -> Tensor:
    """Identity, Dropout, and Cast: activations are float32 whatever the file says, token ids int32."""
    return node.operand(0)


def _cast(importer: Importer, node: Node) -> Tensor:
    x = node.operand(0)
    floating = node.attrs["to"] in (1, 10, 16)
    if floating == (source(x).op == "input_ids"):
        raise UnsupportedError("casts activations to integers or token ids to floats: expected neither")
    return x


def _matmul(importer: Importer, node: Node) -> Tensor:
    a, b = node.operand(0), node.operand(1)
    if b.op == "const":
        return linear(a, b)
    probabilities = attention.match_probabilities(a)
    if probabilities is not None:
        scores = attention.match_scores(probabilities.inputs[0])
        if b.dims[-1] != Dim(const=scores.head_dim):
            raise UnsupportedError(f"mixes values {text(b.dims)}: expected heads of {scores.head_dim}")
        dims = (*a.dims[:-1], b.dims[-1])
        window = importer.window(scores.masks)
        return importer.attend(node.proto, scores, scores.key, b, dims, window)
    if "const" in (a.op, b.op) or len(a.dims) < 3 or len(b.dims) < 3:
        raise UnsupportedError(
            f"multiplies {text(a.dims)} and {text(b.dims)}: expected activations by a weight [K, N]"
        )
    return Tensor("scores", (a, b), (*broadcast(a.dims[:-2], b.dims[:-2]), a.dims[-2], b.dims[-1]))


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """``x [..., K] @ weight [K, N]``."""
    if len(weight.dims) != 2 or x.dims[-1] != weight.dims[0] or x.op == "const":
        raise UnsupportedError(f"multiplies {text(x.dims)} by {text(weight.dims)}: expected a weight [K, N]")
    return Tensor("linear", (x, weight), (*x.dims[:-1], weight.dims[1]))


def _gemm(importer: Importer, node: Node) -> Tensor:
    attrs = node.attrs
    if attrs.get("transA") or attrs.get("alpha", 1.0) != 1.0 or attrs.get("beta", 1.0) != 1.0:
        raise UnsupportedError("expected transA = 0 and alpha = beta = 1")
    weight = node.operand(1)
    if weight.op != "const" or len(weight.dims) != 2:
        raise UnsupportedError("expected a constant weight")
    if attrs.get("transB"):
        weight = Tensor("const", (), weight.dims[::-1], {**weight.attrs, "transposed": True})
    y = linear(node.operand(0), weight)
    return norms.add(y, node.operand(2)) if node.has(2) else y


def _gather(importer: Importer, node: Node) -> Tensor:
    x, indices = node.operand(0), node.operand(1)
    if x.op == "const" and node.attrs.get("axis", 0) == 0:
        return _embedding(x, indices)
    axis = node.attrs.get("axis", 0) % len(x.dims)
    if not x.dims[axis].is_static:
        raise UnsupportedError(
            "picks some of the tokens: expected one result (logits) for each; export all of them"
        )
    index = int(importer.static(node.proto.input[1]).item()) if indices.dims in ((), (ONE,)) else None
    if index is None:
        raise UnsupportedError("picks several elements of an activation: expected one")
    part = cut(x, axis, index % x.dims[axis].const, index % x.dims[axis].const + 1)
    return view(part, (*x.dims[:axis], *indices.dims, *x.dims[axis + 1 :]))


def _mean(_: Importer, node: Node) -> Tensor:
    x = node.operand(0)
    axes = axes_of(node.attrs, node.static(1)) or list(range(len(x.dims)))
    axes = sorted(axis % len(x.dims) for axis in axes)
    keep = bool(node.attrs.get("keepdims", 1))
    if any(not x.dims[axis].is_static for axis in axes):
        raise UnsupportedError("averages over the tokens: expected each token on its own")
    dims = [ONE if i in axes else dim for i, dim in enumerate(x.dims) if keep or i not in axes]
    return Tensor("mean", (x,), tuple(dims), {"axes": axes, "keepdims": keep})


def _softmax(_: Importer, node: Node) -> Tensor:
    x = node.operand(0)
    if node.attrs.get("axis", -1) not in (-1, len(x.dims) - 1):
        raise UnsupportedError("expected the last axis")
    return Tensor("softmax", (x,), x.dims)


def _where(_: Importer, node: Node) -> Tensor:
    operands = tuple(node.operand(slot) for slot in range(3))
    return Tensor("where", operands, broadcast(*(x.dims for x in operands)))


def _layer_norm(_: Importer, node: Node) -> Tensor:
    x = node.operand(0)
    if node.attrs.get("axis", -1) not in (-1, len(x.dims) - 1):
        raise UnsupportedError("expected the last axis")
    operands = tuple(node.operand(slot) for slot in range(len(node.proto.input)))
    return Tensor("layer_norm", operands, x.dims, {"epsilon": node.number("epsilon", 1e-5)})


def _gelu(_: Importer, node: Node) -> Tensor:
    op = "gelu_tanh" if node.attrs.get("approximate") == "tanh" else "gelu"
    return elementwise(op, node.operand(0))


def _swish(_: Importer, node: Node) -> Tensor:
    if node.attrs.get("alpha", 1.0) != 1.0:
        raise UnsupportedError("expected alpha = 1")
    return elementwise("silu", node.operand(0))


RULES: dict[str, Rule] = {
    **{name: _elementwise(op) for name, op in _ELEMENTWISE.items()},
    **LAYOUT_RULES,
    "Add": lambda _, node: norms.add(node.operand(0), node.operand(1)),
    "Cast": _cast,
    "Div": lambda _, node: norms.divide(node.operand(0), node.operand(1)),
    "Dropout": _same,
    "Gather": _gather,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "Identity": _same,
    "IsNaN": lambda _, node: Tensor("is_nan", (node.operand(0),), node.operand(0).dims),
    "LayerNormalization": _layer_norm,
    "MatMul": _matmul,
    "Mul": lambda _, node: norms.multiply(node.operand(0), node.operand(1)),
    "ReduceMean": _mean,
    "Softmax": _softmax,
    "Swish": _swish,
    "Where": _where,
}
"""Operator -> its rule."""
