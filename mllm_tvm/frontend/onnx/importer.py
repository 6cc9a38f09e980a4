"""Reads the nodes of a decoder graph, one rule an operator, into :class:`Tensor` expressions.

Values that do not depend on token ids are not converted: the evaluator computes them, at a few lengths for
shapes and masks, at all positions for tables. Everything else has a rule here or in ``fused``, or is an
error that names the node.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

from mllm_tvm.errors import ModelError
from mllm_tvm.frontend.onnx import attention, tensor
from mllm_tvm.frontend.onnx.dims import (
    CACHED_PROBES,
    UNCACHED_PROBES,
    Binding,
    Dims,
    fit,
    static_dims,
)
from mllm_tvm.frontend.onnx.evaluate import Evaluator, describe
from mllm_tvm.frontend.onnx.file import DOMAINS, OnnxFile
from mllm_tvm.frontend.onnx.node import Node, Rule
from mllm_tvm.frontend.onnx.roles import Input, Role, caches
from mllm_tvm.frontend.onnx.tensor import Tensor, UnsupportedError

LONGEST_SQUARE_MASK = 512
"""A graph without caches computes masks of [seq, seq]: the longest one that is computed to check it."""
POSITIONS = "mllm.positions"
"""The positions of the new tokens, [1, seq] int64: for fused operators that have no such input."""


@dataclass(frozen=True)
class Layer:
    """One attention: its shape, and the cache inputs of its keys and values (None in a graph without)."""

    node: str
    heads: int
    kv_heads: int
    head_dim: int
    key_cache: str | None
    value_cache: str | None


@dataclass
class Importer:
    """The state of an import: activations and layers found so far.

    Args:
        file: the model.
        inputs: its inputs, see ``roles``.
        max_positions: how many tokens the model can take.
    """

    file: OnnxFile
    inputs: Mapping[str, Input]
    max_positions: int
    tensors: dict[str, Tensor] = field(default_factory=dict)
    layers: list[Layer] = field(default_factory=list)

    def __post_init__(self) -> None:
        positions = Input(POSITIONS, Role.POSITIONS, (tensor.ONE, tensor.Dim(seq=1)), onnx.TensorProto.INT64)
        self.evaluator = Evaluator(self.file, {**self.inputs, POSITIONS: positions}, self._dims)
        self.has_caches = bool(caches(self.inputs))
        self.probes = CACHED_PROBES if self.has_caches else UNCACHED_PROBES
        # Constants of the graph are known not to vary; everything else is compared at the probes.
        self.constants = set(self.file.initializers)
        self.operands: dict[str, Tensor] = {}
        for found in self.inputs.values():
            if found.role in (Role.TOKENS, Role.CACHE):
                op = "input_ids" if found.role is Role.TOKENS else "cache"
                self.tensors[found.name] = Tensor(op, (), found.dims, {"name": found.name})

    def _dims(self, name: str) -> Dims | None:
        found = self.tensors.get(name)
        return None if found is None else found.dims

    def read(self, rules: Mapping[str, Rule]) -> None:
        """Reads all nodes.

        Raises:
            ModelError: a node has no rule, or does something its rule does not expect.
        """
        for node in self.file.nodes():
            self.visit(node, rules)

    def visit(self, node: onnx.NodeProto, rules: Mapping[str, Rule]) -> None:
        """Reads one node."""
        if not self._depends_on_tokens(node):
            self.evaluator.add(node)
            if all(name in self.constants for name in node.input if name):
                self.constants.update(node.output)
            return
        rule = rules.get(node.op_type)
        if rule is None or node.domain not in DOMAINS:
            raise self.error(node, f"this operator has no rule; supported: {', '.join(sorted(rules))}")
        try:
            outputs = rule(self, Node(node, self))
        except UnsupportedError as error:
            raise self.error(node, str(error)) from None
        except (KeyError, IndexError) as error:
            raise self.error(node, f"an attribute or input is missing ({error}); export it again") from None
        except (TypeError, ValueError, AttributeError) as error:
            raise self.error(
                node, f"an attribute has an unexpected value ({error}); export it again"
            ) from None
        found = [outputs] if isinstance(outputs, Tensor) else outputs
        self.tensors.update(
            {
                name: value
                for name, value in zip(node.output, found, strict=False)
                if name and value is not None
            }
        )

    def _depends_on_tokens(self, node: onnx.NodeProto) -> bool:
        if any(attribute.type == onnx.AttributeProto.GRAPH for attribute in node.attribute):
            raise self.error(
                node, "control flow is not supported: export a decoder without branches or loops"
            )
        shape_only = node.op_type in ("Shape", "Size")
        return not shape_only and any(name in self.tensors for name in node.input)

    def error(self, node: onnx.NodeProto, why: str) -> ModelError:
        """An error that names the file and the node."""
        return ModelError(f"{self.file.path}: {describe(node)}: {why}")

    def operand(self, name: str) -> Tensor:
        """A value as an operand: an activation, or a ``const``, ``table`` or ``mask`` of the graph."""
        if name in self.tensors:
            return self.tensors[name]
        if name not in self.operands:
            self.operands[name] = self._structural(name)
        return self.operands[name]

    def _structural(self, name: str) -> Tensor:
        if name in self.file.initializers:
            return self._const(name, static_dims(self.file.shape(name)))
        if name in self.constants:
            return self._const(name, static_dims(self.evaluator.value(name, self.probes[0]).shape))
        arrays = [self.evaluator.value(name, probe) for probe in self.probes]
        dims = fit(self.probes, [array.shape for array in arrays])
        if dims is None:
            raise UnsupportedError(
                f"reads {name}, whose shape is no affine function of the numbers of tokens"
            )
        if all(dim.is_static for dim in dims):
            if any((array != arrays[0]).any() for array in arrays):
                raise UnsupportedError(f"reads {name}, which depends on how many tokens there are")
            return self._const(name, dims)
        return Tensor("mask" if tensor.token_axis(dims) is None else "table", (), dims, {"name": name})

    def _const(self, name: str, dims: Dims) -> Tensor:
        attrs: dict[str, Any] = {"name": name}
        if all(dim == tensor.ONE for dim in dims):
            attrs["value"] = self.evaluator.value(name, self.probes[0]).item()
        return Tensor("const", (), dims, attrs)

    def evaluate(self, x: Tensor, binding: Binding) -> np.ndarray:
        """The value of a ``const``, ``table`` or ``mask``."""
        return self.evaluator.value(str(x.attrs["name"]), binding)

    def stored_dtype(self, x: Tensor) -> np.dtype:
        """The dtype of a ``const`` in the file."""
        name = str(x.attrs["name"])
        if name in self.file.initializers:
            return self.file.dtype(name)
        return self.evaluate(x, self.probes[0]).dtype

    def probe(self, name: str) -> list[np.ndarray]:
        """A value that depends on lengths only, at each probe."""
        if name in self.tensors:
            raise UnsupportedError(f"reads {name} as a shape, but it depends on the tokens")
        return [self.evaluator.value(name, probe) for probe in self.probes]

    def static(self, name: str) -> np.ndarray:
        """A value that must not depend on lengths."""
        arrays = self.probe(name)
        if any(not np.array_equal(array, arrays[0]) for array in arrays):
            raise UnsupportedError(f"reads {name}, which depends on how many tokens there are")
        return arrays[0]

    def window(self, masks: attention.Masks, causal: bool = False) -> int | None:
        """How many tokens the masks let a token see, None for all earlier ones.

        They are computed at the probes and at a long context.
        """
        seq, past = 2, self.max_positions - 2
        if not self.has_caches:
            seq, past = min(self.max_positions, LONGEST_SQUARE_MASK), 0
        bindings = [b for b in self.probes if b.seq + b.past < self.max_positions]
        return attention.check_causal(masks, self.evaluate, [*bindings, Binding(seq, max(past, 0))], causal)

    def attend(
        self,
        node: onnx.NodeProto,
        scores: attention.Scores,
        key: Tensor,
        value: Tensor,
        dims: Dims,
        window: int | None,
    ) -> Tensor:
        """Attention with the given keys and values, ``[tokens, heads or kv_heads, head_dim]`` each."""
        key, kv_heads = attention.grouped(key, scores.heads, scores.head_dim)
        value, value_heads = attention.grouped(value, scores.heads, scores.head_dim)
        if value_heads != kv_heads:
            raise UnsupportedError(
                f"has {kv_heads} key heads and {value_heads} value heads: expected as many"
            )
        names = [self._cache_of(rows) for rows in (key, value)]
        layer = Layer(describe(node), scores.heads, kv_heads, scores.head_dim, names[0], names[1])
        attrs = {"layer": len(self.layers), "scale": scores.scale, "window": window}
        self.layers.append(layer)
        return Tensor("attention", (scores.query, key, value), dims, attrs)

    def _cache_of(self, rows: Tensor) -> str | None:
        if rows.op == "append":
            return str(rows.inputs[0].attrs["name"])
        if self.has_caches:
            raise UnsupportedError(
                "attends to keys or values without those of earlier tokens, which the model has inputs for: "
                "expected Concat(past, new) for every layer; a past input is missing or used differently"
            )
        return None
