"""Out-of-order scheduling of tasks on processors, with no clock of its own.

:class:`Scheduler` is the online part: ask :meth:`Scheduler.next` when a processor is free, tell
:meth:`Scheduler.complete` when a task ended. Real workers and :func:`simulate` drive the same code.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Sequence

from .policies import DEFAULT_POLICY, PolicyOf, find_policy
from .tasks import PROCESSORS, Program, ScheduleError, Span, Task


class Scheduler:
    """The online scheduler of a program, for any number of runs. Not locked: the caller serializes the calls.

    Raises ScheduleError for an unknown policy.
    """

    def __init__(self, program: Program, policy: str | PolicyOf = DEFAULT_POLICY) -> None:
        self._tasks = program.tasks
        self._policy = find_policy(policy)(program)
        self.start()

    def start(self) -> None:
        """Begin a run, in which no task has ended; also after one that was not finished."""
        self.decisions = 0
        """Tasks given out in this run."""
        self.unfinished = len(self._tasks)
        self.seconds = 0.0
        """What the decisions of this run took, by the wall clock: interruptions count, but reading a thread's
        processor time instead takes as long as a fifth of a decision."""
        self._running: dict[str, int] = {}
        self._policy.start()

    def next(self, processor: str) -> Task | None:
        """The task ``processor`` should start now; None when it has to wait for a task to complete."""
        begin = time.perf_counter()
        index = self._policy.choose(processor)
        if index is None:
            task = None
        else:
            task = self._tasks[index]
            self._running[processor] = index
            self.decisions += 1
        self.seconds += time.perf_counter() - begin
        return task

    def complete(self, task: Task) -> None:
        """Note that a task given out by :meth:`next` ended; raises ScheduleError for any other."""
        begin = time.perf_counter()
        index = self._running.get(task.processor)
        if index is None or self._tasks[index] is not task:
            raise ScheduleError(f"task {task.id} {task.name!r} is not running: it cannot complete")
        del self._running[task.processor]
        self.unfinished -= 1
        self._policy.complete(index)
        self.seconds += time.perf_counter() - begin


def simulate(
    tasks: Sequence[Task],
    policy: str | PolicyOf = DEFAULT_POLICY,
    processors: Sequence[str] = PROCESSORS,
) -> tuple[Span, ...]:
    """Run ``tasks`` on a virtual clock, each for its ``duration``; spans in order of their start.

    Raises ScheduleError for tasks that :meth:`~.tasks.Program.of` rejects, or an unknown policy.
    """
    scheduler = Scheduler(Program.of(tasks, processors), policy)
    return run_on_virtual_clock(scheduler, _compute_nothing, None, processors)


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
