"""Expands calls over the chunks of a prompt into tasks.

Dependencies: a call needs the calls of its own chunk that produce its arguments; a call that reads a cache
needs the calls that produce the cached rows in this and all earlier chunks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from mllm_tvm.manifest import Call, FunctionSpec

from .planner import ChunkPlan
from .tasks import Program, Task

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
    """The calls of a chunk, in program order."""

    def __init__(self, live: Sequence[LiveCall], functions: Mapping[str, FunctionSpec]) -> None:
        self.live = live
        self.positions = [call.position for call in live]
        self.counts = Counter(call.place for call in live)
        """Calls of each place."""
        self.functions = {place: functions[place[0]] for place in self.counts}


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
    works: Mapping[tuple[str, bool], Work]
    """Of each place."""


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
            Step(call.call, chunk, plan, works[call.place], call.reads)
            for chunk, (plan, calls, works) in enumerate(self.chunks)
            for call in calls.live
        )

    @cached_property
    def readers(self) -> Mapping[tuple[int, str], int]:
        """How many tasks read each value that is not a parameter or a cache, by chunk and name."""
        return Counter((step.chunk, name) for step in self.steps for name in step.reads)

    @cached_property
    def usage(self) -> Mapping[UsageKey, Usage]:
        """What the durations of the tasks depend on."""
        found: dict[UsageKey, Usage] = {}
        for _, calls, works in self.chunks:
            for place, work in works.items():
                before = found[work.key].tasks if work.key in found else 0
                found[work.key] = Usage(before + calls.counts[place], work.seconds)
        return found


class Expansion:
    """Tasks of some chunks, extended by one chunk at a time."""

    def __init__(self, duration: Duration | None, all_logits: bool) -> None:
        self._duration = duration
        self._all_logits = all_logits
        self._tasks: list[Task] = []
        self._successors: list[list[int]] = []
        self._dependencies: list[int] = []
        self._ids: list[dict[int, int]] = []
        """The task of each call, for each chunk."""
        self._chunks: list[ChunkCalls] = []

    def task_graph(self) -> TaskGraph:
        """All tasks so far: each behind what it needs, as a program has to be."""
        successors = [tuple(following) for following in self._successors]
        return TaskGraph(Program(tuple(self._tasks), successors, self._dependencies), self._chunks)

    def add_chunk(self, plan: ChunkPlan, calls: CallList) -> None:
        """The tasks of one chunk."""
        works = {place: self._work(place[1], function, plan) for place, function in calls.functions.items()}
        first, chunk = len(self._tasks), len(self._chunks)
        ids = dict(zip(calls.positions, range(first, first + len(calls.positions)), strict=True))
        self._ids.append(ids)
        self._chunks.append(ChunkCalls(plan, calls, works))
        self._successors += [[] for _ in ids]
        successors = self._successors
        # Part of what scheduling costs: this loop makes no calls, which would double its time.
        for position, call, _, producers, appends, _, place in calls.live:
            task = ids[position]
            needed = [ids[producer] for producer in producers]
            for append in appends:
                needed += [earlier[append] for earlier in self._ids]
            for dependency in needed:
                successors[dependency].append(task)
            self._dependencies.append(len(needed))
            _, _, _, processor, _, _, seconds = works[place]
            deps, name = tuple(needed), call.function
            self._tasks.append(Task(task, processor, deps, seconds, chunk, position, name, call.layer))

    def _work(self, is_head: bool, function: FunctionSpec, plan: ChunkPlan) -> Work:
        last_row = is_head and not self._all_logits
        rows = 1 if last_row else plan.tokens
        processor = "cpu" if rows == 1 else function.processor
        computed = plan.length if processor == "npu" else rows
        seconds = self._duration(function, processor, computed) if self._duration else 0.0
        key = (function.name, processor, computed)
        return Work(function, rows, last_row, processor, computed, key, seconds)
