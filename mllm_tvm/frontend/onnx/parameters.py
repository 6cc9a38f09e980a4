"""The parameters of an imported graph: constants and tables, computed from the file when asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Parameter:
    """Shape, dtype and the function that reads or computes the array."""

    shape: tuple[int, ...]
    dtype: str
    make: Callable[[], np.ndarray]


class OnnxParameters(Mapping[str, np.ndarray]):
    """Parameter name -> array, C-contiguous; each access reads the file anew and keeps nothing."""

    def __init__(self, specs: Mapping[str, Parameter]):
        self.specs = dict(specs)

    def __getitem__(self, name: str) -> np.ndarray:
        spec = self.specs[name]
        array = np.asarray(spec.make())
        return np.ascontiguousarray(array.reshape(spec.shape), dtype=spec.dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self.specs)

    def __len__(self) -> int:
        return len(self.specs)
