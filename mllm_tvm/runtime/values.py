"""The values of one prefill: chunk inputs, intermediate results until their last reader, cache views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mllm_tvm.errors import ArtifactError
from mllm_tvm.tensor_file import as_aligned

from .expansion import Step, TaskGraph
from .kv_cache import KvCache
from .planner import ChunkPlan
from .task_graph import PARAMETER_PREFIX, CallGraph

Key = tuple[int, str]


class RunValues:
    """Holds values by (chunk, name): NumPy arrays, or whatever the CPU functions return and accept.

    :meth:`arguments` and :meth:`store` may be called from several threads, one task each; :meth:`release`
    must be serialized by the caller.
    """

    def __init__(
        self,
        call_graph: CallGraph,
        task_graph: TaskGraph,
        parameters: Mapping[str, Any],
        cache: KvCache,
        past: int,
    ) -> None:
        self._parameters = parameters
        self._cache = cache
        self._past = past
        self._caches = call_graph.caches
        self._appends: dict[str, list[str]] = {}
        for spec in call_graph.graph.caches:
            self._appends.setdefault(spec.rows, []).append(spec.name)
        self._produced = call_graph.producers
        self._head_values = call_graph.head_values()
        self._logits = call_graph.graph.logits
        self._values: dict[Key, Any] = {}
        self._readers = dict(task_graph.readers)

    def set_inputs(self, chunks: Sequence[ChunkPlan], token_ids: Sequence[int]) -> None:
        """Make ``input_ids`` and ``positions`` ([tokens] int32) of each chunk."""
        ids = np.asarray(token_ids, np.int32)
        for chunk, plan in enumerate(chunks):
            end = plan.start + plan.tokens
            positions = np.arange(self._past + plan.start, self._past + end, dtype=np.int32)
            self._values[chunk, "input_ids"] = as_aligned(ids[plan.start : end])
            self._values[chunk, "positions"] = as_aligned(positions)

    def arguments(self, step: Step) -> list[Any]:
        """The argument values of a step, in parameter order."""
        return [self._argument(step, name) for name in step.call.args]

    def store(self, step: Step, results: Sequence[Any]) -> None:
        """Keep the outputs of a step that somebody reads, and append those that are cache rows."""
        for name, value in zip(step.call.outputs, results, strict=True):
            key = (step.chunk, name)
            if key in self._readers or name == self._logits:
                self._values[key] = value
            for cache in self._appends.get(name, ()):
                self._cache.append(cache, self._past + step.plan.start, np.from_dlpack(value))

    def release(self, step: Step) -> None:
        """Note that a step has ended: values without further readers are dropped."""
        for name in step.reads:
            key = (step.chunk, name)
            left = self._readers[key] = self._readers[key] - 1
            if not left:
                self._values.pop(key, None)

    def logits(self, chunk: int) -> np.ndarray:
        """The logits of a chunk, [rows, vocab] float32."""
        return np.from_dlpack(self._values[chunk, self._logits])

    def _argument(self, step: Step, name: str) -> Any:
        if name.startswith(PARAMETER_PREFIX):
            return self._parameters[name.removeprefix(PARAMETER_PREFIX)]
        if name in self._caches:
            return self._cache.view(name, self._past + step.plan.start + step.plan.tokens)
        value = self._values[step.chunk, name]
        if step.work.last_row and name not in self._head_values:
            return self._last_row(step, name, value)
        return value

    def _last_row(self, step: Step, name: str, value: Any) -> np.ndarray:
        rows = np.from_dlpack(value)
        if rows.shape[0] != step.plan.tokens:
            raise ArtifactError(
                f"value {name} has shape {rows.shape}: expected {step.plan.tokens} rows first"
            )
        return as_aligned(rows[-1:])
