"""Chooses int8 steps: what minimizes the output error, with and without a shadow path.

With a shadow path a smaller step always means a smaller error, and more outliers. So the steps of all
linears are chosen together: the sum of their errors, each relative to its linear's output, is minimized under
a budget of outlier channels per token, averaged over the linears.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mllm_tvm.quantization.histogram import INT8_LIMIT
from mllm_tvm.quantization.statistics import LinearStatistics

# Candidate limits: 1/1000 of the largest value up to it, 4 % apart.
_CANDIDATES = 176
# More than this share of a linear's channels per token would no longer be outliers.
LARGEST_SHARE = 0.02


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
    found = [
        _least_noise(statistics, exponent, steps, noise)
        for exponent in statistics.smoothings
        for steps in [candidate_steps(statistics, exponent)]
        for noise in [statistics.smoothings[exponent].histogram.clipping_noise(steps)]
    ]
    return min(found, key=lambda step: step.noise)


def abs_max_step(statistics: LinearStatistics, exponent: float = 0.0) -> Step:
    """The step that clips nothing seen in calibration."""
    divisor = statistics.smoothings[exponent].divisor
    return step_of(statistics, float((statistics.peaks / divisor).max()), exponent)


def step_of(statistics: LinearStatistics, limit: float, exponent: float = 0.0) -> Step:
    """The step whose largest int8 value is ``limit``, with its error when outliers go to the shadow path."""
    scale = np.float32((limit or INT8_LIMIT) / INT8_LIMIT)
    smoothing = statistics.smoothings[exponent]
    steps = np.array([scale], np.float64)
    noise = smoothing.histogram.rounding_noise(steps)[0] + smoothing.weight_noise
    share = smoothing.histogram.outlier_shares(steps)[0]
    return Step(float(scale), exponent, noise / statistics.signal, float(share))


def allocate(groups: Sequence[LinearStatistics], budget: float) -> list[Step]:
    """A step for each group of linears: least total error at ``budget`` outlier channels, a mean share."""
    curves = [_Curve.of(statistics) for statistics in groups]
    low, high = 1e-12, 1e6
    for _ in range(64):
        price = math.sqrt(low * high)
        spent = np.mean([curve.steps[curve.cheapest(price)].outlier_share for curve in curves])
        low, high = (price, high) if spent > budget else (low, price)
    return [curve.steps[curve.cheapest(high)] for curve in curves]


def candidate_steps(statistics: LinearStatistics, exponent: float) -> np.ndarray:
    """The steps to choose from, smallest first; the last clips nothing."""
    top = abs_max_step(statistics, exponent).scale
    if statistics.abs_max == 0:
        return np.array([top])
    return top * np.exp(np.linspace(math.log(1e-3), 0, _CANDIDATES)).astype(np.float32).astype(np.float64)


@dataclass(frozen=True)
class _Curve:
    """Error against outliers of one group, without smoothing: that would only spread the outliers."""

    steps: list[Step]
    noise: np.ndarray
    shares: np.ndarray

    @staticmethod
    def of(statistics: LinearStatistics) -> _Curve:
        smoothing = statistics.smoothings[0.0]
        sizes = candidate_steps(statistics, 0.0)
        noise = (smoothing.histogram.rounding_noise(sizes) + smoothing.weight_noise) / statistics.signal
        shares = smoothing.histogram.outlier_shares(sizes)
        steps = [
            Step(float(np.float32(size)), 0.0, float(error), float(share))
            for size, error, share in zip(sizes, noise, shares, strict=True)
        ]
        return _Curve(steps, noise, np.where(shares <= LARGEST_SHARE, shares, np.inf))

    def cheapest(self, price: float) -> int:
        return int(np.argmin(self.noise + price * self.shares))


def _least_noise(statistics: LinearStatistics, exponent: float, steps: np.ndarray, noise: np.ndarray) -> Step:
    smoothing = statistics.smoothings[exponent]
    best = int(np.argmin(noise))
    total = (noise[best] + smoothing.weight_noise) / statistics.signal
    share = smoothing.histogram.outlier_shares(steps[best : best + 1])[0]
    return Step(float(np.float32(steps[best])), exponent, float(total), float(share))
