"""A self-contained HTML page of a timeline: no script from elsewhere, no network."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path

from .text import speed
from .timeline import Event, idle_gaps, seconds_by_function
from .write import write_text

_GAPS = 20


def html_report(
    title: str,
    facts: Mapping[str, str],
    events: Sequence[Event],
    bars: Mapping[str, float] | None = None,
    notes: Sequence[str] = (),
) -> str:
    """A page with the timeline, idle gaps of the NPU, seconds by function and, given ``bars``, a bar chart.

    ``bars`` maps the configurations of an ablation to tokens a second.
    """
    sections = [
        _table("Figures", [(escape(name), escape(value)) for name, value in facts.items()]),
        _timeline(events),
        _gaps(events),
        _functions(events),
    ]
    if bars:
        sections.append(_bars(bars))
    if notes:
        items = "".join(f"<li>{escape(note)}</li>" for note in notes)
        sections.append(f"<section><h2>Assumptions</h2><ul>{items}</ul></section>")
    template = (resources.files(__package__) / "page.html").read_text("utf-8")
    return template.replace("{{title}}", escape(title)).replace("{{body}}", "\n".join(sections))


def write_html_report(path: str | os.PathLike[str], page: str) -> None:
    """Writes a page. Raises ReportError when it cannot be written."""
    write_text(Path(path), page)


def _timeline(events: Sequence[Event]) -> str:
    rows = [[e.processor, e.function, e.chunk, e.layer, round(e.start, 9), round(e.end, 9)] for e in events]
    # Without "<" nothing in the data can end the script element early.
    data = json.dumps(rows, separators=(",", ":")).replace("<", "\\u003c")
    return (
        '<section><h2>Timeline</h2><p class="hint">Wheel: zoom. Drag: move. Double click: everything. '
        "c0 L3 qkv: chunk 0, layer 3, function qkv.</p>"
        '<canvas id="timeline" height="150"></canvas><div id="legend"></div><p id="task">&nbsp;</p>'
        f'<script type="application/json" id="events">{data}</script></section>'
    )


def _gaps(events: Sequence[Event]) -> str:
    gaps = idle_gaps(events, "npu")
    rows = [
        (f"{g.start * 1e3:.2f}", f"{(g.end - g.start) * 1e3:.3f}", escape(g.before)) for g in gaps[:_GAPS]
    ]
    total = sum(gap.end - gap.start for gap in gaps) * 1e3
    title = f"Idle gaps of the NPU: {len(gaps)}, {total:.2f} ms together"
    return _table(title, [("at ms", "for ms", "then ran"), *rows], header=True)


def _functions(events: Sequence[Event]) -> str:
    totals = seconds_by_function(events)
    busy: dict[str, float] = {}
    for (processor, _), seconds in totals.items():
        busy[processor] = busy.get(processor, 0.0) + seconds
    rows = [
        (escape(p), escape(f), f"{seconds * 1e3:.2f}", f"{seconds / busy[p]:.1%}" if busy[p] else "")
        for (p, f), seconds in totals.items()
    ]
    return _table("Time by function", [("processor", "function", "ms", "of its work"), *rows], header=True)


def _bars(bars: Mapping[str, float]) -> str:
    longest = max(bars.values()) or 1.0
    rows = "".join(
        f'<div class="bar"><span>{escape(name)}</span>'
        f'<i style="width:{60 * value / longest:.2f}%"></i><b>{speed(value)}</b></div>'
        for name, value in bars.items()
    )
    return f'<section id="ablation"><h2>Ablation, prefill tokens/s</h2>{rows}</section>'


def _table(title: str, rows: Sequence[Sequence[str]], header: bool = False) -> str:
    cells = []
    for index, row in enumerate(rows):
        tag = "th" if header and index == 0 else "td"
        cells.append("<tr>" + "".join(_cell(tag, cell) for cell in row) + "</tr>")
    return f"<section><h2>{escape(title)}</h2><table>{''.join(cells)}</table></section>"


def _cell(tag: str, text: str) -> str:
    """Figures, and what heads a column of them (``ms``, ``of its work``), are aligned to the right."""
    right = text.rstrip("%").replace(".", "", 1).isdigit() or text.endswith(("ms", "of its work"))
    return f'<{tag} class="number">{text}</{tag}>' if right else f"<{tag}>{text}</{tag}>"
