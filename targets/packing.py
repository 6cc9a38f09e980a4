"""The memory layout of quantized weights, and what the integer linear kernels compute, in NumPy.

``packed[j, i, c, b] = 128 + W[4 i + b, 32 j + c]``: 128 unsigned bytes hold four consecutive rows of 32
columns, which is one operand of HVX's vrmpy and two of AVX512-VNNI's vpdpbusd. Padding holds 128: zero.
"""

from __future__ import annotations

import numpy as np

from targets.errors import TargetError

ZERO_POINT = 128
COLUMNS = 32
ROWS = 4


def packed_shape(k: int, n: int) -> tuple[int, int, int, int]:
    """The shape of a packed [k, n] weight: ``(ceil(n / 32), ceil(k / 4), 32, 4)``."""
    return -(-n // COLUMNS), -(-k // ROWS), COLUMNS, ROWS


def pack_weight(w: np.ndarray) -> np.ndarray:
    """Packs an int8 weight [K, N] into uint8 [ceil(N / 32), ceil(K / 4), 32, 4]; else raises TargetError.

    Weights that share an input are packed each and concatenated on axis 0.
    """
    if w.ndim != 2 or w.dtype != np.int8 or not w.size:
        raise TargetError(
            f"cannot pack a {w.dtype} weight of shape {w.shape}: expected an int8 matrix [K, N]"
        )
    k, n = w.shape
    blocks, steps, columns, rows = packed_shape(k, n)
    padded = np.full((steps * rows, blocks * columns), ZERO_POINT, np.uint8)
    # Flipping the top bit adds 128.
    padded[:k, :n] = np.ascontiguousarray(w).view(np.uint8) ^ ZERO_POINT
    return np.ascontiguousarray(padded.reshape(steps, rows, blocks, columns).transpose(2, 0, 3, 1))


def pack_weight_f32(w: np.ndarray) -> np.ndarray:
    """Packs a float32 weight [K, N] into panels [ceil(N / 32), K, 32], padded with zeros."""
    if w.ndim != 2 or w.dtype != np.float32 or not w.size:
        raise TargetError(
            f"cannot pack a {w.dtype} weight of shape {w.shape}: expected a float32 matrix [K, N]"
        )
    k, n = w.shape
    panels = -(-n // COLUMNS)
    padded = np.pad(w, ((0, 0), (0, panels * COLUMNS - n)))
    return np.ascontiguousarray(padded.reshape(k, panels, COLUMNS).transpose(1, 0, 2))


def unpack_weight(packed: np.ndarray, k: int, n: int) -> np.ndarray:
    """The int8 weight [k, n] that ``pack_weight`` packed."""
    blocks, steps, columns, rows = packed.shape
    padded = packed.transpose(1, 3, 0, 2).reshape(steps * rows, blocks * columns)
    return (padded[:k, :n] ^ ZERO_POINT).view(np.int8)


def linear_w8a8_reference(x: np.ndarray, packed: np.ndarray) -> np.ndarray:
    """``x @ (w - 128)`` for x int8 [M, K] and w packed: int32 [M, N padded to a multiple of 32].

    Computed in float64, which is exact: no partial sum exceeds 2 ** 53. Raises TargetError unless K is that
    of ``packed``, a multiple of 4.
    """
    blocks, steps, columns, rows = packed.shape
    if x.ndim != 2 or x.shape[1] != steps * rows:
        raise TargetError(f"x of shape {x.shape} does not fit a packed weight with K = {steps * rows}")
    weight = unpack_weight(packed, steps * rows, blocks * columns)
    return (x.astype(np.float64) @ weight.astype(np.float64)).astype(np.int32)
