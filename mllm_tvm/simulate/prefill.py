"""Simulates a prefill: the scheduler the engine uses, on the virtual clock of a device profile."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mllm_tvm.runtime.list_schedule import ScheduleGraph
from mllm_tvm.runtime.planner import ChunkPlan
from mllm_tvm.runtime.scheduler import simulate
from mllm_tvm.runtime.tasks import PROCESSORS, Program, Span

from .bound import prefill_bound
from .configuration import Configuration
from .cost import CostModel
from .expand import Prefill, expand_chunks, plan_prompt
from .memory import check_memory
from .models import ModelShape
from .profile import DeviceProfile


@dataclass(frozen=True)
class PrefillRun:
    """One simulated prefill."""

    model: ModelShape
    configuration: Configuration
    prompt: int
    prefill: Prefill
    spans: tuple[Span, ...]

    @property
    def seconds(self) -> float:
        """From the request to the first token's logits."""
        return max(span.end for span in self.spans)

    @property
    def tokens_per_s(self) -> float:
        """Prompt tokens a second."""
        return self.prompt / self.seconds

    @property
    def chunks(self) -> tuple[ChunkPlan, ...]:
        """How the prompt was cut."""
        return self.prefill.chunks

    @property
    def lower_bound_s(self) -> float:
        """No order of these tasks is faster."""
        return prefill_bound(ScheduleGraph.of(Program.of(self.prefill.tasks)))

    @property
    def busy_s(self) -> dict[str, float]:
        """Seconds each processor works."""
        return {processor: self.prefill.busy_s(processor) for processor in PROCESSORS}

    @property
    def bubble(self) -> float:
        """Share of the time between the NPU's first and last task in which it idles; 0 without NPU tasks."""
        return npu_bubble(self.spans)


def simulate_prefill(
    model: ModelShape, configuration: Configuration, profile: DeviceProfile, prompt: int
) -> PrefillRun:
    """The prefill of ``prompt`` tokens, cut as the configuration's planner cuts it.

    Raises SimulationError for an empty prompt or a model that does not fit the profile's memory, the NPU's or
    the device's, ScheduleError for an unknown policy.
    """
    check_memory(model, configuration, profile, prompt)
    cost = CostModel(profile)
    chunks = plan_prompt(model, configuration, cost, prompt)
    prefill = expand_chunks(model, configuration, cost, chunks)
    return PrefillRun(model, configuration, prompt, prefill, simulate(prefill.tasks, configuration.policy))


def busy_seconds(spans: Iterable[Span], processor: str) -> float:
    """Seconds the tasks of a processor take together."""
    return sum(span.end - span.start for span in spans if span.task.processor == processor)


def npu_bubble(spans: Iterable[Span]) -> float:
    """Share of the time between the NPU's first and last task in which it idles; 0 without NPU tasks."""
    on_npu = [span for span in spans if span.task.processor == "npu"]
    if not on_npu:
        return 0.0
    window = max(span.end for span in on_npu) - min(span.start for span in on_npu)
    return max(0.0, 1.0 - busy_seconds(on_npu, "npu") / window) if window else 0.0
