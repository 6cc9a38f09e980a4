"""List scheduling of a task graph on a virtual clock: the plans a look-ahead policy compares.

Everything here works on indices of tasks in program order (each behind its dependencies).
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from .tasks import Program


@dataclass(frozen=True)
class ScheduleGraph:
    """A task graph reduced to what list scheduling reads."""

    durations: tuple[float, ...]
    processors: tuple[int, ...]
    """Index of each task's processor."""
    successors: Sequence[Sequence[int]]
    dependencies: Sequence[int]
    """Number of dependencies of each task."""

    @staticmethod
    def of(program: Program) -> ScheduleGraph:
        """What list scheduling reads of a program."""
        names: dict[str, int] = {}
        processors = tuple([names.setdefault(task.processor, len(names)) for task in program.tasks])
        durations = tuple([task.duration for task in program.tasks])
        return ScheduleGraph(durations, processors, program.successors, program.dependencies)

    def reversed(self) -> ScheduleGraph:
        """The same graph with time running backwards; task i becomes task n - 1 - i."""
        last = len(self.durations) - 1
        successors: list[list[int]] = [[] for _ in self.durations]
        for task, following in enumerate(self.successors):
            for successor in following:
                successors[last - successor].append(last - task)
        dependencies = tuple(len(following) for following in reversed(self.successors))
        return ScheduleGraph(self.durations[::-1], self.processors[::-1], successors, dependencies)


def tails(graph: ScheduleGraph) -> list[float]:
    """For each task, the longest path that begins with it, its own duration included."""
    lengths = list(graph.durations)
    for task in range(len(lengths) - 1, -1, -1):
        following = graph.successors[task]
        if len(following) == 1:
            lengths[task] += lengths[following[0]]
        elif following:
            lengths[task] += max([lengths[successor] for successor in following])
    return lengths


def lower_bound(graph: ScheduleGraph, to_end: Sequence[float]) -> float:
    """No schedule is shorter: the longest path, and each processor's work between its first and last task.

    ``to_end`` is :func:`tails` of the graph.
    """
    durations, bound = graph.durations, max(to_end, default=0.0)
    for processor, head in _earliest_starts(graph).items():
        tasks = [task for task, on in enumerate(graph.processors) if on == processor]
        work = sum([durations[task] for task in tasks])
        bound = max(bound, head + work + min([to_end[task] - durations[task] for task in tasks]))
    return bound


def _earliest_starts(graph: ScheduleGraph) -> dict[int, float]:
    """When each processor could start its first task at the earliest: time runs until all have one."""
    pending, found = list(graph.dependencies), dict[int, float]()
    processors = len(set(graph.processors))
    ends = [(0.0, -1)]
    ready = [task for task, count in enumerate(pending) if not count]
    while len(found) < processors:
        now, ended = heapq.heappop(ends)
        for successor in graph.successors[ended] if ended >= 0 else ():
            pending[successor] -= 1
            if not pending[successor]:
                ready.append(successor)
        for task in ready:
            found.setdefault(graph.processors[task], now)
            heapq.heappush(ends, (now + graph.durations[task], task))
        ready.clear()
    return found


def dispatch_starts(graph: ScheduleGraph, keys: Sequence[float]) -> tuple[float, list[float]]:
    """Makespan and starts when a free processor always takes its ready task with the smallest key."""
    durations, processors, successors = graph.durations, graph.processors, graph.successors
    pending, starts = list(graph.dependencies), [0.0] * len(durations)
    ready: list[list[tuple[float, int]]] = [[] for _ in range(max(processors, default=-1) + 1)]
    busy = [False] * len(ready)
    for task, count in enumerate(pending):
        if not count:
            heapq.heappush(ready[processors[task]], (keys[task], task))
    events: list[tuple[float, int]] = []
    now = 0.0
    while True:
        for processor, queue in enumerate(ready):
            if queue and not busy[processor]:
                task = heapq.heappop(queue)[1]
                busy[processor] = True
                starts[task] = now
                heapq.heappush(events, (now + durations[task], task))
        if not events:
            return now, starts
        now = events[0][0]
        while events and events[0][0] == now:
            task = heapq.heappop(events)[1]
            busy[processors[task]] = False
            for successor in successors[task]:
                pending[successor] -= 1
                if not pending[successor]:
                    heapq.heappush(ready[processors[successor]], (keys[successor], successor))


def serial_starts(graph: ScheduleGraph, keys: Sequence[float]) -> tuple[float, list[float]]:
    """Makespan and starts when tasks are appended to their processors in the order of their keys.

    A processor may wait for a task while another one is ready, which the best schedule sometimes needs.
    """
    durations, processors, successors = graph.durations, graph.processors, graph.successors
    pending, starts = list(graph.dependencies), [0.0] * len(durations)
    free = [0.0] * (max(processors, default=-1) + 1)
    eligible = [(keys[task], task) for task, count in enumerate(pending) if not count]
    heapq.heapify(eligible)
    while eligible:
        task = heapq.heappop(eligible)[1]
        processor = processors[task]
        start = starts[task] = max(starts[task], free[processor])
        end = free[processor] = start + durations[task]
        for successor in successors[task]:
            if end > starts[successor]:
                starts[successor] = end
            pending[successor] -= 1
            if not pending[successor]:
                heapq.heappush(eligible, (keys[successor], successor))
    return max(free, default=0.0), starts
