"""What calibration collects about the input of one group of linears that read the same value."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mllm_tvm.errors import CalibrationError
from mllm_tvm.parameters import weight_scale
from mllm_tvm.quantization.histogram import ChannelHistogram, InputHistogram

SMOOTHINGS = (0.0, 0.5, 0.75, 1.0)
"""Exponents of the channels' abs max in the smoothing candidates; 0 is no smoothing."""

# Outputs are computed for every so many tokens: only their mean energy is needed.
_SIGNAL_STRIDE = 16
_LARGEST_DIVISOR = 256.0


@dataclass(frozen=True)
class Smoothing:
    """A divisor [K] for each channel, what the weights' rounding then costs, and the histogram of inputs.

    ``weight_noise`` is the expected squared error of the output per token.
    """

    divisor: np.ndarray
    weight_noise: float
    histogram: InputHistogram


class LinearStatistics:
    """Statistics of ``x`` [tokens, K]; what a choice of scales needs of them is derived when asked for."""

    def __init__(self, weights: tuple[str, ...], matrix: np.ndarray, stride: int = 1):
        """``matrix``: the linears' weights side by side, [K, N] float32; distributions are those of every
        ``stride``-th token.
        """
        self.weights = weights
        self.matrix = matrix
        self.stride = stride
        self.peaks = np.zeros(len(matrix), np.float32)
        self.squares = np.zeros(len(matrix), np.float64)
        self.tokens = 0
        self.channels = ChannelHistogram(len(matrix))
        # |x W|^2 is x (W W^T) x^T, which is less work where outputs are more than inputs.
        self._gram = matrix @ matrix.T if matrix.shape[1] > len(matrix) else None
        self._inverse_energies: list[np.ndarray] = []
        self._smoothings: dict[float, Smoothing] = {}

    @property
    def abs_max(self) -> float:
        """The largest ``|x|``."""
        return float(self.peaks.max())

    @property
    def signal(self) -> float:
        """Typical squared output per token: the harmonic mean, so a few huge tokens do not hide others."""
        inverse = np.concatenate(self._inverse_energies)
        return float(1 / inverse.mean()) if inverse.size else 1.0

    def add(self, x: np.ndarray) -> None:
        """Takes in ``x``; raises CalibrationError if a value is not finite."""
        peaks = np.abs(x).max(axis=0)
        if not np.isfinite(peaks).all():
            raise CalibrationError(
                f"the input of {self.weights[0]} has values that are not finite: the model overflows or its "
                "weights are damaged"
            )
        self.peaks = np.maximum(self.peaks, peaks)
        self.squares += np.square(x, dtype=np.float64).sum(axis=0)
        energies = self._energies(x[::_SIGNAL_STRIDE])
        self._inverse_energies.append(1 / energies[energies > 0])
        self.channels.add(np.abs(x[-self.tokens % self.stride :: self.stride], dtype=np.float32))
        self.tokens += len(x)

    def _energies(self, x: np.ndarray) -> np.ndarray:
        """Squared output of each token, [tokens] float64."""
        if self._gram is None:
            return np.square(x @ self.matrix, dtype=np.float64).sum(axis=1)
        return ((x @ self._gram) * x).sum(axis=1, dtype=np.float64)

    def smoothing(self, exponent: float) -> Smoothing:
        """The candidate with the divisor ``peak^exponent / weight_peak^(1 - exponent)``."""
        if exponent not in self._smoothings:
            self._smoothings[exponent] = self._smoothing(exponent)
        return self._smoothings[exponent]

    def _smoothing(self, exponent: float) -> Smoothing:
        divisor = self._divisor(exponent)
        scaled = self.matrix * divisor[:, None]
        norms = np.square(scaled, dtype=np.float64).sum(axis=1)
        energy = float((self.squares / self.tokens / np.square(divisor, dtype=np.float64)).sum())
        rounding = float(np.square(weight_scale(scaled), dtype=np.float64).sum()) / 12
        return Smoothing(divisor, energy * rounding, self.channels.weighted(divisor, norms))

    def _divisor(self, exponent: float) -> np.ndarray:
        if exponent == 0 or self.abs_max == 0:
            return np.ones(len(self.peaks), np.float32)
        weight_peaks = np.abs(self.matrix).max(axis=1)
        divisor = np.maximum(self.peaks, 1e-12) ** exponent / np.maximum(weight_peaks, 1e-12) ** (
            1 - exponent
        )
        divisor = divisor / np.exp(np.log(divisor).mean())
        divisor = np.clip(divisor, 1 / _LARGEST_DIVISOR, _LARGEST_DIVISOR)
        # Few digits: the recipe is meant to be read.
        return np.array([float(f"{value:.3g}") for value in divisor], np.float32)
