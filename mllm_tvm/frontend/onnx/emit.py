"""Emits :class:`Tensor` expressions as the Relax function ``main`` (see docs/architecture.md)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
from tvm import ir, relax, tirx

from mllm_tvm.errors import ModelError
from mllm_tvm.frontend.onnx.dims import (
    PAST,
    SEQ,
    TOTAL,
    Dim,
    is_merged,
    row_axes,
    row_dims,
    text,
    token_axis,
)
from mllm_tvm.frontend.onnx.emit_ops import EMITTERS
from mllm_tvm.frontend.onnx.importer import Importer
from mllm_tvm.frontend.onnx.names import Names
from mllm_tvm.frontend.onnx.parameters import Parameter
from mllm_tvm.frontend.onnx.tables import position_table, without_repeat
from mllm_tvm.frontend.onnx.tensor import Tensor, scalar


class Emitter:
    """Emits what an importer read.

    Args:
        importer: the activations and layers of the graph.
        logits: its result, [1, seq, vocab].
    """

    def __init__(self, importer: Importer, logits: Tensor):
        self.importer = importer
        self.logits = logits
        self.block = relax.BlockBuilder()
        self.seq, self.past = tirx.Var("seq", "int64"), tirx.Var("past", "int64")
        self.input_ids: relax.Var = relax.Var("input_ids", relax.TensorType([self.seq], "int32"))
        self.positions = relax.Var("positions", relax.TensorType([self.seq], "int32"))
        self.caches = [self._caches(i) for i in range(len(importer.layers))]
        self.appended: list[tuple[relax.Var, relax.Var]] = []
        self.names = Names(importer)
        self.specs: dict[str, Parameter] = {}
        self.parameters: dict[str, relax.Var] = {}
        self.linears: dict[str, str] = {}
        self.values: dict[Tensor, relax.Expr] = {}
        self.tables: dict[str, relax.Expr] = {}
        self.expanded: dict[tuple[relax.Expr, tuple[int, ...]], relax.Expr] = {}

    def emit_module(self) -> ir.IRModule:
        """The module; ``specs`` then holds its parameters, in argument order."""
        needed = _needed(self.logits)
        self._check(needed)
        with self.block.function("main", attrs={"num_input": 2 + 2 * len(self.caches)}):
            with self.block.dataflow():
                for tensor in needed:
                    self.values[tensor] = EMITTERS[tensor.op](self, tensor)
                caches = [cache for pair in self.appended for cache in pair]
                result = self.block.emit_output(relax.Tuple([self.values[self.logits], *caches]))
            inputs = [self.input_ids, self.positions, *(cache for pair in self.caches for cache in pair)]
            self.block.emit_func_output(result, [*inputs, *self.parameters.values()])
        module = self.block.get()
        relax.analysis.well_formed(module)
        return module

    def _caches(self, index: int) -> tuple[relax.Var, relax.Var]:
        layer = self.importer.layers[index]
        cache = relax.TensorType([self.past, layer.kv_heads, layer.head_dim], "float32")
        return relax.Var(f"k_cache_{index}", cache), relax.Var(f"v_cache_{index}", cache)

    def _check(self, needed: Sequence[Tensor]) -> None:
        for x in needed:
            if x.op not in EMITTERS:
                raise ModelError(
                    f"{self.importer.file.path}: a result of {x.op} is used outside of attention and norms: "
                    "expected a decoder whose attention is softmax(q k^T) v"
                )

    def emit(self, expr: relax.Expr) -> relax.Var:
        return self.block.emit(expr)

    def extents(self, dims: Sequence[Dim]) -> list[relax.Expr | int]:
        """A shape in terms of ``seq`` and ``past``."""
        symbolic = {PAST: self.past, SEQ: self.seq, TOTAL: self.past + self.seq}
        if any(not dim.is_static and dim not in symbolic for dim in dims):
            raise ModelError(
                f"{self.importer.file.path}: an activation has extents {text(tuple(dims))}: expected new "
                "tokens (seq), earlier ones (past) or both"
            )
        return [dim.const if dim.is_static else symbolic[dim] for dim in dims]

    def parameter(self, name: str, spec: Parameter) -> relax.Var:
        """A parameter of ``main``, made at its first use."""
        if name not in self.parameters:
            self.specs[name] = spec
            self.parameters[name] = relax.Var(name, relax.TensorType(spec.shape, spec.dtype))
        return self.parameters[name]

    def constant(self, x: Tensor) -> np.ndarray:
        """The array of a ``const``."""
        array = self.importer.evaluate(x, self.importer.probes[0])
        return array.T if x.attrs.get("transposed") else array

    def weight(self, x: Tensor, shape: Sequence[int] | None = None, keep_float16: bool = False) -> relax.Var:
        """A ``const`` as a parameter of the given shape (its own, if None)."""
        own = tuple(dim.const for dim in x.dims)
        dtype = "float16" if keep_float16 and self.importer.stored_dtype(x) == np.float16 else "float32"
        spec = Parameter(own if shape is None else tuple(shape), dtype, lambda: self.constant(x))
        return self.parameter(self.names.parameter(x, (*spec.shape, dtype)), spec)

    def rows(self, x: Tensor) -> relax.Expr:
        """``x`` in its layout: an activation, a row of a table for each token, or a constant."""
        if x.op == "table":
            return self._table(x)
        if x.op == "const":
            value = scalar(x)
            if value is not None:
                return relax.const(np.float32(value), "float32")
            return self.weight(x, [dim.const for dim in row_dims(x.dims)])
        if x.op == "attention":
            return self.emit(relax.op.reshape(self.values[x], self.extents(row_dims(x.dims))))
        return self.values[x]

    def _table(self, x: Tensor) -> relax.Expr:
        name = str(x.attrs["name"])
        axis = token_axis(x.dims)
        if axis is None or x.dims[axis] != SEQ:
            raise ModelError(
                f"{self.importer.file.path}: value {name} has one row for each earlier token: expected a "
                "table of positions of the new ones"
            )
        array = position_table(self.importer, x, axis)
        key = hashlib.sha256(array.tobytes()).hexdigest() + str(array.shape)
        if key not in self.tables:  # exporters repeat the angles in every layer
            shape = without_repeat(array).shape
            spec = Parameter(shape, "float32", lambda: without_repeat(position_table(self.importer, x, axis)))
            table = self.parameter(self.names.table(name), spec)
            rows = self.emit(relax.op.take(table, self.positions, axis=0, mode="clip"))
            repeated = shape != array.shape
            self.tables[key] = self.emit(relax.op.concat([rows, rows], axis=1)) if repeated else rows
        return self.tables[key]

    def aligned(self, operand: Tensor, result: Tensor) -> relax.Expr:
        """An operand of an elementwise operation, with axes of extent 1 where it is broadcast."""
        rows = self.rows(operand)
        offset = len(result.dims) - len(operand.dims)
        present = [axis + offset for axis in row_axes(operand.dims)]
        missing = [i for i, axis in enumerate(row_axes(result.dims)) if axis not in present]
        if is_merged(result.dims):
            if operand.dims != result.dims and operand.op != "const":
                raise ModelError(
                    f"{self.importer.file.path}: {operand.op} of {text(operand.dims)} is broadcast to "
                    f"{text(result.dims)}: expected tokens on an axis of their own"
                )
            return rows
        # Leading axes are broadcast without being there.
        first = min((i for i, axis in enumerate(row_axes(result.dims)) if axis in present), default=math.inf)
        added = [i for i in missing if i > first]
        if not added:
            return rows
        key = (rows, tuple(added))  # rotary rows are broadcast to the heads of every layer
        if key not in self.expanded:
            self.expanded[key] = self.emit(relax.op.expand_dims(rows, added))
        return self.expanded[key]

    def heads(self, x: Tensor, count: int, size: int) -> relax.Expr:
        """[tokens, heads, head_dim], also when one of them is 1 and therefore not in the layout."""
        dims = row_dims(x.dims)
        wanted = (dims[0], Dim(const=count), Dim(const=size))
        rows = self.rows(x)
        return rows if dims == wanted else self.emit(relax.op.reshape(rows, self.extents(wanted)))

    def append(self, layer: int, rows: tuple[Tensor, Tensor]) -> tuple[relax.Var, relax.Var]:
        """A layer's whole caches: earlier tokens' rows, then the new ones."""
        info = self.importer.layers[layer]
        pair = []
        for cache, new in zip(self.caches[layer], rows, strict=True):
            new = new.inputs[1] if new.op == "append" else new
            found = self.heads(new, info.kv_heads, info.head_dim)
            pair.append(self.emit(relax.op.concat([cache, found], axis=0)))
        self.appended.append((pair[0], pair[1]))
        return pair[0], pair[1]


def _needed(result: Tensor) -> list[Tensor]:
    """What ``result`` is computed from, each before its users; constants and tables left out."""
    order: list[Tensor] = []
    done: set[Tensor] = set()
    stack = [(result, False)]
    while stack:
        x, ready = stack.pop()
        if ready:
            order.append(x)
        elif x not in done and x.op not in ("const", "table", "cache"):
            done.add(x)
            stack.append((x, True))
            stack += [(read, False) for read in reversed(_reads(x))]
    return order


def _reads(x: Tensor) -> list[Tensor]:
    if x.op != "attention":
        return list(x.inputs)
    # Appends are emitted with the attention that reads them.
    return [y.inputs[1] if y.op == "append" else y for y in x.inputs]
