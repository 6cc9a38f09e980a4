"""One decode step: the call graph on a single row, with every name resolved beforehand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mllm_tvm.tensor_file import aligned_empty

from .kv_cache import KvCache
from .task_graph import INPUTS, PARAMETER_PREFIX, CallGraph


@dataclass(frozen=True, slots=True)
class _Instruction:
    function: Callable[..., Any]
    arguments: tuple[int, ...]
    outputs: tuple[int, ...]
    appends: tuple[tuple[str, int], ...]
    """(cache, slot of the rows) to append once the function has returned."""


class DecodeProgram:
    """The live calls as a list of instructions over numbered value slots."""

    def __init__(
        self,
        call_graph: CallGraph,
        functions: Mapping[str, Callable[..., Any]],
        parameters: Mapping[str, Any],
    ) -> None:
        self._slots: dict[str, int] = {}
        self._values: list[Any] = []
        for name, value in parameters.items():
            self._values[self._slot(PARAMETER_PREFIX + name)] = value
        self._inputs = [aligned_empty((1,), "int32") for _ in INPUTS]
        for name, array in zip(INPUTS, self._inputs, strict=True):
            self._values[self._slot(name)] = array
        self._caches = [(name, self._slot(name)) for name in call_graph.caches]
        self._instructions = [self._compile(call_graph, functions, index) for index in call_graph.live]
        self._logits = self._slot(call_graph.graph.logits)

    def run(self, token: int, position: int, cache: KvCache) -> np.ndarray:
        """Append ``token`` at ``position`` and return the logits of the next token, [vocab] float32."""
        values = self._values
        self._inputs[0][0], self._inputs[1][0] = token, position
        for name, slot in self._caches:
            # The view covers the row that is appended below, before the call that reads it.
            values[slot] = cache.view(name, position + 1)
        for step in self._instructions:
            result = step.function(*[values[slot] for slot in step.arguments])
            if len(step.outputs) == 1:
                values[step.outputs[0]] = result
            else:
                for index, slot in enumerate(step.outputs):
                    values[slot] = result[index]
            for name, slot in step.appends:
                cache.append(name, position, np.from_dlpack(values[slot]))
        return np.from_dlpack(values[self._logits])[-1]

    def _slot(self, name: str) -> int:
        if name not in self._slots:
            self._slots[name] = len(self._values)
            self._values.append(None)
        return self._slots[name]

    def _compile(
        self, call_graph: CallGraph, functions: Mapping[str, Callable[..., Any]], index: int
    ) -> _Instruction:
        call = call_graph.graph.calls[index]
        arguments = tuple(self._slot(name) for name in call.args)
        results = tuple(self._slot(name) for name in call.outputs)
        specs = [spec for spec in call_graph.graph.caches if spec.rows in call.outputs]
        appends = tuple((spec.name, self._slot(spec.rows)) for spec in specs)
        return _Instruction(functions[call.function], arguments, results, appends)
