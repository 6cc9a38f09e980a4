"""Chooses the int8 steps of all linear inputs together, when what exceeds int8 goes to the shadow path.

A smaller step always means a smaller error, and more outliers. The sum of the errors, each relative to its
linear's output, is minimized under two budgets: outlier channels per token, and memory for the float rows
that serve most of them. Outliers have one price: that of a channel's outliers is at most the rent of keeping
its row in memory, so inputs whose outliers stay on few channels get more of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mllm_tvm.quantization.clipping import Step, candidate_steps
from mllm_tvm.quantization.histogram import INT8_LIMIT
from mllm_tvm.quantization.hot_rows import ITEM_BYTES, Outliers, bytes_needed
from mllm_tvm.quantization.statistics import LinearStatistics

# More than this share of a linear's channels per token would no longer be outliers.
_LARGEST_SHARE = 0.02
# Keeping rows as large as the model costs as much as so many cold outlier channels per token and linear.
_RENT = 1 / 180
# What an outlier costs that a hot row serves, against one that it does not.
_HOT_PRICE = 0.03
# Saving memory is not worth more than this of the output: where it does not serve most of the outliers, the
# best rows are taken and the other outliers are cold.
_DEAREST = 0.2
_PRICES = tuple(10 ** (exponent / 16) for exponent in range(-96, 97))


@dataclass(frozen=True)
class Budget:
    """``outliers``: channels per token, a mean share over the inputs. ``hot_share``: bytes of float rows that
    stay in memory / bytes of the model.
    """

    outliers: float
    hot_share: float
    model_bytes: int

    @property
    def hot_bytes(self) -> float:
        """The most that float rows may take."""
        return self.hot_share * self.model_bytes


def allocate(groups: Sequence[LinearStatistics], budget: Budget) -> list[Step]:
    """A step for each group of linears: the least total error within the budget."""
    channels = sum(len(group.matrix) * len(group.weights) for group in groups)
    curves = [_Curve.of(group, budget.model_bytes, channels) for group in groups]
    # Not bisected: rows that serve most of few, rare outliers take more memory again.
    few = [price for price in _PRICES if _share(curves, price) <= budget.outliers] or [_PRICES[-1]]
    found = (price for price in few if price <= _DEAREST and _bytes(curves, price) <= budget.hot_bytes)
    price = next(found, max(_DEAREST, few[0]))
    return [curve.step(curve.cheapest(price)) for curve in curves]


def _share(curves: Sequence[_Curve], price: float) -> float:
    """Outlier channels per token at this price, a mean share over the inputs."""
    return float(np.mean([curve.shares[curve.cheapest(price)] for curve in curves]))


def _bytes(curves: Sequence[_Curve], price: float) -> float:
    """Bytes of the float rows that serve most outliers at this price."""
    return bytes_needed([curve.outliers(curve.cheapest(price)) for curve in curves])


@dataclass(frozen=True)
class _Curve:
    """One input at every candidate step, without smoothing, which would only spread the outliers.

    ``noise``, ``shares`` and ``costs`` are [S], ``exceeding`` [S, K] outliers per token.
    """

    sizes: np.ndarray
    noise: np.ndarray
    shares: np.ndarray
    costs: np.ndarray
    exceeding: np.ndarray
    readers: int
    row_bytes: int

    @staticmethod
    def of(group: LinearStatistics, model_bytes: int, channels: int) -> _Curve:
        smoothing = group.smoothing(0.0)
        sizes = candidate_steps(group, 0.0)
        exceeding = group.channels.exceeding(sizes * (INT8_LIMIT + 0.5))
        # The largest value is no outlier of the last candidate, whatever its bin says.
        exceeding[-1] = 0
        allowed = exceeding.mean(axis=1) <= _LARGEST_SHARE
        sizes, exceeding = sizes[allowed], exceeding[allowed]
        shares = exceeding.mean(axis=1)
        readers, row_bytes = len(group.weights), group.matrix.shape[1] * ITEM_BYTES
        rent = _RENT * channels * row_bytes / model_bytes / readers
        noise = (smoothing.histogram.rounding_noise(sizes) + smoothing.weight_noise) / group.signal
        costs = np.minimum(exceeding, rent).mean(axis=1) + _HOT_PRICE * shares
        return _Curve(sizes, noise, shares, costs, exceeding, readers, row_bytes)

    def cheapest(self, price: float) -> int:
        return int(np.argmin(self.noise + price * self.costs))

    def outliers(self, index: int) -> Outliers:
        return Outliers(self.exceeding[index], self.readers, self.row_bytes)

    def step(self, index: int) -> Step:
        scale = float(np.float32(self.sizes[index]))
        return Step(scale, 0.0, float(self.noise[index]), float(self.shares[index]))
