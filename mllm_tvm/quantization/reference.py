"""What a quantized linear computes, in NumPy: the reference that compiled functions are compared with."""

from __future__ import annotations

import numpy as np

from mllm_tvm.parameters import quantize_weight, smoothed, weight_scale
from mllm_tvm.quantization.histogram import INT8_LIMIT
from mllm_tvm.recipe import LinearRecipe
from relax_passes.quantize_w8a8 import LLM_INT8, STATIC


def quantized_linear(
    x: np.ndarray, weight: np.ndarray, linear: LinearRecipe, activation: str = STATIC
) -> np.ndarray:
    """``x`` [tokens, K] times ``weight`` [K, N] as the scheme computes it: [tokens, N], all float32."""
    if activation != STATIC:
        return _dynamic(x, weight, linear, activation)
    step = np.float32(linear.scale) * np.asarray(linear.smoothing or 1.0, np.float32)
    rounded = np.rint(x / step)
    clipped = np.clip(rounded, -INT8_LIMIT, INT8_LIMIT)
    scaled = smoothed(weight, linear)
    scale = weight_scale(scaled)
    int8 = quantize_weight(scaled, scale)
    output_scale = scale * np.float32(linear.scale)
    y = _integer_product(clipped, int8) * output_scale
    if not linear.shadow:
        return y
    residual = np.where(rounded == clipped, np.float32(0), x / step - clipped)
    return y + _shadow(residual, step, weight, int8 * output_scale, linear)


def _dynamic(x: np.ndarray, weight: np.ndarray, linear: LinearRecipe, activation: str) -> np.ndarray:
    threshold = np.full(x.shape[1], np.inf, np.float32)
    if activation == LLM_INT8:
        threshold[:] = linear.threshold
        threshold[list(linear.float_channels)] = 0
    inside = np.abs(x) < threshold
    body = np.where(inside, x, np.float32(0))
    step = np.maximum(np.abs(body).max(axis=1, keepdims=True), np.float32(1e-20)) / np.float32(INT8_LIMIT)
    scale = weight_scale(weight)
    int8 = quantize_weight(weight, scale)
    y = _integer_product(np.rint(body / step), int8) * scale * step
    outside = np.where(inside, np.float32(0), x)
    return y + _shadow(outside, np.ones(1, np.float32), weight, int8 * scale, linear)


def _shadow(
    residual: np.ndarray, step: np.ndarray, weight: np.ndarray, rounded: np.ndarray, linear: LinearRecipe
) -> np.ndarray:
    """Residuals in steps times the float rows of hot channels, and the rounded rows of the others."""
    hot = np.isin(np.arange(len(weight)), linear.hot_channels)
    return np.where(hot, residual * step, 0) @ weight + np.where(hot, 0, residual) @ rounded


def _integer_product(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Exact in float64, as no partial sum exceeds 2 ** 53."""
    return (x.astype(np.float64) @ weight.astype(np.float64)).astype(np.float32)
