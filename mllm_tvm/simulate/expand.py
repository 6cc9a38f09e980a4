"""Expands a model, a configuration and a prompt length into the tasks the scheduler takes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mllm_tvm.runtime.planner import ChunkCosts, ChunkPlan, plan_chunks, plan_prefill
from mllm_tvm.runtime.tasks import Task

from .configuration import Configuration
from .cost import CostModel
from .errors import SimulationError
from .models import ModelShape
from .op import Op
from .program import chunk_program


@dataclass(frozen=True)
class Prefill:
    """The tasks of one prefill, in program order, and the chunks they work on."""

    tasks: tuple[Task, ...]
    chunks: tuple[ChunkPlan, ...]

    def busy_s(self, processor: str) -> float:
        """Seconds of a processor's tasks together."""
        return sum(task.duration for task in self.tasks if task.processor == processor)


def plan_prompt(
    model: ModelShape, configuration: Configuration, cost: CostModel, prompt: int
) -> tuple[ChunkPlan, ...]:
    """How a configuration cuts a prompt; raises SimulationError for an empty prompt."""
    if prompt < 1:
        raise SimulationError(f"prompt has {prompt} tokens, expected at least 1")
    lengths = configuration.chunk_lengths or (prompt,)
    costs = chunk_costs(model, configuration, cost, lengths)
    if configuration.plans_chunks:
        return plan_prefill(prompt, costs)
    return plan_chunks(prompt, lengths, costs.npu)


def chunk_costs(
    model: ModelShape, configuration: Configuration, cost: CostModel, lengths: Iterable[int]
) -> ChunkCosts:
    """Seconds of one full chunk of each length on each processor, for the planner."""
    program = chunk_program(model, configuration)
    on_npu, on_cpu = (
        {length: _chunk_seconds(program, cost, processor, length) for length in lengths}
        for processor in ("npu", "cpu")
    )
    return ChunkCosts(on_npu, on_cpu)


def expand_chunks(
    model: ModelShape, configuration: Configuration, cost: CostModel, chunks: Sequence[ChunkPlan]
) -> Prefill:
    """The tasks of a prefill over ``chunks``."""
    expansion = _Expansion(cost, configuration)
    expansion.add_preparation(model)
    program = chunk_program(model, configuration)
    for index, chunk in enumerate(chunks):
        for position, op in enumerate(program, 1):
            if not op.head or index == len(chunks) - 1:
                expansion.add(op, position, index, chunk)
    return Prefill(tuple(expansion.tasks), tuple(chunks))


class _Expansion:
    def __init__(self, cost: CostModel, configuration: Configuration) -> None:
        self.tasks: list[Task] = []
        self._cost = cost
        self._configuration = configuration
        self._ids: dict[tuple[int, str], int] = {}
        self._first: tuple[int, ...] = ()

    def add_preparation(self, model: ModelShape) -> None:
        """What precedes the first chunk: the vendor's graph build, the state of a prefill."""
        profile = self._cost.profile
        if self._configuration.builds_graph:
            seconds = profile.npu.build_s_per_squared_weight * model.layers * model.layer_weights**2
            self._prepare("build", seconds)
        if self._configuration.sets_up:
            self._prepare("set-up", profile.cpu.setup_s_per_channel * model.hidden * model.layers)

    def add(self, op: Op, position: int, index: int, chunk: ChunkPlan) -> None:
        """One function of one chunk."""
        deps = [self._ids[index, dep] for dep in op.deps] or list(self._first)
        if op.reads_cache:
            deps += [self._ids[earlier, dep] for earlier in range(index) for dep in op.deps]
        rows = self._rows(op, chunk)
        context = chunk.start + chunk.tokens if op.head else chunk.start + (rows + 1) / 2
        seconds = self._cost.seconds(op.cost(), op.processor, rows, context)
        self._ids[index, op.name] = self._append(
            op.function, op.processor, deps, seconds, index, op.layer, position
        )

    def _rows(self, op: Op, chunk: ChunkPlan) -> int:
        if op.head:
            return 1
        padded = op.processor == "npu" or self._configuration.pads_float
        return chunk.length if padded else chunk.tokens

    def _prepare(self, name: str, seconds: float) -> None:
        self._first = (self._append(name, "cpu", list(self._first), seconds, 0, -1, 0),)

    def _append(
        self,
        name: str,
        processor: str,
        deps: list[int],
        seconds: float,
        chunk: int,
        layer: int,
        position: int,
    ) -> int:
        index = len(self.tasks)
        self.tasks.append(Task(index, processor, tuple(deps), seconds, chunk, position, name, layer))
        return index


def _chunk_seconds(program: Sequence[Op], cost: CostModel, processor: str, length: int) -> float:
    """Seconds of one full chunk on a processor, but for the head; attention as in the first chunk."""
    return sum(
        cost.seconds(op.cost(), processor, length, (length + 1) / 2)
        for op in program
        if op.processor == processor and not op.head
    )
