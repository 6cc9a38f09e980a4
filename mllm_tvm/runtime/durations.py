"""Expected task durations: an analytic estimate until a function was seen, then the mean of what was seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf
from typing import Protocol

from mllm_tvm.manifest import FunctionSpec, Processor

from .expansion import Duration, TaskGraph, UsageKey
from .planner import ChunkCosts, ascending_lengths
from .task_graph import CallGraph
from .tasks import PROCESSORS, Span

# Orders of magnitude, only used to compare tasks before the first measurement.
_SECONDS_PER_MAC = {"npu": 1 / 200e9, "cpu": 1 / 50e9}
_SECONDS_PER_ELEMENT = {"float": 2e-9, "shadow": 4e-9, "dynamic": 40e-9}
_LAUNCH_SECONDS = {"npu": 100e-6, "cpu": 5e-6}

_OBSERVED_ERROR = 0.02
"""Relative error of a mean of observations; repeated prefills differ by more."""


def chunk_costs(
    functions: Iterable[FunctionSpec],
    chunk_lengths: Iterable[int],
    duration: Duration,
    processor: Processor = "npu",
) -> Mapping[int, float]:
    """Seconds of one full chunk of each length on a processor, for the planner.

    Args:
        functions: one for each call of a chunk.
        chunk_lengths: rows of the compiled NPU functions.
        duration: seconds of a function on a processor for a number of rows.

    Raises:
        ScheduleError: no chunk lengths, or one that is not positive.
    """
    placed = [function for function in functions if function.processor == processor]
    return {m: sum(duration(f, processor, m) for f in placed) for m in ascending_lengths(chunk_lengths)}


def prefill_costs(graph: CallGraph, chunk_lengths: Iterable[int], duration: Duration) -> ChunkCosts:
    """What a chunk costs; the head is left out, because it runs once, on one row, however a prompt is cut.

    Raises ScheduleError as :func:`chunk_costs` does.
    """
    lengths = ascending_lengths(chunk_lengths)
    calls = [graph.graph.calls[index] for index in graph.live if not graph.is_head(index)]
    functions = [graph.functions[call.function] for call in calls]
    return ChunkCosts(
        chunk_costs(functions, lengths, duration), chunk_costs(functions, lengths, duration, "cpu")
    )


class Durations(Protocol):
    """Expected seconds of functions, and what is known about their error."""

    def __call__(self, function: FunctionSpec, processor: str, rows: int, /) -> float:
        """Expected seconds of ``function`` on ``rows`` rows."""

    def error(self, graph: TaskGraph, /) -> float:
        """Relative error to expect of the durations of a graph; infinite if nothing like one was seen."""

    def drift(self, graph: TaskGraph, /) -> float:
        """How far durations have moved since the graph was made, as a share of their sum."""

    def learn(self, graph: TaskGraph, timeline: Iterable[Span], /) -> None:
        """Take the times of a run of the graph into account."""


class ExactDurations:
    """Those of a simulated device: there is nothing to learn."""

    def __init__(self, duration: Duration) -> None:
        self._duration = duration

    def __call__(self, function: FunctionSpec, processor: str, rows: int) -> float:
        """Seconds of ``function`` on ``rows`` rows."""
        return self._duration(function, processor, rows)

    def error(self, _graph: TaskGraph) -> float:
        """None."""
        return 0.0

    def drift(self, _graph: TaskGraph) -> float:
        """None."""
        return 0.0

    def learn(self, _graph: TaskGraph, _timeline: Iterable[Span]) -> None:
        """Changes nothing."""


class DurationModel:
    """Running means of observed seconds by (function, processor, rows)."""

    def __init__(self, functions: Iterable[FunctionSpec], hidden_size: int) -> None:
        self._seen: dict[UsageKey, tuple[int, float]] = {}
        self._per_row = {
            (function.name, processor): _seconds_per_row(function, processor, hidden_size)
            for function in functions
            for processor in PROCESSORS
        }

    def __call__(self, function: FunctionSpec, processor: str, rows: int) -> float:
        """Expected seconds of ``function``, one of the model's, on ``rows`` rows."""
        seen = self._seen.get((function.name, processor, rows))
        if seen is not None:
            return seen[1]
        return rows * self._per_row[function.name, processor] + _LAUNCH_SECONDS[processor]

    def observe(self, key: UsageKey, seconds: float, tasks: int = 1) -> None:
        """Take into the mean that so many tasks took ``seconds`` in all."""
        count, mean = self._seen.get(key, (0, 0.0))
        self._seen[key] = (count + tasks, mean + (seconds - tasks * mean) / (count + tasks))

    def learn(self, graph: TaskGraph, timeline: Iterable[Span]) -> None:
        """Take the times of a run into the means."""
        taken: dict[UsageKey, tuple[int, float]] = {}
        for task, start, end in timeline:
            key = graph.steps[task.id].work.key
            tasks, seconds = taken.get(key, (0, 0.0))
            taken[key] = (tasks + 1, seconds + end - start)
        for key, (tasks, seconds) in taken.items():
            self.observe(key, seconds, tasks)

    def error(self, graph: TaskGraph) -> float:
        """Relative error to expect of these durations; infinite if one of them is an estimate."""
        seen = self._seen
        known = all(work.key in seen for chunk in graph.chunks for work in chunk.works)
        return _OBSERVED_ERROR if known else inf

    def drift(self, graph: TaskGraph) -> float:
        """How far durations have moved since they were asked for, as a share of their sum.

        A common factor does not count: what is slower by the same everywhere is scheduled alike.
        """
        usage = graph.usage
        then = [used.tasks * used.seconds for used in usage.values()]
        now = [
            used.tasks * (self._seen[key][1] if key in self._seen else used.seconds)
            for key, used in usage.items()
        ]
        if not sum(then) or not sum(now):
            return 0.0
        factor = sum(now) / sum(then)
        return sum(abs(b - factor * a) for a, b in zip(then, now, strict=True)) / sum(now)


def _seconds_per_row(function: FunctionSpec, processor: str, hidden_size: int) -> float:
    """An estimate by the weights of an integer function, the elements of another."""
    if function.weights:
        return function.weights * _SECONDS_PER_MAC[processor]
    return hidden_size * _SECONDS_PER_ELEMENT[function.kind]
