"""Runs a model's call graph on token ids: prefill over chunks, out of order on two processors, and decode."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import wait
from dataclasses import dataclass
from typing import Any

import numpy as np

from mllm_tvm.errors import ArtifactError, DeviceError, PromptError
from mllm_tvm.manifest import Graph
from mllm_tvm.simulate.function_durations import measured_durations

from .decode import DecodeProgram
from .dispatch import Dispatcher
from .durations import DurationModel, Durations, ExactDurations, prefill_costs
from .expansion import Duration, TaskGraph
from .kv_cache import KvCache
from .planner import ChunkPlan
from .policies import DEFAULT_POLICY, PolicyOf, find_policy
from .prepared import PreparedPrefills
from .scheduler import Scheduler, run_on_virtual_clock
from .stats import NpuCounts, SchedulingCost
from .task_graph import CallGraph
from .tasks import Span, Task
from .values import RunValues
from .workers import CpuWorker, Functions, NpuWorker, Session


@dataclass(frozen=True)
class RunnerConfig:
    """How to run a call graph; ``policy`` is a name or a policy class."""

    chunk_lengths: tuple[int, ...]
    max_positions: int
    hidden_size: int
    policy: str | PolicyOf = DEFAULT_POLICY
    durations: Duration | None = None
    """Seconds of each function on a simulated device: time is then virtual. None: the wall clock."""


@dataclass(frozen=True)
class Prefill:
    """The result of a prefill: logits ([1, vocab] or [seq, vocab] float32) and how they came about."""

    logits: np.ndarray
    chunks: tuple[ChunkPlan, ...]
    npu: NpuCounts
    timeline: tuple[Span, ...]
    scheduling: SchedulingCost


class ModelRunner:
    """A model with its state (the tokens in its caches) and the two workers that run it.

    ``parameters`` are in the form that CPU functions accept, ``arrays`` the same ones for upload. Not safe
    for use by several threads at once. Raises what opening the CPU library or the device raises,
    ArtifactError for an invalid graph and ScheduleError for an unknown policy.
    """

    def __init__(
        self,
        graph: Graph,
        parameters: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray],
        open_functions: Callable[[], Functions],
        open_session: Callable[[], Session],
        config: RunnerConfig,
    ) -> None:
        self.position = 0
        self._config = config
        policy = find_policy(config.policy)
        self._graph = CallGraph(graph)
        self._parameters = parameters
        self._cache = KvCache(graph.caches, config.max_positions)
        self._failure: str | None = None
        _check_parameters(self._graph, parameters)
        calls = [self._graph.functions[graph.calls[index].function] for index in self._graph.live]
        duration = config.durations or measured_durations(config.hidden_size)
        costs = prefill_costs(self._graph, config.chunk_lengths, duration)
        expected: Durations = DurationModel(graph.functions, config.hidden_size)
        if config.durations is not None:
            expected = ExactDurations(config.durations)
        self._prepared = PreparedPrefills(self._graph, costs, policy, expected)
        self._warm_up()
        self._cpu = CpuWorker(open_functions, {function.name for function in calls})
        self._decode = DecodeProgram(self._graph, self._cpu.functions, parameters)
        try:
            weights = {name: arrays[name] for name in self._graph.device_weights()}
            self._npu = NpuWorker(open_session, weights)
        except BaseException:
            self._cpu.close()
            raise

    def reset(self) -> None:
        """Forget all tokens."""
        self.position = 0

    def prefill(self, token_ids: Sequence[int], all_logits: bool = False) -> Prefill:
        """Append tokens; logits of the last one ([1, vocab]) or of all ([seq, vocab]).

        Raises PromptError for no tokens or more than fit, DeviceError when the device fails or has failed.
        """
        self._check(len(token_ids))
        begin = time.perf_counter()
        chunks, graph, scheduler = self._prepared.get(len(token_ids), all_logits)
        planning_s = time.perf_counter() - begin
        values = RunValues(self._graph, graph, self._parameters, self._cache, self.position)
        values.set_inputs(chunks, token_ids)
        before = self._npu.counts
        run = self._run_virtually if self._config.durations else self._run
        timeline = run(scheduler, graph, values)
        ended = time.perf_counter()
        self._prepared.learn(graph, timeline)
        learning_s = time.perf_counter() - ended
        self.position += len(token_ids)
        wanted = range(len(chunks)) if all_logits else [len(chunks) - 1]
        logits = np.concatenate([values.logits(chunk) for chunk in wanted])
        scheduling = SchedulingCost(scheduler.decisions, planning_s + scheduler.seconds + learning_s)
        return Prefill(logits, chunks, self._npu.counts.since(before), timeline, scheduling)

    def decode(self, token: int) -> np.ndarray:
        """Append one token on the CPU; logits of the next, [vocab] float32. Raises PromptError when full."""
        self._check(1)
        logits = self._cpu.lane.submit(self._decode.run, token, self.position, self._cache).result()
        self.position += 1
        return logits

    def virtual_decode_s(self) -> float:
        """Seconds of one decoded token on the virtual clock; 0 on the wall clock."""
        durations = self._config.durations
        if durations is None:
            return 0.0
        functions = [self._graph.functions[self._graph.graph.calls[i].function] for i in self._graph.live]
        return sum(durations(function, "cpu", 1) for function in functions)

    def close(self) -> None:
        """End the workers and the device session."""
        try:
            self._npu.close()
        finally:
            self._cpu.close()

    def _warm_up(self) -> None:
        """Schedule a short prefill without running it: half of what the first one takes is cold code."""
        tokens = min(min(self._config.chunk_lengths) + 1, self._config.max_positions)
        run_on_virtual_clock(self._prepared.get(tokens, all_logits=False).scheduler, lambda _task: None)

    def _check(self, tokens: int) -> None:
        if self._failure is not None:
            raise DeviceError(f"the device failed earlier ({self._failure}): open a new engine")
        if tokens == 0:
            raise PromptError("there are 0 tokens to run: expected at least 1")
        if self.position + tokens > self._config.max_positions:
            raise PromptError(
                f"{self.position + tokens} tokens do not fit the model's context of "
                f"{self._config.max_positions}: shorten the prompt"
            )

    def _run(self, scheduler: Scheduler, graph: TaskGraph, values: RunValues) -> tuple[Span, ...]:
        dispatcher = Dispatcher(scheduler, lambda span: values.release(graph.steps[span.task.id]))
        workers: dict[str, CpuWorker | NpuWorker] = {"cpu": self._cpu, "npu": self._npu}

        def serve(processor: str) -> None:
            worker = workers[processor]
            dispatcher.serve(processor, lambda task: worker.execute(graph.steps[task.id], values))

        lanes = [worker.lane.submit(serve, processor) for processor, worker in workers.items()]
        try:
            wait(lanes)
        except BaseException as error:
            # Ctrl-C: let both threads finish what they are doing before the caches are touched again.
            dispatcher.abort(error)
            wait(lanes)
            raise
        self._raise_failure(dispatcher.error)
        return tuple(dispatcher.spans)

    def _run_virtually(self, scheduler: Scheduler, graph: TaskGraph, values: RunValues) -> tuple[Span, ...]:
        workers: dict[str, CpuWorker | NpuWorker] = {"cpu": self._cpu, "npu": self._npu}

        def execute(task: Task) -> None:
            worker = workers[task.processor]
            worker.lane.submit(worker.execute, graph.steps[task.id], values).result()

        try:
            return run_on_virtual_clock(
                scheduler, execute, lambda span: values.release(graph.steps[span.task.id])
            )
        except DeviceError as error:
            self._raise_failure(error)
            raise

    def _raise_failure(self, error: BaseException | None) -> None:
        if isinstance(error, DeviceError):
            self._failure = str(error)
        if error is not None:
            raise error


def _check_parameters(graph: CallGraph, parameters: Mapping[str, Any]) -> None:
    missing = sorted(graph.parameters() - set(parameters))
    if missing:
        raise ArtifactError(f"the call graph reads parameter {missing[0]!r}, which the artifact lacks")
