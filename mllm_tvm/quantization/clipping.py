"""Chooses the int8 step of one linear input: what minimizes the output error when the rest is lost."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mllm_tvm.quantization.histogram import INT8_LIMIT
from mllm_tvm.quantization.statistics import SMOOTHINGS, LinearStatistics

# Candidate limits: 1/1000 of the largest value up to it, 4 % apart.
_CANDIDATES = 176


@dataclass(frozen=True)
class Step:
    """An int8 step of ``x / divisor`` with the exponent of its smoothing and the error it causes.

    ``noise`` is relative to the linears' output: squared error / squared output.
    """

    scale: float
    exponent: float
    noise: float
    outlier_share: float


def best_clipping(statistics: LinearStatistics) -> Step:
    """The smoothing and step with the least error when what exceeds int8 is lost."""
    return min((_best_clipping(statistics, e) for e in SMOOTHINGS), key=lambda step: step.noise)


def abs_max_step(statistics: LinearStatistics, exponent: float = 0.0) -> Step:
    """The step that clips nothing seen in calibration."""
    divisor = statistics.smoothing(exponent).divisor
    return step_of(statistics, float((statistics.peaks / divisor).max()), exponent)


def step_of(statistics: LinearStatistics, limit: float, exponent: float = 0.0) -> Step:
    """The step whose largest int8 value is ``limit``, with its error when outliers go to the shadow path."""
    scale = np.float32((limit or INT8_LIMIT) / INT8_LIMIT)
    smoothing = statistics.smoothing(exponent)
    steps = np.array([scale], np.float64)
    noise = smoothing.histogram.rounding_noise(steps)[0] + smoothing.weight_noise
    share = smoothing.histogram.outlier_shares(steps)[0]
    return Step(float(scale), exponent, noise / statistics.signal, float(share))


def candidate_steps(statistics: LinearStatistics, exponent: float) -> np.ndarray:
    """The steps to choose from, smallest first; the last clips nothing."""
    top = abs_max_step(statistics, exponent).scale
    if statistics.abs_max == 0:
        return np.array([top])
    return top * np.exp(np.linspace(math.log(1e-3), 0, _CANDIDATES)).astype(np.float32).astype(np.float64)


def _best_clipping(statistics: LinearStatistics, exponent: float) -> Step:
    smoothing = statistics.smoothing(exponent)
    steps = candidate_steps(statistics, exponent)
    noise = smoothing.histogram.clipping_noise(steps)
    best = int(np.argmin(noise))
    total = (noise[best] + smoothing.weight_noise) / statistics.signal
    share = smoothing.histogram.outlier_shares(steps[best : best + 1])[0]
    return Step(float(np.float32(steps[best])), exponent, float(total), float(share))
