"""Timelines in the Trace Event Format, for chrome://tracing and Perfetto: processors are rows."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from .timeline import Event
from .write import write_text

_PROCESS = 1  # 0 is the idle process of a kernel, to Perfetto


def chrome_trace(events: Sequence[Event], about: Mapping[str, object] | None = None) -> dict[str, object]:
    """A trace object; ``about`` is kept as its metadata."""
    rows = {name: row for row, name in enumerate(sorted({e.processor for e in events}), 1)}
    names = [_metadata("process_name", 1, "mllm-tvm")]
    names += [_metadata("thread_name", row, name.upper()) for name, row in rows.items()]
    return {
        "displayTimeUnit": "ms",
        "otherData": dict(about or {}),
        "traceEvents": names + [_complete(event, rows[event.processor]) for event in events],
    }


def write_chrome_trace(
    path: str | os.PathLike[str], events: Sequence[Event], about: Mapping[str, object] | None = None
) -> None:
    """Writes a trace file. Raises ReportError when it cannot be written."""
    write_text(Path(path), json.dumps(chrome_trace(events, about)) + "\n")


def _metadata(name: str, row: int, value: str) -> dict[str, object]:
    return {"ph": "M", "pid": _PROCESS, "tid": row, "name": name, "args": {"name": value}}


def _complete(event: Event, row: int) -> dict[str, object]:
    """Microseconds, in whole nanoseconds: tasks that follow each other do not overlap by a rounding error."""
    start, end = round(event.start * 1e9), round(event.end * 1e9)
    return {
        "ph": "X",
        "pid": _PROCESS,
        "tid": row,
        "ts": start / 1e3,
        "dur": (end - start) / 1e3,
        "name": event.name,
        "cat": event.function,
        "args": {"chunk": event.chunk, "layer": event.layer, "function": event.function},
    }
