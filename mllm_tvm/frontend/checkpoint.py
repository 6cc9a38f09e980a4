"""Reads tensors of a safetensors checkpoint, one file or several shards, one tensor at a time."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from mllm_tvm.errors import ModelError
from mllm_tvm.frontend.config import read_json

WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")

DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
"""safetensors dtype -> NumPy dtype, of the weights a float model can have."""


@dataclass(frozen=True)
class SafeTensor:
    """Where a tensor is: file, dtype as safetensors writes it, shape, and its first byte in the file."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int

    def read(self, begin: int = 0, end: int | None = None) -> np.ndarray:
        """Entries ``begin`` to ``end`` of the first axis, in the stored dtype.

        Raises ModelError when the file no longer holds all of them.
        """
        dtype = DTYPES[self.dtype]
        begin, end, _ = slice(begin, end).indices(self.shape[0]) if self.shape else (0, 1, 1)
        entry = int(np.prod(self.shape[1:], dtype=np.int64))
        # Not a memory map: its pages would count as this process's memory for as long as it lives.
        flat = np.fromfile(
            self.file, dtype, (end - begin) * entry, offset=self.offset + begin * entry * dtype.itemsize
        )
        if flat.size != (end - begin) * entry:
            raise ModelError(f"{self.file} is truncated: download the model again")
        return flat.reshape(end - begin, *self.shape[1:]) if self.shape else flat.reshape(())


class Checkpoint:
    """The tensors of a model directory, by name.

    Raises:
        ModelError: a weight file is missing, truncated or damaged.
    """

    def __init__(self, path: Path):
        self.files = _weight_files(path)
        self.tensors: dict[str, SafeTensor] = {}
        for file in self.files:
            self.tensors.update(_read_header(file))

    def add_prefix(self, prefix: str, kept: Iterable[str]) -> None:
        """Puts ``prefix`` before the names of a checkpoint saved without it, but not before ``kept``.

        A base model without its head is saved with shorter names than the whole.
        """
        if not any(name.startswith(prefix) for name in self.tensors):
            kept = set(kept)
            self.tensors = {(n if n in kept else prefix + n): t for n, t in self.tensors.items()}

    def content_hash(self, *more: Path) -> str:
        """SHA-256 (hex) of the weight files and the files ``more``."""
        digest = hashlib.sha256()
        for file in (*more, *self.files):
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        return digest.hexdigest()


def _weight_files(path: Path) -> list[Path]:
    index = path / INDEX_NAME
    names = sorted(set(_weight_map(index).values())) if index.is_file() else [WEIGHTS_NAME]
    for name in names:
        # A name with a directory in it could point outside of the model directory.
        if Path(name).name != name or not (path / name).is_file():
            raise ModelError(
                f"{path / name} is missing: expected the model's weights as safetensors{_pickled(path)}"
            )
    return [path / name for name in names]


def _pickled(path: Path) -> str:
    """What to do about weights that are there, but in a format that can run code when opened."""
    files = sorted(file.name for pattern in PICKLES for file in path.glob(pattern))
    if not files:
        return ""
    return f", found {files[0]}: a pickle, which is never opened; convert it to safetensors"


def _weight_map(index: Path) -> dict[str, str]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        raise ModelError(f"{index}: weight_map: expected an object of tensor name -> file name")
    return weight_map


def _read_header(file: Path) -> dict[str, SafeTensor]:
    """safetensors: a little-endian uint64 header length, a JSON header, then the data."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        prefix = stream.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else size
        if 8 + length > size:
            raise ModelError(f"{file} is truncated: its header does not fit its {size} bytes")
        header = stream.read(length)
    try:
        entries = {name: entry for name, entry in json.loads(header).items() if name != "__metadata__"}
        tensors = {name: _stored_tensor(file, entry, 8 + length) for name, entry in entries.items()}
        end = 8 + length + max((entry["data_offsets"][1] for entry in entries.values()), default=0)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(f"{file}: damaged safetensors header ({error}): download the model again") from None
    if end != size:
        raise ModelError(f"{file} is truncated or damaged: expected {end} bytes, found {size}")
    return tensors


def _stored_tensor(file: Path, entry: dict[str, Any], data: int) -> SafeTensor:
    shape = tuple(int(extent) for extent in entry["shape"])
    begin, end = entry["data_offsets"]
    dtype = str(entry["dtype"])
    if dtype in DTYPES and end - begin != int(np.prod(shape, dtype=np.int64)) * DTYPES[dtype].itemsize:
        raise ValueError(f"{end - begin} bytes for shape {list(shape)} {dtype}")
    return SafeTensor(file, dtype, shape, data + begin)
