"""The second clock: the same bits as on the wall clock under every legal order, times from a profile."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from runtime_fakes import (
    CHUNK_LENGTHS,
    CONTEXT,
    FUNCTIONS,
    HIDDEN,
    VOCAB,
    FakeSession,
    RandomOrder,
    make_graph,
    make_parameters,
    reference_logits,
)

from mllm_tvm.errors import DeviceError
from mllm_tvm.runtime.policies import POLICIES, PolicyOf
from mllm_tvm.runtime.runner import ModelRunner, RunnerConfig
from mllm_tvm.runtime.scheduler import simulate
from mllm_tvm.simulate.function_durations import FunctionDurations
from mllm_tvm.simulate.profile import load_profile

PROMPT = [int(i) for i in np.random.default_rng(2).integers(0, VOCAB, 43)]
DURATIONS = FunctionDurations(load_profile("snapdragon-8gen3"), HIDDEN)


def virtual_runner(policy: str | PolicyOf = "ours", session: FakeSession | None = None) -> ModelRunner:
    parameters = make_parameters()
    config = RunnerConfig(CHUNK_LENGTHS, CONTEXT, HIDDEN, policy, DURATIONS)
    device = session or FakeSession()
    return ModelRunner(make_graph(), parameters, parameters, lambda: FUNCTIONS, lambda: device, config)


@pytest.mark.parametrize("policy", [*POLICIES, *(partial(RandomOrder, seed=seed) for seed in range(4))])
def test_same_bits_under_every_policy(policy: str | PolicyOf) -> None:
    runner = virtual_runner(policy)
    result = runner.prefill(PROMPT, all_logits=True)
    runner.close()
    np.testing.assert_array_equal(result.logits, reference_logits(PROMPT, make_parameters()), strict=True)


def test_time_is_the_profiles() -> None:
    """The run's timeline is, task by task, the simulation of its tasks; it is the same every time."""
    runner = virtual_runner()
    first = runner.prefill(PROMPT).timeline
    runner.reset()
    again = runner.prefill(PROMPT).timeline
    runner.close()
    assert first == again
    assert first == simulate([span.task for span in sorted(first, key=lambda span: span.task.id)], "ours")
    assert all(span.end - span.start == pytest.approx(span.task.duration) for span in first)
    assert min(span.task.duration for span in first if span.task.processor == "npu") > 0.5e-3
    assert runner.virtual_decode_s() > 0


def test_layers_are_named() -> None:
    runner = virtual_runner()
    layers = {span.task.layer for span in runner.prefill(PROMPT).timeline}
    runner.close()
    assert len(layers) > 1


def test_a_failing_device_ends_the_run() -> None:
    runner = virtual_runner(session=FakeSession(dies_at=3))
    with pytest.raises(DeviceError):
        runner.prefill(PROMPT)
    with pytest.raises(DeviceError, match="failed earlier"):
        runner.prefill(PROMPT)
    runner.close()
