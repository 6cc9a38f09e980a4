"""Makes the parameters of a compiled module from a model's float weights and a recipe's scales."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from mllm_tvm.artifact import FLOAT_FILE, SHADOW_FILE, WEIGHTS_FILE
from relax_passes.lower_linear import JOIN, PACKED
from relax_passes.quantize_w8a8 import INPUT_SCALE, INT8, OUTPUT_SCALE, SHADOW
from targets.packing import pack_weight

if TYPE_CHECKING:
    from mllm_tvm.recipe import Recipe


def weight_scale(weight: np.ndarray) -> np.ndarray:
    """Symmetric per-output-channel scale of a weight [K, N] float32 -> [N] float32: abs max / 127, 1 for
    zeros.
    """
    peak = np.abs(weight).max(axis=0).astype(np.float32)
    return np.where(peak > 0, peak / np.float32(127.0), np.float32(1.0)).astype(np.float32)


def quantize_weight(weight: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """``round(weight / scale)`` as int8, [K, N]."""
    return np.clip(np.rint(weight / scale), -127, 127).astype(np.int8)


def parameter_file(name: str) -> str:
    """The artifact file that holds a parameter."""
    if name.endswith(PACKED):
        return WEIGHTS_FILE
    return SHADOW_FILE if name.endswith(SHADOW) else FLOAT_FILE


def make_parameter(name: str, dtype: str, weights: Mapping[str, np.ndarray], recipe: Recipe) -> np.ndarray:
    """The value of one parameter of a compiled module; its name says how (see the passes that add them).

    Args:
        name: a weight's name, with or without a suffix of ``quantize_w8a8`` and ``lower_linear``.
        dtype: the dtype the module declares.
        weights: the model's float parameters, linears as [K, N].
        recipe: input scales of the linears.
    """
    if name.endswith(PACKED):
        members = name.removesuffix(PACKED).split(JOIN)
        return np.concatenate([_packed(weights[member.removesuffix(INT8)]) for member in members])
    if name.endswith(INPUT_SCALE):
        return np.asarray(recipe.scale(name.removesuffix(INPUT_SCALE)), np.float32)
    if name.endswith(OUTPUT_SCALE):
        weight = name.removesuffix(OUTPUT_SCALE)
        return weight_scale(weights[weight]) * np.float32(recipe.scale(weight))
    return np.ascontiguousarray(weights[name.removesuffix(SHADOW)], dtype=dtype)


def _packed(weight: np.ndarray) -> np.ndarray:
    return pack_weight(quantize_weight(weight, weight_scale(weight)))
