"""The manifest of an artifact: what is in the directory, and the call graph the engine expands."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from mllm_tvm.errors import ArtifactError
from mllm_tvm.runtime.policies import DEFAULT_POLICY

SCHEMA_VERSION = 2
MANIFEST_NAME = "manifest.json"

Processor = Literal["npu", "cpu"]
FunctionKind = Literal["linear", "mlp", "shadow", "float", "dynamic"]


@dataclass(frozen=True)
class FunctionSpec:
    """A compiled function that calls share.

    ``name`` is its name in the CPU library. An NPU function of chunk length M is the device kernel
    ``{name}_m{M}``; ``k`` and ``n`` are its reduction length and (padded) number of output columns, 0 for
    others. ``channels`` are those between the linears of an ``mlp``.
    """

    name: str
    processor: Processor
    kind: FunctionKind
    k: int = 0
    n: int = 0
    channels: int = 0

    @property
    def weights(self) -> int:
        """Weights of an NPU function: its multiply-accumulates for a row."""
        return self.channels * (2 * self.k + self.n) if self.kind == "mlp" else self.k * self.n

    @property
    def input_bytes(self) -> int:
        """Bytes of the activations an NPU function reads for a row: two of each value for an ``mlp``."""
        return 2 * self.k if self.kind == "mlp" else self.k

    @property
    def padded_channels(self) -> int:
        """Columns of one of the projections of an ``mlp`` in its packed weight."""
        return -(-self.channels // 32) * 32


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
    policy: str = DEFAULT_POLICY
    """The scheduling policy that an engine uses unless told otherwise."""

    def model_integer(self, name: str) -> int:
        """An entry of ``model`` that has to be an integer; raises ArtifactError when it is not."""
        value = self.model.get(name)
        if not isinstance(value, int):
            raise ArtifactError(
                f"{MANIFEST_NAME}: model.{name} is {value!r}, expected int; compile the model again"
            )
        return value

    def to_json(self) -> str:
        """The text of ``manifest.json``."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @staticmethod
    def from_json(text: str) -> Manifest:
        """Parse ``manifest.json``; raises ArtifactError naming the first field that is missing or wrong."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ArtifactError(f"{MANIFEST_NAME} is not JSON ({error}); compile the model again") from error
        _check_version(data)
        return _decode(Manifest, data, MANIFEST_NAME)


def _check_version(data: object) -> None:
    version = data.get("schema_version") if isinstance(data, dict) else None
    if not isinstance(version, int):
        raise ArtifactError(f"{MANIFEST_NAME}: schema_version is {version!r}, expected {SCHEMA_VERSION}")
    if version > SCHEMA_VERSION:
        raise ArtifactError(
            f"{MANIFEST_NAME} has schema_version {version}, made by a newer mllm-tvm (this one reads "
            f"{SCHEMA_VERSION}); upgrade mllm-tvm or compile the model again"
        )
    if version < SCHEMA_VERSION:
        raise ArtifactError(
            f"{MANIFEST_NAME} has schema_version {version}, made by an older mllm-tvm (this one reads "
            f"{SCHEMA_VERSION}); compile the model again"
        )


def _decode(kind: Any, data: Any, where: str) -> Any:
    """``data`` from JSON as a value of type ``kind``: a dataclass, tuple, dict, literal or plain type."""
    origin, args = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return _decode_dataclass(kind, data, where)
    if origin is tuple and isinstance(data, list):
        return tuple(_decode(args[0], item, f"{where}[{i}]") for i, item in enumerate(data))
    if origin is dict and isinstance(data, dict):
        return {key: _decode(args[1], value, f"{where}.{key}") for key, value in data.items()}
    if kind is object or (origin is Literal and data in args):
        return data
    if isinstance(kind, type) and isinstance(data, kind) and not (kind is int and isinstance(data, bool)):
        return data
    expected = kind.__name__ if isinstance(kind, type) else kind
    raise ArtifactError(f"{where} is {data!r}, expected {expected}; compile the model again")


def _decode_dataclass(kind: Any, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise ArtifactError(f"{where} is {data!r}, expected an object; compile the model again")
    hints = get_type_hints(kind)
    values = {}
    for field in fields(kind):
        if field.name not in data:
            raise ArtifactError(f"{where} has no {field.name!r}; compile the model again")
        values[field.name] = _decode(hints[field.name], data[field.name], f"{where}.{field.name}")
    return kind(**values)
