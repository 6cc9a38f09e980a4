"""Safetensors files that are read through a memory map, without copying where alignment allows.

Compiled functions need 64-byte aligned tensors. The writer pads the header and puts the tensors whose size is
a multiple of 64 bytes first, so all of those are aligned in the file and only small others are copied.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType

import numpy as np

from mllm_tvm.errors import ArtifactError

ALIGNMENT = 64
_DTYPES = {
    "F32": "float32",
    "F16": "float16",
    "I8": "int8",
    "I16": "int16",
    "U8": "uint8",
    "I32": "int32",
    "I64": "int64",
}
_CODES = {name: code for code, name in _DTYPES.items()}

Layout = Mapping[str, tuple[tuple[int, ...], str]]
"""Tensor name -> its shape and dtype."""


def aligned_empty(shape: tuple[int, ...], dtype: str | np.dtype) -> np.ndarray:
    """An uninitialized array that starts on a 64-byte boundary."""
    count = math.prod(shape) * np.dtype(dtype).itemsize
    buffer = np.empty(count + ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % ALIGNMENT
    return buffer[start : start + count].view(dtype).reshape(shape)


def as_aligned(array: np.ndarray) -> np.ndarray:
    """``array`` if it is contiguous and 64-byte aligned, otherwise an aligned copy."""
    if array.flags.c_contiguous and array.ctypes.data % ALIGNMENT == 0:
        return array
    return aligned_copy(array)


def aligned_copy(array: np.ndarray) -> np.ndarray:
    """A contiguous copy that starts on a 64-byte boundary."""
    copy = aligned_empty(array.shape, array.dtype)
    copy[...] = array
    return copy


class TensorWriter:
    """Writes a safetensors file tensor by tensor, in any order; a context manager.

    Raises ArtifactError for a dtype the format has no code for here, for blocks that are not what ``layout``
    says, and at the end for a tensor that was not written.
    """

    def __init__(self, path: Path, layout: Layout):
        self._layout = dict(layout)
        order = sorted(self._layout, key=lambda name: (self._bytes(name) % ALIGNMENT != 0, name))
        header: dict[str, object] = {}
        end = 0
        for name in order:
            shape, dtype = self._layout[name]
            begin, end = end, end + self._bytes(name)
            header[name] = {"dtype": _code(name, dtype), "shape": list(shape), "data_offsets": [begin, end]}
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-(8 + len(text)) % ALIGNMENT)
        self._offsets = {n: 8 + len(text) + entry["data_offsets"][0] for n, entry in header.items()}  # type: ignore[index]
        self._missing = set(order)
        self._file = path.open("wb")
        self._file.write(len(text).to_bytes(8, "little") + text)

    def write(self, name: str, blocks: Iterable[np.ndarray]) -> None:
        """Writes a tensor from consecutive blocks of its elements."""
        shape, dtype = self._layout[name]
        self._file.seek(self._offsets[name])
        written = 0
        for block in blocks:
            if block.dtype != np.dtype(dtype):
                raise ArtifactError(f"tensor {name!r}: expected {dtype}, got a block of {block.dtype}")
            written += self._file.write(np.ascontiguousarray(block).data)
        if written != self._bytes(name):
            expected = f"{self._bytes(name)} bytes ({dtype} {list(shape)})"
            raise ArtifactError(f"tensor {name!r}: expected {expected}, got {written} bytes")
        self._missing.discard(name)

    def __enter__(self) -> TensorWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if error is None and self._missing:
            raise ArtifactError(f"tensor {min(self._missing)!r} was not written")

    def _bytes(self, name: str) -> int:
        shape, dtype = self._layout[name]
        return math.prod(shape) * np.dtype(dtype).itemsize


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write a safetensors file; raises ArtifactError for a dtype the format has no code for here."""
    layout = {name: (array.shape, array.dtype.name) for name, array in tensors.items()}
    with TensorWriter(path, layout) as writer:
        for name, array in tensors.items():
            writer.write(name, [array])


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file, 64-byte aligned, paged in from the file as they are used.

    Writing into one changes memory, not the file. Raises ArtifactError for a damaged file.
    """
    try:
        data = np.memmap(path, np.uint8, mode="c")
        start = 8 + int.from_bytes(data[:8].tobytes(), "little")
        header = json.loads(data[8:start].tobytes())
        return {
            name: _tensor(data[start:], entry) for name, entry in header.items() if name != "__metadata__"
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(path, error) from error


def tensor_bytes(path: Path) -> dict[str, int]:
    """The size of each tensor of a safetensors file; raises ArtifactError for a damaged file."""
    try:
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        entries = {name: entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"}
        return {name: int(end) - int(begin) for name, (begin, end) in entries.items()}
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
        OverflowError,
        MemoryError,
    ) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> ArtifactError:
    return ArtifactError(f"{path} is not a readable safetensors file ({error}); compile the model again")


def _code(name: str, dtype: str) -> str:
    if dtype not in _CODES:
        raise ArtifactError(f"tensor {name!r} has dtype {dtype}: expected one of {', '.join(_CODES)}")
    return _CODES[dtype]


def _tensor(data: np.ndarray, entry: dict) -> np.ndarray:
    first, last = entry["data_offsets"]
    if not 0 <= first <= last <= len(data):
        raise ValueError(f"offsets {first}:{last} exceed the {len(data)} data bytes")
    return as_aligned(np.asarray(data[first:last]).view(_DTYPES[entry["dtype"]]).reshape(entry["shape"]))
