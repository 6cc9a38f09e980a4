"""Out-of-order scheduling of tasks on processors, with no clock of its own.

:class:`Scheduler` is the online part: ask :meth:`Scheduler.next` when a processor is free, tell
:meth:`Scheduler.complete` when a task ended. Real workers and :func:`simulate` drive the same code.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Sequence

from .policies import DEFAULT_POLICY, Policy, find_policy
from .tasks import PROCESSORS, ScheduleError, Span, Task, TaskState, initial_state, program_order


class Scheduler:
    """The online scheduler of one run. Not locked: the caller serializes the calls.

    The program order is the order of ``tasks``; a task listed before one of its dependencies moves behind it.
    Raises ScheduleError for a duplicate id, a missing dependency, a cycle, an unknown processor or policy.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        policy: str | Callable[[TaskState], Policy] = DEFAULT_POLICY,
        processors: Sequence[str] = PROCESSORS,
    ) -> None:
        begin = time.thread_time()
        self.decisions = 0
        """Tasks given out."""
        ordered = program_order(tasks, processors)
        self._state, dependencies = initial_state(ordered)
        self._index = {task.id: index for index, task in enumerate(ordered)}
        self._running: set[int] = set()
        self._policy = find_policy(policy)(self._state)
        self.unfinished = len(ordered)
        for index, count in enumerate(dependencies):
            self._announce(index, count)
        self.seconds = time.thread_time() - begin
        """Processor time that scheduling took so far, planning included: no waiting for a busy machine."""

    def next(self, processor: str) -> Task | None:
        """The task ``processor`` should start now; None when it has to wait for a task to complete."""
        begin = time.thread_time()
        index = self._policy.choose(processor)
        if index is not None:
            self._running.add(index)
            self._state.running += 1
            self.decisions += 1
        self.seconds += time.thread_time() - begin
        return None if index is None else self._state.tasks[index]

    def complete(self, task: Task) -> None:
        """Note that a task given out by :meth:`next` ended; raises ScheduleError for any other."""
        begin = time.thread_time()
        index = self._index.get(task.id, -1)
        if index not in self._running:
            raise ScheduleError(f"task {task.id} {task.name!r} is not running: it cannot complete")
        self._running.remove(index)
        self._state.running -= 1
        self.unfinished -= 1
        for successor in self._state.successors[index]:
            self._state.pending[successor] -= 1
            self._state.last_dependency[successor] -= index
            self._announce(successor, self._state.pending[successor])
        self.seconds += time.thread_time() - begin

    def _announce(self, index: int, pending: int) -> None:
        if pending == 0:
            self._policy.on_ready(index)
        elif pending == 1:
            self._policy.on_last_dependency(index)


def simulate(
    tasks: Sequence[Task],
    policy: str | Callable[[TaskState], Policy] = DEFAULT_POLICY,
    processors: Sequence[str] = PROCESSORS,
) -> tuple[Span, ...]:
    """Run ``tasks`` on a virtual clock, each for its ``duration``; spans in order of their start."""
    return run_on_virtual_clock(Scheduler(tasks, policy, processors), _compute_nothing, None, processors)


def run_on_virtual_clock(
    scheduler: Scheduler,
    execute: Callable[[Task], None],
    on_complete: Callable[[Span], None] | None = None,
    processors: Sequence[str] = PROCESSORS,
) -> tuple[Span, ...]:
    """Run the tasks of ``scheduler`` one at a time while time is what their durations say.

    ``execute`` computes a task when it starts on the virtual clock: its dependencies have ended by then, on
    this clock and for real. ``on_complete`` is called in the order of the virtual ends. Spans are in virtual
    seconds, in order of their start.
    """
    idle, now = set(processors), 0.0
    ends: list[tuple[float, int]] = []
    spans: list[Span] = []
    while True:
        for processor in [p for p in processors if p in idle]:
            task = scheduler.next(processor)
            if task is not None:
                execute(task)
                idle.remove(processor)
                heapq.heappush(ends, (now + task.duration, len(spans)))
                spans.append(Span(task, now, now + task.duration))
        if not ends:
            return tuple(spans)
        now = ends[0][0]
        while ends and ends[0][0] == now:
            span = spans[heapq.heappop(ends)[1]]
            scheduler.complete(span.task)
            idle.add(span.task.processor)
            if on_complete is not None:
                on_complete(span)


def _compute_nothing(_task: Task) -> None:
    """A simulation has no values."""
