"""Scheduling: legality on random graphs, what each policy does, the paper's rule, and errors."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from math import inf
from types import FrameType

import pytest
from runtime_fakes import RandomOrder

from mllm_tvm.runtime.policies import POLICIES
from mllm_tvm.runtime.scheduler import Scheduler, run_on_virtual_clock, simulate
from mllm_tvm.runtime.tasks import Program, ScheduleError, Span, Task, program_order


def makespan(spans: tuple[Span, ...]) -> float:
    return max(span.end for span in spans)


def random_tasks(seed: int, count: int = 60) -> list[Task]:
    """A random graph, listed in an order that does not respect its dependencies."""
    rng = random.Random(seed)
    tasks = []
    for i in range(count):
        deps = tuple(rng.sample(range(i), min(i, rng.randrange(4))))
        tasks.append(Task(i, rng.choice(["cpu", "npu"]), deps, rng.choice([0.0, 1.0, 2.5])))
    if seed % 2:
        rng.shuffle(tasks)
    return tasks


def check_legal(tasks: list[Task], spans: tuple[Span, ...]) -> None:
    assert sorted(span.task.id for span in spans) == sorted(task.id for task in tasks)
    ends = {span.task.id: span.end for span in spans}
    for span in spans:
        assert all(ends[dep] <= span.start for dep in span.task.deps)
    for processor in ("cpu", "npu"):
        mine = [span for span in spans if span.task.processor == processor]
        assert all(a.end <= b.start for a, b in pairwise(mine))


@pytest.mark.parametrize("policy", [*POLICIES, RandomOrder])
def test_random_graphs_complete_legally(policy: str) -> None:
    for seed in range(50):
        tasks = random_tasks(seed)
        check_legal(tasks, simulate(tasks, policy))


def test_sequential_runs_one_task_at_a_time() -> None:
    for seed in range(20):
        spans = simulate(random_tasks(seed), "sequential")
        assert all(a.end <= b.start for a, b in pairwise(spans))
        assert makespan(spans) == sum(span.task.duration for span in spans)


def test_in_order_keeps_program_order_on_each_processor() -> None:
    for seed in range(20):
        tasks = random_tasks(seed)
        order = [task.id for task in program_order(tasks)]
        for processor in ("cpu", "npu"):
            ran = [s.task.id for s in simulate(tasks, "in-order") if s.task.processor == processor]
            assert ran == sorted(ran, key=order.index)


def two_chunks() -> list[Task]:
    """Per chunk: norm (CPU) -> linear (NPU) -> attention (CPU, needs both chunks' linears in chunk 1)."""
    return [
        Task(0, "cpu", (), 1.0, 0, 0, "norm"),
        Task(1, "npu", (0,), 3.0, 0, 1, "linear"),
        Task(2, "cpu", (1,), 4.0, 0, 2, "attention"),
        Task(3, "cpu", (), 1.0, 1, 0, "norm"),
        Task(4, "npu", (3,), 3.0, 1, 1, "linear"),
        Task(5, "cpu", (1, 4), 4.0, 1, 2, "attention"),
    ]


def test_policies_on_two_chunks() -> None:
    """By hand. In order, chunk 1's norm waits behind chunk 0's attention; out of order it fills the gap."""
    assert makespan(simulate(two_chunks(), "sequential")) == 16.0
    assert makespan(simulate(two_chunks(), "in-order")) == 16.0
    out_of_order = simulate(two_chunks(), "paper")
    assert makespan(out_of_order) == 12.0
    assert [s.task.id for s in out_of_order if s.task.processor == "cpu"] == [0, 3, 2, 5]


def test_paper_runs_the_cpu_task_that_releases_most_work() -> None:
    tasks = [
        Task(0, "cpu", (), 1.0),
        Task(1, "cpu", (), 1.0),
        Task(2, "npu", (0,), 2.0),
        Task(3, "npu", (1,), 5.0),
    ]
    spans = simulate(tasks, "paper")
    assert [s.task.id for s in spans if s.task.processor == "cpu"] == [1, 0]
    assert makespan(spans) == 8.0


def test_paper_runs_the_npu_task_that_releases_least_work() -> None:
    tasks = [
        Task(0, "npu", (), 1.0),
        Task(1, "npu", (), 1.0),
        Task(2, "cpu", (0,), 5.0),
        Task(3, "cpu", (1,), 2.0),
    ]
    assert [s.task.id for s in simulate(tasks, "paper") if s.task.processor == "npu"] == [1, 0]


def test_paper_counts_only_tasks_that_become_ready() -> None:
    """Task 4 waits for 2 as well, so ending 1 releases nothing, until 2 has ended."""
    tasks = [
        Task(0, "cpu", (), 1.0),
        Task(1, "cpu", (), 1.0),
        Task(2, "npu", (), 0.5),
        Task(3, "npu", (0,), 1.0),
        Task(4, "npu", (1, 2), 9.0),
        Task(5, "cpu", (), 1.0),
    ]
    order = [s.task.id for s in simulate(tasks, "paper") if s.task.processor == "cpu"]
    assert order == [0, 1, 5]
    scheduler = Scheduler(Program.of(tasks), "paper")
    device = scheduler.next("npu")
    assert device is not None
    scheduler.complete(device)
    first = scheduler.next("cpu")
    assert first is not None
    assert first.id == 1


def test_ties_run_in_program_order() -> None:
    tasks = [Task(i, "cpu", (), 1.0) for i in (5, 3, 9, 1)]
    assert [span.task.id for span in simulate(tasks, "paper")] == [5, 3, 9, 1]


def test_paper_beats_in_order_on_a_deep_model() -> None:
    """Six chunks of a 12-layer model whose attention needs all earlier chunks."""
    tasks: list[Task] = []
    for chunk in range(6):
        for position in range(36):
            kind = position % 3
            processor, duration = [("cpu", 0.5), ("npu", 2.0), ("cpu", 1.0)][kind]
            deps = [chunk * 36 + position - 1] if position else []
            if kind == 2:
                deps = [earlier * 36 + position - 1 for earlier in range(chunk + 1)]
            tasks.append(Task(chunk * 36 + position, processor, tuple(deps), duration, chunk, position))
    times = {policy: makespan(simulate(tasks, policy)) for policy in POLICIES}
    npu_work = sum(task.duration for task in tasks if task.processor == "npu")
    assert npu_work <= times["paper"] < 1.1 * npu_work
    assert times["paper"] < 0.75 * times["in-order"] <= 0.75 * times["sequential"]


def test_cycle() -> None:
    with pytest.raises(
        ScheduleError, match=r"depend on each other: (1 -> 2 -> 3 -> 1|2 -> 3 -> 1 -> 2|3 -> 1 -> 2 -> 3)"
    ):
        Program.of([Task(0, "cpu"), Task(1, "cpu", (3, 0)), Task(2, "npu", (1,)), Task(3, "cpu", (2,))])
    with pytest.raises(ScheduleError, match="depend on each other: 7 -> 7"):
        Program.of([Task(7, "cpu", (7,))])


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([Task(1, "cpu"), Task(1, "npu")], "task id 1 is used twice"),
        ([Task(1, "cpu", (2,), name="norm")], "task 1 'norm' depends on task 2"),
        ([Task(1, "gpu")], "task 1 '' is for processor 'gpu': there are cpu, npu"),
    ],
)
def test_invalid_tasks(tasks: list[Task], message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        Program.of(tasks)


def test_unknown_policy() -> None:
    with pytest.raises(
        ScheduleError, match="unknown scheduling policy 'fifo': expected one of sequential, in-order, paper"
    ):
        Scheduler(Program.of([Task(0, "cpu")]), "fifo")


def test_completing_a_task_that_does_not_run() -> None:
    tasks = [Task(0, "cpu"), Task(1, "cpu", (0,))]
    scheduler = Scheduler(Program.of(tasks))
    with pytest.raises(ScheduleError, match="task 0 '' is not running"):
        scheduler.complete(tasks[0])
    first = scheduler.next("cpu")
    assert first is not None
    scheduler.complete(first)
    with pytest.raises(ScheduleError, match="is not running"):
        scheduler.complete(first)
    with pytest.raises(ScheduleError, match="is not running"):
        scheduler.complete(Task(8, "cpu"))


def test_cost_of_scheduling() -> None:
    """Each task given out is one decision; asking in vain and completing count as time only."""
    tasks = [Task(0, "cpu"), Task(1, "npu", (0,))]
    scheduler = Scheduler(Program.of(tasks))
    assert scheduler.next("npu") is None
    assert scheduler.decisions == 0
    for task in tasks:
        before = scheduler.seconds
        assert scheduler.next(task.processor) == task
        assert scheduler.seconds > before > 0
        before = scheduler.seconds
        scheduler.complete(task)
        assert scheduler.seconds > before
    assert scheduler.decisions == 2
    scheduler.start()
    assert (scheduler.decisions, scheduler.seconds) == (0, 0)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_program_runs_again(policy: str) -> None:
    """The same way, also after a run that ended early."""
    for seed in range(10):
        scheduler = Scheduler(Program.of(random_tasks(seed)), policy)
        first = run_on_virtual_clock(scheduler, lambda task: None)
        scheduler.start()
        for processor in ("cpu", "npu", "cpu"):
            task = scheduler.next(processor)
            if task is not None and processor == "cpu":
                scheduler.complete(task)
        scheduler.start()
        assert run_on_virtual_clock(scheduler, lambda task: None) == first


def test_no_tasks() -> None:
    assert simulate([], "paper") == ()
    assert Scheduler(Program.of([])).next("cpu") is None


def lines_executed(run: Callable[[], object]) -> int:
    """Lines of the runtime's modules that ``run`` executes."""
    count = 0

    def trace(frame: FrameType, event: str, _argument: object) -> object:
        nonlocal count
        if not frame.f_globals["__name__"].startswith("mllm_tvm.runtime"):
            return None
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        run()
    finally:
        sys.settrace(before)
    return count


def layers_of_chunks(layers: int) -> Program:
    """Three chunks of layers: CPU, NPU, CPU; the last needs the NPU tasks of its own and earlier chunks."""
    tasks: list[Task] = []
    for chunk in range(3):
        for position in range(3 * layers):
            processor, duration = [("cpu", 0.5), ("npu", 2.0), ("cpu", 1.0)][position % 3]
            deps = [len(tasks) - 1] if position else []
            if position % 3 == 2:
                deps = [earlier * 3 * layers + position - 1 for earlier in range(chunk + 1)]
            tasks.append(Task(len(tasks), processor, tuple(deps), duration, chunk, position))
    return Program.of(tasks)


def test_work_of_a_decision() -> None:
    """Lines of Python a task: about 50 to run it, the virtual clock's included, 55 to plan it when schedules
    are compared and 20 when only one is made; as many in a program ten times as large."""
    most = {"run": 70, "compare": 80, "plan": 30}
    for layers in (4, 40):
        program = layers_of_chunks(layers)
        scheduler, unknown = Scheduler(program), replace(program, duration_error=inf)
        lines = {
            "run": lines_executed(partial(run_on_virtual_clock, scheduler, lambda task: None)),
            "compare": lines_executed(partial(Scheduler, program)),
            "plan": lines_executed(partial(Scheduler, unknown)),
        }
        assert all(0 < lines[what] <= most[what] * len(program.tasks) for what in most), lines
