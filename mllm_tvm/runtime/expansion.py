"""Expands calls over the chunks of a prompt into tasks.

Dependencies: a call needs the calls of its own chunk that produce its arguments; a call that reads a cache
needs the calls that produce the cached rows in this and all earlier chunks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count, repeat
from typing import NamedTuple

from mllm_tvm.manifest import Call, FunctionSpec

from .planner import ChunkPlan
from .tasks import Program, Task, transposed

Duration = Callable[[FunctionSpec, str, int], float]
"""Expected seconds of a function on a processor that computes that many rows."""
UsageKey = tuple[str, str, int]
"""A function's name, a processor, and the rows it computes."""


class LiveCall(NamedTuple):
    """A call that is needed, with what is the same of it in every chunk; calls are known by their index."""

    position: int
    call: Call
    is_head: bool
    producers: tuple[int, ...]
    """The calls that it needs of its own chunk alone."""
    appends: tuple[int, ...]
    """The calls that it needs of its own chunk and all earlier ones."""
    reads: tuple[str, ...]
    """The chunk's values among its arguments, each once."""
    place: tuple[str, bool]
    """Its function and whether it is of the head: calls of one place do the same in a chunk."""


class CallList:
    """The calls of a chunk in program order, with what their tasks have in common in every chunk.

    A list holds one entry for each call; places are known by their number, calls within the list by their
    index, and so are their dependencies: a chunk's tasks are these, moved by the id of its first.
    """

    def __init__(self, live: Sequence[LiveCall], functions: Mapping[str, FunctionSpec]) -> None:
        self.live = live
        self.positions = [call.position for call in live]
        self.names = [call.call.function for call in live]
        self.layers = [call.call.layer for call in live]
        numbers: dict[tuple[str, bool], int] = {}
        self.places = [numbers.setdefault(call.place, len(numbers)) for call in live]
        self.functions = [(functions[name], is_head) for name, is_head in numbers]
        """Of each place, and whether it is of the head."""
        self.counts = Counter(self.places)
        """Calls of each place."""
        self.index = {position: index for index, position in enumerate(self.positions)}
        self.needs = [tuple(self.index[call] for call in (*c.producers, *c.appends)) for c in live]
        """What each call needs of its own chunk."""
        self.successors = transposed(self.needs)
        self.appends = [(index, call.appends) for index, call in enumerate(live) if call.appends]
        """The calls that need others (by position) of all earlier chunks too."""


class Work(NamedTuple):
    """What a function does in a chunk: ``rows`` rows, the last row of the chunk when ``last_row``."""

    function: FunctionSpec
    rows: int
    last_row: bool
    processor: str
    computed_rows: int
    """Rows the processor computes: the NPU always a whole chunk, padding included."""
    key: UsageKey
    """What its duration depends on."""
    seconds: float
    """Expected of it."""


class Step(NamedTuple):
    """What a task does: a call in a chunk."""

    call: Call
    chunk: int
    plan: ChunkPlan
    work: Work
    reads: tuple[str, ...]
    """The chunk's values among the arguments, each once."""

    @property
    def function(self) -> FunctionSpec:
        """The function that is called."""
        return self.work.function


class Usage(NamedTuple):
    """Tasks of one function, on one processor and number of rows: how many, and the seconds of each."""

    tasks: int
    seconds: float


class ChunkCalls(NamedTuple):
    """The calls of one chunk, and what they do."""

    plan: ChunkPlan
    calls: CallList
    works: Sequence[Work]
    """Of each place."""
    first: int
    """The id of the first task."""


@dataclass(frozen=True)
class TaskGraph:
    """Tasks in program order (chunk by chunk); a task's id is its index."""

    program: Program
    chunks: Sequence[ChunkCalls]

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks of the program."""
        return self.program.tasks

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """What each task does, for the workers: scheduling goes without."""
        return tuple(
            Step(call.call, chunk, plan, works[place], call.reads)
            for chunk, (plan, calls, works, _) in enumerate(self.chunks)
            for call, place in zip(calls.live, calls.places, strict=True)
        )

    @cached_property
    def readers(self) -> Mapping[tuple[int, str], int]:
        """How many tasks read each value that is not a parameter or a cache, by chunk and name."""
        return Counter((step.chunk, name) for step in self.steps for name in step.reads)

    @cached_property
    def usage(self) -> Mapping[UsageKey, Usage]:
        """What the durations of the tasks depend on."""
        found: dict[UsageKey, Usage] = {}
        for _, calls, works, _ in self.chunks:
            for place, work in enumerate(works):
                before = found[work.key].tasks if work.key in found else 0
                found[work.key] = Usage(before + calls.counts[place], work.seconds)
        return found


class Expansion:
    """Tasks of some chunks, extended by one chunk at a time."""

    def __init__(self, duration: Duration | None, all_logits: bool) -> None:
        self._duration = duration
        self._all_logits = all_logits
        self._tasks: list[Task] = []
        self._successors: list[tuple[int, ...]] = []
        self._dependencies: list[int] = []
        self._chunks: list[ChunkCalls] = []

    def task_graph(self) -> TaskGraph:
        """All tasks so far: each behind what it needs, as a program has to be."""
        return TaskGraph(Program(tuple(self._tasks), self._successors, self._dependencies), self._chunks)

    def add_chunk(self, plan: ChunkPlan, calls: CallList) -> None:
        """The tasks of one chunk."""
        # Part of what scheduling costs: columns are put together without a line of Python for each task.
        first, chunk = len(self._tasks), len(self._chunks)
        works = [self._work(is_head, function, plan) for function, is_head in calls.functions]
        processors, seconds = [work.processor for work in works], [work.seconds for work in works]
        needs, successors = calls.needs, calls.successors
        if chunk:
            needs, successors = _moved(needs, first), _moved(successors, first)
            self._need_earlier_chunks(first, calls, needs)
        self._chunks.append(ChunkCalls(plan, calls, works, first))
        self._successors += successors
        self._dependencies += map(len, needs)
        on = [processors[place] for place in calls.places]
        durations = [seconds[place] for place in calls.places]
        where = (repeat(chunk), calls.positions, calls.names, calls.layers)
        self._tasks += map(Task, count(first), on, needs, durations, *where)

    def _need_earlier_chunks(self, first: int, calls: CallList, needs: list[tuple[int, ...]]) -> None:
        """Adds to ``needs`` the appends of the chunks before."""
        for index, appends in calls.appends:
            found = [e.first + e.calls.index[append] for e in self._chunks for append in appends]
            needs[index] = (*found, *needs[index])
            for dependency in found:
                self._successors[dependency] += (first + index,)

    def _work(self, is_head: bool, function: FunctionSpec, plan: ChunkPlan) -> Work:
        last_row = is_head and not self._all_logits
        rows = 1 if last_row else plan.tokens
        processor = "cpu" if rows == 1 else function.processor
        computed = plan.length if processor == "npu" else rows
        seconds = self._duration(function, processor, computed) if self._duration else 0.0
        key = (function.name, processor, computed)
        return Work(function, rows, last_row, processor, computed, key, seconds)


def _moved(lists: Sequence[tuple[int, ...]], first: int) -> list[tuple[int, ...]]:
    return [tuple([first + index for index in indices]) for indices in lists]
