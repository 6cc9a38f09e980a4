"""Evaluates models: in float, and with each quantization scheme as the compiled engine runs it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from mllm_tvm.calibration import SEGMENT_TOKENS, read_texts, segment_tokens
from mllm_tvm.errors import EvaluationError
from mllm_tvm.evaluation.layers import LayerReport, compare_layers
from mllm_tvm.evaluation.reports import report
from mllm_tvm.evaluation.sources import (
    ALL_SCHEMES,
    ArtifactSource,
    EvaluationSettings,
    SchemeSource,
    float_forward,
)
from mllm_tvm.evaluation.tasks import Forward, Item, Score, Task, read_task, score
from mllm_tvm.manifest import MANIFEST_NAME
from mllm_tvm.progress import progress
from mllm_tvm.quantization.rotation import rotate
from mllm_tvm.quantization.schemes import FLOAT
from mllm_tvm.tokenizer import Tokenizer

__all__ = [
    "ALL_SCHEMES",
    "EvaluationSettings",
    "evaluate",
    "float_forward",
    "layer_reports",
    "perplexity",
    "read_segments",
]


def evaluate(
    model: str, tasks: Sequence[str], schemes: Sequence[str], settings: EvaluationSettings
) -> Iterator[dict[str, object]]:
    """Measures each task (``KIND:FILE``, see ``evaluation.tasks``) with each scheme.

    ``model`` is a model of ``load_model``, or an artifact, which is measured as it is. Schemes are named in
    ``ALL_SCHEMES``; ``float`` is the imported module, every other is compiled and run by the engine on
    ``settings.device``. Yields one dict for each scheme and task: ``task``, ``scheme``, ``perplexity`` and
    ``bits_per_byte`` (or None), ``accuracy`` (or None), ``n`` (predicted tokens, or items), ``ci95`` of the
    perplexity or accuracy; ``differences``: ``[difference, low, high]`` to each scheme measured before, on
    the same items (relative for perplexity, in points of 1 for accuracy); and ``shadow`` with the memory,
    hits and misses of the shadow path since its engine was opened, or None.

    Raises:
        EvaluationError: an unknown task or scheme, or a file with nothing to measure or a missing field.
    """
    compiled = (Path(model) / MANIFEST_NAME).is_file()
    source = ArtifactSource(model) if compiled else SchemeSource(model, settings)
    chosen = source.check(schemes)
    read = [read_task(task, source.tokenizer, source.max_positions, settings.limits) for task in tasks]
    measured: dict[str, dict[str, list[Score]]] = {task.name: {} for task in read}
    for scheme in chosen:
        with source.open(scheme, settings.device) as run:
            for task in read:
                scores = _measure(task, run.forward, scheme)
                found = report(task.kind, scores, measured[task.name])
                measured[task.name][scheme] = scores
                yield {"task": task.name, "scheme": scheme, **found, "shadow": run.shadow()}


def layer_reports(
    model: str, tasks: str, scheme: str, settings: EvaluationSettings, segments: int
) -> list[LayerReport]:
    """Every linear of a scheme against float, worst first, on the first ``segments`` of a perplexity task.

    Raises EvaluationError for another task, an artifact (its float model is needed) or an unknown scheme.
    """
    if (Path(model) / MANIFEST_NAME).is_file():
        raise EvaluationError(f"{model} is an artifact: give the model it was made from")
    source = SchemeSource(model, settings)
    if source.check([scheme]) == [FLOAT]:
        raise EvaluationError("scheme float has no quantized linears: expected another scheme")
    task = read_task(tasks, source.tokenizer, source.max_positions, settings.limits)
    if task.kind != "perplexity":
        raise EvaluationError(f"task {tasks!r}: linears are compared on a perplexity task")
    recipe = source.recipe(scheme)
    loaded = rotate(source.model) if recipe.rotated else source.model
    return compare_layers(loaded, recipe, [item.texts[0] for item in task.items[:segments]])


def read_segments(tokenizer: Tokenizer, path: str | Path, text_start: str | None = None) -> list[list[int]]:
    """A text file as token ids in segments of at most 256, each with BOS first."""
    return segment_tokens(tokenizer, read_texts(path, text_start), SEGMENT_TOKENS, sys.maxsize)


def perplexity(
    forward: Callable[[Sequence[int]], np.ndarray], tokenizer: Tokenizer, segments: Sequence[Sequence[int]]
) -> dict[str, float]:
    """Perplexity of segments of token ids, BOS first; every token but the first is predicted.

    ``forward``: token ids -> logits [seq, vocab] float32. Raises EvaluationError when nothing is predicted.
    """
    items = [
        Item((tuple(ids),), (1,), size=len(tokenizer.decode(ids[1:]).encode()))
        for ids in segments
        if len(ids) > 1
    ]
    if not items:
        raise EvaluationError("the text has no tokens to predict: expected at least a few words")
    found = report("perplexity", _measure(Task("perplexity", "perplexity", items), forward, ""), {})
    return {name: float(str(found[name])) for name in ("perplexity", "bits_per_byte", "n")}


def _measure(task: Task, forward: Forward, scheme: str) -> list[Score]:
    scores = []
    with progress(len(task.items), f"{scheme} {task.kind}".strip(), unit="item") as bar:
        for item in task.items:
            scores.append(score(task.kind, item, forward))
            bar.update()
    return scores
