"""Traces and pages of timelines; the page is opened in a real browser when there is one."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from mllm_tvm.report.chrome_trace import chrome_trace, write_chrome_trace
from mllm_tvm.report.html import html_report, write_html_report
from mllm_tvm.report.timeline import idle_gaps, seconds_by_function, timeline_events
from mllm_tvm.report.write import ReportError
from mllm_tvm.runtime.tasks import Span, Task
from mllm_tvm.simulate.configuration import PAPER
from mllm_tvm.simulate.models import MODELS
from mllm_tvm.simulate.prefill import simulate_prefill
from mllm_tvm.simulate.profile import load_profile

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def spans() -> list[Span]:
    """NPU: 0-1, idle, 3-4; CPU: 1-3."""
    return [
        Span(Task(0, "npu", (), 1.0, 0, 1, "qkv", 0), 0.0, 1.0),
        Span(Task(1, "cpu", (0,), 2.0, 0, 2, "attention", 0), 1.0, 3.0),
        Span(Task(2, "npu", (1,), 1.0, 1, 3, "</script><b>o", 7), 3.0, 4.0),
    ]


def test_gaps_and_totals_by_hand() -> None:
    events = timeline_events(reversed(spans()))
    assert [event.start for event in events] == [0.0, 1.0, 3.0]
    (gap,) = idle_gaps(events, "npu")
    assert (gap.start, gap.end, gap.before) == (1.0, 3.0, "c1 L7 </script><b>o")
    assert idle_gaps(events, "cpu") == []
    assert next(iter(seconds_by_function(events).items())) == (("cpu", "attention"), 2.0)


def test_trace_events() -> None:
    trace = json.loads(json.dumps(chrome_trace(timeline_events(spans()), {"policy": "ours"})))
    rows = {e["args"]["name"]: e["tid"] for e in trace["traceEvents"] if e["name"] == "thread_name"}
    assert rows == {"CPU": 1, "NPU": 2}
    complete = [e for e in trace["traceEvents"] if e["ph"] == "X"]
    assert [(e["tid"], e["ts"], e["dur"]) for e in complete] == [(2, 0, 1e6), (1, 1e6, 2e6), (2, 3e6, 1e6)]
    assert complete[2]["args"] == {"chunk": 1, "layer": 7, "function": "</script><b>o"}
    assert trace["otherData"] == {"policy": "ours"}


def test_trace_of_a_simulation() -> None:
    """What Perfetto's importer takes: sorted, in microseconds, and on a row one task after the other."""
    run = simulate_prefill(MODELS["gemma-2b"], PAPER, load_profile("snapdragon-8gen3"), 512)
    trace = json.loads(json.dumps(chrome_trace(timeline_events(run.spans))))
    events = [e for e in trace["traceEvents"] if e["ph"] == "X"]
    assert [e["ts"] for e in events] == sorted(e["ts"] for e in events)
    assert max(e["ts"] + e["dur"] for e in events) == pytest.approx(run.seconds * 1e6)
    assert min(e["pid"] for e in events) > 0
    for row in {e["tid"] for e in events}:
        nanoseconds = [(round(e["ts"] * 1e3), round(e["dur"] * 1e3)) for e in events if e["tid"] == row]
        assert all(a + length <= b for (a, length), (b, _) in pairwise(nanoseconds))
    names = {e["name"] for e in events}
    assert {"set-up", "c0 L0 qkv", "c1 L17 attention"} <= names


def test_names_are_escaped() -> None:
    page = html_report("<b>title", {"a<b": "c&d"}, timeline_events(spans()))
    assert "<b>" not in re.sub(r"<b>\d+</b>", "", page)
    assert page.count("</script>") == 2
    assert "a&lt;b" in page
    assert "http" not in page


def test_files_are_complete_or_absent(tmp_path: Path) -> None:
    write_chrome_trace(tmp_path / "trace.json", timeline_events(spans()))
    assert [file.name for file in tmp_path.iterdir()] == ["trace.json"]
    with pytest.raises(ReportError, match=r"cannot write .*missing.*choose another file"):
        write_html_report(tmp_path / "missing" / "report.html", "page")
    with pytest.raises(ReportError, match="names no file"):
        write_html_report("", "page")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ReportError, match="Is a directory"):
        write_html_report(tmp_path / "folder", "page")
    assert {file.name for file in tmp_path.iterdir()} == {"trace.json", "folder"}


def test_page_in_a_browser(tmp_path: Path) -> None:
    """The script runs without errors and draws every task of a real simulation."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    run = simulate_prefill(MODELS["gemma-2b"], PAPER, load_profile("snapdragon-8gen3"), 512)
    file = tmp_path / "report.html"
    bars = {"cpu": 46.0, "ours": 1500.0}
    page = html_report("Gemma-2B", {"prefill": "0.7 s"}, timeline_events(run.spans), bars, ["assumed"])
    write_html_report(file, page)
    arguments = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    arguments += ["--virtual-time-budget=2000", "--enable-logging=stderr", "--dump-dom", file.as_uri()]
    result = subprocess.run([CHROMIUM, *arguments], capture_output=True, text=True, timeout=60, check=True)
    assert "CONSOLE" not in result.stderr, result.stderr
    drawn = re.search(r'data-drawn="(\d+)"', result.stdout)
    assert drawn is not None
    assert int(drawn[1]) == len(run.spans)
    assert result.stdout.count('class="bar"') == 2
    legend = result.stdout.split('id="legend"')[1].split("</div>")[0]
    assert legend.count("<i ") == len({span.task.name for span in run.spans})
    assert "Idle gaps of the NPU" in result.stdout
