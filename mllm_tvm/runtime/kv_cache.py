"""Preallocated key and value caches whose filled part is handed to compiled functions without copying."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mllm_tvm.errors import PromptError
from mllm_tvm.manifest import CacheSpec
from mllm_tvm.tensor_file import aligned_empty


class KvCache:
    """One array [max_positions, *row_shape] float32 per cache.

    Memory is reserved for ``max_positions`` rows but, like any large allocation, only used once written.
    Different rows may be written and read by different threads at the same time.
    """

    def __init__(self, specs: Sequence[CacheSpec], max_positions: int) -> None:
        self.max_positions = max_positions
        self._arrays = {s.name: aligned_empty((max_positions, *s.row_shape), "float32") for s in specs}

    def append(self, name: str, start: int, rows: np.ndarray) -> None:
        """Store ``rows`` [n, *row_shape] from position ``start`` on; raises PromptError beyond the end."""
        end = start + len(rows)
        if end > self.max_positions:
            raise PromptError(f"position {end} is beyond the context of {self.max_positions} tokens")
        self._arrays[name][start:end] = rows

    def view(self, name: str, length: int) -> np.ndarray:
        """The first ``length`` rows of a cache: a contiguous, 64-byte aligned view [length, *row_shape]."""
        if length > self.max_positions:
            raise PromptError(f"position {length} is beyond the context of {self.max_positions} tokens")
        return self._arrays[name][:length]
