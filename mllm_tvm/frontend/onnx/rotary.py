"""Rotary tables as the settings define them, in place of exporters' float32 arithmetic.

An angle of position 500 that was computed in float32 is off by 1e-5: enough to round some activations to
another int8 value, and so for a quantized model to write another text than from its Hugging Face directory.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mllm_tvm.errors import ModelError
from mllm_tvm.frontend.assemble import read_config
from mllm_tvm.frontend.builder import ROPE_COS, ROPE_SIN
from mllm_tvm.frontend.config import ConfigReader
from mllm_tvm.frontend.onnx.parameters import Parameter
from mllm_tvm.frontend.onnx.settings import Settings
from mllm_tvm.frontend.rope import Rope

_ROUNDING = 2.0**-21
"""Error of an angle of one radian: exporters round the frequency, the product and the result to float32."""


def exact_tables(specs: Mapping[str, Parameter], settings: Settings) -> dict[str, Parameter]:
    """``specs`` with rotary tables computed in float64 where they are those of ``settings``, up to rounding.

    Others stay as the graph has them: settings need not say how a graph rotates.
    """
    rope = _rope(settings)
    return {name: spec if rope is None else _exact(name, spec, rope) for name, spec in specs.items()}


def _rope(settings: Settings) -> Rope | None:
    try:
        return read_config(ConfigReader(settings.file, settings.values)).rope
    except ModelError:
        return None


def _exact(name: str, spec: Parameter, rope: Rope) -> Parameter:
    which = next((i for i, table in enumerate((ROPE_COS, ROPE_SIN)) if name.startswith(table)), None)
    # Rows may have an axis for the heads, fused operators have half the columns.
    columns = spec.shape[-1]
    if which is None or columns not in (rope.dim, rope.dim // 2):
        return spec

    def make() -> np.ndarray:
        return rope.tables(spec.shape[0])[which][:, :columns].reshape(spec.shape)

    tolerance = _ROUNDING * spec.shape[0]
    return Parameter(spec.shape, spec.dtype, make) if np.abs(make() - spec.make()).max() < tolerance else spec
