"""Importance pruning: which linears can do without a shadow path, and what that costs.

A linear's importance is what leaving out its shadow path adds to the loss, all others keeping theirs; in a
fused MLP, which has none, it is what the scale adds that its input has then. The loss is the expected one
under the float model's predictions, per token: its difference to the float model's own is the
Kullback-Leibler divergence, which needs far fewer tokens than the loss on the text itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mllm_tvm.calibration import Calibration
from mllm_tvm.errors import CalibrationError
from mllm_tvm.evaluation.tasks import Forward, log_likelihoods
from mllm_tvm.frontend.float_model import FloatModel
from mllm_tvm.progress import progress
from mllm_tvm.quantization.executor import QuantizedModel
from mllm_tvm.quantization.schemes import PAPER, paper_importance
from mllm_tvm.recipe import LinearRecipe, Recipe

LOSS, LARGEST_OUTLIER = "loss", "largest-outlier"
MEASURES = (LOSS, LARGEST_OUTLIER)
DEFAULT_TOKENS = 3000


@dataclass(frozen=True)
class PrunedPoint:
    """``share`` of the linears pruned: perplexity, and divergence from float (nats per token)."""

    share: float
    pruned: int
    perplexity: float
    increase: float
    divergence: float


def ranked(recipe: Recipe, measure: str = LOSS) -> list[LinearRecipe]:
    """Linears, least important first; raises CalibrationError when the loss was not measured."""
    if measure not in MEASURES:
        raise CalibrationError(f"importance {measure!r}: expected one of {MEASURES}")
    if measure == LARGEST_OUTLIER:
        return sorted(recipe.linears, key=paper_importance)
    missing = [linear for linear in recipe.linears if linear.importance is None]
    if missing:
        raise CalibrationError(f"the importance of {missing[0].weights[0]} is not measured: calibrate again")
    return sorted(recipe.linears, key=lambda linear: linear.importance or 0.0)


def prune(recipe: Recipe, share: float, measure: str = LOSS) -> Recipe:
    """``recipe`` with the least important ``share`` of its linears pruned (rounded).

    Linears that read one value are pruned together; a group that would exceed the share is left out.
    Raises CalibrationError for a share that is not one.
    """
    if not 0 <= share <= 1:
        raise CalibrationError(f"pruned share is {share}: expected 0 to 1")
    left = round(share * recipe.linear_count)
    chosen = set()
    for linear in ranked(recipe, measure):
        if len(linear.weights) <= left:
            chosen.add(linear.weights[0])
            left -= len(linear.weights)
    return recipe.prune(chosen)


def default_measure(scheme: str) -> str:
    """The measure a scheme prunes by."""
    return LARGEST_OUTLIER if scheme == PAPER else LOSS


class PruningMeter:
    """Measures recipes of one calibration against the float model, without compiling each."""

    def __init__(
        self, calibration: Calibration, recipe: Recipe, fuse_mlp: bool, max_tokens: int = DEFAULT_TOKENS
    ):
        """``recipe``: with every shadow path; ``fuse_mlp``: as it will be compiled.

        Every so many segments of the calibration text are used.
        """
        self.recipe = recipe
        self.segments = _spread(calibration.segments, max_tokens)
        float_model = FloatModel(calibration.model)
        self.expected = [_log_probabilities(float_model.run(ids)[0]) for ids in self.segments]
        self.quantized = QuantizedModel(calibration.model, recipe, fuse_mlp)

    def importance(self) -> Recipe:
        """The recipe with the importance of every linear."""
        base = self.divergence(self.recipe)
        linears = []
        with progress(len(self.recipe.linears), "importance", unit="linear") as bar:
            for linear in self.recipe.linears:
                change = self.divergence(self.recipe.prune({linear.weights[0]})) - base
                linears.append(dataclasses.replace(linear, importance=round(change, 8)))
                bar.update()
        return dataclasses.replace(self.recipe, linears=tuple(linears))

    def divergence(self, recipe: Recipe) -> float:
        """Kullback-Leibler divergence from the float model, nats per token."""
        self.quantized.use(recipe)
        total = sum(
            float((np.exp(p) * (p - _log_probabilities(self.quantized.run(ids)))).sum())
            for ids, p in zip(self.segments, self.expected, strict=True)
        )
        return total / sum(map(len, self.segments))

    def tune(self, recipe: Recipe, shares: Sequence[float], measure: str = LOSS) -> list[PrunedPoint]:
        """The trade-off: each share's perplexity on the calibration text, and its increase over float's."""
        exact = _loss([_given(p, ids) for p, ids in zip(self.expected, self.segments, strict=True)])
        points = []
        with progress(len(shares), "pruning", unit="share") as bar:
            for share in shares:
                pruned = prune(recipe, share, measure)
                divergence = self.divergence(pruned)
                loss = _loss([_likelihoods(self.quantized.run, ids) for ids in self.segments])
                count = pruned.pruned_count
                points.append(
                    PrunedPoint(
                        share, count, float(np.exp(loss)), float(np.exp(loss - exact) - 1), divergence
                    )
                )
                bar.update()
        return points


def pick_share(points: Sequence[PrunedPoint], max_increase: float) -> PrunedPoint:
    """The largest share whose expected increase of perplexity, by divergence, is at most ``max_increase``.

    Raises CalibrationError when there is none.
    """
    found = [point for point in points if np.expm1(point.divergence) <= max_increase]
    if not found:
        least = min(np.expm1(point.divergence) for point in points)
        raise CalibrationError(
            f"no share of pruned linears stays within {max_increase:.2%}: the least is {least:.2%}"
        )
    return max(found, key=lambda point: point.share)


def _spread(segments: Sequence[list[int]], max_tokens: int) -> list[list[int]]:
    stride = max(1, sum(map(len, segments)) // max_tokens)
    return list(segments[::stride])


def _log_probabilities(logits: np.ndarray) -> np.ndarray:
    rows = logits - logits.max(axis=1, keepdims=True)
    return rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))


def _likelihoods(forward: Forward, ids: Sequence[int]) -> np.ndarray:
    return log_likelihoods(forward(ids), ids)


def _given(log_probabilities: np.ndarray, ids: Sequence[int]) -> np.ndarray:
    return log_probabilities[np.arange(len(ids) - 1), np.asarray(ids[1:])]


def _loss(likelihoods: Sequence[np.ndarray]) -> float:
    return -float(np.concatenate(likelihoods).mean())
