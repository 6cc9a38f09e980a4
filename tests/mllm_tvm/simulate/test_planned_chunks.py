"""The planner's rule against the simulated schedules of all ways to cut a prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from mllm_tvm.runtime.planner import ChunkPlan
from mllm_tvm.runtime.scheduler import simulate
from mllm_tvm.simulate.configuration import OURS
from mllm_tvm.simulate.cost import CostModel
from mllm_tvm.simulate.expand import expand_chunks, plan_prompt
from mllm_tvm.simulate.levers import geometric_mean
from mllm_tvm.simulate.models import MODELS, ModelShape
from mllm_tvm.simulate.profile import load_profile

LENGTHS = (64, 128, 256, 384, 512, 640)
LAYERS = 6
"""Enough to see how chunks take turns."""


def covers(tokens: int, lengths: Sequence[int], chunks: int) -> Iterator[tuple[int, ...]]:
    """Lengths in descending order that hold all tokens."""
    if tokens <= 0:
        yield ()
    elif chunks:
        for index, length in enumerate(lengths):
            yield from ((length, *rest) for rest in covers(tokens - length, lengths[index:], chunks - 1))


def cut(tokens: int, lengths: Sequence[int]) -> list[ChunkPlan]:
    starts = [sum(lengths[:index]) for index in range(len(lengths))]
    return [ChunkPlan(start, min(n, tokens - start), n) for start, n in zip(starts, lengths, strict=True)]


def seconds(model: ModelShape, cost: CostModel, chunks: Sequence[ChunkPlan]) -> float:
    spans = simulate(expand_chunks(model, OURS, cost, chunks).tasks, "ours")
    return max(span.end for span in spans)


@pytest.mark.parametrize("profile", ["snapdragon-8gen3", "qemu-hvx"])
def test_the_rule_is_nearly_as_good_as_simulating_every_cover(profile: str) -> None:
    cost = CostModel(load_profile(profile))
    rule = replace(OURS, chunk_lengths=LENGTHS)
    losses: dict[str, list[float]] = {"rule": [], "NPU time alone": []}
    for model in (replace(MODELS[name], layers=LAYERS) for name in ("qwen1.5-1.8b", "llama-2-7b", "phi-2")):
        for tokens in (256, 512, 700, 1024):
            best = min(seconds(model, cost, cut(tokens, c)) for c in covers(tokens, LENGTHS[::-1], 3))
            for name, configuration in zip(losses, (rule, replace(rule, plans_chunks=False)), strict=True):
                chunks = plan_prompt(model, configuration, cost, tokens)
                losses[name].append(seconds(model, cost, chunks) / best)
    assert geometric_mean(losses["rule"]) <= 1.01
    assert geometric_mean(losses["NPU time alone"]) > 1.015
