"""An imported model: a Relax module, its parameters, settings and tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tvm import ir

from mllm_tvm.frontend.config import ModelConfig
from mllm_tvm.tokenizer import Tokenizer


@dataclass(frozen=True)
class Model:
    """What the compiler starts from; ``module`` has one function ``main`` (see docs/architecture.md).

    ``parameters`` maps each parameter of ``main`` to its array and reads it when asked: float32, linears
    [K, N]; the embedding table may be float16. ``shadow_dtype`` is the smallest of float16 and float32 that
    holds the linears' weights exactly. ``settings`` is what ``config.json`` says, or would.
    """

    module: ir.IRModule
    parameters: Mapping[str, np.ndarray]
    config: ModelConfig
    tokenizer: Tokenizer
    path: Path
    shadow_dtype: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def cache_row_shape(self) -> tuple[int, int]:
        """Shape of one token's row in a key or value cache: [kv_heads, head_dim], float32."""
        return self.config.num_kv_heads, self.config.head_dim

    @property
    def num_caches(self) -> int:
        """How many caches ``main`` takes and returns: keys and values of each layer, in that order."""
        return 2 * self.config.num_layers

    def empty_caches(self) -> list[np.ndarray]:
        """Caches of no tokens, [0, kv_heads, head_dim] float32 each, in argument order."""
        return [np.zeros((0, *self.cache_row_shape), np.float32) for _ in range(self.num_caches)]

    @cached_property
    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each parameter of ``main``, in argument order, without reading any."""
        main = self.module["main"]
        parameters = main.params[int(main.attrs["num_input"]) :]
        return {p.name: tuple(int(extent) for extent in p.ty.shape.values) for p in parameters}

    def parameter_names(self) -> list[str]:
        """The parameters of ``main``, in argument order."""
        return list(self.parameter_shapes)
