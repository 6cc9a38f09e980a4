"""The events of a timeline: spans with the place of their task in the model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mllm_tvm.runtime.tasks import Span


@dataclass(frozen=True)
class Event:
    """A task that ran: seconds since the run began. ``layer`` is -1 for what precedes the first."""

    processor: str
    function: str
    chunk: int
    layer: int
    start: float
    end: float

    @property
    def name(self) -> str:
        """Chunk, layer and function: ``c0 L3 qkv``; only the function of what precedes the first layer."""
        return f"c{self.chunk} L{self.layer} {self.function}" if self.layer >= 0 else self.function


@dataclass(frozen=True)
class Gap:
    """A time in which a processor idled between two of its tasks, and what it then ran."""

    processor: str
    start: float
    end: float
    before: str


def timeline_events(spans: Iterable[Span]) -> list[Event]:
    """The events of spans, by start."""
    events = [
        Event(
            span.task.processor,
            span.task.name,
            span.task.chunk,
            span.task.layer,
            span.start,
            span.end,
        )
        for span in spans
    ]
    return sorted(events, key=lambda event: (event.start, event.processor))


def idle_gaps(events: Sequence[Event], processor: str) -> list[Gap]:
    """The idle times of a processor between its first and last task, longest first."""
    mine = [event for event in events if event.processor == processor]
    gaps = []
    for index in range(1, len(mine)):
        earlier, later = mine[index - 1], mine[index]
        if later.start > earlier.end:
            gaps.append(Gap(processor, earlier.end, later.start, later.name))
    return sorted(gaps, key=lambda gap: gap.start - gap.end)


def seconds_by_function(events: Iterable[Event]) -> dict[tuple[str, str], float]:
    """(processor, function) -> seconds, largest first."""
    totals: dict[tuple[str, str], float] = {}
    for event in events:
        key = event.processor, event.function
        totals[key] = totals.get(key, 0.0) + event.end - event.start
    return dict(sorted(totals.items(), key=lambda item: -item[1]))
