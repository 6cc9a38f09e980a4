"""What a run did: counts, times and the timeline of its tasks."""

from __future__ import annotations

from dataclasses import dataclass

from .shadow_memory import ShadowMemory
from .tasks import Span


@dataclass(frozen=True)
class NpuCounts:
    """Kernel calls on the NPU and what its counters say they cost (0 where a device has no counters)."""

    calls: int = 0
    packets: int = 0
    instructions: int = 0
    hvx: int = 0

    def plus(self, packets: int, instructions: int, hvx: int) -> NpuCounts:
        """These counts and one more call."""
        return NpuCounts(
            self.calls + 1, self.packets + packets, self.instructions + instructions, self.hvx + hvx
        )

    def since(self, earlier: NpuCounts) -> NpuCounts:
        """What was added to ``earlier``."""
        return NpuCounts(
            self.calls - earlier.calls,
            self.packets - earlier.packets,
            self.instructions - earlier.instructions,
            self.hvx - earlier.hvx,
        )


@dataclass(frozen=True)
class SchedulingCost:
    """Tasks that the scheduler gave out, and the seconds that took.

    All of it: cutting the prompt, expanding the call graph, planning, decisions, learning durations.
    """

    decisions: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class RunStats:
    """One run of an engine; NPU figures are the prefill's (decode uses the CPU).

    Times are seconds on the clock of the run: the wall's, or those of the device profile ``clock`` names.
    """

    device: str
    policy: str
    chunk_lengths: tuple[int, ...] = ()
    """Length of each chunk of the prompt, in order."""
    prompt_tokens: int = 0
    generated_tokens: int = 0
    npu_calls: int = 0
    npu_packets: int = 0
    npu_instructions: int = 0
    npu_hvx: int = 0
    ttft_s: float = 0.0
    """From the request to the first generated token."""
    prefill_s: float = 0.0
    decode_s: float = 0.0
    timeline: tuple[Span, ...] = ()
    """When each task of the prefill ran."""
    scheduling: SchedulingCost = SchedulingCost()
    """Of the prefill."""
    clock: str = "wall"
    shadow: ShadowMemory | None = None
    """Memory of the shadow path, and its hits and misses in this run; None without a shadow path."""
