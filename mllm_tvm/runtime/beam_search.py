"""Beam search over active schedules: a bounded look-ahead that is near the optimum on small graphs.

A partial schedule is extended by the tasks that could start on the processor whose next completion is the
earliest, before that completion (Giffler and Thompson); some schedule of this kind is optimal. The most
promising partial schedules are kept at each step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .list_schedule import ScheduleGraph


@dataclass(slots=True)
class _Partial:
    """A schedule of some tasks."""

    bound: float
    """No completion of it is shorter."""
    eligible: dict[int, float]
    """Tasks whose dependencies are scheduled, and when those end."""
    free: list[float]
    """When each processor ends its last task."""
    work: list[float]
    """Seconds of unscheduled tasks of each processor."""
    pending: list[int]
    ready: list[float]
    order: tuple[int, ...]

    def key(self, exact: bool) -> object:
        """Partial schedules with the same key have the same completions; not exact: much the same."""
        same = (frozenset(self.order), tuple(self.free))
        if not exact:
            return same
        waiting = tuple(at for at, count in zip(self.ready, self.pending, strict=True) if count)
        return (*same, tuple(sorted(self.eligible.items())), waiting)


def beam_search(
    graph: ScheduleGraph, to_end: Sequence[float], width: int, shorter_than: float, exact: bool
) -> list[int] | None:
    """The order of a schedule shorter than ``shorter_than`` seconds, None when none was found.

    ``to_end`` is :func:`~.list_schedule.tails`; at most ``width`` partial schedules are kept. With ``exact``
    only equal ones are merged, otherwise all with the same tasks that leave the processors alike, which
    keeps more variety.
    """
    kept = [_empty(graph)]
    for _ in graph.durations:
        found = [new for partial in kept for new in _extensions(graph, to_end, partial, shorter_than)]
        if not found:
            return None
        found.sort(key=lambda partial: (partial.bound, sum(partial.free)))
        distinct: dict[object, _Partial] = {}
        for partial in found:
            distinct.setdefault(partial.key(exact), partial)
            if len(distinct) == width:
                break
        kept = list(distinct.values())
    return list(kept[0].order)


def _empty(graph: ScheduleGraph) -> _Partial:
    processors = max(graph.processors, default=-1) + 1
    work = [0.0] * processors
    for duration, processor in zip(graph.durations, graph.processors, strict=True):
        work[processor] += duration
    eligible = {task: 0.0 for task, count in enumerate(graph.dependencies) if not count}
    ready = [0.0] * len(graph.durations)
    return _Partial(0.0, eligible, [0.0] * processors, work, list(graph.dependencies), ready, ())


def _extensions(
    graph: ScheduleGraph, to_end: Sequence[float], partial: _Partial, shorter_than: float
) -> Iterator[_Partial]:
    durations, processors, free = graph.durations, graph.processors, partial.free
    starts = {task: max(ready, free[processors[task]]) for task, ready in partial.eligible.items()}
    first = min(starts, key=lambda task: starts[task] + durations[task])
    completion, processor = starts[first] + durations[first], processors[first]
    for task, start in starts.items():
        if processors[task] == processor and (start < completion or task == first):
            new = _extended(graph, partial, task, start)
            new.bound = _bound(graph, to_end, new, max(partial.bound, start + to_end[task]))
            if new.bound < shorter_than:
                yield new


def _extended(graph: ScheduleGraph, partial: _Partial, task: int, start: float) -> _Partial:
    processor, end = graph.processors[task], start + graph.durations[task]
    eligible, free, work = dict(partial.eligible), list(partial.free), list(partial.work)
    pending, ready = list(partial.pending), list(partial.ready)
    del eligible[task]
    free[processor] = end
    work[processor] -= graph.durations[task]
    for successor in graph.successors[task]:
        ready[successor] = max(ready[successor], end)
        pending[successor] -= 1
        if not pending[successor]:
            eligible[successor] = ready[successor]
    return _Partial(0.0, eligible, free, work, pending, ready, (*partial.order, task))


def _bound(graph: ScheduleGraph, to_end: Sequence[float], partial: _Partial, bound: float) -> float:
    for task, ready in partial.eligible.items():
        bound = max(bound, max(ready, partial.free[graph.processors[task]]) + to_end[task])
    for end, work in zip(partial.free, partial.work, strict=True):
        bound = max(bound, end + work)
    return bound
