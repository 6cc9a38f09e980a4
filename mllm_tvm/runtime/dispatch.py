"""Runs the tasks of one pass on worker threads: each free thread asks the scheduler for its next task."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from .scheduler import Scheduler
from .tasks import Span, Task


class Dispatcher:
    """Shares a :class:`Scheduler` between threads, one per processor, until all tasks ended or one failed."""

    def __init__(self, scheduler: Scheduler, on_complete: Callable[[Span], None]) -> None:
        """``on_complete`` is called for each ended task, by one thread at a time."""
        self.error: BaseException | None = None
        self.spans: list[Span] = []
        self._scheduler = scheduler
        self._on_complete = on_complete
        self._changed = threading.Condition()
        self._origin = time.perf_counter()

    def serve(self, processor: str, execute: Callable[[Task], None]) -> None:
        """Run the tasks of one processor with ``execute`` until the pass is over.

        An exception ends the pass for all threads and is kept in ``error``.
        """
        task = None
        try:
            with self._changed:
                task = self._take(processor)
            while task is not None:
                start = time.perf_counter()
                execute(task)
                task = self._exchange(task, start, processor)
        except BaseException as error:
            if task is not None:
                error.add_note(f"while running {task.name!r} of chunk {task.chunk} on the {processor}")
            self.abort(error)

    def abort(self, error: BaseException) -> None:
        """Hand out no more tasks; running ones end. Only the first error is kept."""
        with self._changed:
            self.error = self.error or error
            self._changed.notify_all()

    def _exchange(self, task: Task, start: float, processor: str) -> Task | None:
        """The ended task for the next one."""
        span = Span(task, start - self._origin, time.perf_counter() - self._origin)
        with self._changed:
            self.spans.append(span)
            self._on_complete(span)
            self._scheduler.complete(task)
            self._changed.notify_all()
            return self._take(processor)

    def _take(self, processor: str) -> Task | None:
        """Waits for a task of the processor, None at the end of the pass; call with the lock."""
        while self.error is None and self._scheduler.unfinished:
            task = self._scheduler.next(processor)
            if task is not None:
                return task
            self._changed.wait()
        return None
