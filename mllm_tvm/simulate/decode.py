"""Time of decoding token by token, one row at a time: weights are streamed once for each token."""

from __future__ import annotations

from mllm_tvm.runtime.tasks import PROCESSORS

from .configuration import Configuration, Placement
from .cost import CostModel
from .errors import SimulationError
from .models import ModelShape
from .profile import DeviceProfile
from .program import chunk_program

PLACEMENTS = {
    "cpu": Placement("cpu", "cpu", "cpu"),
    "npu": Placement("npu", "cpu", "npu"),
}


def decode_busy_s(
    model: ModelShape, profile: DeviceProfile, processor: str, prompt: int, tokens: int
) -> dict[str, float]:
    """Seconds each processor works for ``tokens`` tokens after a prompt, linears on ``processor``.

    Functions run one after another. Attention is on the CPU and reads the cache in float32. Raises
    SimulationError for another processor than cpu or npu, or a negative number of tokens.
    """
    if processor not in PLACEMENTS:
        raise SimulationError(f"decode on {processor!r}: expected {' or '.join(PLACEMENTS)}")
    if tokens < 0:
        raise SimulationError(f"output has {tokens} tokens, expected 0 or more")
    cost = CostModel(profile)
    configuration = Configuration(
        "decode", (1,), "sequential", 1.0, PLACEMENTS[processor], pads_float=False, fuses_float=True
    )
    context = prompt + (tokens + 1) / 2
    busy = dict.fromkeys(PROCESSORS, 0.0)
    for op in chunk_program(model, configuration):
        busy[op.processor] += tokens * cost.seconds(op.cost(), op.processor, 1, context)
    busy["cpu"] += tokens * model.kv_bytes(1) * context / profile.cpu.bandwidth_bytes_per_s
    return busy


def decode_seconds(
    model: ModelShape, profile: DeviceProfile, processor: str, prompt: int, tokens: int
) -> float:
    """Seconds of the same. Raises what ``decode_busy_s`` does."""
    return sum(decode_busy_s(model, profile, processor, prompt, tokens).values())
