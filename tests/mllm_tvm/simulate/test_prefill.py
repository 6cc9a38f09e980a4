"""Simulated prefills: cost model, programs, memory, energy, and ours against the paper's system."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from mllm_tvm.simulate import paper
from mllm_tvm.simulate.configuration import CPU_ONLY, NAIVE, OURS, OURS_NORMS, OURS_UNFUSED, PAPER, Placement
from mllm_tvm.simulate.cost import CostModel, Work
from mllm_tvm.simulate.decode import decode_busy_s
from mllm_tvm.simulate.energy import energy_j
from mllm_tvm.simulate.errors import ModelTooLargeError, SimulationError
from mllm_tvm.simulate.levers import PROMPTS, geometric_mean, lever_speedups
from mllm_tvm.simulate.memory import memory_use
from mllm_tvm.simulate.models import MODELS, find_model
from mllm_tvm.simulate.prefill import simulate_prefill
from mllm_tvm.simulate.profile import load_profile
from mllm_tvm.simulate.program import chunk_program, mlp_packets, shadow_layers
from mllm_tvm.simulate.summary import Request, simulate_request

PROFILE = load_profile(paper.DEVICE)
QWEN = MODELS["qwen1.5-1.8b"]


@pytest.mark.parametrize(
    ("name", "billions"),
    [("qwen1.5-1.8b", 1.84), ("gemma-2b", 2.51), ("phi-2", 2.65), ("llama-2-7b", 6.61), ("mistral-7b", 7.11)],
)
def test_model_sizes_are_the_published_ones(name: str, billions: float) -> None:
    """Parameters but for norms and biases; Qwen's and LLaMA's embedding and head are two tables."""
    shape = find_model(name)
    untied = name in ("qwen1.5-1.8b",)
    total = shape.linear_weights + shape.head_weights * (2 if untied else 1)
    assert total / 1e9 == pytest.approx(billions, rel=0.015)


def test_cost_by_hand() -> None:
    """256 rows of 1000 weights: compute and streaming take the same; 1 row streams; a launch each."""
    cost, npu = CostModel(PROFILE), PROFILE.npu
    streamed = 1000 / npu.bandwidth_bytes_per_s
    assert cost.seconds(Work(weights=1000), "npu", 256) == pytest.approx(streamed + npu.launch_s)
    assert cost.seconds(Work(weights=1000), "npu", 512) == pytest.approx(2 * streamed + npu.launch_s)
    assert cost.seconds(Work(weights=1000), "npu", 32) == pytest.approx(streamed + npu.launch_s)
    slow = cost.seconds(Work(weights=1000, plain_shape=True), "npu", 256)
    assert slow == pytest.approx(npu.plain_shape_slowdown * streamed + npu.launch_s)
    vector = cost.seconds(Work(packets=1000), "npu", 10)
    assert vector == pytest.approx(10_000 / (npu.contexts * npu.clock_hz) + npu.launch_s)
    waits = cost.seconds(Work(waits=2, io_bytes=60), "npu", 10)
    assert waits == pytest.approx(3 * npu.launch_s + 600 / npu.dma_bytes_per_s)
    cpu = PROFILE.cpu
    attention = cost.seconds(Work(context_macs=8, float_bytes=2), "cpu", 10, context=100)
    expected = 8000 / cpu.float_macs_per_s + 20 / cpu.bandwidth_bytes_per_s + cpu.launch_s
    assert attention == pytest.approx(expected)


def test_chunk_efficiency_is_linear_between_points() -> None:
    cost = CostModel(replace(PROFILE, npu=replace(PROFILE.npu, chunk_efficiency={"2": 0.2, "10": 1.0})))
    assert [cost.chunk_efficiency(rows) for rows in (1, 2, 6, 10, 99)] == pytest.approx([0.1, 0.2, 0.6, 1, 1])


def test_functions_of_a_layer() -> None:
    """Qwen: three NPU functions a layer, as in the paper; o to qkv are joined with norms on the NPU."""
    pruned = replace(PAPER, pruned_share=1.0)
    on_npu = [op.function for op in chunk_program(QWEN, pruned) if op.processor == "npu" and op.layer == 5]
    assert on_npu == ["qkv", "o", "up+activation+down"]
    joined = replace(pruned, placement=Placement(norm="npu"))
    functions = [op.function for op in chunk_program(QWEN, joined) if op.processor == "npu"]
    assert len(functions) == QWEN.layers + 1
    assert functions[1] == "o+norm2+up+activation+down+norm1+qkv"
    shadowed = [op for op in chunk_program(QWEN, PAPER) if op.function.endswith("shadow")]
    assert len(shadowed) == 4 * len(shadow_layers(24, 0.85))
    assert shadow_layers(24, 0.85) == {0, 1, 22, 23}


def test_parallel_block_reads_one_norm() -> None:
    ops = {op.name: op for op in chunk_program(MODELS["phi-2"], replace(PAPER, pruned_share=1.0))}
    assert ops["3.up"].deps == ops["3.qkv"].deps == ("3.norm1",)
    assert ops["4.norm1"].deps == ("3.o", "3.up")
    assert not any("norm2" in name for name in ops)


def test_attention_waits_for_all_earlier_chunks() -> None:
    tasks = simulate_prefill(QWEN, replace(PAPER, sets_up=False), PROFILE, 768).prefill.tasks
    names = {task.id: (task.chunk, task.layer, task.name) for task in tasks}
    attention = next(t for t in tasks if t.chunk == 2 and t.layer == 10 and t.name == "attention")
    assert {names[dep] for dep in attention.deps} == {(chunk, 10, "qkv") for chunk in range(3)}
    assert sum(task.name == "head" for task in tasks) == 1


def test_ours_over_the_paper() -> None:
    """What the compiler emits against the paper's configuration, with its set-up of a prefill and without."""
    runs = [(model, prompt) for model in MODELS.values() for prompt in PROMPTS]
    without = replace(PAPER, sets_up=False)
    paper_s, ours = (
        [simulate_prefill(model, configuration, PROFILE, prompt).seconds for model, prompt in runs]
        for configuration in (without, OURS)
    )
    set_up = [PROFILE.cpu.setup_s_per_channel * model.layers * model.hidden for model, _ in runs]
    assert all(b <= a for a, b in zip(paper_s, ours, strict=True))
    assert _speedup(map(sum, zip(paper_s, set_up, strict=True)), ours) >= 2.5
    assert _speedup(paper_s, ours) >= 1.25


def test_placements_are_ordered() -> None:
    """The fewer round trips, the faster: activations on the NPU, and norms too (no such kernel yet)."""
    times = [simulate_prefill(QWEN, c, PROFILE, 512).seconds for c in (OURS_UNFUSED, OURS, OURS_NORMS)]
    assert times == sorted(times, reverse=True)
    assert len(set(times)) == 3


def _speedup(before: Iterable[float], after: Iterable[float]) -> float:
    return geometric_mean(a / b for a, b in zip(before, after, strict=True))


def test_head_is_the_last_row() -> None:
    """In the last layer only keys and values are needed of all rows; the rest is one row, on the CPU."""
    ours = chunk_program(QWEN, replace(OURS, pruned_share=1.0))
    last = [op for op in ours if op.layer == QWEN.layers - 1]
    assert [(op.function, op.head) for op in last] == [
        ("norm1", False),
        ("qkv", False),
        ("rotary", False),
        ("attention", True),
        ("o", True),
        ("norm2", True),
        ("mlp", True),
    ]
    assert {op.processor for op in last if op.head} == {"cpu"}
    assert [op.head for op in chunk_program(QWEN, PAPER)].count(True) == 1
    tasks = simulate_prefill(QWEN, OURS, PROFILE, 512).prefill.tasks
    assert [task.chunk for task in tasks if task.name == "attention" and task.layer == 23] == [1]


def test_packets_of_an_integer_mlp() -> None:
    """Those of docs/kernels.md for 16 rows of 2048 x 5504 x 2048, beside the linears, within a tenth."""
    assert 16 * mlp_packets(2048, 5504, 2048) == pytest.approx(2_201_590 - 2_162_210, rel=0.1)
    sparse = 16 * 1.4 / 32 * (0.0034 * 2048 * 2 * 5504 + 0.0048 * 5504 * 2048)
    measured = 2_294_616 - 2_162_210
    assert 16 * mlp_packets(2048, 5504, 2048) + sparse == pytest.approx(measured, rel=0.1)
    of_words = mlp_packets(64, 128, 32, outliers=2) - mlp_packets(64, 128, 32)
    assert of_words == pytest.approx(1.4 / 32 * (2 * 256 + 2 * 32))


def test_outliers_of_an_integer_mlp_stay_on_the_npu() -> None:
    """Layers with shadows have none for their MLP; without the kernel each of its linears has one."""
    every = replace(OURS, pruned_share=0.0)
    expected = {True: {"qkv", "o"}, False: {"qkv", "o", "up", "down"}}
    for integer, shadowed in expected.items():
        program = chunk_program(QWEN, replace(every, integer_mlp=integer))
        shadows = [op.function for op in program if op.layer == 5 and op.function.endswith(".shadow")]
        assert {name.removesuffix(".shadow") for name in shadows} == shadowed
    packets = {op.layer: op.work.packets for op in chunk_program(QWEN, OURS) if op.function == "mlp"}
    assert packets[1] > packets[5] > 0


def test_levers_multiply_to_the_whole() -> None:
    levers = lever_speedups([QWEN], PROFILE, (256,))
    whole = (
        simulate_prefill(QWEN, PAPER, PROFILE, 256).seconds
        / simulate_prefill(QWEN, OURS, PROFILE, 256).seconds
    )
    product = 1.0
    for factor in levers.values():
        product *= factor
    assert product == pytest.approx(whole)
    assert len(levers) == 8


def test_naive_pays_for_a_graph_of_each_prompt_length() -> None:
    run = simulate_prefill(MODELS["gemma-2b"], NAIVE, PROFILE, 300)
    build = next(span for span in run.spans if span.task.name == "build")
    assert build.end - build.start == pytest.approx(paper.GRAPH_BUILD_S["gemma-2b"], rel=0.01)
    assert [chunk.length for chunk in run.chunks] == [300]


def test_energy_by_hand_and_measured_watts() -> None:
    """The anchors: a CPU-only and an NPU-only runtime draw what was measured, within the idle watts."""
    profile = replace(PROFILE, base_w=1.0)
    joules = energy_j(profile, 2.0, {"npu": 1.0, "cpu": 0.5})
    npu, cpu = profile.npu, profile.cpu
    by_hand = 2.0 + npu.active_w + npu.idle_w + 0.5 * cpu.active_w + 1.5 * cpu.idle_w
    assert joules == pytest.approx(by_hand)
    assert energy_j(PROFILE, 1.0, {"cpu": 1.0}) == pytest.approx(paper.WATTS["cpu"])
    assert energy_j(PROFILE, 1.0, {"npu": 1.0}) == pytest.approx(paper.WATTS["npu"])
    gemma = simulate_prefill(MODELS["gemma-2b"], PAPER, PROFILE, 1024)
    watts = energy_j(PROFILE, gemma.seconds, gemma.busy_s) / gemma.seconds
    assert watts == pytest.approx(paper.WATTS["system"], rel=0.2)


def test_energy_against_the_cpu() -> None:
    """Below the printed 35.6 to 59.5 for the paper's system, for the reason docs/simulation.md gives."""
    ratios = {}
    for configuration in (PAPER, OURS):
        for model in MODELS.values():
            request = Request(model, PROFILE, 1024)
            cpu, system = (simulate_request(request, c)[0] for c in (CPU_ONLY, configuration))
            ratios[configuration.name, model.name] = cpu.energy_j / system.energy_j
    assert ratios["paper", "qwen1.5-1.8b"] > 10
    assert sum(ratios["ours", name] >= paper.ENERGY_RATIOS[0] for name in MODELS) >= 3


def test_memory_of_the_paper() -> None:
    """Gemma-2B takes 3.7 GB at prompt 512 in the paper."""
    assert memory_use(MODELS["gemma-2b"], PAPER, 512).total / 1e9 == pytest.approx(3.7, rel=0.05)


def test_model_that_does_not_fit() -> None:
    with pytest.raises(
        SimulationError,
        match=r"llama-2-7b needs 6\.\d+ GB of NPU memory, qemu-hvx has 3\.50 GB .* GB too much. "
        r"What fits: 16 of its 32 layers; whole: qwen1.5-1.8b, gemma-2b, phi-2$",
    ):
        simulate_prefill(MODELS["llama-2-7b"], PAPER, load_profile("qemu-hvx"), 64)
    assert simulate_prefill(MODELS["llama-2-7b"], CPU_ONLY, load_profile("qemu-hvx"), 64).seconds > 0


def test_prompt_that_does_not_fit() -> None:
    """Its caches exceed the device's memory: the longest that fits is named, and does fit."""
    with pytest.raises(
        ModelTooLargeError, match=r"371\.\d+ GB too much. What fits: prompts of up to (\d+)"
    ) as e:
        simulate_prefill(QWEN, OURS, PROFILE, 1_000_000)
    longest = int(str(e.value).split("up to ")[1].split()[0])
    limit = PROFILE.cpu.memory_bytes
    assert memory_use(QWEN, OURS, longest).total <= limit < memory_use(QWEN, OURS, longest + 1).total
    small = replace(PROFILE, cpu=replace(PROFILE.cpu, memory_bytes=1000))
    with pytest.raises(ModelTooLargeError, match="What fits: no prompt"):
        simulate_prefill(QWEN, OURS, small, 8)


def test_decode_on_the_npu_leaves_attention_to_the_cpu() -> None:
    """Its joules are those of both processors; on the CPU the NPU idles."""
    busy = decode_busy_s(QWEN, PROFILE, "npu", 512, 4)
    assert busy["npu"] > busy["cpu"] > 0
    assert decode_busy_s(QWEN, PROFILE, "cpu", 512, 4)["npu"] == 0
    summary = simulate_request(Request(QWEN, PROFILE, 512, 4, "npu"), OURS)[0]
    assert summary.decode_s == pytest.approx(sum(busy.values()))
    assert summary.decode_energy_j == pytest.approx(energy_j(PROFILE, sum(busy.values()), busy))


def test_bad_input() -> None:
    with pytest.raises(SimulationError, match="unknown model 'gpt-5': expected one of qwen"):
        find_model("gpt-5")
    with pytest.raises(SimulationError, match="prompt has 0 tokens, expected at least 1"):
        simulate_prefill(QWEN, PAPER, PROFILE, 0)
    with pytest.raises(SimulationError, match="placement of norm is 'gpu', expected cpu or npu"):
        Placement(norm="gpu")
    with pytest.raises(SimulationError, match=r"pruned share is 1\.5"):
        replace(PAPER, pruned_share=1.5)
    with pytest.raises(SimulationError, match=r"chunk lengths \(0,\)"):
        replace(PAPER, chunk_lengths=(0,))
    with pytest.raises(SimulationError, match="output has -1 tokens, expected 0 or more"):
        simulate_request(Request(QWEN, PROFILE, 8, -1), PAPER)
    with pytest.raises(SimulationError, match="decode on 'gpu': expected cpu or npu"):
        simulate_request(Request(QWEN, PROFILE, 8, 4, "gpu"), PAPER)
