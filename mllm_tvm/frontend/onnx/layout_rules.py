"""Rules of the ONNX operators that move, cut and join activations without computing."""

from __future__ import annotations

import numpy as np

from mllm_tvm.frontend.onnx.dims import ONE, Dims, fit, text
from mllm_tvm.frontend.onnx.importer import Importer
from mllm_tvm.frontend.onnx.node import Node, Rule
from mllm_tvm.frontend.onnx.numpy_ops import axes_of, reshape_target, slices, split_sizes
from mllm_tvm.frontend.onnx.tensor import (
    Tensor,
    UnsupportedError,
    concat,
    cut,
    expand,
    reshape,
    transpose,
    view,
)


def _reshape(importer: Importer, node: Node) -> Tensor:
    x = node.operand(0)
    shapes = []
    for probe, target in zip(importer.probes, importer.probe(node.proto.input[1]), strict=True):
        shape = [dim.at(probe) for dim in x.dims]
        shapes.append(reshape_target(shape, list(target), bool(node.attrs.get("allowzero"))))
    return reshape(x, _fitted(importer, shapes))


def _flatten(importer: Importer, node: Node) -> Tensor:
    x, axis = node.operand(0), node.attrs.get("axis", 1)
    shapes = [[dim.at(probe) for dim in x.dims] for probe in importer.probes]
    return reshape(x, _fitted(importer, [[int(np.prod(s[:axis])), int(np.prod(s[axis:]))] for s in shapes]))


def _fitted(importer: Importer, shapes: list[list[int]]) -> Dims:
    dims = fit(importer.probes, shapes)
    if dims is None:
        raise UnsupportedError(
            f"has a shape ({shapes[0]} for {importer.probes[0]}) that is not affine in the lengths"
        )
    return dims


def _transpose(_: Importer, node: Node) -> Tensor:
    x = node.operand(0)
    return transpose(x, node.attrs.get("perm", range(len(x.dims))[::-1]))


def _unsqueeze(_: Importer, node: Node) -> Tensor:
    x = node.operand(0)
    axes = axes_of(node.attrs, node.static(1)) or []
    rank = len(x.dims) + len(axes)
    added = {axis % rank for axis in axes}
    rest = iter(x.dims)
    return view(x, tuple(ONE if axis in added else next(rest) for axis in range(rank)))


def _squeeze(_: Importer, node: Node) -> Tensor:
    x = node.operand(0)
    axes = axes_of(node.attrs, node.static(1))
    every = [i for i, dim in enumerate(x.dims) if dim == ONE]
    removed = {axis % len(x.dims) for axis in (every if axes is None else axes)}
    if not removed <= set(every):
        raise UnsupportedError(
            f"squeezes axes {sorted(removed)} of {text(x.dims)}: expected axes of extent 1"
        )
    return view(x, tuple(dim for i, dim in enumerate(x.dims) if i not in removed))


def _expand(importer: Importer, node: Node) -> Tensor:
    x = node.operand(0)
    target = fit(importer.probes, [list(map(int, shape)) for shape in importer.probe(node.proto.input[1])])
    if target is None:
        raise UnsupportedError("expands to a shape that is not affine in the lengths")
    return expand(x, target)


def _slice(importer: Importer, node: Node) -> Tensor:
    x = node.operand(0)
    given = list(zip(*(node.probe(slot) for slot in range(1, 5)), strict=True))
    for axis in range(len(x.dims)):
        found = set()
        for probe, arrays in zip(importer.probes, given, strict=True):
            extent = x.dims[axis].at(probe)
            found.add((*slices(len(x.dims), node.attrs, arrays)[axis].indices(extent), extent))
        if all((start, stop, step) == (0, extent, 1) for start, stop, step, extent in found):
            continue
        if not x.dims[axis].is_static or len(found) != 1:
            raise UnsupportedError(
                "keeps some of the tokens: expected one result (logits) for each; export all of them"
            )
        start, stop, step, _ = found.pop()
        x = cut(x, axis, start, stop, step)
    return x


def _split(importer: Importer, node: Node) -> list[Tensor | None]:
    x = node.operand(0)
    axis = node.attrs.get("axis", 0) % len(x.dims)
    if not x.dims[axis].is_static:
        raise UnsupportedError("splits the tokens: expected to keep them together")
    attrs = {"num_outputs": len(node.proto.output), **node.attrs}
    ends = np.cumsum(split_sizes(attrs, x.dims[axis].const, node.static(1)))
    return [cut(x, axis, int(start), int(end)) for start, end in zip([0, *ends], ends, strict=False)]


def _concat(_: Importer, node: Node) -> Tensor:
    parts = [node.operand(slot) for slot in range(len(node.proto.input))]
    return concat(parts, node.attrs["axis"])


LAYOUT_RULES: dict[str, Rule] = {
    "Concat": _concat,
    "Expand": _expand,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
"""Operator -> its rule."""
