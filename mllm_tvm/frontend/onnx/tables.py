"""Tables of positions: what a graph computes for each position alone, at all of them."""

from __future__ import annotations

import numpy as np

from mllm_tvm.errors import ModelError
from mllm_tvm.frontend.onnx.dims import ONE, Binding
from mllm_tvm.frontend.onnx.importer import Importer
from mllm_tvm.frontend.onnx.tensor import Tensor


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
