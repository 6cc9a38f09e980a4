"""A model's parameters as the module wants them, read from the checkpoint when asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from mllm_tvm.errors import ModelError


class StoredTensor(Protocol):
    """A tensor of a weight file that is read when asked for.

    ``dtype`` is one of ``STORED_DTYPES`` for weights of a float model, ``shape`` that of the stored array.
    """

    @property
    def file(self) -> Path: ...
    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...

    def read(self, begin: int = 0, end: int | None = None) -> np.ndarray:
        """Entries ``begin`` to ``end`` of the first axis, as floats; raises ModelError for a damaged file."""
        ...


class TensorSource(Protocol):
    """The weights of a model, by name, as its architecture calls them."""

    @property
    def tensors(self) -> Mapping[str, StoredTensor]: ...


STORED_DTYPES = ("F32", "F16", "BF16", "Q8_0")
"""How weights of a float model may be stored: names of safetensors and of GGUF."""


@dataclass(frozen=True)
class Weight:
    """A parameter that comes from a checkpoint tensor: its stored name and shape.

    ``linear`` marks the weight of a linear layer, given to the module as [K, N]; ``transposed`` ones are
    stored [N, K]. ``keep_float16`` weights stay float16 when stored so; all others become float32. ``offset``
    is added to every element.
    """

    tensor: str
    stored_shape: tuple[int, ...]
    linear: bool = False
    transposed: bool = False
    keep_float16: bool = False
    offset: float = 0.0

    @property
    def shape(self) -> tuple[int, ...]:
        return self.stored_shape[::-1] if self.transposed else self.stored_shape

    def dtype(self, stored: str) -> str:
        """The parameter's dtype, given the one it is stored in."""
        return "float16" if self.keep_float16 and stored == "F16" else "float32"


@dataclass(frozen=True)
class Table:
    """A parameter that is computed: shape, and the function that makes it (float32)."""

    shape: tuple[int, ...]
    make: Callable[[], np.ndarray]


Spec = Weight | Table


def linear(name: str, inputs: int, outputs: int, bias: bool = False) -> dict[str, Spec]:
    """The weight (stored [outputs, inputs]) and the bias of the linear layer ``name``."""
    weight = Weight(f"{name}.weight", (outputs, inputs), linear=True, transposed=True)
    return {f"{name}.weight": weight} | (vector(f"{name}.bias", outputs) if bias else {})


def vector(name: str, size: int, offset: float = 0.0) -> dict[str, Spec]:
    """A norm's weight or a bias."""
    return {name: Weight(name, (size,), offset=offset)}


def layer_norm(name: str, size: int) -> dict[str, Spec]:
    """The weight and the bias of a layer norm."""
    return {**vector(f"{name}.weight", size), **vector(f"{name}.bias", size)}


class LazyParameters(Mapping[str, np.ndarray]):
    """Parameter name -> array, C-contiguous; each access reads the checkpoint anew and keeps nothing.

    Raises:
        ModelError: at construction, a tensor is missing, has another shape or dtype, or is not expected.
    """

    def __init__(self, source: TensorSource, specs: Mapping[str, Spec], path: Path):
        self.source = source
        self.specs = dict(specs)
        for spec in self.specs.values():
            if isinstance(spec, Weight):
                _check(source, spec, path)

    def __getitem__(self, name: str) -> np.ndarray:
        spec = self.specs[name]
        if isinstance(spec, Table):
            return spec.make()
        array = self._stored(spec).read()
        return self._finished(spec, array.T if spec.transposed else array)

    def column_blocks(self, name: str, width: int) -> Iterator[np.ndarray]:
        """A matrix in blocks [K, up to ``width``], in whatever memory order needs no copy.

        One that is stored by columns is read block by block.
        """
        spec = self.specs[name]
        by_columns = isinstance(spec, Weight) and spec.transposed
        whole = None if by_columns else self[name]
        for begin in range(0, spec.shape[1], width):
            if whole is not None:
                yield whole[:, begin : begin + width]
            elif isinstance(spec, Weight):
                yield self._finished(spec, self._stored(spec).read(begin, begin + width)).T

    def __contains__(self, name: object) -> bool:
        # Mapping's own would read the array.
        return name in self.specs

    def __iter__(self) -> Iterator[str]:
        return iter(self.specs)

    def __len__(self) -> int:
        return len(self.specs)

    def linear_dtype(self) -> str:
        """float16 when every linear is stored so, which then holds its weights exactly; else float32."""
        linears = [spec for spec in self.specs.values() if isinstance(spec, Weight) and spec.linear]
        return "float16" if all(self._stored(spec).dtype == "F16" for spec in linears) else "float32"

    def dtype(self, name: str) -> str:
        """The dtype of a parameter, without reading it."""
        spec = self.specs[name]
        return "float32" if isinstance(spec, Table) else spec.dtype(self._stored(spec).dtype)

    def _stored(self, spec: Weight) -> StoredTensor:
        return self.source.tensors[spec.tensor]

    def _finished(self, spec: Weight, array: np.ndarray) -> np.ndarray:
        array = np.ascontiguousarray(array, dtype=spec.dtype(self._stored(spec).dtype))
        return array + np.float32(spec.offset) if spec.offset else array


def column_blocks(weights: Mapping[str, np.ndarray], name: str, width: int) -> Iterator[np.ndarray]:
    """The columns of a matrix [K, N] of any mapping, at most ``width`` of them at a time."""
    if isinstance(weights, LazyParameters):
        yield from weights.column_blocks(name, width)
        return
    whole = weights[name]
    for begin in range(0, whole.shape[1], width):
        yield whole[:, begin : begin + width]


def _check(source: TensorSource, spec: Weight, path: Path) -> None:
    stored = source.tensors.get(spec.tensor)
    if stored is None:
        raise ModelError(f"{path}: weight {spec.tensor} is missing; the model's settings ask for it")
    if stored.shape != spec.stored_shape:
        raise _mismatch(spec, stored, f"shape {list(spec.stored_shape)}", f"{list(stored.shape)}")
    if stored.dtype not in STORED_DTYPES:
        raise _mismatch(spec, stored, f"dtype {' or '.join(STORED_DTYPES)}", stored.dtype)


def _mismatch(spec: Weight, stored: StoredTensor, expected: str, found: str) -> ModelError:
    return ModelError(
        f"{stored.file}: weight {spec.tensor}: expected {expected} as the model's settings say, found {found}"
    )


def check_nothing_left(
    source: TensorSource, specs: Mapping[str, Spec], ignored: Callable[[str], bool]
) -> None:
    """Refuses tensors that no parameter uses: the graph would leave out a part of the model.

    Raises:
        ModelError: naming the first of them.
    """
    used = {spec.tensor for spec in specs.values() if isinstance(spec, Weight)}
    for name, stored in source.tensors.items():
        if name not in used and not ignored(name):
            raise ModelError(
                f"{stored.file}: unexpected weight {name}: this is not a plain model of its type"
            )
