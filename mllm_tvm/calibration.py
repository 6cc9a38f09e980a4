"""Calibration: runs the float model on text and chooses how each linear's input is quantized.

Scales are static and per tensor, so one large value would make all others coarse. What exceeds a scale is
clipped on the NPU and carried in float by the shadow path; the scales are those with the least error under a
budget of such outliers (``mllm_tvm.quantization.clipping``).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tvm

from mllm_tvm.errors import CalibrationError
from mllm_tvm.frontend.float_model import FloatModel
from mllm_tvm.frontend.model import Model
from mllm_tvm.progress import progress as progress_bar
from mllm_tvm.quantization.histogram import INT8_LIMIT
from mllm_tvm.quantization.schemes import DEFAULT_OUTLIER_BUDGET, OURS, SCHEMES, SchemeSettings
from mllm_tvm.quantization.statistics import LinearStatistics
from mllm_tvm.recipe import LinearRecipe, Recipe
from mllm_tvm.tokenizer import Tokenizer
from relax_passes.expose_linear_inputs import ExposeLinearInputs, linear_inputs
from relax_passes.quantize_w8a8 import LLM_INT8, STATIC

__all__ = ["Calibration", "LinearRecipe", "Recipe", "calibrate", "read_texts", "segment_tokens"]

SEGMENT_TOKENS = 256
MIN_TOKENS = 16
DEFAULT_MAX_TOKENS = 25_000
DEFAULT_HOT_SHARE = 0.03
LISTED_CHANNELS = 32

_SEPARATOR = "<|endoftext|>"


def calibrate(
    model: Model,
    texts: Iterable[str],
    *,
    max_tokens: int = DEFAULT_MAX_TOKENS,
    percentile: float | None = None,
    outlier_budget: float = DEFAULT_OUTLIER_BUDGET,
    hot_share: float = DEFAULT_HOT_SHARE,
    progress: bool = True,
) -> Recipe:
    """Runs ``model`` in float on ``texts`` and chooses the input scale of every linear.

    Args:
        model: from :func:`mllm_tvm.load_model`.
        texts: any number of texts like those the model will see; cut into segments of at most 256 tokens.
        max_tokens: stop after so many tokens.
        percentile: choose every scale by this percentile of ``|x|``, above 0 and at most 100 (no clipping);
            None: search for the scales with the least error.
        outlier_budget: for the search: outlier channels per token, a mean share over the linears.
        hot_share: the share of each linear's channels whose float rows stay in memory.
        progress: show a bar when standard error is a terminal.

    Raises:
        CalibrationError: too little text, a setting out of range, or a linear's input that is not finite.
    """
    settings = SchemeSettings(outlier_budget, percentile)
    settings.check()
    return Calibration.collect(model, texts, max_tokens, progress).recipe(OURS, settings, hot_share)


@dataclass(frozen=True)
class Calibration:
    """A model's statistics on a text: :meth:`collect` once, then a :meth:`recipe` for each scheme."""

    model: Model
    segments: list[list[int]]
    groups: list[LinearStatistics]
    runner: LinearInputs
    progress: bool

    @property
    def tokens(self) -> int:
        """Tokens of the text."""
        return sum(map(len, self.segments))

    @staticmethod
    def collect(
        model: Model, texts: Iterable[str], max_tokens: int = DEFAULT_MAX_TOKENS, progress: bool = True
    ) -> Calibration:
        """Runs the float model over the text twice: for the channels' ranges, then for the distributions.

        Raises CalibrationError for too little text or a linear's input that is not finite.
        """
        segments = _segments(model, texts, max_tokens)
        runner = LinearInputs(model)
        found = Calibration(model, segments, runner.statistics(), runner, progress)
        found._run("ranges", LinearStatistics.add_range, found.groups)
        for group in found.groups:
            group.start_values()
        found._run("values", LinearStatistics.add_values, found.groups)
        return found

    def recipe(
        self, scheme: str, settings: SchemeSettings | None = None, hot_share: float = DEFAULT_HOT_SHARE
    ) -> Recipe:
        """The recipe of a scheme of ``SCHEMES``, its outliers counted; nothing is pruned.

        Raises CalibrationError for a hot share that is not one.
        """
        if not 0 <= hot_share <= 1:
            raise CalibrationError(f"hot share is {hot_share}: expected a share of the channels, 0 to 1")
        settings = settings or SchemeSettings()
        linears = SCHEMES[scheme].linears(self.groups, settings)
        activation = SCHEMES[scheme].activation
        counters = [_Outliers(linear, activation) for linear in linears]
        if any(linear.shadow for linear in linears):
            self._run("outliers", _Outliers.add, counters)
        return Recipe(
            model_hash=self.model.config.content_hash,
            percentile=settings.percentile,
            tokens=self.tokens,
            linears=tuple(counter.counted(hot_share) for counter in counters),
            scheme=scheme,
            activation=activation,
            rotated=SCHEMES[scheme].rotated,
        )

    def _run(self, what: str, add: Callable[..., None], consumers: Sequence[object]) -> None:
        with progress_bar(self.tokens, f"calibrating, {what}", unit="tok", show=self.progress) as bar:
            for inputs in self.runner.run(self.segments, bar):
                for consumer, x in zip(consumers, inputs, strict=True):
                    add(consumer, x)


def _segments(model: Model, texts: Iterable[str], max_tokens: int) -> list[list[int]]:
    if isinstance(texts, str):
        raise CalibrationError("texts is one string: expected a list (or other iterable) of texts")
    length = min(SEGMENT_TOKENS, model.config.max_positions)
    segments = segment_tokens(model.tokenizer, texts, length, max_tokens)
    tokens = sum(map(len, segments))
    if tokens < MIN_TOKENS:
        raise CalibrationError(
            f"the calibration text has {tokens} tokens: expected at least {MIN_TOKENS}, better some thousands"
        )
    return segments


def read_texts(path: str | os.PathLike[str], start: str | None = None) -> list[str]:
    """The texts of a UTF-8 file, separated by ``<|endoftext|>`` (without separators: one text).

    ``start``: texts begin at the paragraphs (after an empty line) that begin with these words, for files that
    lost their separators; what stands before the first is left out.

    Raises:
        CalibrationError: the file cannot be read, or no paragraph begins with ``start``.
    """
    try:
        content = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CalibrationError(f"cannot read {path} as UTF-8 text: {error}") from None
    if start is None:
        return [text for part in content.split(_SEPARATOR) if (text := part.strip())]
    _, *found = re.split(rf"(?:\A|\n\s*\n)(?={re.escape(start)})", content)
    if not found:
        raise CalibrationError(
            f"{path}: no paragraph begins with {start!r}: give words that texts begin with"
        )
    return [text.strip() for text in found]


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


class LinearInputs:
    """The float model with the inputs of its linears as results; ``groups`` names who reads each."""

    def __init__(self, model: Model):
        self.model = model
        self.groups = list(linear_inputs(model.module["main"]).values())
        expose = tvm.transform.Sequential([ExposeLinearInputs()])
        self.float_model = FloatModel(model, expose(model.module))

    def statistics(self) -> list[LinearStatistics]:
        """Empty statistics of the linears' inputs, ordered as ``groups``."""
        return [
            LinearStatistics(group, np.concatenate([self.model.parameters[name] for name in group], axis=1))
            for group in self.groups
        ]

    def run(self, segments: Sequence[Sequence[int]], bar: object) -> Iterable[list[np.ndarray]]:
        """For each segment, the linears' inputs, ordered as ``groups``: [tokens, channels] float32 each."""
        for segment in segments:
            yield self.float_model.run(segment)[-len(self.groups) :]
            bar.update(len(segment))  # type: ignore[attr-defined]


class _Outliers:
    """Counts, for each channel of a linear's input, the values that the shadow path carries."""

    def __init__(self, linear: LinearRecipe, activation: str):
        self.linear = linear
        self.activation = activation
        self.values = 0
        self.counts = np.zeros(0, np.int64)

    def add(self, x: np.ndarray) -> None:
        """Counts ``x``, [tokens, channels] float32, by the same arithmetic as the compiled model."""
        self.counts = self.counts if self.counts.size else np.zeros(x.shape[1], np.int64)
        self.counts += self._outliers(np.abs(x)).sum(axis=0)
        self.values += x.size

    def _outliers(self, magnitude: np.ndarray) -> np.ndarray:
        linear = self.linear
        if self.activation == LLM_INT8:
            threshold = np.full(magnitude.shape[1], linear.threshold, np.float32)
            threshold[list(linear.float_channels)] = 0
            return magnitude >= threshold
        step = np.float32(linear.scale) * np.asarray(linear.smoothing or 1.0, np.float32)
        return np.rint(magnitude / step) > INT8_LIMIT

    def counted(self, hot_share: float) -> LinearRecipe:
        """The linear with its outlier statistics; ``hot_share`` of the channels are its hot ones."""
        if not self.values or not self.linear.shadow:
            return self.linear
        order = [int(channel) for channel in np.argsort(-self.counts, kind="stable")]
        total = int(self.counts.sum())
        worst = [(channel, int(self.counts[channel])) for channel in order[:LISTED_CHANNELS]]
        hot = list(self.linear.hot_channels)
        if self.activation == STATIC:
            hot = order[: int(np.ceil(hot_share * len(order)))]
        return replace(
            self.linear,
            outlier_share=total / self.values,
            outlier_channels=tuple((channel, count) for channel, count in worst if count),
            hot_channels=tuple(hot),
            hot_share=float(self.counts[hot].sum() / total) if total else 0.0,
        )
