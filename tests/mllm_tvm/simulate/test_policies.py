"""How far the policies are from the best: exact optima of small graphs, lower bounds of real ones."""

from __future__ import annotations

import random
import signal
import sys
import time
from dataclasses import replace
from statistics import mean

import pytest

from mllm_tvm.runtime.list_schedule import ScheduleGraph, lower_bound, tails
from mllm_tvm.runtime.scheduler import Scheduler, simulate
from mllm_tvm.runtime.tasks import Program, ScheduleError, Task
from mllm_tvm.simulate.bound import prefill_bound
from mllm_tvm.simulate.configuration import OURS, PAPER
from mllm_tvm.simulate.errors import SimulationError
from mllm_tvm.simulate.models import MODELS, ModelShape
from mllm_tvm.simulate.optimum import optimal_makespan
from mllm_tvm.simulate.prefill import simulate_prefill
from mllm_tvm.simulate.profile import load_profile

PROFILE = load_profile("snapdragon-8gen3")


def random_graph(seed: int) -> list[Task]:
    rng = random.Random(seed)
    chain = rng.random() < 0.5

    def deps(task: int) -> tuple[int, ...]:
        if chain:
            return tuple(d for d in range(max(0, task - 6), task) if rng.random() < 0.3)
        return tuple(rng.sample(range(task), min(task, rng.choice((0, 1, 1, 2, 2, 3)))))

    count = rng.choice((8, 12, 16, 20, 24))
    return [Task(i, rng.choice(("cpu", "npu")), deps(i), rng.uniform(0.1, 1.0)) for i in range(count)]


def real_graphs() -> list[list[Task]]:
    """One layer of each model over three chunks, and two layers over two."""
    graphs = []
    for model in MODELS.values():
        for layers, prompt in ((1, 768), (2, 512)):
            small = replace(model, layers=layers)
            run = simulate_prefill(small, replace(PAPER, sets_up=False), PROFILE, prompt)
            graphs.append(list(run.prefill.tasks))
    return graphs


def length(tasks: list[Task], policy: str) -> float:
    return max(span.end for span in simulate(tasks, policy))


def graph_of(tasks: list[Task] | tuple[Task, ...]) -> ScheduleGraph:
    return ScheduleGraph.of(Program.of(tasks))


def test_ours_is_near_the_optimum_of_small_graphs() -> None:
    pytest.importorskip("ortools", reason="OR-Tools (the optional extra optimum) is not installed")
    ratios = []
    for tasks in [random_graph(seed) for seed in range(200)] + real_graphs():
        best = optimal_makespan(tasks)
        graph = graph_of(tasks)
        bound = prefill_bound(graph)
        assert lower_bound(graph, tails(graph)) <= bound * (1 + 1e-9) <= best * (1 + 1e-4)
        ratios.append(length(tasks, "ours") / best)
    assert min(ratios) > 1 - 1e-4
    assert mean(ratios) <= 1.01
    assert max(ratios) <= 1.05


def test_optimum_by_hand() -> None:
    """A and B feed C; only starting with the task that feeds the other processor overlaps everything."""
    pytest.importorskip("ortools", reason="OR-Tools (the optional extra optimum) is not installed")
    tasks = [Task(0, "cpu", (), 2.0), Task(1, "cpu", (), 1.0), Task(2, "npu", (1,), 2.0)]
    assert optimal_makespan(tasks) == pytest.approx(3.0)
    with pytest.raises(ScheduleError, match="depends on task 9: there is none"):
        optimal_makespan([Task(0, "cpu", (9,), 1.0)])


def test_optimum_without_the_solver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ortools.sat.python", None)
    with pytest.raises(
        SimulationError, match=r"exact schedules need OR-Tools .*pip install mllm-tvm\[optimum\]"
    ):
        optimal_makespan([Task(0, "cpu", (), 1.0)])


def test_optimum_leaves_interrupts_alone() -> None:
    pytest.importorskip("ortools", reason="OR-Tools (the optional extra optimum) is not installed")
    assert optimal_makespan([Task(0, "cpu", (), 1.0), Task(1, "npu", (0,), 1.0)]) == pytest.approx(2.0)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_optimum_that_cannot_be_proven_in_time() -> None:
    pytest.importorskip("ortools", reason="OR-Tools (the optional extra optimum) is not installed")
    tasks = list(simulate_prefill(MODELS["gemma-2b"], PAPER, PROFILE, 512).prefill.tasks)
    with pytest.raises(SimulationError, match=r"no proven optimum of 25\d tasks"):
        optimal_makespan(tasks, limit_s=0.01)


@pytest.mark.parametrize("model", MODELS.values(), ids=list(MODELS))
def test_ours_is_never_worse_than_the_paper_and_near_the_bound(model: ModelShape) -> None:
    for prompt in (64, 256, 512, 1024):
        tasks = list(simulate_prefill(model, PAPER, PROFILE, prompt).prefill.tasks)
        ours, paper = length(tasks, "ours"), length(tasks, "paper")
        assert ours <= paper * (1 + 1e-9)
        assert prefill_bound(graph_of(tasks)) <= ours * (1 + 1e-9)
        if prompt == 1024:
            assert ours <= 1.002 * prefill_bound(graph_of(tasks))


def test_ours_keeps_both_processors_busy_in_long_prompts() -> None:
    """Several chunks of the compiler's functions, of like and unlike lengths."""
    over = [
        run.seconds / run.lower_bound_s
        for model in MODELS.values()
        for prompt in (1300, 1561, 2048)
        for run in [simulate_prefill(model, OURS, PROFILE, prompt)]
    ]
    assert mean(over) <= 1.01
    assert max(over) <= 1.06


@pytest.mark.parametrize("policy", ["sequential", "in-order", "paper", "ours"])
def test_decisions_take_at_most_20_microseconds(policy: str) -> None:
    """Of processor time, planning included, over a whole prefill; the quickest of three."""
    tasks = simulate_prefill(MODELS["llama-2-7b"], PAPER, PROFILE, 1024).prefill.tasks
    best = float("inf")
    for _ in range(3):
        begin = time.process_time()
        simulate(tasks, policy)
        best = min(best, time.process_time() - begin)
    assert best / len(tasks) <= 20e-6


def test_ours_waits_on_purpose_when_that_is_shorter() -> None:
    """The NPU leaves task 2 (long, ready at once) for task 1 (on the critical path, ready at 0.5)."""
    tasks = [
        Task(0, "cpu", (), 0.5),
        Task(1, "npu", (0,), 1.0),
        Task(2, "npu", (), 4.0),
        Task(3, "cpu", (1,), 5.0),
    ]
    assert length(tasks, "paper") == 10.0
    assert length(tasks, "ours") == 6.5
    first = Scheduler(Program.of(tasks), "ours")
    assert first.next("npu") is None
