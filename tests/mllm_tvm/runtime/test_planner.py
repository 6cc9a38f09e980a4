"""The chunk planner: covers every token once, and is as cheap as brute force."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations_with_replacement

import pytest

from mllm_tvm.manifest import FunctionSpec
from mllm_tvm.runtime.durations import chunk_costs
from mllm_tvm.runtime.planner import ChunkCosts, ChunkPlan, plan_chunks, plan_prefill
from mllm_tvm.runtime.tasks import ScheduleError
from mllm_tvm.simulate.function_durations import measured_durations

COSTS: list[Mapping[int, float]] = [
    {256: 256, 64: 64, 16: 16},
    {256: 100, 64: 40, 16: 15},
    {16: 3.0, 10: 2.0, 7: 1.9},
    {5: 1.0},
    {32: 1.0, 8: 5.0},
]


def cheapest(tokens: int, cost: Mapping[int, float]) -> float:
    """By trying every multiset of lengths that covers the tokens."""
    best = float("inf")
    for count in range(1, -(-tokens // min(cost)) + 1):
        for chosen in combinations_with_replacement(cost, count):
            if tokens <= sum(chosen):
                best = min(best, sum(cost[length] for length in chosen))
    return best


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("tokens", [1, 4, 5, 7, 16, 17, 31, 33, 60])
def test_as_cheap_as_brute_force(tokens: int, cost: Mapping[int, float]) -> None:
    chunks = plan_chunks(tokens, list(cost), cost)
    assert sum(cost[chunk.length] for chunk in chunks) == pytest.approx(cheapest(tokens, cost))


@pytest.mark.parametrize("tokens", [1, 15, 16, 40, 65, 96, 130, 257])
def test_as_cheap_as_brute_force_at_measured_costs(tokens: int) -> None:
    """A layer of Qwen1.5-0.5B: short chunks stream its weights again and again."""
    linears = ((1024, 3072), (1024, 1024), (1024, 5632), (2816, 1024))
    functions = [FunctionSpec(f"linear_{k}x{n}", "npu", "linear", k, n) for k, n in linears]
    cost = chunk_costs(functions, (16, 64, 256), measured_durations(0))
    assert 4 * cost[16] > 2 * cost[64] > cost[64] > cost[16]
    chunks = plan_chunks(tokens, list(cost), cost)
    assert sum(cost[chunk.length] for chunk in chunks) == pytest.approx(cheapest(tokens, cost))


@pytest.mark.parametrize("cost", COSTS)
def test_covers_every_token_once(cost: Mapping[int, float]) -> None:
    for tokens in range(1, 700, 13):
        chunks = plan_chunks(tokens, list(cost), cost)
        ends = [chunk.start + chunk.tokens for chunk in chunks]
        assert [chunk.start for chunk in chunks] == [0, *ends[:-1]]
        assert ends[-1] == tokens
        assert all(chunk.tokens == chunk.length for chunk in chunks[:-1])
        assert 0 < chunks[-1].tokens <= chunks[-1].length
        lengths = [chunk.length for chunk in chunks]
        assert lengths == sorted(lengths, reverse=True)


def test_a_300_token_prompt_does_not_pay_for_512() -> None:
    lengths = [c.length for c in plan_chunks(300, (256, 64, 16))]
    assert lengths == [256, 16, 16, 16]


def test_launch_overhead_prefers_fewer_chunks() -> None:
    assert [c.length for c in plan_chunks(64, (64, 16), {64: 65.0, 16: 17.0})] == [64]
    assert [c.length for c in plan_chunks(40, (64, 16), {64: 50.0, 16: 17.0})] == [64], "three cost 51"


def test_no_tokens() -> None:
    assert plan_chunks(0, (16,)) == ()


def test_errors() -> None:
    with pytest.raises(ScheduleError, match="-1 tokens"):
        plan_chunks(-1, (16,))
    for lengths in ((), (0, 4)):
        with pytest.raises(ScheduleError, match="expected one or more positive lengths"):
            plan_chunks(5, lengths)
    with pytest.raises(ScheduleError, match="chunk length 8 has no cost"):
        plan_chunks(5, (16, 8), {16: 1.0})


SMALL = ChunkCosts({4: 2.0, 8: 3.0}, {4: 1.0, 8: 2.0})


def test_expected_time_of_plans_by_hand() -> None:
    """The busier processor's work, but no less than both do for one chunk; the CPU has valid rows only."""
    assert SMALL.prefill_s([ChunkPlan(0, 6, 8)]) == 3.0 + 2.0 * 6 / 8
    two = [ChunkPlan(0, 8, 8), ChunkPlan(8, 2, 4)]
    assert SMALL.prefill_s(two) == 5.0
    assert ChunkCosts(SMALL.npu, {4: 8.0, 8: 16.0}).prefill_s(two) == 20.0
    assert ChunkCosts({4: 1.0, 8: 3.0}, {4: 1.0, 8: 3.0}).prefill_s(two) == 6.0
    assert SMALL.prefill_s([*two, ChunkPlan(10, 4, 4)]) == 7.0


def test_two_chunks_overlap_where_one_would_not() -> None:
    """8 tokens in one chunk take 5, in two 4; with a quick CPU one chunk is faster."""
    assert [chunk.length for chunk in plan_prefill(8, SMALL)] == [4, 4]
    quick_cpu = ChunkCosts(SMALL.npu, {4: 0.1, 8: 0.2})
    assert [chunk.length for chunk in plan_prefill(8, quick_cpu)] == [8]


@pytest.mark.parametrize("tokens", [0, 1, 31, 32, 33])
def test_plan_of_a_prefill_that_fits_the_shortest_chunk(tokens: int) -> None:
    costs = ChunkCosts({32: 1.0, 64: 1.2}, {32: 0.5, 64: 1.0})
    assert [c.length for c in plan_prefill(tokens, costs)] == [[], [32], [64]][(tokens > 0) + (tokens > 32)]
    long_is_cheap = ChunkCosts({32: 2.0, 64: 1.5}, costs.cpu)
    assert {c.length for c in plan_prefill(tokens, long_is_cheap)} <= {64}


@pytest.mark.parametrize("tokens", [1, 7, 64, 300, 1024])
def test_plans_of_a_prefill_cover_the_prompt(tokens: int) -> None:
    lengths = (32, 64, 96, 256, 640)
    costs = ChunkCosts({m: 1.0 + m / 64 for m in lengths}, {m: m / 100 for m in lengths})
    chunks = plan_prefill(tokens, costs)
    ends = [chunk.start + chunk.tokens for chunk in chunks]
    assert [chunk.start for chunk in chunks] == [0, *ends[:-1]]
    assert ends[-1] == tokens
    assert all(0 < chunk.tokens <= chunk.length for chunk in chunks)
    assert costs.prefill_s(chunks) <= costs.prefill_s(plan_chunks(tokens, lengths, costs.npu))


def test_plan_of_a_prefill_without_lengths() -> None:
    with pytest.raises(ScheduleError, match="expected one or more positive lengths"):
        plan_prefill(5, ChunkCosts({}, {}))
