"""The shadow linear against NumPy in double precision."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import tvm

from targets.cpu.errors import LoweringError
from targets.cpu.shadow import shadow_linear
from targets.packing import pack_weight
from tests.targets.cpu.helpers import Array, Kernel, assert_rows_are_independent, snr_db

# K and N: whole blocks of 16 and panels of 32; a rest of each.
SHAPES = [(64, 128), (37, 75)]
LEFT_OUT = 5


@dataclass(frozen=True)
class Linear:
    """A linear's arguments: int8 rows at ``first`` of a packed group, and float rows of some channels."""

    int8: Array
    column_scale: Array
    step: Array
    slots: Array
    hot: Array
    first: int = 0

    def kernel(self) -> Kernel:
        return Kernel(shadow_linear(str(self.hot.dtype), self.step.ndim == 1, self.first))

    def run(self, kernel: Kernel, residual: Array) -> tuple[Array, Array]:
        """The product and the counts."""
        k, n = self.int8.shape
        # What other linears of the group have there may not matter.
        others = np.full((self.first, -(-k // 4), 32, 4), 7, np.uint8)
        packed = np.concatenate([others, pack_weight(self.int8), others])
        counts = tvm.runtime.tensor(np.array([100, 1000, 10_000, 7], np.int64))
        y = np.full((len(residual), n), np.nan, np.float32)
        rest = (self.column_scale, self.step, self.slots, self.hot, counts)
        return kernel(residual, packed, *rest, out=y), counts.numpy() - [100, 1000, 10_000, 7]

    def expected(self, residual: Array) -> Array:
        r = residual.astype(np.float64)
        hot, cold = np.flatnonzero(self.slots >= 0), self.slots == -1
        step = np.broadcast_to(self.step.astype(np.float64), self.slots.shape)
        return (r * step)[:, hot] @ self.hot[self.slots[hot]].astype(np.float64) + (
            r[:, cold] @ self.int8[cold].astype(np.float64) * self.column_scale
        )


def linear(K: int, N: int, dtype: str = "float16", per_channel: bool = False, first: int = 0) -> Linear:
    rng = np.random.default_rng(N)
    slots = np.full(K, -1, np.int32)
    slots[[3, 17, 36]] = [2, 0, 1]
    slots[LEFT_OUT] = -2
    return Linear(
        rng.integers(-127, 128, (K, N)).astype(np.int8),
        rng.random(N).astype(np.float32) + 0.1,
        rng.random(K).astype(np.float32) if per_channel else np.array(0.3, np.float32),
        slots,
        rng.standard_normal((4, N)).astype(dtype),
        first,
    )


def sparse(rows: int, K: int, density: float) -> Array:
    rng = np.random.default_rng(rows)
    values = rng.standard_normal((rows, K), np.float32)
    return np.where(rng.random((rows, K)) < density, values, np.float32(0))


@pytest.mark.parametrize(("dtype", "per_channel", "first"), [("float16", True, 0), ("float32", False, 2)])
@pytest.mark.parametrize(("K", "N"), SHAPES)
def test_shadow_linear(K: int, N: int, dtype: str, per_channel: bool, first: int) -> None:
    layer = linear(K, N, dtype, per_channel, first)
    kernel = layer.kernel()
    for density in (0.02, 0.5, 1.0):
        x = sparse(21, K, density)
        assert snr_db(layer.expected(x), layer.run(kernel, x)[0]) > 120
        assert_rows_are_independent(lambda rows: layer.run(kernel, rows)[0], x, (1, 7))


def test_counts_are_the_hot_and_cold_rows_read() -> None:
    layer = linear(37, 75)
    x = sparse(9, 37, 0.4)
    _, counts = layer.run(layer.kernel(), x)
    hot, cold = x[:, [3, 17, 36]], x[:, layer.slots == -1]
    assert counts.tolist() == [np.count_nonzero(hot), np.count_nonzero(cold), x.size, 9]


def test_no_outliers_give_zeros_and_read_nothing() -> None:
    layer = replace(linear(48, 32), hot=np.full((4, 32), np.inf, np.float16))
    kernel = layer.kernel()
    for zero in (0.0, -0.0):
        y, counts = layer.run(kernel, np.full((3, 48), zero, np.float32))
        np.testing.assert_array_equal(y, 0)
        assert counts.tolist() == [0, 0, 3 * 48, 3]


def test_only_rows_of_outliers_are_read() -> None:
    """Every other float row is a NaN, every channel without a slot that counts has a residual."""
    layer = linear(48, 32)
    hot = np.full((4, 32), np.nan, np.float16)
    hot[layer.slots[17]] = 2
    layer = replace(layer, hot=hot, step=np.array(0.5, np.float32))
    x = np.zeros((1, 48), np.float32)
    x[0, [LEFT_OUT, 17, 40]] = [np.nan, 10, 100]
    y, counts = layer.run(layer.kernel(), x)
    np.testing.assert_allclose(y[0], 10 + 100.0 * layer.int8[40] * layer.column_scale, rtol=1e-6)
    assert counts.tolist() == [1, 1, 48, 1]


def test_another_row_type_is_refused() -> None:
    with pytest.raises(LoweringError, match="expected float16 or float32"):
        shadow_linear("int8")
