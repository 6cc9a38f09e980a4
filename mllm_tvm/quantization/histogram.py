"""The distribution of a linear's input as histograms, and the quantization error they predict.

Bins are logarithmic: the bits of a non-negative float, read as an integer, grow with its value, so its upper
bits are the bin. One pass over the activations then answers for every int8 step at once how many values of
each channel it clips and how large the error of the others is.
"""

from __future__ import annotations

import numpy as np

INT8_LIMIT = 127
# Channels: 16 bins for each power of two from 2^-14 to 2^18.
_CHANNEL_SHIFT = 19
_LOWEST = (127 - 14) << 4
_CHANNEL_BINS = 32 << 4
# All channels together: bins of 1/128 relative width; the values of a channel's bin are spread over four.
_SHIFT = 16
_BINS = 1 << (31 - _SHIFT)
_PARTS = 4


class ChannelHistogram:
    """``|x|`` of a linear's input, counted for each of ``channels`` channels."""

    def __init__(self, channels: int):
        self.tokens = 0
        self.counts = np.zeros((channels, _CHANNEL_BINS), np.int32)

    def add(self, magnitude: np.ndarray) -> None:
        """Counts ``|x|``, [tokens, K] float32, all finite."""
        bins = (np.ascontiguousarray(magnitude).view(np.uint32) >> _CHANNEL_SHIFT).astype(np.int64)
        bins = np.clip(bins - _LOWEST, 0, _CHANNEL_BINS - 1)
        bins += np.arange(len(self.counts)) * _CHANNEL_BINS
        found = np.bincount(bins.reshape(-1), minlength=self.counts.size)
        self.counts += found.reshape(self.counts.shape).astype(np.int32)
        self.tokens += len(magnitude)

    def exceeding(self, limits: np.ndarray) -> np.ndarray:
        """The values above each of ``limits`` [S], expected per token of each channel: [S, K] float32."""
        # above[k, b]: values in bin b and beyond.
        above = np.cumsum(self.counts[:, ::-1], axis=1)[:, ::-1]
        above = np.concatenate([above, np.zeros((len(above), 1), above.dtype)], axis=1)
        places = np.interp(limits, _edges(), np.arange(_CHANNEL_BINS + 1))
        low = np.minimum(places.astype(np.int64), _CHANNEL_BINS - 1)
        part = (places - low).astype(np.float32)
        counts = above[:, low] * (1 - part) + above[:, low + 1] * part
        return (counts.T / max(1, self.tokens)).astype(np.float32)

    def weighted(self, divisor: np.ndarray, weight_norms: np.ndarray) -> InputHistogram:
        """The histogram of ``|x / divisor|`` [K] of all channels together.

        ``weight_norms`` [K]: what a squared error of a channel of ``x / divisor`` adds to the squared error
        of the linear's output.
        """
        channels, bins = np.nonzero(self.counts)
        edges = _edges()
        parts = (np.arange(_PARTS) + 0.5) / _PARTS
        values = edges[bins, None] + (edges[bins + 1] - edges[bins])[:, None] * parts
        fine = _fine_bins(values / divisor[channels, None]).reshape(-1)
        counts = np.repeat(self.counts[channels, bins] / _PARTS, _PARTS)
        weights = counts * np.repeat(np.asarray(weight_norms, np.float64)[channels], _PARTS)
        return InputHistogram(
            np.bincount(fine, counts, minlength=_BINS),
            np.bincount(fine, weights, minlength=_BINS),
            max(1, self.tokens),
        )


class InputHistogram:
    """``|x / divisor|`` of a linear's input: counts and sums of the channels' weights, by bin."""

    def __init__(self, counts: np.ndarray, weighted: np.ndarray, tokens: int):
        self.counts = counts
        self.tokens = tokens
        self._used = np.flatnonzero(counts)
        self._values, self._weights = _centers(self._used), weighted[self._used]

    def outlier_shares(self, steps: np.ndarray) -> np.ndarray:
        """The share of values that an int8 step clips, for each of ``steps``."""
        above = np.cumsum(self.counts[::-1])[::-1] / max(1.0, self.counts.sum())
        edges = _fine_bins(steps * (INT8_LIMIT + 0.5))
        return above[np.minimum(edges + 1, _BINS - 1)]

    def rounding_noise(self, steps: np.ndarray) -> np.ndarray:
        """Expected squared error of the output per token from rounding, clipped values left out."""
        return np.array([self._noise(step, clip=False) for step in steps])

    def clipping_noise(self, steps: np.ndarray) -> np.ndarray:
        """The same without a shadow path: what is clipped is lost."""
        return np.array([self._noise(step, clip=True) for step in steps])

    def percentile(self, percentile: float) -> float:
        """The value that ``percentile`` per cent of all do not exceed, to 2 %."""
        cumulative = np.cumsum(self.counts)
        found = int(np.searchsorted(cumulative, percentile / 100 * cumulative[-1], side="left"))
        return float(_centers(np.array([found]))[0])

    def _noise(self, step: float, clip: bool) -> float:
        values = self._values
        # A value below half a step is lost whole; above some steps, rounding errors are uniform.
        error = np.minimum(values**2, step**2 / 12)
        near = (values < 2 * step) & (values > step / 4)
        error[near] = (values[near] - step * np.rint(values[near] / step)) ** 2
        beyond = values > step * (INT8_LIMIT + 0.5)
        error[beyond] = (values[beyond] - INT8_LIMIT * step) ** 2 if clip else 0.0
        return float((error * self._weights).sum() / self.tokens)


def _edges() -> np.ndarray:
    """The lower edges of the channels' bins, and the upper edge of the last: [bins + 1] float64."""
    bits = (np.arange(_CHANNEL_BINS + 1) + _LOWEST).astype(np.uint32) << _CHANNEL_SHIFT
    edges = bits.view(np.float32).astype(np.float64)
    # The first bin holds everything that is smaller.
    edges[0] = 0.0
    return edges


def _fine_bins(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, np.float32).view(np.uint32).astype(np.int64) >> _SHIFT


def _centers(bins: np.ndarray) -> np.ndarray:
    low = (bins.astype(np.uint32) << _SHIFT).view(np.float32).astype(np.float64)
    high = ((bins + 1).astype(np.uint32) << _SHIFT).view(np.float32).astype(np.float64)
    return (low + high) / 2
