"""The manifest of an artifact: what is in the directory, and the call graph the engine expands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"

Processor = Literal["npu", "cpu"]
FunctionKind = Literal["linear", "shadow", "float", "dynamic"]


@dataclass(frozen=True)
class FunctionSpec:
    """A compiled function that calls share.

    ``name`` is its name in the CPU library. An NPU function of chunk length M is the device kernel
    ``{name}_m{M}``; ``k`` and ``n`` are its reduction length and (padded) number of output columns, 0 for others.
    """

    name: str
    processor: Processor
    kind: FunctionKind
    k: int = 0
    n: int = 0


@dataclass(frozen=True)
class Call:
    """One use of a function: argument value names in parameter order, output value names, decoder layer.

    ``layer`` is -1 before the first layer and ``num_layers`` after the last.
    """

    function: str
    layer: int
    args: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class CacheSpec:
    """A key or value cache: ``rows`` ([seq, *row_shape] float32) of each chunk are appended to it."""

    name: str
    rows: str
    row_shape: tuple[int, ...]


@dataclass(frozen=True)
class Graph:
    """The calls of one forward pass, in an order that respects their dependencies."""

    functions: tuple[FunctionSpec, ...]
    calls: tuple[Call, ...]
    caches: tuple[CacheSpec, ...]
    logits: str

    def function(self, name: str) -> FunctionSpec:
        """The function called ``name``; raises KeyError when there is none."""
        return {f.name: f for f in self.functions}[name]


@dataclass(frozen=True)
class FileEntry:
    """A file of the artifact: SHA-256 in hex and size in bytes."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Manifest:
    """Everything known about an artifact before any of its other files is read."""

    schema_version: int
    model: dict[str, object]
    """architecture, vocab_size, max_positions, num_layers, hidden_size, bos/eos token ids, parameters."""
    target: str
    """Hexagon target tag, for example ``qcom/hexagon-v68``."""
    host_cpu: str
    """LLVM name of the CPU the CPU library and the host server were built for."""
    chunk_lengths: tuple[int, ...]
    quantization: dict[str, object]
    graph: Graph
    parameters: dict[str, str]
    """Parameter name -> the safetensors file that holds it."""
    files: dict[str, FileEntry]
