"""The look-ahead policy: compares a bounded number of schedules before the run and follows the best.

What makes a schedule good here is that chunks are out of phase: while one is in its float functions another
keeps the NPU busy. So the candidates order tasks by the length of the path that begins with them (critical
path), with each chunk held back by a few tasks against the one before, and short tasks first: they are soon
done, and give the other processor something to do. Often a processor had better wait for a task on purpose:
so chunks also take turns strictly, and small graphs are searched with a beam over schedules that wait.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isinf

from .beam_search import beam_search
from .list_schedule import ScheduleGraph, dispatch_starts, lower_bound, serial_starts, tails
from .paper_rule import paper_starts
from .policy import ByKey, InOrder, Policy
from .tasks import Program

ORDERS = ((1.0, 12.0), (2.0, 1.0))
"""How far each chunk is held back, in mean tasks of the critical path, and how far a task, in its own
durations; likeliest first."""
FIRST_LAG, LAG = 0.9, 1.2
"""How far each chunk is behind, in NPU tasks, when chunks take turns: with its first task, and then."""
NEAR = 1.002
"""With a schedule this near to the lower bound only the paper's is still compared."""
SMALL = 40
"""Up to this many tasks a graph is searched with a beam too."""
BEAMS = ((40, False), (40, True), (120, True))
"""Its widths, and whether only equal partial schedules are merged."""
_ROUNDING = 1.0 + 1e-9
"""A schedule as short as the lower bound, but for rounding, ends the look-ahead."""


def look_ahead(program: Program) -> Policy:
    """Follows the best schedule that a bounded look-ahead finds; never worse than the paper's on exact times.

    Where the best schedule leaves a processor idle on purpose it waits; otherwise the planned order is a
    priority only, and a free processor always takes the first ready task. Schedules are not told apart by
    less than the error of the durations; with durations that nobody measured none are compared, and one
    chunk follows the program.
    """
    tasks = program.tasks
    if tasks and tasks[0].chunk == tasks[-1].chunk and isinf(program.duration_error):
        return ByKey(program, range(len(tasks)))
    return _Search(program).policy()


class _Search:
    """Tries schedules and keeps the shortest."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._graph = ScheduleGraph.of(program)
        self._chunks = [task.chunk for task in program.tasks]
        self._has_chunks = any(self._chunks)
        """Whether there is more than one."""
        self._tails = tails(self._graph)
        self._best = float("inf")
        self._keys: Sequence[float] = ()
        self._waits = False
        """Whether the best schedule is one in which processors may wait for the task with the next key."""

    def policy(self) -> Policy:
        """What follows the best schedule."""
        if isinf(self._program.duration_error):
            self._keys = next(self._orders())
        else:
            self._compare(lower_bound(self._graph, self._tails) * (1 + self._program.duration_error))
        if self._waits:
            return InOrder(self._program, sorted(range(len(self._keys)), key=self._keys.__getitem__))
        return ByKey(self._program, self._keys)

    def _compare(self, bound: float) -> None:
        good_enough = bound * _ROUNDING
        for makespan, keys, waits in self._schedules():
            self._keep(makespan, keys, waits)
            if self._best <= good_enough:
                return
            if self._best <= good_enough * NEAR:
                break
        keys = self._paper_starts()
        self._keep(dispatch_starts(self._graph, keys)[0], keys, waits=False)
        if len(self._chunks) <= SMALL:
            self._search_small()

    def _schedules(self) -> Iterator[tuple[float, Sequence[float], bool]]:
        """Makespan and keys of one schedule after the other, and whether processors wait in it."""
        for tried, keys in enumerate(self._orders()):
            yield dispatch_starts(self._graph, keys)[0], keys, False
            if self._has_chunks and not tried:
                yield *serial_starts(self._graph, self._turns()), True

    def _keep(self, makespan: float, keys: Sequence[float], waits: bool) -> None:
        if makespan < self._best:
            self._best, self._keys, self._waits = makespan, keys, waits

    def _orders(self) -> Iterator[list[float]]:
        if not self._has_chunks:
            yield [-tail for tail in self._tails]
            return
        step = self._mean_step()
        columns = list(zip(self._chunks, self._graph.durations, self._tails, strict=True))
        for stagger, weight in ORDERS:
            delay = stagger * step
            yield [delay * chunk + weight * duration - tail for chunk, duration, tail in columns]

    def _turns(self) -> list[float]:
        """Keys by how many tasks of the chunk the NPU has had; equal ones follow the program."""
        keys, had = [], [0] * (max(self._chunks) + 1)
        for chunk, task in zip(self._chunks, self._program.tasks, strict=True):
            keys.append(had[chunk] + (LAG if had[chunk] else FIRST_LAG) * chunk)
            had[chunk] += task.processor != "cpu"
        return keys

    def _mean_step(self) -> float:
        """Mean duration of the tasks on the critical path, but for the longest twentieth (set-up)."""
        durations, to_end = [], self._tails.__getitem__
        task: int | None = max(range(len(self._tails)), key=to_end, default=None)
        while task is not None:
            durations.append(self._graph.durations[task])
            following = self._graph.successors[task]
            task = following[0] if len(following) == 1 else max(following, key=to_end, default=None)
        usual = sorted(durations)[: len(durations) - len(durations) // 20]
        return sum(usual) / max(len(usual), 1)

    def _paper_starts(self) -> list[float]:
        names = dict.fromkeys(task.processor for task in self._program.tasks)
        return paper_starts(self._graph, [1.0 if name == "cpu" else -1.0 for name in names])

    def _search_small(self) -> None:
        """Beam search, over ever more schedules, until one is as short as the lower bound."""
        for width, exact in BEAMS:
            order = beam_search(self._graph, self._tails, width, self._best, exact)
            if order is not None:
                position = {task: place for place, task in enumerate(order)}
                keys = [float(position[task]) for task in range(len(order))]
                self._keep(*serial_starts(self._graph, keys), waits=True)
