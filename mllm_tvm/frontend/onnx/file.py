"""An ONNX file: its graph, and its weights read when asked for, also from external data files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from onnx import numpy_helper

from mllm_tvm.errors import ModelError
from mllm_tvm.frontend.onnx.wire import read_without_weights

DOMAINS = ("", "ai.onnx", "com.microsoft")


@dataclass(frozen=True)
class StoredData:
    """Where a weight lies: in a file of its own, or in the ONNX file."""

    file: Path
    offset: int
    length: int


class OnnxFile:
    """A checked ONNX file. Nothing of it is run; external data stay on disk until read.

    Raises:
        ModelError: the file is missing, damaged or not ONNX, or its external data are missing, truncated or
            outside of its directory.
    """

    def __init__(self, path: Path):
        self.path = path
        self.model, embedded = _read(path)
        self.graph = self.model.graph
        if self.graph.sparse_initializer:
            raise ModelError(f"{path}: sparse weights are not supported: export dense ones")
        self.initializers = {tensor.name: tensor for tensor in self.graph.initializer}
        self.stored = {
            name: _embedded(path, tensor, *embedded[name]) if name in embedded else _locate(path, tensor)
            for name, tensor in self.initializers.items()
            if name in embedded or tensor.data_location == onnx.TensorProto.EXTERNAL
        }

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a weight."""
        return tuple(self.initializers[name].dims)

    def dtype(self, name: str) -> np.dtype[Any]:
        """The dtype of a weight."""
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(self.initializers[name].data_type))

    def read(self, name: str) -> np.ndarray:
        """A weight in its stored dtype."""
        tensor = self.initializers[name]
        if name not in self.stored:
            return self.to_array(tensor)
        where = self.stored[name]
        dtype = self.dtype(name)
        flat = np.fromfile(where.file, dtype, where.length // dtype.itemsize, offset=where.offset)
        return flat.reshape(self.shape(name))

    def to_array(self, tensor: onnx.TensorProto) -> np.ndarray:
        """A tensor stored in the file itself."""
        try:
            return np.asarray(numpy_helper.to_array(tensor))
        except (ValueError, TypeError, KeyError) as error:
            raise ModelError(
                f"{self.path}: tensor {tensor.name} is damaged ({error}): export the model again"
            ) from None

    def content_hash(self, *more: Path) -> str:
        """SHA-256 (hex) of the file, its external data files and the files ``more``."""
        digest = hashlib.sha256()
        files = dict.fromkeys((*more, self.path, *(where.file for where in self.stored.values())))
        for file in files:
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        return digest.hexdigest()

    def nodes(self) -> Iterator[onnx.NodeProto]:
        """The nodes in the order of the file, which the format requires to be topological."""
        yield from self.graph.node


def _read(path: Path) -> tuple[onnx.ModelProto, dict[str, tuple[int, int]]]:
    """The model without its larger weights, and where they are in the file."""
    try:
        serialized, embedded = read_without_weights(path)
        model = onnx.ModelProto.FromString(serialized)
    except FileNotFoundError:
        raise ModelError(f"{path} is missing: expected an ONNX file") from None
    except Exception as error:  # protobuf's decoding error differs between its implementations
        raise ModelError(f"{path} is not an ONNX file ({error}): export the model again") from None
    if not model.graph.node or not model.graph.output:
        raise ModelError(f"{path} is not an ONNX model: its graph is empty; export the model again")
    for name in _names(model.graph):
        if not isinstance(name, str):  # what protobuf gives for text that is not UTF-8
            raise ModelError(f"{path} is damaged: expected a name, found {name!r}: export the model again")
    if not model.functions:
        return model, embedded
    try:
        return onnx.inliner.inline_local_functions(model), embedded
    except Exception as error:
        raise ModelError(f"{path}: its functions cannot be inlined ({error})") from None


def _names(graph: onnx.GraphProto) -> Iterator[object]:
    for value in (*graph.input, *graph.output):
        yield value.name
        yield from (dim.dim_param for dim in value.type.tensor_type.shape.dim)
    for tensor in graph.initializer:
        yield tensor.name
        yield from (text for entry in tensor.external_data for text in (entry.key, entry.value))
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        yield from (attribute.name for attribute in node.attribute)
        yield from (text for entry in node.metadata_props for text in (entry.key, entry.value))


def _locate(path: Path, tensor: onnx.TensorProto) -> StoredData:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    file = path.parent / location
    # Only files beside or below the model: a location may come from anyone. (Links are the user's own.)
    if not location or Path(location).is_absolute() or ".." in Path(location).parts:
        raise ModelError(
            f"{path}: weight {tensor.name}: external data at {location!r}: expected a file in {path.parent}"
        )
    if not file.is_file():
        raise ModelError(
            f"{file} is missing: {path.name} keeps the weight {tensor.name} in it; copy it beside {path.name}"
        )
    return _check_extent(path, tensor, file, entries)


def _embedded(path: Path, tensor: onnx.TensorProto, offset: int, length: int) -> StoredData:
    return _check_extent(path, tensor, path, {"offset": str(offset), "length": str(length)})


def _check_extent(path: Path, tensor: onnx.TensorProto, file: Path, entries: dict[str, str]) -> StoredData:
    try:
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
        offset = int(entries.get("offset", 0))
        needed = int(np.prod(tensor.dims, dtype=np.int64)) * dtype.itemsize
        length = int(entries.get("length", needed))
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: weight {tensor.name}: damaged entry ({error})") from None
    if length != needed or offset < 0:
        raise ModelError(
            f"{path}: weight {tensor.name}: expected {needed} bytes for shape {list(tensor.dims)}, "
            f"found {length} at offset {offset}"
        )
    if offset + length > file.stat().st_size:
        raise ModelError(
            f"{file} is truncated: weight {tensor.name} ends at byte {offset + length}, "
            f"the file has {file.stat().st_size}; copy or export it again"
        )
    return StoredData(file, offset, length)
