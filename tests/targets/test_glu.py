"""The integer gated activation against float arithmetic, for the scales real linears have."""

from __future__ import annotations

import math

import numpy as np
import pytest

from targets.errors import TargetError
from targets.glu import CURVES, activation_table, depth_shift, glu_format, glu_reference
from targets.outliers import LARGEST, split_bytes

ROWS, CHANNELS = 64, 256
# Depth, and typical |gate|: from nearly linear to saturated.
CASES = [(64, 3.0), (192, 1.5), (2048, 0.3), (4096, 1.0), (8192, 2.0), (11008, 4.0)]


def _case(k: int, spread: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sums, and scales of gate and up that differ by a factor of three between channels."""
    rng = np.random.default_rng(k)
    sums = rng.normal(0, 1000 * math.sqrt(k), (ROWS, 2 * CHANNELS)).astype(np.int32)
    scales = rng.uniform(0.3, 1, (2, CHANNELS)) * spread / (1000 * math.sqrt(k))
    return sums, *scales


def _products(sums: np.ndarray, gate_scale: np.ndarray, up_scale: np.ndarray, activation: str) -> np.ndarray:
    gate, up = sums[:, :CHANNELS] * gate_scale, sums[:, CHANNELS:] * up_scale
    return gate * np.vectorize(CURVES[activation])(gate) * up


@pytest.mark.parametrize("activation", sorted(CURVES))
@pytest.mark.parametrize(("k", "spread"), CASES)
def test_no_less_exact_than_rounding(k: int, spread: float, activation: str) -> None:
    sums, gate_scale, up_scale = _case(k, spread)
    products = _products(sums, gate_scale, up_scale, activation)
    step = np.percentile(np.abs(products), 99.9, axis=0) / 127
    h = glu_reference(sums, k, glu_format(k, gate_scale, up_scale, step), activation_table(activation))
    error = h - products / step
    error = error[np.abs(h) < 1024]  # of larger values, eight times the int8 range, fewer bits are exact
    # A float result that is rounded to nearest errs by at most 0.5 and by 1 / sqrt(12) = 0.289 on average.
    assert np.abs(error).max() < 0.6
    assert np.sqrt(np.square(error).mean()) < 0.293


def test_values_beyond_16_bits_saturate() -> None:
    k = 512
    sums = np.full((1, 2 * CHANNELS), 127 * 128 * k, np.int32)
    sums[:, CHANNELS : CHANNELS + 4] *= -1
    scale = np.full(CHANNELS, 1e-4)
    h = glu_reference(sums, k, glu_format(k, scale, scale, np.float64(1e-3)), activation_table("silu"))
    assert h[0, :4].tolist() == [-32768] * 4
    assert h[0, 4:].tolist() == [LARGEST] * (CHANNELS - 4)
    assert LARGEST == 127 * 256 + 127


def test_two_bytes_hold_16_bits() -> None:
    x = np.arange(-32768, LARGEST + 1)
    low, high = split_bytes(x)
    assert np.array_equal(256 * high.astype(int) + low, x)
    assert np.array_equal(high == 0, (x >= -128) & (x <= 127))


def test_sums_keep_their_sign_when_shifted() -> None:
    for k in (4, 64, 192, 2048, 11008, 16384):
        assert 2**29 < (127 * 128 * k) << depth_shift(k) < 2**31


def test_scales_without_bits_left_are_refused() -> None:
    with pytest.raises(TargetError, match="keep this MLP's activation on the CPU"):
        glu_format(4096, np.full(CHANNELS, 1.0), np.full(CHANNELS, 1e-4), np.float64(0.1))


def test_unknown_activation_is_refused() -> None:
    with pytest.raises(TargetError, match="'relu' has no integer form"):
        activation_table("relu")
