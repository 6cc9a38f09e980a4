"""Prefills are planned when they have to be, and kept as long as their durations hold."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import pytest
from runtime_fakes import CHUNK_LENGTHS, HIDDEN, make_graph

from mllm_tvm.manifest import FunctionSpec
from mllm_tvm.runtime.durations import DurationModel, Durations, ExactDurations, prefill_costs
from mllm_tvm.runtime.look_ahead import look_ahead
from mllm_tvm.runtime.policy import Policy
from mllm_tvm.runtime.prepared import KEPT, PreparedPrefill, PreparedPrefills
from mllm_tvm.runtime.task_graph import CallGraph
from mllm_tvm.runtime.tasks import Program, Span


def constant(_function: FunctionSpec, processor: str, rows: int) -> float:
    return rows * (2.0 if processor == "npu" else 1.0)


class Planned:
    """Prepared prefills, and the programs that a policy was made for."""

    def __init__(self, durations: Durations) -> None:
        self.programs: list[Program] = []
        calls = CallGraph(make_graph())
        costs = prefill_costs(calls, CHUNK_LENGTHS, constant)
        self.prefills = PreparedPrefills(calls, costs, self._plan, durations)

    def _plan(self, program: Program) -> Policy:
        self.programs.append(program)
        return look_ahead(program)


def run(planned: Planned, prefill: PreparedPrefill, seconds: Callable[[str, int], float]) -> None:
    """A run in which a function takes ``seconds`` of its processor and rows."""
    works = [step.work for step in prefill.graph.steps]
    taken = [seconds(work.processor, work.computed_rows) for work in works]
    timeline = [Span(task, 1.0, 1.0 + s) for task, s in zip(prefill.graph.tasks, taken, strict=True)]
    planned.prefills.learn(prefill.graph, timeline)


def test_exact_durations_are_planned_once_for_each_number_of_tokens() -> None:
    planned = Planned(ExactDurations(constant))
    first = planned.prefills.get(20, False)
    assert planned.prefills.get(20, False) is first
    assert len(planned.programs) == 1
    assert planned.programs[0].duration_error == 0.0
    assert planned.prefills.get(20, True).graph.tasks != first.graph.tasks
    assert planned.prefills.get(19, False).chunks != first.chunks
    assert len(planned.programs) == 3


def test_observed_durations_are_planned_until_they_settle() -> None:
    planned = Planned(DurationModel(make_graph().functions, HIDDEN))
    prefill = planned.prefills.get(20, False)
    assert planned.programs[-1].duration_error == inf
    run(planned, prefill, lambda processor, rows: rows * (2.0 if processor == "npu" else 1.0))
    again = planned.prefills.get(20, False)
    assert 0 < planned.programs[-1].duration_error < 0.1
    assert [task.duration for task in again.graph.tasks] == pytest.approx(
        [
            constant(step.work.function, step.work.processor, step.work.computed_rows)
            for step in again.graph.steps
        ]
    )
    run(planned, again, lambda processor, rows: rows * (2.5 if processor == "npu" else 1.0))
    assert planned.prefills.get(20, False) is again
    assert len(planned.programs) == 2


@pytest.mark.parametrize(("npu", "planned_anew"), [(4.0, False), (9.0, True)])
def test_what_is_slower_everywhere_is_scheduled_alike(npu: float, planned_anew: bool) -> None:
    planned = Planned(DurationModel(make_graph().functions, HIDDEN))
    estimated = planned.prefills.get(20, False)
    run(planned, estimated, lambda processor, rows: 2.0 if processor == "npu" else 1.0)
    prefill = planned.prefills.get(20, False)
    for _ in range(50):
        run(planned, prefill, lambda processor, rows: npu if processor == "npu" else 2.0)
    assert (planned.prefills.get(20, False) is not prefill) == planned_anew


def test_a_kept_prefill_starts_anew() -> None:
    planned = Planned(ExactDurations(constant))
    scheduler = planned.prefills.get(20, False).scheduler
    first = scheduler.next("cpu")
    assert first is not None
    scheduler.complete(first)
    again = planned.prefills.get(20, False).scheduler
    assert again is scheduler
    assert again.unfinished == len(planned.programs[0].tasks)
    assert again.next("cpu") is first


def test_only_the_latest_are_kept() -> None:
    planned = Planned(ExactDurations(constant))
    oldest, *_ = [planned.prefills.get(tokens, False) for tokens in range(1, KEPT + 1)]
    assert planned.prefills.get(1, False) is oldest
    planned.prefills.get(KEPT + 1, False)
    assert planned.prefills.get(1, False) is oldest, "used after the others"
    assert len(planned.programs) == KEPT + 1
    planned.prefills.get(2, False)
    assert len(planned.programs) == KEPT + 2
