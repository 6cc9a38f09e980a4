"""Calibration: runs the float model on text and chooses how each linear's input is quantized.

Scales are static and per tensor, so one large value would make all others coarse. What exceeds a scale is
clipped on the NPU and carried in float by the shadow path; the scales are those with the least error under
budgets of such outliers (``mllm_tvm.quantization.allocation``).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mllm_tvm.errors import CalibrationError
from mllm_tvm.frontend.model import Model
from mllm_tvm.progress import progress as progress_bar
from mllm_tvm.quantization.hot_rows import model_bytes
from mllm_tvm.quantization.linear_inputs import LinearInputs
from mllm_tvm.quantization.outliers import OutlierCounter, with_outliers
from mllm_tvm.quantization.schemes import (
    DEFAULT_HOT_SHARE,
    DEFAULT_OUTLIER_BUDGET,
    OURS,
    SCHEMES,
    SchemeSettings,
)
from mllm_tvm.quantization.statistics import LinearStatistics
from mllm_tvm.recipe import LinearRecipe, Recipe
from mllm_tvm.tokenizer import Tokenizer

__all__ = ["Calibration", "LinearRecipe", "Recipe", "calibrate", "read_texts", "segment_tokens"]

SEGMENT_TOKENS = 256
MIN_TOKENS = 16
DEFAULT_MAX_TOKENS = 25_000
# Distributions are those of about so many tokens, spread evenly.
_HISTOGRAM_TOKENS = 6000

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
        outlier_budget: for the search: outlier channels per token, a mean share over the linears' inputs.
        hot_share: the share of the model's memory that float rows of hot channels may take.
        progress: show a bar when standard error is a terminal.

    Raises:
        CalibrationError: too little text, a setting out of range, or a linear's input that is not finite.
    """
    settings = SchemeSettings(outlier_budget, percentile, hot_share)
    settings.check()
    return Calibration.collect(model, texts, max_tokens, progress).recipe(OURS, settings)


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
        """Runs the float model over the text.

        Raises CalibrationError for too little text or a linear's input that is not finite.
        """
        segments = _segments(model, texts, max_tokens)
        runner = LinearInputs(model)
        stride = max(1, sum(map(len, segments)) // _HISTOGRAM_TOKENS)
        groups = [LinearStatistics(group, runner.matrix(group), stride) for group in runner.groups]
        found = Calibration(model, segments, groups, runner, progress)
        found._run("inputs", LinearStatistics.add, groups)
        return found

    def recipe(self, scheme: str, settings: SchemeSettings | None = None) -> Recipe:
        """The recipe of a scheme of ``SCHEMES``, its outliers counted; nothing is pruned."""
        settings = settings or SchemeSettings()
        activation = SCHEMES[scheme].activation
        size = model_bytes(self.model, (weight for group in self.groups for weight in group.weights))
        counters = [
            OutlierCounter(linear, activation, group.matrix.shape[1])
            for linear, group in zip(
                SCHEMES[scheme].linears(self.groups, settings, size), self.groups, strict=True
            )
        ]
        if any(counter.linear.shadow for counter in counters):
            self._run("outliers", OutlierCounter.add, counters)
        return Recipe(
            model_hash=self.model.config.content_hash,
            percentile=settings.percentile,
            tokens=self.tokens,
            linears=with_outliers(counters, size, settings.hot_share),
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
