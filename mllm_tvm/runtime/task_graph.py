"""The call graph of an artifact, checked, and which calls a prompt's chunks need.

Calls that reach only the logits, not a cache, are the *head*: they run for the last chunk alone, on its last
row, unless all logits are wanted.
"""

from __future__ import annotations

from collections.abc import Sequence

from mllm_tvm.errors import ArtifactError
from mllm_tvm.manifest import CacheSpec, Call, FunctionSpec, Graph

from .expansion import CallList, Duration, Expansion, LiveCall, TaskGraph
from .planner import ChunkPlan

INPUTS = ("input_ids", "positions")
PARAMETER_PREFIX = "param:"
# Activations and parameters of the functions that the NPU worker can call.
_NPU_ARGUMENTS = {"linear": (1, 1), "mlp": (2, 5)}


class CallGraph:
    """A validated :class:`Graph` with what its expansion needs to know.

    Raises ArtifactError for an unknown function or value, a value defined twice, or logits nobody computes.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.caches: dict[str, CacheSpec] = {cache.name: cache for cache in graph.caches}
        self.functions = {function.name: function for function in graph.functions}
        self.producers = _find_producers(graph, self.functions, set(self.caches))
        self._cache_calls = self._reaching([cache.rows for cache in graph.caches])
        self._logit_calls = self._reaching([graph.logits])
        self.live = sorted(self._cache_calls | self._logit_calls)
        calls = [self._live_call(index) for index in self.live]
        self._all_calls = CallList(calls, self.functions)
        self._without_head = CallList([live for live in calls if not live.is_head], self.functions)

    def is_head(self, call: int) -> bool:
        """Whether the call reaches the logits only."""
        return call not in self._cache_calls

    def head_values(self) -> frozenset[str]:
        """Outputs of the head: they have a single row, unless all logits are wanted."""
        calls = self.graph.calls
        return frozenset(v for i in self.live if self.is_head(i) for v in calls[i].outputs)

    def parameters(self) -> frozenset[str]:
        """Names of the parameters that live calls read."""
        args = (arg for index in self.live for arg in self.graph.calls[index].args)
        return frozenset(
            arg.removeprefix(PARAMETER_PREFIX) for arg in args if arg.startswith(PARAMETER_PREFIX)
        )

    def device_weights(self) -> tuple[str, ...]:
        """Names of the parameters that NPU calls read, in order of use."""
        calls = [self.graph.calls[index] for index in self.live]
        on_npu = [call for call in calls if self.functions[call.function].processor == "npu"]
        args = (arg for call in on_npu for arg in call.args if arg.startswith(PARAMETER_PREFIX))
        return tuple(dict.fromkeys(arg.removeprefix(PARAMETER_PREFIX) for arg in args))

    def expand(
        self, chunks: Sequence[ChunkPlan], duration: Duration | None = None, all_logits: bool = False
    ) -> TaskGraph:
        """The tasks of one pass over ``chunks``. A call on a single row runs on the CPU."""
        expansion = Expansion(duration, all_logits)
        for plan in chunks[:-1]:
            expansion.add_chunk(plan, self._all_calls if all_logits else self._without_head)
        for plan in chunks[-1:]:
            expansion.add_chunk(plan, self._all_calls)
        return expansion.task_graph()

    def _live_call(self, index: int) -> LiveCall:
        call, head = self.graph.calls[index], self.is_head(index)
        values = [arg for arg in dict.fromkeys(call.args) if not arg.startswith(PARAMETER_PREFIX)]
        appends = {self.producers[self.caches[name].rows] for name in values if name in self.caches}
        producers = {self.producers[value] for value in values if value in self.producers} - appends
        reads = tuple(value for value in values if value not in self.caches)
        own, earlier = tuple(sorted(producers)), tuple(sorted(appends))
        return LiveCall(index, call, head, own, earlier, reads, (call.function, head))

    def _reaching(self, values: Sequence[str]) -> set[int]:
        """Indices of the calls that ``values`` depend on, within a chunk or through a cache."""
        found: set[int] = set()
        todo = [self.producers[value] for value in values]
        while todo:
            index = todo.pop()
            if index not in found:
                found.add(index)
                args = [self.caches[a].rows if a in self.caches else a for a in self.graph.calls[index].args]
                todo.extend(self.producers[arg] for arg in args if arg in self.producers)
        return found


def _find_producers(graph: Graph, functions: dict[str, FunctionSpec], caches: set[str]) -> dict[str, int]:
    """The call that produces each value; checks every name on the way."""
    producers: dict[str, int] = {}
    for index, call in enumerate(graph.calls):
        if call.function not in functions:
            raise _bad_graph(f"call {index} names function {call.function!r}, which is not listed")
        for arg in call.args:
            known = arg in producers or arg in caches or arg in INPUTS or arg.startswith(PARAMETER_PREFIX)
            if not known:
                raise _bad_graph(
                    f"call {index} of {call.function!r} reads {arg!r} before any call produces it"
                )
        for value in call.outputs:
            if value in producers or value in caches or value in INPUTS:
                raise _bad_graph(
                    f"call {index} of {call.function!r} produces {value!r}, which exists already"
                )
            producers[value] = index
        _check_npu_call(index, call, functions[call.function])
    _check_results(graph, producers)
    return producers


def _check_npu_call(index: int, call: Call, function: FunctionSpec) -> None:
    """The NPU worker knows one calling convention: (activations..., parameters...) -> accumulator."""
    if function.processor != "npu":
        return
    is_weight = [arg.startswith(PARAMETER_PREFIX) for arg in call.args]
    activations, parameters = _NPU_ARGUMENTS.get(function.kind, (0, 0))
    expected = [False] * activations + [True] * parameters
    if function.kind not in _NPU_ARGUMENTS or is_weight != expected or len(call.outputs) != 1:
        raise _bad_graph(
            f"call {index} of NPU function {call.function!r} ({function.kind}) has arguments {call.args}: "
            "expected a linear of an activation and a weight, or an mlp of two activations and five "
            "parameters, with one output"
        )


def _check_results(graph: Graph, producers: dict[str, int]) -> None:
    """Logits and cache rows exist, and no call reads a cache before this chunk's rows are produced."""
    results = [("the logits", graph.logits)] + [(f"cache {c.name!r}", c.rows) for c in graph.caches]
    for what, value in results:
        if value not in producers:
            raise _bad_graph(f"{what} should be {value!r}, which no call produces")
    rows = {cache.name: producers[cache.rows] for cache in graph.caches}
    for index, call in enumerate(graph.calls):
        for arg in call.args:
            if rows.get(arg, -1) >= index:
                raise _bad_graph(
                    f"call {index} of {call.function!r} reads cache {arg!r} before it is appended to"
                )


def _bad_graph(problem: str) -> ArtifactError:
    return ArtifactError(f"the call graph is invalid: {problem}; compile the model again")
