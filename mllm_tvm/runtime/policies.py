"""Scheduling policies: which ready task a free processor runs next."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from .look_ahead import look_ahead
from .paper_rule import dependency_sums
from .policy import InOrder, Policy
from .tasks import Program, ScheduleError


class Sequential(Policy):
    """Program order, one task at a time over all processors: no overlap."""

    def __init__(self, program: Program) -> None:
        super().__init__(program)
        self._next = 0
        self._running = False

    def start(self) -> None:
        super().start()
        self._next, self._running = 0, False

    def complete(self, task: int) -> None:
        super().complete(task)
        self._running = False

    def choose(self, processor: str) -> int | None:
        tasks = self.program.tasks
        if self._running or self._next == len(tasks) or tasks[self._next].processor != processor:
            return None
        self._running = True
        self._next += 1
        return self._next - 1


class Paper(Policy):
    """The rule of mllm-NPU: run the ready task g with the largest C(g), ties in program order.

    C(g) is the duration of the tasks that become ready when g ends, positive on the CPU and negative on the
    NPU: the CPU hurries to feed the NPU, and the NPU prefers work that does not pile up tasks for the CPU.
    C changes when another dependency of a successor ends, so heap entries are checked when they surface.
    """

    def __init__(self, program: Program) -> None:
        super().__init__(program)
        self._sums = dependency_sums(program.successors)
        self._left: list[int] = []
        """Sum of the unfinished dependencies of each task: the dependency itself once only one is left."""
        self._gain: list[float] = []
        self._ready: set[int] = set()
        self._heaps: dict[str, list[tuple[float, int]]] = {}

    def start(self) -> None:
        self._left = list(self._sums)
        self._gain = [0.0] * len(self._sums)
        self._ready.clear()
        self._heaps.clear()
        super().start()
        for task, count in enumerate(self.pending):
            if count == 1:
                self._on_last_dependency(task)

    def complete(self, task: int) -> None:
        super().complete(task)
        for successor in self.program.successors[task]:
            self._left[successor] -= task
            if self.pending[successor] == 1:
                self._on_last_dependency(successor)

    def on_ready(self, task: int) -> None:
        self._ready.add(task)
        self._push(task)

    def choose(self, processor: str) -> int | None:
        heap = self._heaps.get(processor, [])
        while heap:
            cost, task = heapq.heappop(heap)
            if task in self._ready and cost == -self._gain[task]:
                self._ready.remove(task)
                return task
        return None

    def _on_last_dependency(self, task: int) -> None:
        tasks, dependency = self.program.tasks, self._left[task]
        sign = 1.0 if tasks[dependency].processor == "cpu" else -1.0
        self._gain[dependency] += sign * tasks[task].duration
        if dependency in self._ready:
            self._push(dependency)

    def _push(self, task: int) -> None:
        heap = self._heaps.setdefault(self.program.tasks[task].processor, [])
        heapq.heappush(heap, (-self._gain[task], task))


PolicyOf = Callable[[Program], Policy]
"""Makes the policy of a program, planning included."""

POLICIES: dict[str, PolicyOf] = {
    "sequential": Sequential,
    "in-order": InOrder,
    "paper": Paper,
    "ours": look_ahead,
}


DEFAULT_POLICY = "ours"


def find_policy(policy: str | PolicyOf) -> PolicyOf:
    """The policy of that name; one that has none is returned as it is. Raises ScheduleError."""
    if not isinstance(policy, str):
        return policy
    if policy not in POLICIES:
        raise ScheduleError(f"unknown scheduling policy {policy!r}: expected one of {', '.join(POLICIES)}")
    return POLICIES[policy]
