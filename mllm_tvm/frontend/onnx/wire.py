"""Reads an ONNX file without the weights inside of it, which stay on disk until asked for.

An ONNX file is a protocol buffer: fields of a number, a wire type and a value. Weights are the field
``raw_data`` of the tensors in ``ModelProto.graph.initializer``. The protobuf library would read all of them.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Field numbers of onnx.proto.
_MODEL_GRAPH, _GRAPH_INITIALIZER, _TENSOR_NAME, _TENSOR_RAW_DATA = 7, 5, 8, 9
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
# Smaller weights are left in: epsilons, shapes.
_SMALL_BYTES = 1024

Buffer = mmap.mmap | bytes


@dataclass(frozen=True)
class _Field:
    """A field at ``start``; its value is at ``begin`` to ``end``."""

    number: int
    kind: int
    start: int
    begin: int
    end: int


def read_without_weights(path: Path) -> tuple[bytes, dict[str, tuple[int, int]]]:
    """The serialized model without its larger weights, and the offset and length of each in the file.

    Raises:
        ValueError: the file is not a protocol buffer.
        OSError: it cannot be read.
    """
    with path.open("rb") as stream:
        if not path.stat().st_size:
            return b"", {}
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as buffer:
            found: dict[str, tuple[int, int]] = {}
            parts = [
                _wrapped(_MODEL_GRAPH, _graph(buffer, field, found))
                if (field.number, field.kind) == (_MODEL_GRAPH, _LENGTH)
                else buffer[field.start : field.end]
                for field in _fields(buffer, 0, len(buffer))
            ]
            return b"".join(parts), found


def _graph(buffer: Buffer, graph: _Field, found: dict[str, tuple[int, int]]) -> bytes:
    return b"".join(
        _wrapped(_GRAPH_INITIALIZER, _tensor(buffer, field, found))
        if (field.number, field.kind) == (_GRAPH_INITIALIZER, _LENGTH)
        else buffer[field.start : field.end]
        for field in _fields(buffer, graph.begin, graph.end)
    )


def _tensor(buffer: Buffer, tensor: _Field, found: dict[str, tuple[int, int]]) -> bytes:
    fields = list(_fields(buffer, tensor.begin, tensor.end))
    names = [buffer[field.begin : field.end] for field in fields if field.number == _TENSOR_NAME]
    data = [field for field in fields if field.number == _TENSOR_RAW_DATA]
    if len(names) != 1 or len(data) != 1 or data[0].end - data[0].begin < _SMALL_BYTES:
        return buffer[tensor.begin : tensor.end]
    found[names[0].decode()] = (data[0].begin, data[0].end - data[0].begin)
    return b"".join(buffer[field.start : field.end] for field in fields if field is not data[0])


def _fields(buffer: Buffer, position: int, end: int) -> Iterator[_Field]:
    while position < end:
        start = position
        key, position = _varint(buffer, position, end)
        kind, begin = key & 7, position
        if kind == _VARINT:
            _, position = _varint(buffer, position, end)
        elif kind == _LENGTH:
            length, begin = _varint(buffer, position, end)
            position = begin + length
        elif kind in (_FIXED64, _FIXED32):
            position += 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {kind} at byte {start}")
        if position > end:
            raise ValueError(f"the field at byte {start} ends after the file or message does")
        yield _Field(key >> 3, kind, start, begin, position)


def _varint(buffer: Buffer, position: int, end: int) -> tuple[int, int]:
    """A little-endian base-128 number, and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= end:
            break
        byte = buffer[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError(f"unterminated number at byte {position}")


def _wrapped(number: int, body: bytes) -> bytes:
    """A length-delimited field."""
    return _encoded(number << 3 | _LENGTH) + _encoded(len(body)) + body


def _encoded(value: int) -> bytes:
    result = bytearray()
    while value >= 0x80:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    result.append(value)
    return bytes(result)
