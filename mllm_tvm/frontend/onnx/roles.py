"""What each input of a decoder graph is for, found by what reads it rather than by its name."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import onnx
from onnx import TensorProto

from mllm_tvm.errors import ModelError
from mllm_tvm.frontend.onnx.dims import ONE, PAST, SEQ, TOTAL, Binding, Dim, Dims
from mllm_tvm.frontend.onnx.file import OnnxFile

_INTEGERS = (TensorProto.INT64, TensorProto.INT32)
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)
_VIEWS = ("Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Expand")
_TABLE_VIEWS = ("Cast", "Identity", "Transpose")
_TO_ANGLES = (*_VIEWS, "Mul", "MatMul", "Add", "Concat", "Transpose", "Slice", "Einsum")
# Fused operators: input slot -> what an input that feeds it directly must be.
_FUSED_SLOTS = {
    ("GroupQueryAttention", 5): "last",
    ("GroupQueryAttention", 6): "total",
}
CACHE_SLOTS = {"GroupQueryAttention": (3, 4), "Attention": (4, 5), "MultiHeadAttention": (6, 7)}
"""Fused operator -> the slots of its earlier keys and values, [batch, kv_heads, past, head_dim]."""


class Role(Enum):
    """What an input holds, given ``seq`` new tokens after ``past`` cached ones."""

    TOKENS = "token ids"
    POSITIONS = "positions"
    MASK = "attention mask (1 for every token so far)"
    CAUSAL_MASK = "causal attention mask"
    LAST = "index of the last token"
    TOTAL = "number of tokens so far"
    CACHE = "keys or values of earlier tokens"


@dataclass(frozen=True)
class Input:
    """A graph input: its name, role, extents, and its ONNX element type."""

    name: str
    role: Role
    dims: Dims
    elem_type: int

    def value(self, binding: Binding) -> np.ndarray:
        """What an input that is neither token ids nor a cache holds for unpadded tokens."""
        shape = [dim.at(binding) for dim in self.dims]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(self.elem_type)
        total = binding.past + binding.seq
        if self.role is Role.POSITIONS:
            return np.arange(binding.past, total, dtype=dtype).reshape(shape)
        if self.role is Role.CAUSAL_MASK:
            return _causal(binding, dtype).reshape(shape)
        return np.full(shape, {Role.MASK: 1, Role.LAST: total - 1, Role.TOTAL: total}[self.role], dtype)


def _causal(binding: Binding, dtype: np.dtype) -> np.ndarray:
    allowed = np.tri(binding.seq, binding.seq + binding.past, binding.past, dtype=bool)
    if dtype == np.dtype(bool):
        return allowed
    return np.where(allowed, 0, np.float32(np.finfo(np.float16).min)).astype(dtype)


def find_inputs(file: OnnxFile, head_dim: int | None, vocab_size: int | None) -> dict[str, Input]:
    """The inputs of a decoder, by name.

    Args:
        file: the model.
        head_dim: the size of a head where the graph leaves it symbolic; None if unknown.
        vocab_size: the number of tokens, to tell an embedding table from a table of positions; None if
            unknown.

    Raises:
        ModelError: an input has no role in a decoder-only model, or a length that has to vary is fixed.
    """
    return _Finder(file, head_dim, vocab_size).find()


class _Finder:
    def __init__(self, file: OnnxFile, head_dim: int | None, vocab_size: int | None):
        self.file = file
        self.head_dim, self.vocab_size = head_dim, vocab_size
        self.values = {v.name: v for v in file.graph.input if v.name not in file.initializers}
        self.readers: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
        self.producers = {name: node for node in file.nodes() for name in node.output}
        for node in file.nodes():
            for slot, name in enumerate(node.input):
                self.readers.setdefault(name, []).append((node, slot))

    def find(self) -> dict[str, Input]:
        tokens = self._tokens()
        shape = self._shape(tokens)
        if len(shape) != 2 or shape[0] not in (None, 1) or shape[1] is not None:
            raise self._error(
                tokens, "a symbolic number of tokens, [batch, sequence]", "export with dynamic axes"
            )
        found = {tokens: self._input(tokens, Role.TOKENS, (ONE, SEQ))}
        for name in self.values:
            if name != tokens and name in self.readers:
                found[name] = self._other(name)
        return found

    def _other(self, name: str) -> Input:
        kind, rank = self._elem_type(name), len(self._shape(name))
        fused = self._fused_role(name)
        if fused is not None:
            return self._input(name, fused, (ONE,) * rank)
        if kind in _FLOATS and rank == 4 and self._is_cache(name):
            return self._input(name, Role.CACHE, self._cache_dims(name))
        if kind in (*_FLOATS, TensorProto.BOOL) and rank == 4 and self._looks_like_causal_mask(name):
            return self._input(name, Role.CAUSAL_MASK, (ONE, ONE, SEQ, TOTAL))
        if kind in (*_INTEGERS, TensorProto.FLOAT, TensorProto.BOOL) and rank == 2:
            if self._reaches_angles(name):
                return self._input(name, Role.POSITIONS, (ONE, SEQ))
            return self._input(name, Role.MASK, (ONE, TOTAL))
        if kind in _INTEGERS and rank == 1 and self._shape(name)[0] is None:
            return self._input(name, Role.POSITIONS, (SEQ,))
        raise self._unknown(name)

    def _tokens(self) -> str:
        """The integer input that picks rows of the embedding table."""
        tables = {
            name: shape
            for name in self.values
            if self._elem_type(name) in _INTEGERS and (shape := self._table_shape(name)) is not None
        }
        fitting = [name for name, shape in tables.items() if self.vocab_size in shape] or list(tables)
        if len(fitting) > 1:  # learned positions may have as many rows as there are tokens
            fitting = [name for name in fitting if "position" not in name and "type" not in name]
        if len(fitting) == 1:
            return fitting[0]
        inputs = ", ".join(self._describe(name) for name in self.values)
        raise ModelError(
            f"{self.file.path}: expected one integer input that picks rows of an embedding table (token ids) "
            f"among its inputs {inputs}: this is not a decoder-only language model"
        )

    def _table_shape(self, name: str) -> tuple[int, ...] | None:
        """The shape, possibly transposed, of the float matrix that an input picks rows of."""
        for node, slot in self._reached(name, _VIEWS):
            if node.op_type != "Gather" or slot != 1:
                continue
            table = node.input[0]
            while table in self.producers and self.producers[table].op_type in _TABLE_VIEWS:
                table = self.producers[table].input[0]
            if table in self.file.initializers and self.file.dtype(table).kind not in "iub":
                shape = self.file.shape(table)
                return shape if len(shape) == 2 else None
        return None

    def _reached(self, name: str, through: Sequence[str]) -> list[tuple[onnx.NodeProto, int]]:
        """The nodes that read an input, directly or through the operators ``through``."""
        found: list[tuple[onnx.NodeProto, int]] = []
        seen, queue = {name}, deque([name])
        while queue:
            for node, slot in self.readers.get(queue.popleft(), []):
                found.append((node, slot))
                fresh = [out for out in node.output if node.op_type in through and out not in seen]
                seen.update(fresh)
                queue.extend(fresh)
        return found

    def _reaches_angles(self, name: str) -> bool:
        return any(
            node.op_type in ("Cos", "Sin")
            or (node.op_type in ("Gather", "RotaryEmbedding") and self._is_index(node, slot))
            or (node.op_type == "GroupQueryAttention" and slot == 9)
            for node, slot in self._reached(name, _TO_ANGLES)
        )

    def _is_index(self, node: onnx.NodeProto, slot: int) -> bool:
        if node.op_type == "Gather":
            return slot == 1
        return slot == (1 if node.domain == "com.microsoft" else 3)

    def _is_cache(self, name: str) -> bool:
        """Whether an input is joined with new rows, here or in a fused operator."""
        return any(
            node.op_type == "Concat" or slot in CACHE_SLOTS.get(node.op_type, ())
            for node, slot in self._reached(name, ("Cast", "Identity"))
        )

    def _looks_like_causal_mask(self, name: str) -> bool:
        shape = self._shape(name)
        return shape[1] in (None, 1) and shape[2] is None and shape[3] is None

    def _fused_role(self, name: str) -> Role | None:
        roles = {"last": Role.LAST, "total": Role.TOTAL}
        for node, slot in self.readers[name]:
            if (node.op_type, slot) in _FUSED_SLOTS:
                return roles[_FUSED_SLOTS[node.op_type, slot]]
        return None

    def _cache_dims(self, name: str) -> Dims:
        """[1, kv_heads, past, head_dim], or [1, past, kv_heads, head_dim]."""
        _, *rest = self._shape(name)
        if rest[2] is None:
            rest[2] = self.head_dim
        symbolic = [i for i, extent in enumerate(rest) if extent is None]
        if symbolic == [0, 1]:
            raise self._error(name, "a fixed number of key/value heads", "export without dynamic heads")
        if symbolic not in ([0], [1]):
            raise self._error(
                name,
                "[batch, kv_heads, past, head_dim] with a symbolic past length and nothing else symbolic",
                "export with dynamic axes, without a static cache",
            )
        return (ONE, *(PAST if extent is None else Dim(const=extent) for extent in rest))

    def _input(self, name: str, role: Role, dims: Dims) -> Input:
        return Input(name, role, dims, self._elem_type(name))

    def _elem_type(self, name: str) -> int:
        return int(self.values[name].type.tensor_type.elem_type)

    def _shape(self, name: str) -> list[int | None]:
        """The declared shape, None for a symbolic extent."""
        dims = self.values[name].type.tensor_type.shape.dim
        return [int(dim.dim_value) if dim.HasField("dim_value") else None for dim in dims]

    def _describe(self, name: str) -> str:
        kind = TensorProto.DataType.Name(self._elem_type(name)).lower()
        shape = ", ".join("?" if extent is None else str(extent) for extent in self._shape(name))
        return f"{name} ({kind} [{shape}])"

    def _error(self, name: str, expected: str, advice: str) -> ModelError:
        return ModelError(f"{self.file.path}: input {self._describe(name)}: expected {expected}; {advice}")

    def _unknown(self, name: str) -> ModelError:
        return self._error(
            name,
            "token ids, positions, an attention mask, or keys and values of earlier tokens",
            "only decoder-only models are supported (no encoder-decoder, no merged file with a switch input)",
        )


def caches(inputs: Mapping[str, Input]) -> list[Input]:
    """The inputs that hold keys or values of earlier tokens."""
    return [found for found in inputs.values() if found.role is Role.CACHE]
