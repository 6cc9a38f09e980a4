"""A model's parameters as the module wants them, read from the checkpoint when asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mllm_tvm.errors import ModelError
from mllm_tvm.frontend.checkpoint import DTYPES, Checkpoint, StoredTensor


@dataclass(frozen=True)
class Weight:
    """A parameter that comes from a checkpoint tensor: its stored name and shape.

    ``transposed`` weights are stored [N, K] and given to the module as [K, N]. ``keep_float16`` weights stay
    float16 when stored so; all others become float32.
    """

    tensor: str
    stored_shape: tuple[int, ...]
    transposed: bool = False
    keep_float16: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return self.stored_shape[::-1] if self.transposed else self.stored_shape

    def dtype(self, stored: str) -> str:
        """The parameter's dtype, given the safetensors dtype it is stored in."""
        return "float16" if self.keep_float16 and stored == "F16" else "float32"


@dataclass(frozen=True)
class Table:
    """A parameter that is computed: shape, and the function that makes it (float32)."""

    shape: tuple[int, ...]
    make: Callable[[], np.ndarray]


class LazyParameters(Mapping[str, np.ndarray]):
    """Parameter name -> array, C-contiguous; each access reads the checkpoint anew and keeps nothing.

    Raises:
        ModelError: at construction, a tensor is missing, has another shape or dtype, or is not expected.
    """

    def __init__(self, checkpoint: Checkpoint, specs: Mapping[str, Weight | Table], directory: Path):
        self.checkpoint = checkpoint
        self.specs = dict(specs)
        for spec in self.specs.values():
            if isinstance(spec, Weight):
                _check(checkpoint, spec, directory)

    def __getitem__(self, name: str) -> np.ndarray:
        spec = self.specs[name]
        if isinstance(spec, Table):
            return spec.make()
        stored = self.checkpoint.tensors[spec.tensor]
        array = stored.read()
        array = array.T if spec.transposed else array
        return np.ascontiguousarray(array, dtype=spec.dtype(stored.dtype))

    def __iter__(self) -> Iterator[str]:
        return iter(self.specs)

    def __len__(self) -> int:
        return len(self.specs)

    def linear_dtype(self) -> str:
        """float16 when every linear is stored so, which then holds its weights exactly; else float32."""
        linears = [spec for spec in self.specs.values() if isinstance(spec, Weight) and spec.transposed]
        halves = all(self.checkpoint.tensors[spec.tensor].dtype == "F16" for spec in linears)
        return "float16" if halves else "float32"

    def dtype(self, name: str) -> str:
        """The dtype of a parameter, without reading it."""
        spec = self.specs[name]
        return (
            "float32" if isinstance(spec, Table) else spec.dtype(self.checkpoint.tensors[spec.tensor].dtype)
        )


def _check(checkpoint: Checkpoint, spec: Weight, directory: Path) -> None:
    stored = checkpoint.tensors.get(spec.tensor)
    if stored is None:
        raise ModelError(f"{directory}: weight {spec.tensor} is missing; config.json asks for it")
    if stored.shape != spec.stored_shape:
        raise _mismatch(spec, stored, f"shape {list(spec.stored_shape)}", f"{list(stored.shape)}")
    if stored.dtype not in DTYPES:
        raise _mismatch(spec, stored, f"dtype {' or '.join(DTYPES)}", stored.dtype)


def _mismatch(spec: Weight, stored: StoredTensor, expected: str, found: str) -> ModelError:
    return ModelError(
        f"{stored.file}: weight {spec.tensor}: expected {expected} (config.json), found {found}"
    )


def check_nothing_left(
    checkpoint: Checkpoint, specs: Mapping[str, Weight | Table], ignored: Callable[[str], bool]
) -> None:
    """Refuses tensors that no parameter uses: the graph would leave out a part of the model.

    Raises:
        ModelError: naming the first of them.
    """
    used = {spec.tensor for spec in specs.values() if isinstance(spec, Weight)}
    for name, stored in checkpoint.tensors.items():
        if name not in used and not ignored(name):
            raise ModelError(
                f"{stored.file}: unexpected weight {name}: this is not a plain model of its type"
            )
