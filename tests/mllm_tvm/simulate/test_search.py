"""Search and plan files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mllm_tvm.errors import MllmTvmError
from mllm_tvm.report.write import ReportError
from mllm_tvm.simulate.configuration import OURS, Placement
from mllm_tvm.simulate.errors import ModelTooLargeError, SimulationError
from mllm_tvm.simulate.memory import npu_bytes
from mllm_tvm.simulate.models import MODELS
from mllm_tvm.simulate.plan import read_plan, write_plan
from mllm_tvm.simulate.prefill import simulate_prefill
from mllm_tvm.simulate.profile import load_profile
from mllm_tvm.simulate.search import SearchSpace, parse_prompts, parse_shares, search

PROFILE = load_profile("snapdragon-8gen3")
TINY = replace(MODELS["qwen1.5-1.8b"], layers=4)


def test_search_beats_every_single_length() -> None:
    prompts = {60: 1.0, 500: 2.0}
    found = search(TINY, PROFILE, prompts, SearchSpace())

    def mean(lengths: tuple[int, ...]) -> float:
        configuration = replace(found.configuration, chunk_lengths=lengths)
        seconds = [simulate_prefill(TINY, configuration, PROFILE, n).seconds * w for n, w in prompts.items()]
        return sum(seconds) / 3.0

    others = [(length,) for length in (16, 64, 256, 512)] + [OURS.chunk_lengths]
    assert found.seconds <= min(map(mean, others)) * (1 + 1e-9)
    assert [run.prompt for run in found.runs] == list(prompts)
    assert found.seconds == pytest.approx(mean(found.configuration.chunk_lengths))
    narrower = search(TINY, PROFILE, prompts, SearchSpace(placements=(Placement(activation="cpu"),)))
    assert found.seconds <= narrower.seconds
    assert found.tried > narrower.tried


def test_lengths_that_the_npu_cannot_hold_are_not_tried() -> None:
    room = npu_bytes(TINY, replace(OURS, chunk_lengths=(256,)), 0)
    small = replace(PROFILE, npu=replace(PROFILE.npu, memory_bytes=room, sessions=1))
    assert max(search(TINY, small, {512: 1.0}, SearchSpace()).configuration.chunk_lengths) <= 256
    tiny = replace(PROFILE, npu=replace(PROFILE.npu, memory_bytes=1000, sessions=1))
    with pytest.raises(ModelTooLargeError, match="GB of NPU memory"):
        search(TINY, tiny, {512: 1.0}, SearchSpace())


def test_plan_survives_its_file(tmp_path: Path) -> None:
    found = search(TINY, PROFILE, {100: 1.0}, SearchSpace())
    write_plan(tmp_path / "plan.json", found, TINY.name, PROFILE.name)
    plan = read_plan(tmp_path / "plan.json")
    assert plan.chunk_lengths == found.configuration.chunk_lengths
    assert (plan.model, plan.profile, plan.pruned_share) == (TINY.name, PROFILE.name, 0.85)
    assert plan.fuse_mlp == (found.configuration.placement.activation == "npu")
    assert plan.policy == "ours"
    assert [file.name for file in tmp_path.iterdir()] == ["plan.json"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 9}, "schema_version 9, expected 2"),
        ({"chunk_lengths": None}, "is damaged"),
        ({"chunk_lengths": []}, r"chunk lengths \(\), expected positive"),
        ({"chunk_lengths": [0]}, "expected positive"),
        ({"chunk_lengths": [16.7]}, "is damaged"),
        ({"chunk_lengths": "16"}, "is damaged"),
        ({"pruned_share": 2}, "pruned share 2, expected 0 to 1"),
        ({"pruned_share": True}, "is damaged"),
        ({"placement": {"linear": "npu", "norm": "npu"}}, "what the compiler can do is"),
        ({"placement": None}, "is damaged"),
        ({"policy": "fastest"}, "unknown scheduling policy 'fastest'"),
    ],
)
def test_bad_plans(tmp_path: Path, change: dict[str, object], message: str) -> None:
    file = tmp_path / "plan.json"
    write_plan(file, search(TINY, PROFILE, {64: 1.0}, SearchSpace()), TINY.name, PROFILE.name)
    data = json.loads(file.read_text())
    file.write_text(json.dumps({**data, **change}))
    with pytest.raises(MllmTvmError, match=message):
        read_plan(file)
    del data["policy"]
    file.write_text(json.dumps(data))
    with pytest.raises(SimulationError, match="has no 'policy'"):
        read_plan(file)


def test_plans_that_are_no_plans(tmp_path: Path) -> None:
    with pytest.raises(SimulationError, match="cannot be read"):
        read_plan(tmp_path / "none.json")
    found = search(TINY, PROFILE, {64: 1.0}, SearchSpace(chunk_lengths=(64,), whole_sets=()))
    with pytest.raises(ReportError, match=r"cannot write .*choose another file"):
        write_plan(tmp_path / "none" / "plan.json", found, TINY.name, PROFILE.name)
    (tmp_path / "text.json").write_text("chunks")
    with pytest.raises(SimulationError, match="is damaged"):
        read_plan(tmp_path / "text.json")


def test_prompt_distributions() -> None:
    assert parse_prompts("64,512:3") == {64: 1.0, 512: 3.0}
    assert parse_prompts("64:1,64:2") == {64: 3.0}
    with pytest.raises(SimulationError, match="prompt lengths 'many': expected TOKENS"):
        parse_prompts("many")
    assert parse_shares("0.5,0.85") == (0.5, 0.85)
    for text in ("2", "much", ""):
        with pytest.raises(SimulationError, match="expected numbers from 0 to 1"):
            parse_shares(text)
    shares = search(TINY, PROFILE, {512: 1.0}, SearchSpace(pruned_shares=(0.5, 0.0)))
    alone = [search(TINY, PROFILE, {512: 1.0}, SearchSpace(pruned_shares=(s,))).seconds for s in (0.5, 0.0)]
    assert shares.seconds == min(alone)
    assert shares.configuration.pruned_share == (0.5 if alone[0] < alone[1] else 0.0)
    for weight in (0.0, float("nan"), float("inf")):
        with pytest.raises(SimulationError, match="weights above 0"):
            search(TINY, PROFILE, {64: weight}, SearchSpace())
