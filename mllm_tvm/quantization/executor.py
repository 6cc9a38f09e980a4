"""Runs the quantized module in one piece, with recipes swapped in without compiling again.

The functions are those the artifact holds, before they are cut apart and placed: the integer linear is exact
on every device, so what this computes is what the engine computes up to the rounding of float functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mllm_tvm.frontend.float_model import FloatModel
from mllm_tvm.frontend.model import Model
from mllm_tvm.parameters import make_parameter
from mllm_tvm.recipe import LinearRecipe, Recipe
from relax_passes import pipeline
from relax_passes.fuse_mlp import GLU_MULTIPLIERS, GLU_SHIFTS
from relax_passes.graph import split_params
from relax_passes.lower_linear import JOIN, PACKED
from relax_passes.quantize_w8a8 import COLD, HOT, HOT_SLOT, INPUT_SCALE, INT8, LEFT_OUT, OUTPUT_SCALE, STATIC


class QuantizedModel:
    """A model compiled with ``recipe``; :meth:`use` changes scales and shadow paths. For one thread.

    Shadow paths can be left out later, not added: compile with a recipe that has all of them. Any channel can
    become hot or cold.
    """

    def __init__(self, model: Model, recipe: Recipe, fuse_mlp: bool = False):
        """``fuse_mlp``: as of the compiler; a fused MLP has no shadow path to leave out, only a scale."""
        self.model = model
        self.recipe = recipe
        # Any smoothing and any hot channel may come later: every scale is a vector, every float row is there.
        static = recipe.activation == STATIC
        schemes = {
            weight: replace(scheme, per_channel=static, hot_rows=model.parameter_shapes[weight][0])
            for weight, scheme in recipe.schemes().items()
        }
        module = pipeline.run(model.module, schemes, model.shadow_dtype, last="lower", fuse_mlp=fuse_mlp)
        _, parameters = split_params(module["main"])
        self._types = {p.name: p.ty for p in parameters}
        self._vm = FloatModel(model, module, {name: self._make(name, recipe) for name in self._types})

    def use(self, recipe: Recipe) -> None:
        """Run with ``recipe`` from now on: other scales, or fewer shadow paths."""
        pairs = zip(recipe.linears, self.recipe.linears, strict=True)
        changed = {linear.weights[0] for linear, old in pairs if linear != old}
        for name in self._types:
            if any(recipe.linear(weight).weights[0] in changed for weight in _weights(name)):
                self._vm.set_parameter(name, self._make(name, recipe))
        self.recipe = recipe

    def run(self, token_ids: Sequence[int]) -> np.ndarray:
        """Logits after each token, [seq, vocab] float32."""
        return self.step(token_ids)[0]

    def step(self, token_ids: Sequence[int], caches: Sequence[np.ndarray] | None = None) -> list[np.ndarray]:
        """Logits [seq, vocab] float32 and the caches with the tokens appended, after those in ``caches``."""
        return self._vm.run(token_ids, caches)

    def _make(self, name: str, recipe: Recipe) -> np.ndarray:
        dtype, shape = str(self._types[name].dtype), [int(e) for e in self._types[name].shape.values]
        if name.endswith(HOT):
            return np.asarray(self.model.parameters[name.removesuffix(HOT)], dtype)
        if name.endswith(HOT_SLOT):
            return _slots(recipe.linear(name.removesuffix(HOT_SLOT)), *shape)
        value = make_parameter(name, dtype, self.model.parameters, recipe)
        return np.broadcast_to(value, shape) if name.endswith(INPUT_SCALE) else value


def _slots(linear: LinearRecipe, channels: int) -> np.ndarray:
    """Hot channels by number; without a shadow path every channel is left out."""
    slots = np.full(channels, COLD if linear.shadow else LEFT_OUT, np.int32)
    slots[list(linear.hot_channels)] = linear.hot_channels
    return slots


def _weights(name: str) -> list[str]:
    """The weights a parameter was made from, if it belongs to quantized linears."""
    if name.endswith(PACKED):
        return [member.removesuffix(INT8) for member in name.removesuffix(PACKED).split(JOIN)]
    suffixes = (INPUT_SCALE, OUTPUT_SCALE, HOT_SLOT, GLU_MULTIPLIERS, GLU_SHIFTS)
    found = next((suffix for suffix in suffixes if name.endswith(suffix)), None)
    return name.removesuffix(found).split(JOIN) if found else []
