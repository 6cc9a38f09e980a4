"""Expansion of a two-layer call graph over chunks."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from runtime_fakes import LAYERS, make_graph

from mllm_tvm.errors import ArtifactError
from mllm_tvm.manifest import CacheSpec, Call, FunctionSpec, Graph
from mllm_tvm.runtime.expansion import Step, TaskGraph
from mllm_tvm.runtime.planner import plan_chunks
from mllm_tvm.runtime.task_graph import CallGraph
from mllm_tvm.runtime.tasks import Program

CHUNKS = plan_chunks(11, (4,))
HEAD = ["attention", "linear_8x32", "shadow", "join", "head"]


def _find(graph: TaskGraph, chunk: int, output: str) -> int:
    """The id of the task that produces ``output`` in a chunk."""
    found = [i for i, s in enumerate(graph.steps) if s.chunk == chunk and output in s.call.outputs]
    assert len(found) == 1
    return found[0]


def test_tasks_are_chunk_major_and_topological() -> None:
    graph = CallGraph(make_graph()).expand(CHUNKS)
    assert [task.id for task in graph.tasks] == list(range(len(graph.tasks)))
    assert [task.chunk for task in graph.tasks] == sorted(task.chunk for task in graph.tasks)
    assert all(dep < task.id for task in graph.tasks for dep in task.deps)


def test_dependencies_follow_values() -> None:
    graph = CallGraph(make_graph()).expand(CHUNKS)
    join = graph.tasks[_find(graph, 1, "x1")]
    assert set(join.deps) == {_find(graph, 1, v) for v in ("x0", "projected0", "outliers0")}
    assert graph.tasks[_find(graph, 2, "x0")].deps == ()


def test_attention_needs_the_appends_of_all_chunks_so_far() -> None:
    graph = CallGraph(make_graph()).expand(CHUNKS)
    for chunk in range(len(CHUNKS)):
        attention = graph.tasks[_find(graph, chunk, "mixed0")]
        assert set(attention.deps) == {_find(graph, earlier, "k0") for earlier in range(chunk + 1)}


def test_the_head_runs_for_the_last_row_only() -> None:
    graph = CallGraph(make_graph()).expand(CHUNKS)
    head = [step for step in graph.steps if step.work.last_row]
    assert [step.call.function for step in head] == HEAD
    assert {(step.chunk, step.work.rows, step.work.processor) for step in head} == {
        (len(CHUNKS) - 1, 1, "cpu")
    }
    last = graph.steps[_find(graph, len(CHUNKS) - 1, "acc1")]
    assert (last.work.rows, last.work.computed_rows, last.work.processor) == (3, 4, "npu")
    assert CallGraph(make_graph()).head_values() == {
        "mixed1",
        "residual1",
        "projected1",
        "outliers1",
        "x2",
        "xq2",
        "logits",
    }


def test_all_logits_run_the_head_everywhere() -> None:
    graph = CallGraph(make_graph()).expand(CHUNKS, all_logits=True)
    assert len(graph.steps) == len(CHUNKS) * len(make_graph().calls)
    assert not any(step.work.last_row for step in graph.steps)
    assert [s.work.rows for s in graph.steps if s.call.function == "head"] == [4, 4, 3]
    assert sum(s.work.processor == "npu" for s in graph.steps) == len(CHUNKS) * 2 * LAYERS


def test_a_single_row_runs_on_the_cpu() -> None:
    graph = CallGraph(make_graph()).expand(plan_chunks(1, (4,)), all_logits=True)
    assert {task.processor for task in graph.tasks} == {"cpu"}
    assert {step.work.computed_rows for step in graph.steps} == {1}


def test_durations_are_asked_for_computed_rows() -> None:
    asked: list[tuple[str, str, int]] = []

    def duration(function: FunctionSpec, processor: str, rows: int) -> float:
        asked.append((function.name, processor, rows))
        return float(rows)

    graph = CallGraph(make_graph()).expand(CHUNKS, duration)
    assert ("linear_8x32", "npu", 4) in asked
    assert ("linear_8x32", "cpu", 1) in asked
    assert ("split", "cpu", 3) in asked
    assert len(asked) < len(graph.tasks), "once for each function and chunk"
    assert [task.duration for task in graph.tasks] == [float(step.work.computed_rows) for step in graph.steps]


def test_usage_counts_the_tasks_of_a_duration() -> None:
    graph = CallGraph(make_graph()).expand(CHUNKS, lambda function, processor, rows: float(rows))
    assert {key: (used.tasks, used.seconds) for key, used in graph.usage.items()} == {
        key: (count, float(key[2])) for key, count in Counter(s.work.key for s in graph.steps).items()
    }


def test_the_program_is_what_checking_the_tasks_makes() -> None:
    program = CallGraph(make_graph()).expand(CHUNKS).program
    checked = Program.of(program.tasks)
    assert checked.tasks == program.tasks
    assert list(checked.dependencies) == list(program.dependencies)
    assert [sorted(following) for following in checked.successors] == [*map(list, program.successors)]


def test_calls_that_reach_nothing_are_left_out() -> None:
    graph = make_graph()
    extra = Call("shadow", 0, ("residual0", "param:unused"), ("nowhere",))
    calls = CallGraph(replace(graph, calls=(*graph.calls, extra)))
    steps: tuple[Step, ...] = calls.expand(CHUNKS).steps
    assert "nowhere" not in {value for step in steps for value in step.call.outputs}
    assert "unused" not in calls.parameters()


def test_device_weights_in_order_of_use() -> None:
    assert CallGraph(make_graph()).device_weights() == ("qkv0", "out0", "qkv1", "out1")


def _with_call(index: int, **changes: object) -> Graph:
    graph = make_graph()
    calls = list(graph.calls)
    calls[index] = replace(calls[index], **changes)
    return replace(graph, calls=tuple(calls))


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (_with_call(1, function="linear_9x9"), "call 1 names function 'linear_9x9'"),
        (_with_call(2, args=("acc9", "param:scale")), "call 2 of 'split' reads 'acc9'"),
        (_with_call(2, args=("x1", "param:scale")), "call 2 of 'split' reads 'x1' before"),
        (_with_call(2, outputs=("q0", "x0", "v0")), "produces 'x0', which exists already"),
        (_with_call(1, args=("xq0", "acc0")), "reads 'acc0'"),
        (
            _with_call(1, args=("param:qkv0", "xq0")),
            "NPU function 'linear_8x32' .* an activation and a weight",
        ),
        (_with_call(2, args=("acc0", "k_cache_0")), "reads cache 'k_cache_0' before"),
        (replace(make_graph(), logits="probabilities"), "the logits should be 'probabilities'"),
        (replace(make_graph(), caches=(CacheSpec("k_cache_0", "k9", (1, 4)),)), "'v_cache_0'"),
        (
            replace(make_graph(), caches=(*make_graph().caches, CacheSpec("c", "k9", (1,)))),
            "cache 'c' should be 'k9'",
        ),
    ],
)
def test_invalid_graphs(graph: Graph, message: str) -> None:
    with pytest.raises(ArtifactError, match=f"{message}.*compile the model again"):
        CallGraph(graph)
