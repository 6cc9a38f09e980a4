"""Makes the parameters of a compiled module from a model's float weights and a recipe's scales."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from mllm_tvm.artifact import FLOAT_FILE, HOT_FILE, WEIGHTS_FILE
from mllm_tvm.frontend.parameters import column_blocks
from relax_passes.fuse_mlp import GLU_MULTIPLIERS, GLU_SHIFTS, GLU_TABLE
from relax_passes.lower_linear import JOIN, K_LANES, PACKED, round_up
from relax_passes.quantize_w8a8 import (
    COLD,
    HOT,
    HOT_SLOT,
    INPUT_SCALE,
    INT8,
    OUTPUT_SCALE,
    SHADOW_COUNTS,
    THRESHOLD,
    WEIGHT_SCALE,
)
from targets.glu import GluFormat, activation_table, glu_format
from targets.packing import pack_weight

if TYPE_CHECKING:
    from mllm_tvm.recipe import LinearRecipe, Recipe

# Columns that are quantized at a time, a multiple of the packed layout's 32.
BLOCK_COLUMNS = 1024

_FILES = {PACKED: WEIGHTS_FILE, HOT: HOT_FILE}


def weight_scale(weight: np.ndarray) -> np.ndarray:
    """Symmetric per-output-channel scale of a weight [K, N] float32 -> [N] float32: abs max / 127, 1 for
    zeros.
    """
    peak = np.abs(weight).max(axis=0).astype(np.float32)
    return np.where(peak > 0, peak / np.float32(127.0), np.float32(1.0)).astype(np.float32)


def quantize_weight(weight: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """``round(weight / scale)`` as int8, [K, N]."""
    return np.clip(np.rint(weight / scale), -127, 127).astype(np.int8)


def smoothed(weight: np.ndarray, linear: LinearRecipe) -> np.ndarray:
    """The weight [K, N] that multiplies ``x / smoothing``: each row times its channel's divisor."""
    if not linear.smoothing:
        return weight
    return weight * np.asarray(linear.smoothing, np.float32)[:, None]


def parameter_file(name: str) -> str:
    """The artifact file that holds a parameter."""
    return next((file for suffix, file in _FILES.items() if name.endswith(suffix)), FLOAT_FILE)


def make_parameter(name: str, dtype: str, weights: Mapping[str, np.ndarray], recipe: Recipe) -> np.ndarray:
    """The value of one parameter of a compiled module; arguments as of :func:`parameter_blocks`."""
    blocks = list(parameter_blocks(name, dtype, weights, recipe))
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def parameter_blocks(
    name: str, dtype: str, weights: Mapping[str, np.ndarray], recipe: Recipe
) -> Iterator[np.ndarray]:
    """One parameter of a compiled module, in blocks along its first axis; no float copy of a large weight.

    Args:
        name: a weight's name, with or without a suffix of ``quantize_w8a8`` and ``lower_linear``: it says how
            the parameter is made (see the passes that add them).
        dtype: the dtype the module declares.
        weights: the model's float parameters, linears as [K, N].
        recipe: how the linears are quantized.
    """
    if name.endswith(PACKED):
        for member in name.removesuffix(PACKED).split(JOIN):
            weight = member.removesuffix(INT8)
            for block in column_blocks(weights, weight, BLOCK_COLUMNS):
                yield _packed(block, recipe.linear(weight))
        return
    if name.endswith(GLU_TABLE):
        yield activation_table(name.removesuffix(GLU_TABLE))
        return
    for suffix, field in _OF_MLP.items():
        if name.endswith(suffix):
            yield getattr(_glu_format(name.removesuffix(suffix).split(JOIN), weights, recipe), field)
            return
    for suffix, make in {**_BY_COLUMN, **_BY_ROW}.items():
        if name.endswith(suffix):
            weight = name.removesuffix(suffix)
            blocks = column_blocks(weights, weight, BLOCK_COLUMNS)
            blocks = islice(blocks, 1) if suffix in _BY_ROW else blocks
            made = [np.asarray(make(block, recipe.linear(weight)), dtype) for block in blocks]
            yield np.asarray(made[0] if suffix in _BY_ROW else np.concatenate(made, axis=-1), order="C")
            return
    yield np.ascontiguousarray(weights[name], dtype=dtype)


def _packed(weight: np.ndarray, linear: LinearRecipe) -> np.ndarray:
    weight = smoothed(weight, linear)
    return pack_weight(quantize_weight(weight, weight_scale(weight)))


def _glu_format(names: Sequence[str], weights: Mapping[str, np.ndarray], recipe: Recipe) -> GluFormat:
    """The format of the activation between the linears ``names``: gate, up and down."""
    gate, up, down = names
    k = round_up(next(column_blocks(weights, gate, BLOCK_COLUMNS)).shape[0], K_LANES)
    gate_scale, up_scale, step = (
        make_parameter(name, "float32", weights, recipe)
        for name in (gate + OUTPUT_SCALE, up + OUTPUT_SCALE, down + INPUT_SCALE)
    )
    return glu_format(k, gate_scale, up_scale, step)


def _input_scale(_weight: np.ndarray, linear: LinearRecipe) -> np.ndarray:
    return np.float32(linear.scale) * np.asarray(linear.smoothing or 1.0, np.float32)


def _output_scale(weight: np.ndarray, linear: LinearRecipe) -> np.ndarray:
    return weight_scale(smoothed(weight, linear)) * np.float32(linear.scale)


def _threshold(weight: np.ndarray, linear: LinearRecipe) -> np.ndarray:
    threshold = np.full(len(weight), linear.threshold, np.float32)
    threshold[list(linear.float_channels)] = 0.0
    return threshold


def _hot_slot(weight: np.ndarray, linear: LinearRecipe) -> np.ndarray:
    slot = np.full(len(weight), COLD, np.int32)
    slot[list(linear.hot_channels)] = np.arange(len(linear.hot_channels))
    return slot


_OF_MLP = {GLU_MULTIPLIERS: "multipliers", GLU_SHIFTS: "shifts"}
"""Suffix of a parameter of a fused MLP -> the field of its format."""
Make = Callable[[np.ndarray, "LinearRecipe"], Any]
_BY_COLUMN: dict[str, Make] = {
    OUTPUT_SCALE: _output_scale,
    WEIGHT_SCALE: lambda weight, _: weight_scale(weight),
    HOT: lambda weight, linear: weight[list(linear.hot_channels or (0,))],
}
"""Suffix of a parameter whose last axis is the weight's columns -> it, from any of the weight's columns."""
_BY_ROW: dict[str, Make] = {
    INPUT_SCALE: _input_scale,
    THRESHOLD: _threshold,
    HOT_SLOT: _hot_slot,
    SHADOW_COUNTS: lambda _weight, _linear: np.zeros(4),
}
"""Suffix of a parameter that depends on the number of rows only -> it, from any of the weight's columns."""
