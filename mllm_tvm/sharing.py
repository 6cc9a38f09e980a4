"""How much of a call graph its chunks and layers share, and what that saves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mllm_tvm.manifest import FunctionSpec, Graph
from mllm_tvm.runtime.durations import prefill_costs
from mllm_tvm.runtime.planner import plan_prefill
from mllm_tvm.runtime.task_graph import PARAMETER_PREFIX, CallGraph
from mllm_tvm.runtime.tasks import ScheduleError
from mllm_tvm.simulate.function_durations import measured_durations


@dataclass(frozen=True)
class FunctionUse:
    """A function and how often one prompt runs it.

    ``calls`` of one chunk (one for each layer that has it, or more), ``pairs`` of (chunk, call) that share
    it, ``parameter_bytes`` of all its calls' weights.
    """

    name: str
    kind: str
    processor: str
    calls: int
    pairs: int
    parameter_bytes: int


@dataclass(frozen=True)
class Sharing:
    """The functions of a graph, for a prompt of ``prompt`` tokens in ``chunks`` (their lengths).

    ``shared_calls`` of ``calls`` in a chunk's graph are static: all chunks run the same function on the same
    weights. ``npu_functions`` are the distinct NPU functions of one chunk length. ``separate_bytes`` is what
    the NPU would hold if each chunk had a graph of its own, as vendors' compilers make them (weights, and a
    buffer for every input and output), ``shared_bytes`` what it holds with shared functions (weights once,
    and a buffer for each shape and length).
    """

    prompt: int
    chunks: tuple[int, ...]
    functions: tuple[FunctionUse, ...]
    calls: int
    shared_calls: int
    npu_functions: int
    separate_bytes: int
    shared_bytes: int

    @property
    def shared_share(self) -> float:
        """Share of a chunk's calls that all chunks share."""
        return self.shared_calls / self.calls

    @property
    def saved_share(self) -> float:
        """Share of the separate graphs' bytes that sharing saves."""
        return 1.0 - self.shared_bytes / self.separate_bytes if self.separate_bytes else 0.0


def measure_sharing(
    graph: Graph,
    parameter_bytes: Mapping[str, int],
    hidden_size: int,
    chunk_lengths: Sequence[int],
    prompt: int,
) -> Sharing:
    """The sharing of a graph.

    Args:
        parameter_bytes: size of each parameter the calls name.
        hidden_size: channels of the residual stream, by which the work of float functions is estimated.
        chunk_lengths: compiled lengths, of which the engine's planner takes the prompt's cover.
        prompt: tokens, at least 1.

    Raises:
        ScheduleError: no chunk lengths, or a prompt without tokens.
        ArtifactError: the graph is damaged.
    """
    if prompt < 1:
        raise ScheduleError(f"prompt of {prompt} tokens: expected at least 1")
    functions = {function.name: function for function in graph.functions}
    called = [functions[call.function] for call in graph.calls]
    costs = prefill_costs(CallGraph(graph), chunk_lengths, measured_durations(hidden_size))
    chunks = tuple(chunk.length for chunk in plan_prefill(prompt, costs))
    uses = tuple(_use(graph, function, parameter_bytes, len(chunks)) for function in graph.functions)
    on_npu = [function for function in called if function.processor == "npu"]
    weights = sum(use.parameter_bytes for use in uses if use.processor == "npu")
    return Sharing(
        prompt=prompt,
        chunks=chunks,
        functions=uses,
        calls=len(graph.calls),
        shared_calls=sum(function.kind != "dynamic" for function in called),
        npu_functions=len({function.name for function in on_npu}),
        separate_bytes=sum(weights + _buffers(on_npu, length) for length in chunks),
        shared_bytes=weights + sum(_buffers(_shapes(on_npu), length) for length in set(chunks)),
    )


def _use(graph: Graph, function: FunctionSpec, sizes: Mapping[str, int], chunks: int) -> FunctionUse:
    calls = [call for call in graph.calls if call.function == function.name]
    names = Counter(arg for call in calls for arg in set(call.args) if arg.startswith(PARAMETER_PREFIX))
    held = sum(sizes[name.removeprefix(PARAMETER_PREFIX)] for name in names)
    return FunctionUse(
        function.name, function.kind, function.processor, len(calls), chunks * len(calls), held
    )


def _shapes(functions: Sequence[FunctionSpec]) -> list[FunctionSpec]:
    """One function of each shape: their calls share buffers."""
    return list({(f.k, f.n, f.channels): f for f in functions}.values())


def _buffers(functions: Sequence[FunctionSpec], rows: int) -> int:
    """Bytes of int8 inputs, int32 outputs, and the int32 sums and int8 values between the linears of MLPs."""
    return sum(rows * (f.input_bytes + 4 * f.n + 8 * f.padded_channels + 2 * f.channels) for f in functions)
