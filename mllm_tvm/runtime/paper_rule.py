"""The schedule that the paper's rule gives, computed at once: a candidate of the look-ahead.

:class:`~.policies.Paper` is the online rule; this is the same one without the calls between scheduler and
policy, several times as fast. A test holds them equal.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from .list_schedule import ScheduleGraph


def paper_starts(graph: ScheduleGraph, signs: Sequence[float]) -> list[float]:
    """When each task starts; ``signs`` is 1.0 for the index of a CPU, -1.0 for that of another processor."""
    durations, processors, successors = graph.durations, graph.processors, graph.successors
    pending, starts = list(graph.dependencies), [0.0] * len(durations)
    left = dependency_sums(graph.successors)
    gains = [0.0] * len(durations)
    waiting = [True] * len(durations)
    ready: list[list[tuple[float, int]]] = [[] for _ in signs]

    def last_dependency_left(task: int) -> None:
        dependency = left[task]
        gains[dependency] += signs[processors[dependency]] * durations[task]
        if waiting[dependency] and not pending[dependency]:
            heapq.heappush(ready[processors[dependency]], (-gains[dependency], dependency))

    for task, count in enumerate(pending):
        if count == 0:
            heapq.heappush(ready[processors[task]], (-gains[task], task))
        elif count == 1:
            last_dependency_left(task)
    busy = [False] * len(ready)
    ends: list[tuple[float, int]] = []
    now = 0.0
    while True:
        for processor, queue in enumerate(ready):
            while queue and not busy[processor]:
                cost, task = heapq.heappop(queue)
                if waiting[task] and cost == -gains[task]:
                    waiting[task], busy[processor], starts[task] = False, True, now
                    heapq.heappush(ends, (now + durations[task], task))
        if not ends:
            return starts
        now = ends[0][0]
        while ends and ends[0][0] == now:
            ended = heapq.heappop(ends)[1]
            busy[processors[ended]] = False
            for task in successors[ended]:
                pending[task] -= 1
                left[task] -= ended
                if pending[task] == 0:
                    heapq.heappush(ready[processors[task]], (-gains[task], task))
                elif pending[task] == 1:
                    last_dependency_left(task)


def dependency_sums(successors: Sequence[Sequence[int]]) -> list[int]:
    """Sum of the dependencies of each task: the dependency itself once only one is left."""
    sums = [0] * len(successors)
    for task, following in enumerate(successors):
        for successor in following:
            sums[successor] += task
    return sums
