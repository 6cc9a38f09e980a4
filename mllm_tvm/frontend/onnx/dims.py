"""Extents of a graph's values as functions of the number of new and of cached tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Binding(NamedTuple):
    """A number of new tokens and of cached ones: what a graph's symbolic extents depend on."""

    seq: int
    past: int


CACHED_PROBES = (Binding(5, 7), Binding(3, 11), Binding(6, 2), Binding(4, 9))
"""Lengths at which shapes and masks of a graph with caches are computed; they determine affine extents."""

UNCACHED_PROBES = (Binding(5, 0), Binding(3, 0), Binding(6, 0), Binding(4, 0))
"""The same for a graph that takes all tokens at once."""


@dataclass(frozen=True)
class Dim:
    """An extent ``seq * new tokens + past * cached tokens + const``."""

    seq: int = 0
    past: int = 0
    const: int = 0

    @property
    def is_static(self) -> bool:
        return self.seq == 0 and self.past == 0

    def at(self, binding: Binding) -> int:
        return self.seq * binding.seq + self.past * binding.past + self.const

    def __str__(self) -> str:
        terms = [
            f"{factor}*{name}" if factor != 1 else name
            for factor, name in ((self.past, "past"), (self.seq, "seq"))
            if factor
        ]
        return " + ".join([*terms, str(self.const)] if self.const or not terms else terms)


Dims = tuple[Dim, ...]

ONE = Dim(const=1)
SEQ = Dim(seq=1)
PAST = Dim(past=1)
TOTAL = Dim(seq=1, past=1)


def static_dims(shape: Sequence[int]) -> Dims:
    """The extents of a shape without symbolic axes."""
    return tuple(Dim(const=int(extent)) for extent in shape)


def fit(probes: Sequence[Binding], shapes: Sequence[Sequence[int]]) -> Dims | None:
    """The extents that have the values ``shapes`` at ``probes``; None when no affine extents do."""
    if len({len(shape) for shape in shapes}) != 1:
        return None
    rows = np.array([[*probe, 1] for probe in probes], np.float64)
    table = np.array(shapes, np.float64).reshape(len(probes), -1)
    factors = np.linalg.lstsq(rows, table, rcond=None)[0].round().astype(np.int64)
    dims = tuple(Dim(*map(int, column)) for column in factors.T)
    exact = all(
        [dim.at(probe) for dim in dims] == list(shape) for probe, shape in zip(probes, shapes, strict=True)
    )
    return dims if exact else None


def token_axis(dims: Dims) -> int | None:
    """The one symbolic axis; None when there is none or more than one."""
    symbolic = [i for i, dim in enumerate(dims) if not dim.is_static]
    return symbolic[0] if len(symbolic) == 1 else None


def row_axes(dims: Dims) -> list[int]:
    """The axes of a value in the order it is laid out: tokens first, then the static axes longer than 1."""
    static = [i for i, dim in enumerate(dims) if dim.is_static and dim != ONE]
    axis = token_axis(dims)
    return static if axis is None else [axis, *static]


def row_dims(dims: Dims) -> Dims:
    """The extents of a value as it is laid out, see :func:`row_axes`; a merged token axis is split."""
    return tuple(part for i in row_axes(dims) for part in unmerged(dims[i]))


def unmerged(dim: Dim) -> Dims:
    """``n * tokens`` (each token's heads, merged with the tokens) as ``tokens`` and ``n``."""
    factor = math.gcd(dim.seq, dim.past)
    if dim.is_static or dim.const or factor == 1:
        return (dim,)
    return Dim(dim.seq // factor, dim.past // factor), Dim(const=factor)


def is_merged(dims: Dims) -> bool:
    """Whether a value's token axis also counts something else, see :func:`unmerged`."""
    return any(len(unmerged(dim)) > 1 for dim in dims)


def text(dims: Dims) -> str:
    """For error messages: ``[1, seq, 64]``."""
    return f"[{', '.join(map(str, dims))}]"
