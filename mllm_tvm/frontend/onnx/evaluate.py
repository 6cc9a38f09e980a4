"""Computes the part of a graph that does not depend on token ids: shapes, masks, positions, constants."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx

from mllm_tvm.errors import ModelError
from mllm_tvm.frontend.onnx.dims import Binding, Dims
from mllm_tvm.frontend.onnx.file import OnnxFile
from mllm_tvm.frontend.onnx.numpy_ops import NUMPY_OPS, attributes
from mllm_tvm.frontend.onnx.roles import Input, Role

# Larger arrays are computed again rather than kept: weights pass through here too.
_KEPT_ELEMENTS = 1 << 16

Memo = dict[str, np.ndarray]


def describe(node: onnx.NodeProto) -> str:
    """A node, for error messages: its name (or first output) and operator."""
    domain = f"{node.domain}." if node.domain else ""
    return f"node {node.name or node.output[0]!r} ({domain}{node.op_type})"


@dataclass
class Evaluator:
    """Evaluates values of a graph for a number of new and cached tokens.

    Args:
        file: the model.
        inputs: its inputs; token ids and caches have no values here, only extents.
        dims_of: the extents of a value that depends on token ids; None for other values.
    """

    file: OnnxFile
    inputs: Mapping[str, Input]
    dims_of: Callable[[str], Dims | None]
    producers: dict[str, onnx.NodeProto] = field(default_factory=dict)
    memos: dict[Binding, Memo] = field(default_factory=dict)

    def add(self, node: onnx.NodeProto) -> None:
        """Makes the outputs of a node known."""
        self.producers.update({name: node for name in node.output if name})

    def value(self, name: str, binding: Binding, keep: bool = True) -> np.ndarray:
        """A value at ``binding``. ``keep`` remembers small intermediate values for later calls.

        Raises:
            ModelError: an operator on the way is not supported, or its inputs do not fit it.
        """
        memo = self.memos.setdefault(binding, {}) if keep else {}
        pending = [name]
        temporary: Memo = {}
        while pending:  # a stack of its own: such chains can be longer than Python's
            current = pending[-1]
            missing = [n for n in self._reads(current) if n not in memo and n not in temporary]
            if missing:
                pending += missing
                continue
            pending.pop()
            if current not in memo and current not in temporary:
                self._compute(current, binding, memo, temporary)
        return memo[name] if name in memo else temporary[name]

    def _reads(self, name: str) -> list[str]:
        if name in self.file.initializers or name in self.inputs:
            return []
        if name not in self.producers:
            raise ModelError(f"{self.file.path}: value {name} is read before any node computes it")
        node = self.producers[name]
        if node.op_type in ("Shape", "Size") and self.dims_of(node.input[0]) is not None:
            return []
        return [read for read in node.input if read]

    def _compute(self, name: str, binding: Binding, memo: Memo, temporary: Memo) -> None:
        for output, array in self._outputs(name, binding, memo, temporary).items():
            target = memo if array.size <= _KEPT_ELEMENTS else temporary
            target[output] = array

    def _outputs(self, name: str, binding: Binding, memo: Memo, temporary: Memo) -> Memo:
        if name in self.file.initializers:
            return {name: self.file.read(name)}
        if name in self.inputs:
            return {name: self._input(self.inputs[name], binding)}
        node = self.producers[name]
        arrays: list[np.ndarray | None] = []
        for read in node.input:
            dims = self.dims_of(read) if node.op_type in ("Shape", "Size") else None
            if dims is not None:
                # Only its shape is read: no memory behind it.
                arrays.append(np.broadcast_to(np.float32(0), [dim.at(binding) for dim in dims]))
            else:
                arrays.append((memo[read] if read in memo else temporary[read]) if read else None)
        return dict(zip(node.output, self._apply(node, arrays), strict=False))

    def _input(self, found: Input, binding: Binding) -> np.ndarray:
        if found.role in (Role.TOKENS, Role.CACHE):
            raise ModelError(f"{self.file.path}: the value of input {found.name} is needed to fix a shape")
        return found.value(binding)

    def _apply(self, node: onnx.NodeProto, arrays: list[np.ndarray | None]) -> list[np.ndarray]:
        function = NUMPY_OPS.get(node.op_type)
        if function is None or node.domain not in ("", "ai.onnx"):
            raise ModelError(
                f"{self.file.path}: {describe(node)}: this operator is not supported on values that depend "
                "on lengths and positions only"
            )
        try:
            with np.errstate(all="ignore"):
                result = function(attributes(node), *arrays)
        except (ValueError, IndexError, TypeError, KeyError, ArithmeticError, NotImplementedError) as error:
            shapes = [None if array is None else list(array.shape) for array in arrays]
            raise ModelError(
                f"{self.file.path}: {describe(node)}: cannot be computed for inputs of shape {shapes} "
                f"({error})"
            ) from None
        return [np.asarray(array) for array in (result if isinstance(result, list) else [result])]
