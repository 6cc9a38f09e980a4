"""Readable, unique parameter names for an ONNX graph's constants, many of which are anonymous."""

from __future__ import annotations

import ast
import re

import onnx

from mllm_tvm.frontend.onnx.importer import Importer
from mllm_tvm.frontend.onnx.tensor import Tensor

_ANONYMOUS = re.compile(r"(onnx::.*|val_\d+|_?\d+|.*[_/]output_\d+|.*_transposed|mllm\..*)")


class Names:
    """Gives each constant a name: its own, or the path of the node that reads it."""

    def __init__(self, importer: Importer):
        self.importer = importer
        self.given: dict[tuple[object, ...], str] = {}
        self.taken: set[str] = set()
        self.readers: dict[str, str] = {}
        for node in importer.file.nodes():
            for name in node.input:
                self.readers.setdefault(name, _path(node))

    def parameter(self, x: Tensor, use: tuple[object, ...]) -> str:
        """The name of a ``const``: one name for each ``use`` (the shape and dtype it is wanted in)."""
        name = str(x.attrs["name"])
        key = (name, x.attrs.get("transposed"), use)
        if key not in self.given:
            self.given[key] = self._unique(self._readable(name, ".weight"))
        return self.given[key]

    def table(self, name: str) -> str:
        """The name of a table of positions: rotary tables are called so."""
        op = self._rotary(name)
        return self._unique(f"rope.{op.lower()}" if op else self._readable(name, ".table"))

    def _rotary(self, name: str) -> str | None:
        """Cos or Sin, when the value comes from one of them through a few nodes."""
        for _ in range(8):
            node = self.importer.evaluator.producers.get(name)
            if node is None or not node.input:
                break
            if node.op_type in ("Cos", "Sin"):
                return node.op_type
            name = node.input[0]
        return next((word.capitalize() for word in ("cos", "sin") if name.startswith(word)), None)

    def _readable(self, name: str, suffix: str) -> str:
        if _ANONYMOUS.fullmatch(name):
            path = self.readers.get(name, "")
            name = f"{path}{suffix}" if path else name
        return re.sub(r"[^\w.]+", ".", name).strip(".")

    def _unique(self, name: str) -> str:
        unique, count = name, 1
        while unique in self.taken:
            count += 1
            unique = f"{name}.{count}"
        self.taken.add(unique)
        return unique


def _path(node: onnx.NodeProto) -> str:
    """The module a node is of: from what PyTorch noted, or from the node's name."""
    for entry in node.metadata_props:
        if entry.key == "pkg.torch.onnx.name_scopes":
            try:
                scopes = ast.literal_eval(entry.value)
                return str(scopes[-2])
            except (ValueError, SyntaxError, IndexError, TypeError):
                break
    return re.sub(r"/[^/]*$", "", node.name)
