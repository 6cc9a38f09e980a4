"""A greedy active schedule: processors may wait on purpose for a task that matters more than a ready one.

At each step (Giffler and Thompson) one of the tasks is placed that could start on the processor whose next
completion is the earliest, before that completion: the one after which the lower bound of the schedule's
length is the smallest, of equal ones the first in program order. This is beam search of width one without its
copies, a few microseconds a task, and what two chunks that take turns on two processors need.
"""

from __future__ import annotations

from collections.abc import Sequence

from .list_schedule import ScheduleGraph


def active_starts(graph: ScheduleGraph, to_end: Sequence[float]) -> tuple[float, list[float]]:
    """Makespan and starts of the greedy active schedule; ``to_end`` is :func:`~.list_schedule.tails`."""
    schedule = _ActiveSchedule(graph, to_end)
    while schedule.eligible:
        schedule.step()
    return max(schedule.free, default=0.0), schedule.starts


class _ActiveSchedule:
    """A schedule of some tasks, extended by one task at a time."""

    def __init__(self, graph: ScheduleGraph, to_end: Sequence[float]) -> None:
        self._graph = graph
        self._to_end = to_end
        self._pending = list(graph.dependencies)
        self._bound = 0.0
        self.eligible = {task: 0.0 for task, count in enumerate(graph.dependencies) if not count}
        """Tasks whose dependencies are placed, and when those end."""
        self.free = [0.0] * (max(graph.processors, default=-1) + 1)
        self._left = [0.0] * len(self.free)
        """Seconds of each processor's tasks that are not placed."""
        for duration, processor in zip(graph.durations, graph.processors, strict=True):
            self._left[processor] += duration
        self.starts = [0.0] * len(graph.durations)
        """Of placed tasks; of others the end of the dependencies that are placed."""

    def step(self) -> None:
        """Place one task."""
        processor, candidates = self._candidates()
        if len(candidates) == 1:
            self._place(candidates[0])
            return
        floor = self._floor(processor)
        self._bound, task = min(
            [(max(floor, self._bound_with(task, processor)), task) for task in candidates]
        )
        self._place(task)

    def _end(self, task: int) -> float:
        free = self.free[self._graph.processors[task]]
        ready = self.eligible[task]
        return (ready if ready > free else free) + self._graph.durations[task]

    def _candidates(self) -> tuple[int, list[int]]:
        """The processor whose next completion is the earliest, and its tasks that could start before it."""
        durations, processors, free = self._graph.durations, self._graph.processors, self.free
        first, completion = -1, float("inf")
        # The innermost loop: calls would double its time.
        for task, ready in self.eligible.items():
            at = free[processors[task]]
            end = (ready if ready > at else at) + durations[task]
            if end < completion:
                first, completion = task, end
        processor = processors[first]
        if not durations[first]:  # nothing starts before it ends
            return processor, [first]
        found = [t for t, at in self.eligible.items() if processors[t] == processor and at < completion]
        return processor, found

    def _floor(self, processor: int) -> float:
        """The lower bound so far, and from the tasks of the other processors."""
        bound, free, to_end = self._bound, self.free, self._to_end
        for other, left in enumerate(self._left):
            if other != processor:
                bound = max(bound, free[other] + left)
        for task, ready in self.eligible.items():
            other = self._graph.processors[task]
            if other != processor:
                bound = max(bound, max(ready, free[other]) + to_end[task])
        return bound

    def _bound_with(self, task: int, processor: int) -> float:
        """Lower bound from the processor's tasks and the successors when ``task`` is next on it."""
        graph, to_end, end = self._graph, self._to_end, self._end(task)
        bound = end + self._left[processor] - graph.durations[task]
        for other, ready in self.eligible.items():
            if other != task and graph.processors[other] == processor:
                bound = max(bound, max(ready, end) + to_end[other])
        for successor in graph.successors[task]:
            if self._pending[successor] == 1:
                busy = self.free[graph.processors[successor]]
                bound = max(bound, max(end, busy, self.starts[successor]) + to_end[successor])
        return bound

    def _place(self, task: int) -> None:
        graph, end, starts = self._graph, self._end(task), self.starts
        processor = graph.processors[task]
        starts[task] = end - graph.durations[task]
        self.free[processor] = end
        self._left[processor] -= graph.durations[task]
        del self.eligible[task]
        for successor in graph.successors[task]:
            if end > starts[successor]:
                starts[successor] = end
            self._pending[successor] -= 1
            if not self._pending[successor]:
                self.eligible[successor] = starts[successor]
