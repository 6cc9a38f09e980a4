"""What a run's scores say: perplexity or accuracy, with paired differences to other schemes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from mllm_tvm.evaluation.intervals import Estimate, ratio
from mllm_tvm.evaluation.tasks import Score


def report(kind: str, scores: Sequence[Score], others: Mapping[str, Sequence[Score]]) -> dict[str, object]:
    """The figures of one task of this kind.

    ``others``: scores of the same items by other schemes. ``differences`` has ``[difference, low, high]`` to
    each, paired item by item: relative for perplexity, in points of 1 for accuracy.
    """
    make = _perplexity if kind == "perplexity" else _accuracy
    return make(scores, others)


def _perplexity(scores: Sequence[Score], others: Mapping[str, Sequence[Score]]) -> dict[str, object]:
    losses, tokens = (np.array([getattr(s, name) for s in scores], np.float64) for name in ("loss", "tokens"))
    loss = ratio(losses, tokens)
    return {
        "perplexity": math.exp(loss.value),
        "bits_per_byte": float(losses.sum()) / math.log(2) / sum(s.bytes for s in scores),
        "accuracy": None,
        "n": int(tokens.sum()),
        "ci95": [math.exp(loss.low), math.exp(loss.high)],
        "differences": {
            scheme: [math.expm1(v) for v in _ends(ratio(losses - np.array([s.loss for s in other]), tokens))]
            for scheme, other in others.items()
        },
    }


def _accuracy(scores: Sequence[Score], others: Mapping[str, Sequence[Score]]) -> dict[str, object]:
    right, ones = np.array([s.correct for s in scores], np.float64), np.ones(len(scores))
    accuracy = ratio(right, ones)
    return {
        "perplexity": None,
        "bits_per_byte": None,
        "accuracy": accuracy.value,
        "n": len(scores),
        "ci95": [max(0.0, accuracy.low), min(1.0, accuracy.high)],
        "differences": {
            scheme: _ends(ratio(right - np.array([s.correct for s in other], np.float64), ones))
            for scheme, other in others.items()
        },
    }


def _ends(estimate: Estimate) -> list[float]:
    return [estimate.value, estimate.low, estimate.high]
