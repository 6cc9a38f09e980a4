"""Tables of positions: what a graph computes for each position alone, at all of them; exact rotary tables.

Exporters compute angles in float32. At position 500 that is off by 1e-5: enough to round some activations to
another int8 value, and so for a quantized model to write another text than from its Hugging Face directory.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mllm_tvm.errors import ModelError
from mllm_tvm.frontend.assemble import read_config
from mllm_tvm.frontend.builder import ROPE_COS, ROPE_SIN
from mllm_tvm.frontend.config import ConfigReader
from mllm_tvm.frontend.onnx.dims import ONE, Binding
from mllm_tvm.frontend.onnx.importer import Importer
from mllm_tvm.frontend.onnx.parameters import Parameter
from mllm_tvm.frontend.onnx.settings import Settings
from mllm_tvm.frontend.onnx.tensor import Tensor
from mllm_tvm.frontend.rope import Rope

_ROUNDING = 2.0**-21
"""Error of an angle of one radian: exporters round the frequency, the product and the result to float32."""


def position_table(importer: Importer, x: Tensor, axis: int) -> np.ndarray:
    """Float32 [max_positions, ...]: the rows of a ``table`` for all positions.

    Raises:
        ModelError: a row depends on more than its token's position.
    """

    def rows(binding: Binding, keep: bool) -> np.ndarray:
        array = np.moveaxis(importer.evaluator.value(str(x.attrs["name"]), binding, keep), axis, 0)
        array = np.concatenate([array] * x.attrs.get("repeat", 1), axis=-1)
        static = [dim.const for i, dim in enumerate(x.dims) if i != axis and dim != ONE]
        return np.asarray(array.reshape([binding.seq, *static]), np.float32)

    table = rows(Binding(importer.max_positions, 0), keep=False)
    for probe in importer.probes:
        if probe.past + probe.seq > importer.max_positions:
            continue
        if not np.array_equal(rows(probe, keep=True), table[probe.past : probe.past + probe.seq]):
            raise ModelError(
                f"{importer.file.path}: value {x.attrs['name']} depends on more than the tokens' positions: "
                "such position embeddings are not supported"
            )
    return table


def without_repeat(table: np.ndarray) -> np.ndarray:
    """A table [positions, n] without its second half where that repeats the first, as in rotary tables."""
    half = table.shape[-1] // 2
    repeats = table.ndim == 2 and np.array_equal(table[:, :half], table[:, half:])
    return table[:, :half] if repeats else table


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
    if which is None or spec.shape[1:] != (rope.dim // 2,):
        return spec

    def make() -> np.ndarray:
        return rope.tables(spec.shape[0])[which]

    tolerance = _ROUNDING * spec.shape[0]
    return Parameter(spec.shape, spec.dtype, make) if np.abs(make() - spec.make()).max() < tolerance else spec
