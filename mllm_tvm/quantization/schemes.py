"""The quantization schemes by name: ours and the baselines, from the same statistics.

| name | activations | outliers |
|---|---|---|
| ``float`` | float32 | - |
| ``naive`` | static, abs max | none: nothing is clipped |
| ``dynamic`` | per token, abs max | none |
| ``smoothquant`` | static, abs max of ``x / d``, ``d = peak^0.5 / weight_peak^0.5``, every linear | none |
| ``llm-int8`` | per token | values from 6.0 on, and channels that reached it in calibration, in float |
| ``paper`` | static, 99.9th percentile with a shadow path, abs max without | shadow path, 85 % pruned |
| ``ours`` | static, searched | shadow path in every linear |
| ``ours-pruned`` | static, searched; smoothed where there is no shadow path | shadow path, 85 % pruned |
| ``hadamard`` | the residual stream rotated, then as ``naive`` | none |
| ``hadamard-shadow`` | the residual stream rotated, then as ``ours`` | shadow path |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mllm_tvm.errors import CalibrationError
from mllm_tvm.quantization.allocation import Budget, allocate
from mllm_tvm.quantization.clipping import Step, abs_max_step, best_clipping, step_of
from mllm_tvm.quantization.histogram import INT8_LIMIT
from mllm_tvm.quantization.statistics import LinearStatistics
from mllm_tvm.recipe import LinearRecipe
from relax_passes.quantize_w8a8 import LLM_INT8, PER_TOKEN, STATIC

FLOAT, OURS, OURS_PRUNED, PAPER = "float", "ours", "ours-pruned", "paper"
DEFAULT_OUTLIER_BUDGET = 0.0045
DEFAULT_HOT_SHARE = 0.02
PRUNED_SHARE = 0.85
# LLM.int8()'s threshold.
_FLOAT_FROM = 6.0
_PAPER_PERCENTILE = 99.9
# How many times less noise smoothing has to make: it spreads outliers over channels, so few are hot.
_SMOOTH_FROM = 4


@dataclass(frozen=True)
class SchemeSettings:
    """``outlier_budget``: outlier channels per token, a mean share over the linears' inputs. ``hot_share``:
    the share of the model's memory that the float rows of hot channels may take. ``percentile``: choose
    every scale by this percentile of ``|x|`` instead of searching within these budgets.
    """

    outlier_budget: float = DEFAULT_OUTLIER_BUDGET
    percentile: float | None = None
    hot_share: float = DEFAULT_HOT_SHARE

    def check(self) -> None:
        """Raises CalibrationError for a value out of range."""
        if self.percentile is not None and not 0 < self.percentile <= 100:
            raise CalibrationError(f"percentile is {self.percentile}: expected a number above 0, at most 100")
        if not 0 <= self.outlier_budget <= 1:
            raise CalibrationError(
                f"outlier budget is {self.outlier_budget}: expected a share of the channels, 0 to 1"
            )
        if not 0 <= self.hot_share <= 1:
            raise CalibrationError(
                f"hot share is {self.hot_share}: expected a share of the model's memory, 0 to 1"
            )


@dataclass(frozen=True)
class Scheme:
    """How a scheme makes linears from statistics, before outliers are counted."""

    activation: str
    linears: Callable[[Sequence[LinearStatistics], SchemeSettings, int], list[LinearRecipe]]
    rotated: bool = False


def _ours(
    groups: Sequence[LinearStatistics], settings: SchemeSettings, model_bytes: int
) -> list[LinearRecipe]:
    if settings.percentile is None:
        steps = _searched(groups, Budget(settings.outlier_budget, settings.hot_share, model_bytes))
    else:
        steps = [step_of(group, _limit(group, settings.percentile)) for group in groups]
    return [
        _linear(group, step, best_clipping(group), shadow=True)
        for group, step in zip(groups, steps, strict=True)
    ]


def _searched(groups: Sequence[LinearStatistics], budget: Budget) -> list[Step]:
    """Steps under the budget; smoothed ones where some channels are so large that no budget pays for them."""
    steps = allocate(groups, budget)
    clipped = [best_clipping(group) for group in groups]
    return [
        smooth if _SMOOTH_FROM * smooth.noise < step.noise else step
        for step, smooth in zip(steps, clipped, strict=True)
    ]


def _naive(groups: Sequence[LinearStatistics], *_: object) -> list[LinearRecipe]:
    return [_linear(group, abs_max_step(group), abs_max_step(group), shadow=False) for group in groups]


def _smoothquant(groups: Sequence[LinearStatistics], *_: object) -> list[LinearRecipe]:
    steps = [abs_max_step(group, 0.5) for group in groups]
    return [_linear(group, step, step, shadow=False) for group, step in zip(groups, steps, strict=True)]


def _paper(groups: Sequence[LinearStatistics], *_: object) -> list[LinearRecipe]:
    return [
        _linear(group, step_of(group, _limit(group, _PAPER_PERCENTILE)), abs_max_step(group), shadow=True)
        for group in groups
    ]


def _llm_int8(groups: Sequence[LinearStatistics], *_: object) -> list[LinearRecipe]:
    found = []
    for group in groups:
        channels = tuple(int(c) for c in np.flatnonzero(group.peaks >= _FLOAT_FROM))
        linear = LinearRecipe(group.weights, 1.0, float(INT8_LIMIT), group.abs_max, 0.0, ())
        found.append(replace(linear, threshold=_FLOAT_FROM, float_channels=channels))
    return found


SCHEMES: dict[str, Scheme] = {
    "naive": Scheme(STATIC, _naive),
    "dynamic": Scheme(PER_TOKEN, _naive),
    "smoothquant": Scheme(STATIC, _smoothquant),
    "llm-int8": Scheme(LLM_INT8, _llm_int8),
    PAPER: Scheme(STATIC, _paper),
    OURS: Scheme(STATIC, _ours),
    OURS_PRUNED: Scheme(STATIC, _ours),
    "hadamard": Scheme(STATIC, _naive, rotated=True),
    "hadamard-shadow": Scheme(STATIC, _ours, rotated=True),
}


def paper_importance(linear: LinearRecipe) -> float:
    """The paper's measure: the largest outlier in units of the int8 range."""
    return linear.abs_max / linear.limit


def _limit(group: LinearStatistics, percentile: float) -> float:
    if percentile == 100:
        return group.abs_max
    return group.smoothing(0.0).histogram.percentile(percentile) or group.abs_max


def _linear(group: LinearStatistics, step: Step, clipping: Step, shadow: bool) -> LinearRecipe:
    return LinearRecipe(
        weights=group.weights,
        scale=step.scale,
        limit=step.scale * INT8_LIMIT,
        abs_max=group.abs_max,
        outlier_share=0.0,
        outlier_channels=(),
        shadow=shadow,
        smoothing=_divisors(group, step),
        clip_scale=clipping.scale,
        clip_smoothing=_divisors(group, clipping),
        signal_to_noise=_decibels(step.noise),
    )


def _divisors(group: LinearStatistics, step: Step) -> tuple[float, ...]:
    if step.exponent == 0:
        return ()
    return tuple(float(f"{value:.3g}") for value in group.smoothing(step.exponent).divisor)


def _decibels(noise: float) -> float:
    return round(-10 * math.log10(noise), 2) if noise > 0 else 0.0
