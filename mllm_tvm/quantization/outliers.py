"""Counts the outliers of each channel at the scales of a recipe, and chooses the hot channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mllm_tvm.quantization.histogram import INT8_LIMIT
from mllm_tvm.quantization.hot_rows import ITEM_BYTES, Outliers, choose_hot
from mllm_tvm.recipe import LinearRecipe
from relax_passes.quantize_w8a8 import LLM_INT8

_LISTED_CHANNELS = 32


class OutlierCounter:
    """Counts, for each channel of a linear's input, the values that the shadow path carries."""

    def __init__(self, linear: LinearRecipe, activation: str, columns: int):
        """``columns``: outputs of all linears that read the input."""
        self.linear = linear
        self.activation = activation
        self.columns = columns
        self.values = 0
        self.counts = np.zeros(0, np.int64)

    def add(self, x: np.ndarray) -> None:
        """Counts ``x``, [tokens, channels] float32, by the same arithmetic as the compiled model."""
        self.counts = self.counts if self.counts.size else np.zeros(x.shape[1], np.int64)
        self.counts += self._outliers(x).sum(axis=0)
        self.values += x.size

    def _outliers(self, x: np.ndarray) -> np.ndarray:
        linear = self.linear
        if self.activation == LLM_INT8:
            threshold = np.full(x.shape[1], linear.threshold, np.float32)
            threshold[list(linear.float_channels)] = 0
            return np.abs(x) >= threshold
        step = np.float32(linear.scale) * np.asarray(linear.smoothing or 1.0, np.float32)
        return np.abs(np.rint(x / step)) > INT8_LIMIT


def with_outliers(
    counters: Sequence[OutlierCounter], model_bytes: int, hot_share: float
) -> tuple[LinearRecipe, ...]:
    """The linears with their outlier statistics; hot rows take at most ``hot_share`` of the model's memory.

    The float channels of ``llm-int8`` are hot whatever they take.
    """
    found = [
        Outliers(
            counter.counts if counter.linear.shadow else np.zeros(0),
            len(counter.linear.weights),
            counter.columns * ITEM_BYTES,
        )
        for counter in counters
    ]
    hot = choose_hot(found, hot_share * model_bytes)
    return tuple(
        _with_outliers(counter, list(counter.linear.float_channels) or channels)
        for counter, channels in zip(counters, hot, strict=True)
    )


def _with_outliers(counter: OutlierCounter, hot: list[int]) -> LinearRecipe:
    counts, linear = counter.counts, counter.linear
    if not counter.values or not linear.shadow:
        return linear
    total = int(counts.sum())
    worst = [int(channel) for channel in np.argsort(-counts, kind="stable")[:_LISTED_CHANNELS]]
    return replace(
        linear,
        outlier_share=total / counter.values,
        outlier_channels=tuple((channel, int(counts[channel])) for channel in worst if counts[channel]),
        hot_channels=tuple(hot),
        hot_share=float(counts[hot].sum() / total) if total else 0.0,
    )
