"""The integer linear is exact: NumPy in int32 is the reference."""

from __future__ import annotations

import numpy as np
import pytest

from targets.cpu.linear import linear_w8a8
from targets.cpu.target import cpu_target, has_vnni
from tests.targets.cpu.helpers import Array, Kernel, with_threads

SHAPES = [(4, 32), (36, 96), (172, 64), (512, 32)]
UNITS = [False, True] if has_vnni(cpu_target()) else [False]


def pack(w: Array) -> Array:
    """[K, N] int8 to [N/32, K/4, 32, 4] uint8, by the definition in docs/architecture.md."""
    K, N = w.shape
    packed = np.empty((N // 32, K // 4, 32, 4), np.uint8)
    for k in range(K):
        for n in range(N):
            packed[n // 32, k // 4, n % 32, k % 4] = int(w[k, n]) + 128
    return packed


@pytest.mark.parametrize("vnni", UNITS)
@pytest.mark.parametrize(("K", "N"), SHAPES)
def test_linear_is_exact(K: int, N: int, vnni: bool) -> None:
    rng = np.random.default_rng(K + N)
    kernel = Kernel(linear_w8a8(vnni))
    w = rng.integers(-128, 128, (K, N)).astype(np.int8)
    for rows in (1, 7, 8, 19):
        x = rng.integers(-128, 128, (rows, K)).astype(np.int8)
        out = np.full((rows, N), 99, np.int32)
        y = with_threads(2, lambda x=x, out=out: kernel(x, pack(w), out=out))
        np.testing.assert_array_equal(y, x.astype(np.int32) @ w.astype(np.int32))


@pytest.mark.parametrize("vnni", UNITS)
@pytest.mark.parametrize("x_value", [-128, 127])
@pytest.mark.parametrize("w_value", [-128, 127])
def test_extremes_do_not_saturate(x_value: int, w_value: int, vnni: bool) -> None:
    kernel = Kernel(linear_w8a8(vnni))
    x, w = np.full((9, 512), x_value, np.int8), np.full((512, 32), w_value, np.int8)
    y = kernel(x, pack(w), out=np.zeros((9, 32), np.int32))
    assert (y == 512 * x_value * w_value).all()
