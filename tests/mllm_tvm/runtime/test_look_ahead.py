"""The look-ahead policy's candidates."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from math import inf

import pytest

from mllm_tvm.runtime import look_ahead
from mllm_tvm.runtime.list_schedule import ScheduleGraph, dispatch_starts, lower_bound, serial_starts, tails
from mllm_tvm.runtime.paper_rule import paper_starts
from mllm_tvm.runtime.scheduler import Scheduler, run_on_virtual_clock, simulate
from mllm_tvm.runtime.tasks import Program, Task


def random_tasks(seed: int) -> tuple[Task, ...]:
    rng = random.Random(seed)
    return tuple(
        Task(
            i,
            rng.choice(("cpu", "npu")),
            tuple(rng.sample(range(i), min(i, rng.randrange(4)))),
            rng.choice((0.0, 1.0, 1.0, 2.5)),
        )
        for i in range(rng.choice((1, 10, 60)))
    )


@pytest.mark.parametrize("seed", range(40))
def test_the_fast_paper_rule_is_the_online_one(seed: int) -> None:
    tasks = random_tasks(seed)
    graph = ScheduleGraph.of(Program.of(tasks))
    names = dict.fromkeys(task.processor for task in tasks)
    starts = paper_starts(graph, [1.0 if name == "cpu" else -1.0 for name in names])
    processors = tuple(names)
    assert {s.task.id: s.start for s in simulate(tasks, "paper", processors)} == dict(enumerate(starts))


@pytest.mark.parametrize("seed", range(20))
def test_schedules_are_legal_and_no_shorter_than_the_bound(seed: int) -> None:
    tasks = random_tasks(seed)
    graph = ScheduleGraph.of(Program.of(tasks))
    keys = [-tail for tail in tails(graph)]
    for makespan, starts in (dispatch_starts(graph, keys), serial_starts(graph, keys)):
        ends = [start + task.duration for start, task in zip(starts, tasks, strict=True)]
        assert makespan == max(ends)
        assert all(ends[dep] <= starts[task.id] for task in tasks for dep in task.deps)
        for name in ("cpu", "npu"):
            mine = sorted((starts[t.id], ends[t.id]) for t in tasks if t.processor == name)
            assert all(a[1] <= b[0] for a, b in pairwise(mine))
        assert makespan >= lower_bound(graph, tails(graph)) - 1e-12


def test_reversed_graph() -> None:
    tasks = (Task(0, "cpu", (), 1.0), Task(1, "npu", (0,), 2.0), Task(2, "cpu", (0, 1), 3.0))
    graph = ScheduleGraph.of(Program.of(tasks))
    assert tails(graph) == [6.0, 5.0, 3.0]
    assert tails(graph.reversed()) == [6.0, 3.0, 1.0]
    assert graph.reversed().reversed().durations == graph.durations


def test_two_equal_chunks_take_turns() -> None:
    """Six layers whose attention takes longer in the second chunk: dispatching lets both fall into step."""
    tasks: list[Task] = []
    for chunk, attention in enumerate((2.5, 6.0)):
        layer = (("cpu", 0.4), ("npu", 2.5), ("cpu", attention), ("npu", 1.2), ("cpu", 0.4), ("npu", 5.4))
        before: tuple[int, ...] = ()
        for processor, seconds in layer * 6:
            tasks.append(Task(len(tasks), processor, before, seconds, chunk))
            before = (len(tasks) - 1,)
    graph = ScheduleGraph.of(Program.of(tasks))
    to_end = tails(graph)
    dispatched, _ = dispatch_starts(graph, [-tail for tail in to_end])
    makespan = max(span.end for span in simulate(tasks, "ours"))
    assert makespan < 0.9 * dispatched
    assert makespan <= 1.06 * lower_bound(graph, to_end)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("error", [0.1, inf])
def test_schedules_closer_than_the_error_are_as_good(seed: int, error: float) -> None:
    """Within the error of the bound the search may end; otherwise it finds what it finds on exact times."""
    program = Program.of(random_tasks(seed))
    graph = ScheduleGraph.of(program)

    def length(error: float) -> float:
        scheduler = Scheduler(replace(program, duration_error=error))
        return max(span.end for span in run_on_virtual_clock(scheduler, lambda task: None))

    near = (1 + error) * lower_bound(graph, tails(graph)) * (1 + 1e-9)
    assert length(error) <= max(length(0.0), near)


def test_unmeasured_durations_are_not_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def record(graph: ScheduleGraph, keys: Sequence[float]) -> tuple[float, list[float]]:
        compared.append(keys)
        return dispatch_starts(graph, keys)

    monkeypatch.setattr(look_ahead, "dispatch_starts", record)
    program = Program.of(random_tasks(0))
    Scheduler(replace(program, duration_error=inf))
    assert not compared
    Scheduler(program)
    assert compared
