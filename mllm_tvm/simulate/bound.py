"""Lower bound of a schedule's length, by relaxing all processors but one.

On one processor every task has a head (the longest path to it) and a tail (the longest path from its end).
The best preemptive schedule of such tasks, which Jackson's rule finds (always the available task with the
longest tail), is no longer than any schedule of the whole graph.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from mllm_tvm.runtime.list_schedule import ScheduleGraph, tails


def prefill_bound(graph: ScheduleGraph) -> float:
    """Seconds that no order of the tasks can beat."""
    to_end = tails(graph)
    from_end = tails(graph.reversed())
    heads = [length - own for length, own in zip(reversed(from_end), graph.durations, strict=True)]
    bound = max(to_end, default=0.0)
    for processor in sorted(set(graph.processors)):
        tasks = [task for task, on in enumerate(graph.processors) if on == processor]
        bound = max(bound, _one_processor(graph.durations, heads, to_end, tasks))
    return bound


def _one_processor(
    durations: Sequence[float], heads: Sequence[float], to_end: Sequence[float], tasks: Sequence[int]
) -> float:
    """Length of Jackson's preemptive schedule, tails included."""
    arrivals = sorted(tasks, key=lambda task: heads[task], reverse=True)
    waiting: list[tuple[float, int]] = []
    left = {task: durations[task] for task in tasks}
    now = bound = 0.0
    while arrivals or waiting:
        if not waiting:
            now = max(now, heads[arrivals[-1]])
        while arrivals and heads[arrivals[-1]] <= now:
            task = arrivals.pop()
            heapq.heappush(waiting, (durations[task] - to_end[task], task))
        minus_tail, task = waiting[0]
        end = now + left[task]
        if not arrivals or end <= heads[arrivals[-1]]:
            heapq.heappop(waiting)
            bound = max(bound, end - minus_tail)
            now = end
        else:
            left[task] -= heads[arrivals[-1]] - now
            now = heads[arrivals[-1]]
    return bound
