"""The distribution of a linear's input as a histogram, and the quantization error it predicts.

Logarithmic bins of 1/128 relative width: the bits of a non-negative float, read as an integer, grow with its
value, so their upper 15 are the bin. One pass over the activations then answers for every int8 step at once
how many values it clips and how large the error of the others is.
"""

from __future__ import annotations

import numpy as np

INT8_LIMIT = 127
_SHIFT = 16
_BINS = 1 << (31 - _SHIFT)


class InputHistogram:
    """``|x / divisor|`` of a linear's input, as counts and as sums of each channel's weight.

    Args:
        divisor: [K] float32, per channel.
        weight_norms: [K], what a squared error of a channel of ``x / divisor`` adds to the squared error of
            the linear's output.
    """

    def __init__(self, divisor: np.ndarray, weight_norms: np.ndarray):
        self.factor = (1 / divisor).astype(np.float32)
        self.weight_norms = np.asarray(weight_norms, np.float64)
        self.counts = np.zeros(_BINS, np.int64)
        self.weighted = np.zeros(_BINS, np.float64)

    def add(self, magnitude: np.ndarray) -> None:
        """Counts ``|x|``, [tokens, K] float32, all finite."""
        bins = ((magnitude * self.factor).view(np.uint32) >> _SHIFT).astype(np.int64)
        self.counts += np.bincount(bins.reshape(-1), minlength=_BINS)
        weights = np.broadcast_to(self.weight_norms, bins.shape).reshape(-1)
        self.weighted += np.bincount(bins.reshape(-1), weights, minlength=_BINS)

    def outlier_shares(self, steps: np.ndarray) -> np.ndarray:
        """The share of values that an int8 step clips, for each of ``steps``."""
        above = np.cumsum(self.counts[::-1])[::-1] / max(1, self.counts.sum())
        edges = self._edges(steps * (INT8_LIMIT + 0.5))
        return above[np.minimum(edges + 1, _BINS - 1)]

    def rounding_noise(self, steps: np.ndarray) -> np.ndarray:
        """Expected squared error of the output per token from rounding, clipped values left out."""
        return np.array([self._noise(step, clip=False) for step in steps])

    def clipping_noise(self, steps: np.ndarray) -> np.ndarray:
        """The same without a shadow path: what is clipped is lost."""
        return np.array([self._noise(step, clip=True) for step in steps])

    def percentile(self, percentile: float) -> float:
        """The value that ``percentile`` per cent of all do not exceed, to 0.4 %."""
        cumulative = np.cumsum(self.counts)
        found = int(np.searchsorted(cumulative, percentile / 100 * cumulative[-1], side="left"))
        return float(self._centers(np.array([found]))[0])

    def _edges(self, values: np.ndarray) -> np.ndarray:
        return np.asarray(values, np.float32).view(np.uint32).astype(np.int64) >> _SHIFT

    def _centers(self, bins: np.ndarray) -> np.ndarray:
        low = (bins.astype(np.uint32) << _SHIFT).view(np.float32).astype(np.float64)
        high = ((bins + 1).astype(np.uint32) << _SHIFT).view(np.float32).astype(np.float64)
        return (low + high) / 2

    def _noise(self, step: float, clip: bool) -> float:
        tokens = self.counts.sum() / len(self.weight_norms)
        used = np.flatnonzero(self.counts)
        values, weights = self._centers(used), self.weighted[used]
        # A value below half a step is lost whole; above some steps, rounding errors are uniform.
        error = np.minimum(values**2, step**2 / 12)
        near = (values < 2 * step) & (values > step / 4)
        error[near] = (values[near] - step * np.rint(values[near] / step)) ** 2
        beyond = values > step * (INT8_LIMIT + 0.5)
        error[beyond] = (values[beyond] - INT8_LIMIT * step) ** 2 if clip else 0.0
        return float((error * weights).sum() / tokens)
