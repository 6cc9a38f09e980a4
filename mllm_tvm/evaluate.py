"""Perplexity of a model: in float, and as the compiled engine runs it."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from mllm_tvm.build import CompileSettings, find_artifact
from mllm_tvm.calibration import SEGMENT_TOKENS, read_texts, segment_tokens
from mllm_tvm.errors import EvaluationError
from mllm_tvm.frontend import load_model
from mllm_tvm.frontend.float_model import FloatModel
from mllm_tvm.frontend.model import Model
from mllm_tvm.progress import progress
from mllm_tvm.runtime.engine import Engine
from mllm_tvm.tokenizer import Tokenizer

SCHEMES = ("float", "ours")

Forward = Callable[[Sequence[int]], np.ndarray]


def evaluate(
    model: str, task: str, schemes: Sequence[str], segments: int, device: str, settings: CompileSettings
) -> Iterator[dict[str, object]]:
    """Measures ``task`` (``perplexity:FILE``) for each scheme.

    Schemes are ``float`` (the imported Relax module) and ``ours`` (the compiled engine on ``device``). The
    first ``segments`` segments of at most 256 tokens, BOS included, are measured. Yields one dict for each
    scheme: ``task``, ``scheme``, ``perplexity`` (per predicted token), ``bits_per_byte``, ``n`` (predicted
    tokens).

    Raises:
        EvaluationError: an unknown task or scheme, or no text.
    """
    kind, _, file = task.partition(":")
    unknown = [scheme for scheme in schemes if scheme not in SCHEMES]
    if kind != "perplexity" or not file or unknown:
        raise EvaluationError(
            f"task {task!r} with schemes {list(schemes)}: expected perplexity:FILE and schemes of {SCHEMES}"
        )
    loaded = load_model(Path(model))
    found = read_segments(loaded.tokenizer, file)[:segments]
    for scheme in schemes:
        if scheme == "float":
            measured = perplexity(float_forward(loaded), loaded.tokenizer, found)
        else:
            with Engine(find_artifact(model, settings), device) as engine:
                measured = perplexity(engine.forward, loaded.tokenizer, found)
        yield {"task": task, "scheme": scheme, **measured}


def read_segments(tokenizer: Tokenizer, path: str) -> list[list[int]]:
    """A text file as token ids in segments of at most 256, each with BOS first."""
    return segment_tokens(tokenizer, read_texts(path), SEGMENT_TOKENS, sys.maxsize)


def float_forward(model: Model) -> Forward:
    """Token ids -> logits [seq, vocab] float32 of the imported module, in float."""
    compiled = FloatModel(model)
    return lambda ids: compiled.run(ids)[0]


def perplexity(forward: Forward, tokenizer: Tokenizer, segments: Sequence[Sequence[int]]) -> dict[str, float]:
    """Perplexity of segments of token ids, BOS first; every token but the first is predicted.

    ``forward``: token ids -> logits [seq, vocab] float32. Raises EvaluationError when nothing is predicted.
    """
    loss, count, size = 0.0, 0, 0
    with progress(len(segments), "perplexity", unit="segment") as bar:
        for ids in segments:
            loss -= float(log_likelihoods(forward(ids), ids).sum())
            count += len(ids) - 1
            size += len(tokenizer.decode(ids[1:]).encode())
            bar.update()
    if count == 0:
        raise EvaluationError("the text has no tokens to predict: expected at least a few words")
    return {"perplexity": math.exp(loss / count), "bits_per_byte": loss / math.log(2) / size, "n": count}


def log_likelihoods(logits: np.ndarray, ids: Sequence[int]) -> np.ndarray:
    """Log probability of each token after the first: logits [seq, vocab], ids [seq] -> [seq - 1] float64."""
    rows = logits[:-1].astype(np.float64)
    rows -= rows.max(axis=1, keepdims=True)
    normalizer = np.log(np.exp(rows).sum(axis=1))
    return rows[np.arange(len(rows)), np.asarray(ids[1:])] - normalizer
