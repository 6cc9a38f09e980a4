"""What a rule sees of a node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from mllm_tvm.frontend.onnx.numpy_ops import attributes
from mllm_tvm.frontend.onnx.tensor import Tensor, UnsupportedError

if TYPE_CHECKING:
    from mllm_tvm.frontend.onnx.importer import Importer


@dataclass(frozen=True)
class Node:
    """A node of the graph, and the import it is part of."""

    proto: onnx.NodeProto
    importer: Importer

    @property
    def attrs(self) -> dict[str, Any]:
        return attributes(self.proto)

    def has(self, slot: int) -> bool:
        """Whether an optional input is there."""
        return slot < len(self.proto.input) and bool(self.proto.input[slot])

    def name(self, slot: int) -> str | None:
        """The name of an optional input."""
        return self.proto.input[slot] if self.has(slot) else None

    def operand(self, slot: int) -> Tensor:
        return self.importer.operand(self.proto.input[slot])

    def static(self, slot: int) -> np.ndarray | None:
        """An optional input that must not depend on lengths."""
        return self.importer.static(self.proto.input[slot]) if self.has(slot) else None

    def probe(self, slot: int) -> list[np.ndarray | None]:
        """An optional input at each probe."""
        if not self.has(slot):
            return [None] * len(self.importer.probes)
        return list(self.importer.probe(self.proto.input[slot]))

    def number(self, name: str, default: float) -> float:
        """An optional attribute that is a number."""
        value = self.attrs.get(name, default)
        if not isinstance(value, (int, float)):
            raise UnsupportedError(f"attribute {name}: expected a number, found {value!r}")
        return float(value)

    def expect(self, **values: object) -> None:
        """Raises UnsupportedError when an attribute is given and has another value."""
        attrs = self.attrs
        for name, value in values.items():
            if attrs.get(name, value) != value:
                raise UnsupportedError(f"attribute {name}: expected {value}, found {attrs[name]}")

    def refuse_inputs(self, first: int) -> None:
        """Raises UnsupportedError when one of the inputs from ``first`` on is given."""
        for slot in range(first, len(self.proto.input)):
            if self.has(slot):
                raise UnsupportedError(f"input {slot} ({self.proto.input[slot]}) is not supported")


Rule = Callable[["Importer", Node], Tensor | Sequence[Tensor | None]]
