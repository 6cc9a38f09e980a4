"""A compiled model on the clock of a device profile: the wall clock's bits, the profile's times, a trace."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mllm_tvm.artifact import Artifact
from mllm_tvm.cli import main
from mllm_tvm.runtime.engine import Engine
from mllm_tvm.runtime.policies import POLICIES
from mllm_tvm.simulate.errors import SimulationError

PROMPT = [int(i) for i in np.random.default_rng(5).integers(3, 200, 40)]


def test_same_bits_on_both_clocks(demo_artifact: Artifact) -> None:
    with Engine(demo_artifact, "host", "sequential") as engine:
        expected = engine.forward(PROMPT)
    times = {}
    for policy in POLICIES:
        for profile in (None, "snapdragon-8gen3"):
            with Engine(demo_artifact, "host", policy, (16,), profile=profile) as engine:
                np.testing.assert_array_equal(engine.forward(PROMPT), expected, strict=True)
                assert engine.stats.clock == (profile or "wall")
                times[policy, profile] = engine.stats.prefill_s
    virtual = {policy: times[policy, "snapdragon-8gen3"] for policy in POLICIES}
    assert virtual["ours"] <= virtual["paper"] <= virtual["sequential"]
    assert virtual["ours"] < virtual["sequential"]


def test_run_writes_a_trace(
    demo_artifact: Artifact, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace, report = tmp_path / "trace.json", tmp_path / "report.html"
    files = ["--trace", str(trace), "--report", str(report)]
    arguments = ["run", str(demo_artifact.path), "--device", "host", "--max-tokens", "4", "--json", *files]
    assert main([*arguments, "--profile", "qemu-hvx", "--policy", "ours"]) == 0
    data = json.loads(capsys.readouterr().out)
    events = [event for event in json.loads(trace.read_text())["traceEvents"] if event["ph"] == "X"]
    end = max(event["ts"] + event["dur"] for event in events) / 1e6
    assert data["clock"] == "qemu-hvx"
    assert data["prefill_s"] == pytest.approx(end, abs=1e-4)
    assert {event["args"]["layer"] for event in events} > {0, 1, 2}
    assert "Idle gaps of the NPU" in report.read_text()


def test_unknown_profile(demo_artifact: Artifact) -> None:
    with pytest.raises(SimulationError, match="unknown device profile 'phone'"):
        Engine(demo_artifact, "host", profile="phone")
