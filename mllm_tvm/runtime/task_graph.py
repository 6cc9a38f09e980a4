"""Expands the call graph of an artifact over the chunks of a prompt into tasks.

Dependencies: a call needs the calls of its own chunk that produce its arguments; a call that reads a cache
needs the calls that produce the cached rows in this and all earlier chunks. Calls that reach only the logits,
not a cache, are the *head*: they run for the last chunk alone, on its last row, unless all logits are wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mllm_tvm.errors import ArtifactError
from mllm_tvm.manifest import CacheSpec, Call, FunctionSpec, Graph

from .planner import ChunkPlan
from .tasks import Task

INPUTS = ("input_ids", "positions")
PARAMETER_PREFIX = "param:"
# Activations and parameters of the functions that the NPU worker can call.
_NPU_ARGUMENTS = {"linear": (1, 1), "mlp": (2, 5)}

Duration = Callable[[FunctionSpec, str, int], float]
"""Expected seconds of a function on a processor that computes that many rows."""


@dataclass(frozen=True, slots=True)
class Step:
    """What a task does: a call on ``rows`` rows of a chunk, the last row of the chunk when ``last_row``."""

    call: Call
    function: FunctionSpec
    chunk: int
    plan: ChunkPlan
    rows: int
    last_row: bool
    processor: str

    @property
    def computed_rows(self) -> int:
        """Rows the processor computes: the NPU always a whole chunk, padding included."""
        return self.plan.length if self.processor == "npu" else self.rows


@dataclass(frozen=True)
class TaskGraph:
    """Tasks in program order (chunk by chunk) and what each does; the task's id is its index in both."""

    tasks: tuple[Task, ...]
    steps: tuple[Step, ...]


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
        ids: dict[tuple[int, int], int] = {}
        tasks: list[Task] = []
        steps: list[Step] = []
        for chunk, plan in enumerate(chunks):
            for index in self._calls_of(chunk == len(chunks) - 1 or all_logits):
                step = self._step(index, chunk, plan, all_logits)
                ids[chunk, index] = len(tasks)
                seconds = duration(step.function, step.processor, step.computed_rows) if duration else 0.0
                deps = tuple(ids[key] for key in self._dependencies(chunk, index))
                name = step.function.name
                layer = step.call.layer
                tasks.append(Task(len(tasks), step.processor, deps, seconds, chunk, index, name, layer))
                steps.append(step)
        return TaskGraph(tuple(tasks), tuple(steps))

    def _calls_of(self, with_head: bool) -> list[int]:
        return self.live if with_head else sorted(self._cache_calls)

    def _step(self, index: int, chunk: int, plan: ChunkPlan, all_logits: bool) -> Step:
        call = self.graph.calls[index]
        function = self.functions[call.function]
        last_row = self.is_head(index) and not all_logits
        rows = 1 if last_row else plan.tokens
        processor = "cpu" if rows == 1 else function.processor
        return Step(call, function, chunk, plan, rows, last_row, processor)

    def _dependencies(self, chunk: int, index: int) -> list[tuple[int, int]]:
        """(chunk, call) of the tasks that must end first."""
        needed: set[tuple[int, int]] = set()
        for arg in self.graph.calls[index].args:
            if arg in self.producers:
                needed.add((chunk, self.producers[arg]))
            elif arg in self.caches:
                append = self.producers[self.caches[arg].rows]
                needed.update((earlier, append) for earlier in range(chunk + 1))
        return sorted(needed)

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
