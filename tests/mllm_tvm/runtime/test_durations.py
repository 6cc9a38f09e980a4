"""Expected durations: estimates first, means of observations afterwards."""

from __future__ import annotations

import pytest
from runtime_fakes import make_runner

from mllm_tvm.manifest import FunctionSpec
from mllm_tvm.runtime.durations import DurationModel, chunk_costs
from mllm_tvm.simulate.function_durations import MEASURED_PROFILE, measured_durations
from mllm_tvm.simulate.profile import load_profile

SMALL = FunctionSpec("linear_64x64", "npu", "linear", 64, 64)
LARGE = FunctionSpec("linear_4096x4096", "npu", "linear", 4096, 4096)
NORM = FunctionSpec("float_0", "cpu", "float")


def estimate(function: FunctionSpec, processor: str, rows: int, hidden_size: int) -> float:
    """What a model expects that has observed nothing."""
    return DurationModel([function], hidden_size)(function, processor, rows)


def test_estimates_grow_with_work() -> None:
    assert estimate(SMALL, "npu", 64, 0) < estimate(LARGE, "npu", 64, 0) < estimate(LARGE, "npu", 256, 0)
    assert estimate(LARGE, "npu", 64, 0) < estimate(LARGE, "cpu", 64, 0)
    assert estimate(NORM, "cpu", 64, 512) < estimate(NORM, "cpu", 64, 2048)


def test_observations_replace_the_estimate_by_their_mean() -> None:
    model = DurationModel([LARGE], 512)
    assert model(LARGE, "npu", 64) == estimate(LARGE, "npu", 64, 512)
    for seconds in (1.0, 2.0, 6.0):
        model.observe((LARGE.name, "npu", 64), seconds)
    assert model(LARGE, "npu", 64) == pytest.approx(3.0)
    model.observe((LARGE.name, "npu", 64), 15.0, tasks=3)
    assert model(LARGE, "npu", 64) == pytest.approx(4.0)
    assert model(LARGE, "npu", 256) == estimate(LARGE, "npu", 256, 512)
    assert model(LARGE, "cpu", 64) == estimate(LARGE, "cpu", 64, 512)


def test_chunk_costs_favour_one_long_chunk_over_short_ones() -> None:
    costs = chunk_costs([SMALL, NORM, LARGE], [16, 64], measured_durations(0))
    assert costs[16] < costs[64] < 4 * costs[16]
    assert chunk_costs([NORM], [16], measured_durations(0)) == {16: 0}
    # Two calls, at the rate of packets counted on the simulated device.
    profile = load_profile(MEASURED_PROFILE).npu
    compute = 256 * LARGE.weights / (profile.int8_macs_per_s * profile.chunk_efficiency["256"])
    transfer = 256 * (LARGE.k + 4 * LARGE.n) / profile.dma_bytes_per_s
    assert chunk_costs([LARGE, LARGE], [256], measured_durations(0))[256] == pytest.approx(
        2 * (max(compute, LARGE.weights / profile.bandwidth_bytes_per_s) + transfer + profile.launch_s)
    )


def test_a_runner_learns_durations() -> None:
    runner = make_runner()
    spans = runner.prefill([1] * 20).timeline
    assert {span.task.duration for span in spans if span.task.name == "embed"} == {
        estimate(FunctionSpec("embed", "cpu", "float"), "cpu", rows, 8) for rows in (16, 4)
    }
    runner.reset()
    again = runner.prefill([1] * 16).timeline
    learned = next(span.task.duration for span in again if span.task.name == "embed")
    observed = next(span for span in spans if span.task.name == "embed" and span.task.chunk == 0)
    assert learned == pytest.approx(observed.end - observed.start)
    runner.close()
