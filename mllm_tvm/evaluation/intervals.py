"""Means with 95 % confidence intervals, and paired differences between two schemes on the same items."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

_Z = 1.959964


@dataclass(frozen=True)
class Estimate:
    """A value with the ends of its 95 % confidence interval (normal approximation over items)."""

    value: float
    low: float
    high: float


def ratio(totals: np.ndarray, sizes: np.ndarray) -> Estimate:
    """``sum(totals) / sum(sizes)`` over items [n], for example the loss per token of texts."""
    size = float(sizes.sum())
    value = float(totals.sum()) / size
    if len(totals) < 2:
        return Estimate(value, value, value)
    residuals = totals - value * sizes
    error = _Z * math.sqrt(float(np.square(residuals).sum()) * len(totals) / (len(totals) - 1)) / size
    return Estimate(value, value - error, value + error)
