"""The simulator's calls are the compiler's: same functions, processors, dependencies and order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mllm_tvm.call_graph import extract_graph
from mllm_tvm.runtime.planner import ChunkPlan
from mllm_tvm.runtime.task_graph import CallGraph
from mllm_tvm.runtime.tasks import Task
from mllm_tvm.simulate.configuration import OURS
from mllm_tvm.simulate.cost import CostModel
from mllm_tvm.simulate.expand import expand_chunks
from mllm_tvm.simulate.models import find_model
from mllm_tvm.simulate.profile import load_profile
from mllm_tvm.simulate.program import chunk_program
from tests.mllm_tvm.simulate.compiled_models import LAYERS, MODELS, placed_module

CHUNKS = (ChunkPlan(0, 64, 64), ChunkPlan(64, 50, 64))
KINDS = {"attention": "dynamic", "mlp": "mlp"}
LINEARS = ("qkv", "qkv-up", "o", "up", "down")


def compiled(name: str, shadow: bool, folder: Path) -> CallGraph:
    return CallGraph(extract_graph(placed_module(name, shadow, folder)))


def kind(function: str) -> str:
    if function.endswith(".shadow"):
        return "shadow"
    return "linear" if function in LINEARS else KINDS.get(function, "float")


def ancestors(tasks: tuple[Task, ...]) -> list[frozenset[int]]:
    """All that has to end before each task."""
    found: list[frozenset[int]] = []
    for task in tasks:
        found.append(frozenset(task.deps).union(*(found[dep] for dep in task.deps)))
    return found


@pytest.mark.parametrize("shadow", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_simulated_tasks_are_those_of_the_engine(name: str, shadow: bool, tmp_path: Path) -> None:
    graph = compiled(name, shadow, tmp_path)
    run = graph.expand(CHUNKS)
    model = replace(find_model(name), layers=LAYERS)
    configuration = replace(OURS, pruned_share=0.0 if shadow else 1.0)
    *tasks, head = expand_chunks(
        model, configuration, CostModel(load_profile("snapdragon-8gen3")), CHUNKS
    ).tasks
    engine, output = run.tasks[: len(tasks)], run.tasks[len(tasks) :]

    def what(task: Task, kind: str) -> tuple[object, ...]:
        # A norm between two layers belongs to the first for the compiler, to the second here.
        return task.chunk, None if kind == "float" else task.layer, task.processor, kind

    assert [what(task, kind(task.name)) for task in tasks] == [
        what(task, step.function.kind) for task, step in zip(engine, run.steps, strict=False)
    ]
    assert ancestors(tuple(tasks)) == ancestors(engine)
    # The simulator's head is the last norm, the output projection, its shadow and its scale.
    assert (head.name, head.processor) == ("head", "cpu")
    assert [task.processor for task in output] == ["cpu"] * (3 + shadow)


@pytest.mark.parametrize("name", MODELS)
def test_npu_functions_have_the_compilers_weights(name: str, tmp_path: Path) -> None:
    """Three launches a layer, with shadows too."""
    graph = compiled(name, True, tmp_path)
    program = chunk_program(replace(find_model(name), layers=LAYERS), replace(OURS, pruned_share=0.0))
    calls = [graph.graph.calls[index] for index in graph.live if not graph.is_head(index)]
    functions = [graph.functions[call.function] for call in calls]
    on_npu = [op for op in program if op.processor == "npu"]
    assert [op.work.weights for op in on_npu] == [f.weights for f in functions if f.processor == "npu"]
    assert [op.layer for op in on_npu] == [0, 0, 0, 1]
