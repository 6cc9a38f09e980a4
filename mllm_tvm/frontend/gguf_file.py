"""Reads GGUF files: metadata, and tensors under their Hugging Face names, one at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import ml_dtypes
import numpy as np

from mllm_tvm.errors import ModelError

_BLOCK = 32
_BLOCK_BYTES = 2 + _BLOCK


def _q8_0(data: np.ndarray) -> np.ndarray:
    """Blocks of a float16 scale and 32 int8 values, as float32."""
    blocks = data.reshape(-1, _BLOCK_BYTES)
    scales = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    return (scales * blocks[:, 2:].view(np.int8)).reshape(-1)


DECODERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "F32": lambda data: data.view(np.float32),
    "F16": lambda data: data.view(np.float16),
    "BF16": lambda data: data.view(ml_dtypes.bfloat16),
    "Q8_0": _q8_0,
}
"""GGUF tensor type -> its bytes as flat float values."""

Transform = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class GgufTensor:
    """A tensor of a GGUF file. ``transform`` undoes what the converter did to the whole array."""

    file: Path
    dtype: str
    stored_shape: tuple[int, ...]
    offset: int
    bytes: int
    transform: Transform | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape after ``transform``, which may only transpose."""
        if self.transform is None:
            return self.stored_shape
        return self.transform(np.broadcast_to(np.float32(0), self.stored_shape)).shape

    def read(self, begin: int = 0, end: int | None = None) -> np.ndarray:
        """Entries ``begin`` to ``end`` of the first axis, as floats; raises ModelError for a cut file."""
        if self.transform is not None:
            return self.transform(self._rows(0, self.stored_shape[0]))[begin:end]
        begin, end, _ = slice(begin, end).indices(self.stored_shape[0])
        return self._rows(begin, end)

    def _rows(self, begin: int, end: int) -> np.ndarray:
        row = self.bytes // self.stored_shape[0]
        data = np.fromfile(self.file, np.uint8, (end - begin) * row, offset=self.offset + begin * row)
        if data.size != (end - begin) * row:
            raise ModelError(f"{self.file} is truncated: download the model again")
        return DECODERS[self.dtype](data).reshape(end - begin, *self.stored_shape[1:])


class GgufFile:
    """An open GGUF file: ``metadata`` by key, raw tensors by GGUF name.

    Raises:
        ModelError: the file is not GGUF, damaged, or cut off.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            reader = gguf.GGUFReader(path)
            self.metadata: dict[str, Any] = {name: f.contents() for name, f in reader.fields.items()}
            self.tensors = {t.name: self._tensor(t) for t in reader.tensors}
        except (ValueError, IndexError, KeyError, TypeError, OverflowError, OSError, MemoryError) as error:
            raise ModelError(f"{path} is not a readable GGUF file ({error}): download it again") from None
        if reader.endianess == gguf.GGUFEndian.BIG:
            raise ModelError(f"{path} is big-endian: expected a little-endian GGUF file")

    def _tensor(self, tensor: gguf.ReaderTensor) -> GgufTensor:
        shape = tuple(int(extent) for extent in reversed(tensor.shape))
        return GgufTensor(
            self.path, tensor.tensor_type.name, shape, int(tensor.data_offset), int(tensor.n_bytes)
        )

    def value(self, key: str, expected: type, default: Any = None) -> Any:
        """A metadata value; raises ModelError when it is of another type, or absent without a default."""
        found = self.metadata.get(key, default)
        if not isinstance(found, expected):
            raise ModelError(f"{self.path}: {key}: expected {expected.__name__}, found {found!r}")
        return found

    def content_hash(self) -> str:
        """SHA-256 (hex) of the file."""
        with self.path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()


class GgufSource:
    """The tensors of a GGUF file under the names a Hugging Face checkpoint gives them.

    Args:
        file: the open file.
        architecture: GGUF's name of the architecture.
        names: Hugging Face names of the tensors the model wants.
        layers: number of decoder layers.
        transform: Hugging Face name -> what undoes the converter's rearrangement of that tensor.
    """

    def __init__(
        self,
        file: GgufFile,
        architecture: str,
        names: Iterable[str],
        layers: int,
        transform: Callable[[str], Transform | None],
    ):
        known = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}
        name_map = gguf.get_tensor_name_map(known[architecture], layers)
        self.tensors: dict[str, GgufTensor] = dict(file.tensors)
        for name in names:
            stored = name_map.get_name(name, try_suffixes=(".weight", ".bias"))
            if stored in self.tensors:
                tensor = self.tensors.pop(stored)
                _check_type(tensor, stored)
                made = transform(name)
                fields = (tensor.file, tensor.dtype, tensor.stored_shape, tensor.offset, tensor.bytes)
                self.tensors[name] = GgufTensor(*fields, made)


def _check_type(tensor: GgufTensor, name: str) -> None:
    if tensor.dtype not in DECODERS:
        raise ModelError(
            f"{tensor.file}: tensor {name} has type {tensor.dtype}: expected {', '.join(DECODERS)}; "
            "convert the model without further quantization"
        )
