"""Finds the linear at fault: every linear's quantized output against its float output.

Each linear gets the float model's own input, so an error belongs to the linear that made it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mllm_tvm.frontend.model import Model
from mllm_tvm.progress import progress
from mllm_tvm.quantization.linear_inputs import LinearInputs
from mllm_tvm.quantization.reference import quantized_linear
from mllm_tvm.recipe import LinearRecipe, Recipe

_LISTED_POSITIONS = 3


@dataclass(frozen=True)
class LayerReport:
    """One linear: signal-to-noise ratios in dB, of all tokens, and of the (position, ratio) of the worst.

    ``remedy`` is the change of its recipe that helps most, with the ratio it would have.
    """

    weight: str
    signal_to_noise: float
    worst_positions: tuple[tuple[int, float], ...]
    remedy: str
    remedied: float


def compare_layers(model: Model, recipe: Recipe, segments: Sequence[Sequence[int]]) -> list[LayerReport]:
    """A report on every linear, worst first, over ``segments`` of token ids."""
    inputs = LinearInputs(model)
    collected: list[list[np.ndarray]] = [[] for _ in inputs.groups]
    with progress(sum(map(len, segments)), "float inputs", unit="tok") as bar:
        for found in inputs.run(segments, bar):
            for values, x in zip(collected, found, strict=True):
                values.append(x)
    reports = []
    with progress(len(inputs.groups), "comparing", unit="linear") as bar:
        for group, values in zip(inputs.groups, collected, strict=True):
            reports += [_report(name, values, model, recipe) for name in group]
            bar.update()
    return sorted(reports, key=lambda report: report.signal_to_noise)


def _report(name: str, inputs: Sequence[np.ndarray], model: Model, recipe: Recipe) -> LayerReport:
    weight, linear = model.parameters[name], recipe.linear(name)
    x = np.concatenate(inputs)
    exact = x @ weight
    found = quantized_linear(x, weight, linear, recipe.activation)
    positions = np.concatenate([np.arange(len(part)) for part in inputs])
    remedies = {
        text: _ratio(exact, quantized_linear(x, weight, changed))
        for text, changed in _remedies(linear).items()
    }
    best = max(remedies, key=lambda text: remedies[text])
    return LayerReport(
        name, _ratio(exact, found), _worst_positions(exact, found, positions), best, remedies[best]
    )


def _remedies(linear: LinearRecipe) -> dict[str, LinearRecipe]:
    shadowed = dataclasses.replace(linear, shadow=True)
    fine = dataclasses.replace(shadowed, scale=linear.scale / 2)
    if linear.shadow:
        changes = {"halve its scale (a larger outlier budget)": fine}
    else:
        changes = {
            "give it a shadow path (prune less)": shadowed,
            "give it a shadow path and halve its scale": fine,
        }
    if not linear.smoothing and linear.clip_smoothing:
        changes["smooth it (clip_smoothing) and clip"] = linear.without_shadow()
    return changes


def _worst_positions(
    exact: np.ndarray, found: np.ndarray, positions: np.ndarray
) -> tuple[tuple[int, float], ...]:
    used = np.unique(positions)
    ratios = [(int(p), _ratio(exact[positions == p], found[positions == p])) for p in used]
    return tuple(sorted(ratios, key=lambda pair: pair[1])[:_LISTED_POSITIONS])


def _ratio(exact: np.ndarray, found: np.ndarray) -> float:
    signal = float(np.square(exact, dtype=np.float64).sum())
    noise = float(np.square(found - exact, dtype=np.float64).sum())
    if noise == 0 or signal == 0:
        return 200.0 if noise == 0 else -200.0
    return round(10 * math.log10(signal / noise), 2)
