"""The inputs of a float model's linears, on text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import tvm

from mllm_tvm.frontend.float_model import FloatModel
from mllm_tvm.frontend.model import Model
from relax_passes.expose_linear_inputs import ExposeLinearInputs, linear_inputs


class LinearInputs:
    """The float model with the inputs of its linears as results; ``groups`` names who reads each."""

    def __init__(self, model: Model):
        self.model = model
        self.groups = list(linear_inputs(model.module["main"]).values())
        expose = tvm.transform.Sequential([ExposeLinearInputs()])
        self.float_model = FloatModel(model, expose(model.module))

    def matrix(self, group: Sequence[str]) -> np.ndarray:
        """The weights of a group side by side, [K, N] float32."""
        return np.concatenate([self.model.parameters[name] for name in group], axis=1)

    def run(self, segments: Sequence[Sequence[int]], bar: object) -> Iterable[list[np.ndarray]]:
        """For each segment, the linears' inputs, ordered as ``groups``: [tokens, channels] float32 each."""
        for segment in segments:
            yield self.float_model.run(segment)[-len(self.groups) :]
            bar.update(len(segment))  # type: ignore[attr-defined]
