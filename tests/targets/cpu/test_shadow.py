"""The shadow linear against NumPy in double precision."""

from __future__ import annotations

import numpy as np
import pytest
import tvm

from targets.cpu.errors import LoweringError
from targets.cpu.shadow import shadow_linear
from tests.targets.cpu.helpers import Array, Kernel, assert_rows_are_independent, snr_db

# K and N: whole blocks of 16 and vectors; a rest of each.
SHAPES = [(64, 128), (37, 75)]


def sparse(rng: np.random.Generator, rows: int, K: int, density: float) -> Array:
    values = rng.standard_normal((rows, K), np.float32)
    return np.where(rng.random((rows, K)) < density, values, np.float32(0))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize(("K", "N"), SHAPES)
def test_shadow_linear(K: int, N: int, dtype: str) -> None:
    rng = np.random.default_rng(N)
    kernel = Kernel(shadow_linear(dtype))
    w = rng.standard_normal((K, N)).astype(dtype)

    def product(x: Array) -> Array:
        return kernel(x, w, out=np.full((len(x), N), np.nan, np.float32))

    for density in (0.02, 0.5, 1.0):
        x = sparse(rng, 21, K, density)
        assert snr_db(x.astype(np.float64) @ w.astype(np.float64), product(x)) > 120
        assert_rows_are_independent(product, x, (1, 7))


def test_no_outliers_give_zeros() -> None:
    kernel = Kernel(shadow_linear("float32"))
    w = np.full((48, 32), np.inf, np.float32)
    for zero in (0.0, -0.0):
        x = np.full((3, 48), zero, np.float32)
        np.testing.assert_array_equal(kernel(x, w, out=np.ones((3, 32), np.float32)), 0)


def test_only_rows_of_outliers_are_read() -> None:
    kernel = Kernel(shadow_linear("float32"))
    w = np.full((48, 32), np.nan, np.float32)
    w[[3, 40]] = [[2.0], [5.0]]
    x = np.zeros((1, 48), np.float32)
    x[0, [3, 40]] = [10, 100]
    np.testing.assert_array_equal(kernel(x, w, out=np.ones((1, 32), np.float32)), 520)


def test_hot_rows_replace_their_channels() -> None:
    rng = np.random.default_rng(5)
    w = rng.standard_normal((40, 70)).astype(np.float16)
    x = sparse(rng, 9, 40, 0.4)
    hot_channels = np.array([3, 17, 39])
    slots = np.full(40, -1, np.int32)
    slots[hot_channels] = [2, 0, 1]
    hot_rows = w[[17, 39, 3]]
    cold = w.copy()
    cold[hot_channels] = np.nan
    counts = tvm.runtime.tensor(np.array([100, 1000], np.int64))

    plain = Kernel(shadow_linear("float16"))(x, w, out=np.empty((9, 70), np.float32))
    kernel = Kernel(shadow_linear("float16", hot=True))
    y = kernel(x, cold, slots, hot_rows, counts, out=np.empty((9, 70), np.float32))
    np.testing.assert_array_equal(y, plain)
    hot_reads, reads = np.count_nonzero(x[:, hot_channels]), np.count_nonzero(x)
    np.testing.assert_array_equal(counts.numpy(), [100 + hot_reads, 1000 + reads - hot_reads])


def test_another_weight_type_is_refused() -> None:
    with pytest.raises(LoweringError, match="expected float16 or float32"):
        shadow_linear("int8")
