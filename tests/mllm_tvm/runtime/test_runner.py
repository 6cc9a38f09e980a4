"""The runner on real threads: results do not depend on schedule, chunks or timing; failures end a run."""

from __future__ import annotations

import random
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from runtime_fakes import (
    CONTEXT,
    FUNCTIONS,
    LAYERS,
    VOCAB,
    FakeSession,
    RandomOrder,
    make_graph,
    make_parameters,
    make_runner,
    reference_logits,
)

from mllm_tvm.errors import ArtifactError, DeviceError, PromptError
from mllm_tvm.runtime.policies import POLICIES
from mllm_tvm.runtime.tasks import ScheduleError

PROMPT = [int(i) for i in np.random.default_rng(1).integers(0, VOCAB, 43)]


@pytest.fixture(autouse=True)
def _no_leaked_threads() -> Iterator[None]:
    before = threading.active_count()
    yield
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


@pytest.mark.parametrize("policy", [*POLICIES, *(partial(RandomOrder, seed=seed) for seed in range(8))])
@pytest.mark.parametrize("chunk_lengths", [(16, 4), (5,)])
def test_every_legal_order_gives_the_same_bits(
    policy: str | Callable[..., RandomOrder], chunk_lengths: tuple[int, ...]
) -> None:
    expected = reference_logits(PROMPT, make_parameters())
    runner = make_runner(FakeSession(jitter=random.Random(3)), policy, chunk_lengths)
    every = runner.prefill(PROMPT, all_logits=True)
    runner.reset()
    last = runner.prefill(PROMPT)
    runner.close()
    np.testing.assert_array_equal(every.logits, expected, strict=True)
    np.testing.assert_array_equal(last.logits, expected[-1:], strict=True)


def test_decode_continues_a_prefill() -> None:
    expected = reference_logits(PROMPT, make_parameters())
    runner = make_runner()
    np.testing.assert_array_equal(runner.prefill(PROMPT[:20]).logits[-1], expected[19])
    for position in range(20, 30):
        np.testing.assert_array_equal(runner.decode(PROMPT[position]), expected[position])
    np.testing.assert_array_equal(runner.prefill(PROMPT[30:]).logits[-1], expected[-1])
    assert runner.position == len(PROMPT)
    runner.close()


def test_a_single_token_runs_on_the_cpu() -> None:
    session = FakeSession()
    runner = make_runner(session)
    result = runner.prefill(PROMPT[:1])
    runner.close()
    np.testing.assert_array_equal(result.logits, reference_logits(PROMPT[:1], make_parameters()))
    assert session.calls == []
    assert result.npu.calls == 0


def test_counts_and_timeline() -> None:
    session = FakeSession()
    runner = make_runner(session, "in-order")
    result = runner.prefill(PROMPT)
    again = runner.prefill(PROMPT[:10])
    runner.close()
    assert [(c.start, c.tokens, c.length) for c in result.chunks] == [(0, 16, 16), (16, 16, 16), (32, 11, 16)]
    # The last layer's output linear belongs to the head, which runs on the CPU for one row.
    assert result.npu.calls == len(result.chunks) * (2 * LAYERS - 1)
    assert result.npu.calls + again.npu.calls == len(session.calls)
    assert (result.npu.packets, result.npu.hvx) == (10 * result.npu.calls, 5 * result.npu.calls)
    assert sum(span.task.processor == "npu" for span in result.timeline) == result.npu.calls
    _check_timeline(result.timeline)
    assert session.uploads == 2 * LAYERS
    assert session.closed


def _check_timeline(timeline: tuple) -> None:
    """One task at a time on a processor, and none before its dependencies ended."""
    ends = {span.task.id: span.end for span in timeline}
    for span in timeline:
        assert all(ends[dep] <= span.start for dep in span.task.deps)
    for processor in ("cpu", "npu"):
        spans = sorted((s.start, s.end) for s in timeline if s.task.processor == processor)
        assert all(first[1] <= second[0] for first, second in pairwise(spans))


def test_processors_overlap() -> None:
    """While the device works on a chunk, the CPU runs functions of another one."""
    session = FakeSession(jitter=random.Random(0))
    runner = make_runner(session, "paper", (4,))
    timeline = runner.prefill(PROMPT).timeline
    runner.close()
    npu = [s for s in timeline if s.task.processor == "npu"]
    cpu = [s for s in timeline if s.task.processor == "cpu"]
    assert any(c.start < n.end and n.start < c.end for n in npu for c in cpu)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("dies_at", [1, 4, 7])
def test_device_death_ends_the_run(policy: str, dies_at: int) -> None:
    session = FakeSession(dies_at=dies_at)
    runner = make_runner(session, policy)
    with pytest.raises(DeviceError, match="the device died"):
        runner.prefill(PROMPT)
    with pytest.raises(DeviceError, match=r"failed earlier \(the device died\): open a new engine"):
        runner.prefill(PROMPT)
    runner.close()
    assert len(session.calls) == dies_at


def test_cpu_failure_ends_the_run_and_leaves_the_runner_usable() -> None:
    broken = {"fail": True}

    def attention(*args: np.ndarray) -> tuple[np.ndarray, ...]:
        if broken["fail"]:
            raise ValueError("no memory")
        return FUNCTIONS["attention"](*args)

    runner = make_runner(functions={**FUNCTIONS, "attention": attention})
    with pytest.raises(ValueError, match="no memory") as caught:
        runner.prefill(PROMPT)
    assert re.fullmatch(r"while running 'attention' of chunk \d on the cpu", *caught.value.__notes__)
    assert runner.position == 0
    broken["fail"] = False
    np.testing.assert_array_equal(
        runner.prefill(PROMPT).logits[-1], reference_logits(PROMPT, make_parameters())[-1]
    )
    runner.close()


def test_interrupt_ends_the_run_and_leaves_the_runner_usable() -> None:
    main = threading.get_ident()

    def attention(*args: np.ndarray) -> tuple[np.ndarray, ...]:
        if interrupt:
            signal.pthread_kill(main, interrupt.pop())
        return FUNCTIONS["attention"](*args)

    interrupt = [signal.SIGINT]
    runner = make_runner(functions={**FUNCTIONS, "attention": attention})
    with pytest.raises(KeyboardInterrupt):
        runner.prefill(PROMPT)
    assert runner.position == 0
    expected = reference_logits(PROMPT, make_parameters())[-1]
    np.testing.assert_array_equal(runner.prefill(PROMPT).logits[-1], expected)
    runner.close()


def test_context_limits() -> None:
    runner = make_runner()
    with pytest.raises(
        PromptError, match=rf"{CONTEXT + 1} tokens do not fit the model's context of {CONTEXT}"
    ):
        runner.prefill([1] * (CONTEXT + 1))
    with pytest.raises(PromptError, match="0 tokens"):
        runner.prefill([])
    runner.prefill([1] * CONTEXT)
    with pytest.raises(PromptError, match=f"context of {CONTEXT}"):
        runner.decode(1)
    runner.close()


def test_construction_errors_leave_no_threads() -> None:
    with pytest.raises(ScheduleError, match="unknown scheduling policy 'fifo'"):
        make_runner(policy="fifo")
    with pytest.raises(ArtifactError, match="no function 'head'"):
        make_runner(functions={name: f for name, f in FUNCTIONS.items() if name != "head"})

    class NoMemory(FakeSession):
        def upload(self, array: np.ndarray) -> None:
            raise DeviceError("out of device memory")

    session = NoMemory()
    with pytest.raises(DeviceError, match="out of device memory"):
        make_runner(session)
    assert session.closed


def test_intermediate_values_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end of a pass only the logits are left."""
    from mllm_tvm.runtime import runner as module

    kept = []
    original = module.RunValues

    def record(*args: object) -> object:
        kept.append(original(*args))
        return kept[-1]

    monkeypatch.setattr(module, "RunValues", record)
    runner = make_runner()
    runner.prefill(PROMPT)
    runner.close()
    assert [name for _, name in kept[0]._values] == [make_graph().logits]
