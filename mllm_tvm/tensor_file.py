"""Safetensors files that are read through a memory map, without copying where alignment allows.

Compiled functions need 64-byte aligned tensors. The writer pads the header and puts the tensors whose size is
a multiple of 64 bytes first, so all of those are aligned in the file and only small others are copied.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mllm_tvm.errors import ArtifactError

ALIGNMENT = 64
_DTYPES = {"F32": "float32", "F16": "float16", "I8": "int8", "U8": "uint8", "I32": "int32", "I64": "int64"}
_CODES = {name: code for code, name in _DTYPES.items()}


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
    copy = aligned_empty(array.shape, array.dtype)
    copy[...] = array
    return copy


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write a safetensors file; raises ArtifactError for a dtype the format has no code for here."""
    order = sorted(tensors, key=lambda name: (tensors[name].nbytes % ALIGNMENT != 0, name))
    header: dict[str, object] = {}
    offset = 0
    for name in order:
        end = offset + tensors[name].nbytes
        shape = list(tensors[name].shape)
        code = _code(name, tensors[name])
        header[name] = {"dtype": code, "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            file.write(np.ascontiguousarray(tensors[name]).data)


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
        raise ArtifactError(
            f"{path} is not a readable safetensors file ({error}); compile the model again"
        ) from error


def _code(name: str, tensor: np.ndarray) -> str:
    if tensor.dtype.name not in _CODES:
        raise ArtifactError(f"tensor {name!r} has dtype {tensor.dtype}: expected one of {', '.join(_CODES)}")
    return _CODES[tensor.dtype.name]


def _tensor(data: np.ndarray, entry: dict) -> np.ndarray:
    first, last = entry["data_offsets"]
    if not 0 <= first <= last <= len(data):
        raise ValueError(f"offsets {first}:{last} exceed the {len(data)} data bytes")
    return as_aligned(np.asarray(data[first:last]).view(_DTYPES[entry["dtype"]]).reshape(entry["shape"]))
