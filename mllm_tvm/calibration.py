"""Finds the int8 scale of each linear's input by running the float model on text.

Scales are static and per tensor, so one large value would make all others coarse. They are chosen from a
percentile of ``|x|``; what exceeds it is clipped on the NPU and carried in float by the shadow path.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import tvm

from mllm_tvm.errors import CalibrationError
from mllm_tvm.frontend.float_model import FloatModel
from mllm_tvm.frontend.model import Model
from mllm_tvm.progress import progress as progress_bar
from mllm_tvm.recipe import LinearRecipe, Recipe
from mllm_tvm.tokenizer import Tokenizer
from relax_passes.expose_linear_inputs import ExposeLinearInputs, linear_inputs

__all__ = ["LinearRecipe", "Recipe", "calibrate", "read_texts", "segment_tokens"]

SEGMENT_TOKENS = 256
MIN_TOKENS = 16
DEFAULT_MAX_TOKENS = 25_000
DEFAULT_PERCENTILE = 99.7
LISTED_CHANNELS = 32

_INT8_LIMIT = 127
_SEPARATOR = "<|endoftext|>"


def calibrate(
    model: Model,
    texts: Iterable[str],
    *,
    max_tokens: int = DEFAULT_MAX_TOKENS,
    percentile: float = DEFAULT_PERCENTILE,
    progress: bool = True,
) -> Recipe:
    """Runs ``model`` in float on ``texts`` and chooses the input scale of every linear.

    Args:
        model: from :func:`mllm_tvm.load_model`.
        texts: any number of texts like those the model will see; cut into segments of at most 256 tokens.
        max_tokens: stop after so many tokens.
        percentile: of ``|x|``, above 0 and at most 100 (no clipping); a scale is that value / 127.
        progress: show a bar when standard error is a terminal.

    Raises:
        CalibrationError: too little text, a setting out of range, or a linear's input that is not finite.
    """
    if not 0 < percentile <= 100:
        raise CalibrationError(f"percentile is {percentile}: expected a number above 0, at most 100")
    if isinstance(texts, str):
        raise CalibrationError("texts is one string: expected a list (or other iterable) of texts")
    length = min(SEGMENT_TOKENS, model.config.max_positions)
    segments = segment_tokens(model.tokenizer, texts, length, max_tokens)
    tokens = sum(map(len, segments))
    if tokens < MIN_TOKENS:
        raise CalibrationError(
            f"the calibration text has {tokens} tokens: expected at least {MIN_TOKENS}, better some thousands"
        )
    runner = _Runner(model)
    with progress_bar(2 * tokens, "calibrating", unit="tok", show=progress) as bar:
        ranges = [_Range(weights) for weights in runner.groups]
        for inputs in runner.run(segments, bar):
            for group, x in zip(ranges, inputs, strict=True):
                group.add(x)
        # Which values are clipped is known only once the scales are: a second run counts them.
        outliers = [_Outliers(group.scale(percentile)) for group in ranges]
        for inputs in runner.run(segments, bar):
            for counter, x in zip(outliers, inputs, strict=True):
                counter.add(x)
    linears = tuple(_linear_recipe(r, o, percentile) for r, o in zip(ranges, outliers, strict=True))
    return Recipe(model.config.content_hash, float(percentile), tokens, linears)


def read_texts(path: str | os.PathLike[str]) -> list[str]:
    """The texts of a UTF-8 file, separated by ``<|endoftext|>`` (without separators: one text).

    Raises:
        CalibrationError: the file cannot be read.
    """
    try:
        content = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CalibrationError(f"cannot read {path} as UTF-8 text: {error}") from None
    return [text for part in content.split(_SEPARATOR) if (text := part.strip())]


def segment_tokens(
    tokenizer: Tokenizer, texts: Iterable[str], length: int, max_tokens: int
) -> list[list[int]]:
    """Cuts texts into segments of at most ``length`` tokens, each with BOS, ``max_tokens`` in all."""
    segments: list[list[int]] = []
    left = max_tokens
    for text in texts:
        ids = tokenizer.encode(text)
        bos = [] if tokenizer.bos_id is None else ids[:1]
        step = length - len(bos)
        for start in range(len(bos), len(ids), step):
            segment = (bos + ids[start : start + step])[:left]
            if len(segment) > len(bos):
                segments.append(segment)
                left -= len(segment)
        if left <= len(bos):
            break
    return segments


class _Runner:
    """The float model with the inputs of its linears as results."""

    def __init__(self, model: Model):
        self.groups = list(linear_inputs(model.module["main"]).values())
        expose = tvm.transform.Sequential([ExposeLinearInputs()])
        self.float_model = FloatModel(model, expose(model.module))

    def run(self, segments: Sequence[Sequence[int]], bar: object) -> Iterable[list[np.ndarray]]:
        """For each segment, the linears' inputs, ordered as ``groups``: [tokens, channels] float32 each."""
        for segment in segments:
            yield self.float_model.run(segment)[-len(self.groups) :]
            bar.update(len(segment))  # type: ignore[attr-defined]


class _Range:
    """The distribution of ``|x|`` of one linear's input.

    A histogram with logarithmic bins of 1/512 relative width: the bits of a non-negative float, read as an
    integer, grow with its value, so their upper 17 are the bin.
    """

    _SHIFT = 14
    _BINS = 1 << (31 - _SHIFT)

    def __init__(self, weights: tuple[str, ...]):
        self.weights = weights
        self.counts = np.zeros(self._BINS, np.int64)
        self.abs_max = 0.0

    def add(self, x: np.ndarray) -> None:
        """Counts the values of ``x``, float32 of any shape; raises CalibrationError if one is not finite."""
        magnitude = np.abs(x, dtype=np.float32)
        largest = float(magnitude.max())
        if not np.isfinite(largest):
            raise CalibrationError(
                f"the input of {self.weights[0]} has values that are not finite: the model overflows or its "
                "weights are damaged"
            )
        self.abs_max = max(self.abs_max, largest)
        bins = magnitude.reshape(-1).view(np.uint32) >> self._SHIFT
        self.counts += np.bincount(bins, minlength=self._BINS)

    def percentile(self, percentile: float) -> float:
        """The value that ``percentile`` per cent of all do not exceed, to 0.1 %."""
        cumulative = np.cumsum(self.counts)
        rank = percentile / 100 * cumulative[-1]
        found = int(np.searchsorted(cumulative, rank, side="left"))
        if cumulative[found] == cumulative[-1]:
            return self.abs_max
        edges = (np.array([found, found + 1], np.uint32) << self._SHIFT).view(np.float32)
        return float(edges.astype(np.float64).mean())

    def scale(self, percentile: float) -> float:
        """The int8 step, a float32 value; 1 for an input that is always zero."""
        limit = self.percentile(percentile) or self.abs_max or _INT8_LIMIT
        return float(np.float32(limit / _INT8_LIMIT))


class _Outliers:
    """Counts, for each channel of a linear's input, the values that int8 clips."""

    def __init__(self, scale: float):
        self.scale = np.float32(scale)
        self.values = 0
        self.counts = np.zeros(0, np.int64)

    def add(self, x: np.ndarray) -> None:
        """Counts ``x``, [tokens, channels] float32, by the same arithmetic as the compiled model."""
        clipped = np.rint(np.abs(x) / self.scale) > _INT8_LIMIT
        self.counts = self.counts if self.counts.size else np.zeros(x.shape[1], np.int64)
        self.counts += clipped.sum(axis=0)
        self.values += x.size

    @property
    def share(self) -> float:
        """Clipped values / all values."""
        return float(self.counts.sum() / self.values)

    def worst_channels(self) -> tuple[tuple[int, int], ...]:
        """(channel, clipped values), most first; only channels that have any."""
        order = np.argsort(-self.counts, kind="stable")[:LISTED_CHANNELS]
        return tuple((int(c), int(self.counts[c])) for c in order if self.counts[c])


def _linear_recipe(values: _Range, outliers: _Outliers, percentile: float) -> LinearRecipe:
    return LinearRecipe(
        weights=values.weights,
        scale=float(outliers.scale),
        abs_max=values.abs_max,
        percentile=values.percentile(percentile),
        outlier_share=outliers.share,
        outlier_channels=outliers.worst_channels(),
    )
