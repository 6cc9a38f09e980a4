"""The float32 linear against NumPy in double precision."""

from __future__ import annotations

import re

import numpy as np
import pytest
from tvm import tirx

from targets.cpu.attention import attention
from targets.cpu.kernel import column_panels
from targets.cpu.linear import linear_w8a8
from targets.cpu.linear_f32 import linear_f32
from targets.packing import pack_weight_f32
from tests.targets.cpu.helpers import (
    Array,
    Kernel,
    assert_rows_are_independent,
    snr_db,
    vectorized_loops,
    with_threads,
)

# K: more than a block of the depth; less. N: a task; more; a padded panel, fewer than a single row goes over.
SHAPES = [(300, 256), (33, 287), (7, 3)]


@pytest.mark.parametrize(("K", "N"), SHAPES)
def test_linear(K: int, N: int) -> None:
    rng = np.random.default_rng(K)
    w = rng.standard_normal((K, N), np.float32)
    packed = pack_weight_f32(w)
    kernel = Kernel(linear_f32(K, len(packed)))

    def product(x: Array) -> Array:
        return kernel(x, packed, out=np.full((len(x), 32 * len(packed)), np.nan, np.float32))

    x = rng.standard_normal((67, K), np.float32)
    y = product(x)
    assert snr_db(x.astype(np.float64) @ w.astype(np.float64), y[:, :N]) > 120
    assert not y[:, N:].any()
    assert_rows_are_independent(product, x, (1, 7, 8, 64))


def test_threads_do_not_change_results() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((19, 40), np.float32), rng.standard_normal((40, 1120), np.float32)
    packed = pack_weight_f32(w)
    kernel = Kernel(linear_f32(40, len(packed)))
    out = np.full((19, 1120), np.nan, np.float32)
    first, second = (with_threads(count, lambda: kernel(x, packed, out=out)) for count in (1, 2))
    assert snr_db(x.astype(np.float64) @ w.astype(np.float64), first) > 120
    np.testing.assert_array_equal(first, second)


def test_the_loops_are_vectorized() -> None:
    # Clear, step and store of each vector of 8 rows, twice, and of a single row in 4 panels.
    assert vectorized_loops(linear_f32(512, 8)) == 3 * 8 * 2 + 3 * 4


@pytest.mark.parametrize(
    "kernel", [linear_f32(64, 4), linear_w8a8(vnni=False), attention(4, 2, 128, 1.0, True)]
)
def test_sums_are_small_enough_for_registers(kernel: tirx.PrimFunc) -> None:
    script = kernel.script()
    sizes = [int(size) for size in re.findall(r"T\.alloc_buffer\(\((\d+),\)", script)]
    # Scope "local", and 1024 bytes and more, would come from the heap.
    assert "alloc_local" not in script
    assert sizes
    assert all(4 * size < 1024 for size in sizes)


@pytest.mark.parametrize("columns", [1, 31, 32, 300])
def test_panels_cover_each_column_once(columns: int) -> None:
    covered = [
        column
        for start, panels, width in column_panels(columns, 32)
        for column in range(start, start + panels * width)
    ]
    assert covered == list(range(columns))
