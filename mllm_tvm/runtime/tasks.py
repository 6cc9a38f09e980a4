"""Tasks and their program order: plain Python, no tensors."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from targets.errors import MllmTvmError

PROCESSORS = ("cpu", "npu")


class ScheduleError(MllmTvmError):
    """Tasks that cannot be scheduled, or an unknown scheduling policy."""


class Task(NamedTuple):
    """A unit of work that runs on one processor without interruption.

    ``deps`` are the ids of the tasks that must end first, ``duration`` the expected seconds, ``chunk``,
    ``position`` and ``layer`` the place in the model (the program order is the order of the tasks).
    """

    id: int
    processor: str
    deps: tuple[int, ...] = ()
    duration: float = 0.0
    chunk: int = 0
    position: int = 0
    name: str = ""
    layer: int = -1


class Span(NamedTuple):
    """When a task ran, in seconds since the run began."""

    task: Task
    start: float
    end: float


@dataclass(frozen=True)
class Program:
    """Tasks in program order, each behind its dependencies; they are known by their index in ``tasks``."""

    tasks: tuple[Task, ...]
    successors: Sequence[Sequence[int]]
    """The tasks that need each task."""
    dependencies: Sequence[int]
    """Number of dependencies of each task."""
    duration_error: float = 0.0
    """Relative error to expect of the durations; infinite when nothing like them was measured."""

    @staticmethod
    def of(tasks: Sequence[Task], processors: Sequence[str] = PROCESSORS) -> Program:
        """The program of checked ``tasks``; one listed before a dependency moves behind it.

        Raises ScheduleError for a duplicate id, a missing dependency, a cycle or an unknown processor.
        """
        ordered = program_order(tasks, processors)
        index = {task.id: position for position, task in enumerate(ordered)}
        needs = [{index[dep] for dep in task.deps} for task in ordered]
        return Program(ordered, transposed(needs), [len(needed) for needed in needs])


def transposed(needs: Sequence[Iterable[int]]) -> list[tuple[int, ...]]:
    """The tasks that need each task, from those that each task needs; both known by their index."""
    successors: list[list[int]] = [[] for _ in needs]
    for index, needed in enumerate(needs):
        for dependency in needed:
            successors[dependency].append(index)
    return [tuple(following) for following in successors]


def program_order(tasks: Sequence[Task], processors: Sequence[str] = PROCESSORS) -> tuple[Task, ...]:
    """``tasks`` with each behind its dependencies, otherwise in the given order; raises ScheduleError."""
    index = _check_tasks(tasks, processors)
    if all(index[dep] < position for position, task in enumerate(tasks) for dep in task.deps):
        return tuple(tasks)
    needs = [{index[dep] for dep in task.deps} for task in tasks]
    pending, successors = [len(needed) for needed in needs], transposed(needs)
    heap = [position for position, count in enumerate(pending) if count == 0]
    ordered: list[Task] = []
    while heap:
        position = heapq.heappop(heap)
        ordered.append(tasks[position])
        for successor in successors[position]:
            pending[successor] -= 1
            if pending[successor] == 0:
                heapq.heappush(heap, successor)
    if len(ordered) < len(tasks):
        raise ScheduleError(f"tasks depend on each other: {_describe_cycle(tasks, ordered, index)}")
    return tuple(ordered)


def _check_tasks(tasks: Sequence[Task], processors: Sequence[str]) -> dict[int, int]:
    index: dict[int, int] = {}
    for position, task in enumerate(tasks):
        if task.id in index:
            raise ScheduleError(f"task id {task.id} is used twice ({task.name!r}): ids must be unique")
        if task.processor not in processors:
            known = ", ".join(processors)
            where = f"task {task.id} {task.name!r} is for processor {task.processor!r}"
            raise ScheduleError(f"{where}: there are {known}")
        index[task.id] = position
    for task in tasks:
        for dep in task.deps:
            if dep not in index:
                raise ScheduleError(f"task {task.id} {task.name!r} depends on task {dep}: there is none")
    return index


def _describe_cycle(tasks: Sequence[Task], ordered: list[Task], index: dict[int, int]) -> str:
    """A cycle among the tasks that could not be ordered, as ``0 -> 1 -> 0``."""
    done = {task.id for task in ordered}
    current = next(task.id for task in tasks if task.id not in done)
    path: list[int] = []
    while current not in path:
        path.append(current)
        current = next(dep for dep in tasks[index[current]].deps if dep not in done)
    cycle = [*path[path.index(current) :], current]
    return " -> ".join(str(task) for task in reversed(cycle))
