"""Scheduling policies: which ready task a free processor runs next."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from .look_ahead import LookAhead
from .policy import Policy
from .tasks import ScheduleError, TaskState


class Sequential(Policy):
    """Program order, one task at a time over all processors: no overlap."""

    def __init__(self, state: TaskState) -> None:
        super().__init__(state)
        self._next = 0

    def choose(self, processor: str) -> int | None:
        tasks = self._state.tasks
        if self._state.running or self._next == len(tasks) or tasks[self._next].processor != processor:
            return None
        self._next += 1
        return self._next - 1


class InOrder(Policy):
    """Each processor takes its own tasks in program order and waits for the first to become ready."""

    def __init__(self, state: TaskState) -> None:
        super().__init__(state)
        self._queues: dict[str, list[int]] = {}
        for index in reversed(range(len(state.tasks))):
            self._queues.setdefault(state.tasks[index].processor, []).append(index)

    def choose(self, processor: str) -> int | None:
        queue = self._queues.get(processor)
        if not queue or self._state.pending[queue[-1]]:
            return None
        return queue.pop()


class Paper(Policy):
    """The rule of mllm-NPU: run the ready task g with the largest C(g), ties in program order.

    C(g) is the duration of the tasks that become ready when g ends, positive on the CPU and negative on the
    NPU: the CPU hurries to feed the NPU, and the NPU prefers work that does not pile up tasks for the CPU.
    C changes when another dependency of a successor ends, so heap entries are checked when they surface.
    """

    def __init__(self, state: TaskState) -> None:
        super().__init__(state)
        self._gain = [0.0] * len(state.tasks)
        self._ready: set[int] = set()
        self._heaps: dict[str, list[tuple[float, int]]] = {}

    def on_ready(self, task: int) -> None:
        self._ready.add(task)
        self._push(task)

    def on_last_dependency(self, task: int) -> None:
        dependency = self._state.last_dependency[task]
        sign = 1.0 if self._state.tasks[dependency].processor == "cpu" else -1.0
        self._gain[dependency] += sign * self._state.tasks[task].duration
        if dependency in self._ready:
            self._push(dependency)

    def choose(self, processor: str) -> int | None:
        heap = self._heaps.get(processor, [])
        while heap:
            cost, task = heapq.heappop(heap)
            if task in self._ready and cost == -self._gain[task]:
                self._ready.remove(task)
                return task
        return None

    def _push(self, task: int) -> None:
        heap = self._heaps.setdefault(self._state.tasks[task].processor, [])
        heapq.heappush(heap, (-self._gain[task], task))


POLICIES: dict[str, type[Policy]] = {
    "sequential": Sequential,
    "in-order": InOrder,
    "paper": Paper,
    "ours": LookAhead,
}


DEFAULT_POLICY = "ours"


def find_policy(policy: str | Callable[[TaskState], Policy]) -> Callable[[TaskState], Policy]:
    """The policy of that name; a class is returned as it is. Raises ScheduleError."""
    if not isinstance(policy, str):
        return policy
    if policy not in POLICIES:
        raise ScheduleError(f"unknown scheduling policy {policy!r}: expected one of {', '.join(POLICIES)}")
    return POLICIES[policy]
