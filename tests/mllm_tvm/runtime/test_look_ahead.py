"""The look-ahead policy's candidates."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from mllm_tvm.runtime.list_schedule import ScheduleGraph, dispatch_starts, lower_bound, serial_starts, tails
from mllm_tvm.runtime.paper_rule import paper_starts
from mllm_tvm.runtime.scheduler import simulate
from mllm_tvm.runtime.tasks import Task, initial_state


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
    graph = ScheduleGraph.of(initial_state(tasks)[0])
    names = dict.fromkeys(task.processor for task in tasks)
    starts = paper_starts(graph, [1.0 if name == "cpu" else -1.0 for name in names])
    processors = tuple(names)
    assert {s.task.id: s.start for s in simulate(tasks, "paper", processors)} == dict(enumerate(starts))


@pytest.mark.parametrize("seed", range(20))
def test_schedules_are_legal_and_no_shorter_than_the_bound(seed: int) -> None:
    tasks = random_tasks(seed)
    graph = ScheduleGraph.of(initial_state(tasks)[0])
    keys = [-tail for tail in tails(graph)]
    for schedule in (dispatch_starts, serial_starts):
        makespan, starts = schedule(graph, keys)
        ends = [start + task.duration for start, task in zip(starts, tasks, strict=True)]
        assert makespan == max(ends)
        assert all(ends[dep] <= starts[task.id] for task in tasks for dep in task.deps)
        for name in ("cpu", "npu"):
            mine = sorted((starts[t.id], ends[t.id]) for t in tasks if t.processor == name)
            assert all(a[1] <= b[0] for a, b in pairwise(mine))
        assert makespan >= lower_bound(graph, tails(graph)) - 1e-12


def test_reversed_graph() -> None:
    tasks = (Task(0, "cpu", (), 1.0), Task(1, "npu", (0,), 2.0), Task(2, "cpu", (0, 1), 3.0))
    graph = ScheduleGraph.of(initial_state(tasks)[0])
    assert tails(graph) == [6.0, 5.0, 3.0]
    assert tails(graph.reversed()) == [6.0, 3.0, 1.0]
    assert graph.reversed().reversed().durations == graph.durations
