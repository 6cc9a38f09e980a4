"""Time of decoding token by token, one row at a time: weights are streamed once for each token."""

from __future__ import annotations

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


def decode_seconds(
    model: ModelShape, profile: DeviceProfile, processor: str, prompt: int, tokens: int
) -> float:
    """Seconds for ``tokens`` tokens after a prompt, linears on ``processor``, one function after another.

    Attention reads the cache in float32. Raises SimulationError for another processor than cpu or npu.
    """
    if processor not in PLACEMENTS:
        raise SimulationError(f"decode on {processor!r}: expected {' or '.join(PLACEMENTS)}")
    if tokens < 1:
        return 0.0
    cost = CostModel(profile)
    configuration = Configuration(
        "decode", (1,), "sequential", 1.0, PLACEMENTS[processor], pads_float=False, fuses_float=True
    )
    context = prompt + (tokens + 1) / 2
    program = chunk_program(model, configuration)
    step = sum(cost.seconds(op.cost(), op.processor, 1, context) for op in program)
    return tokens * (step + model.kv_bytes(1) * context / profile.cpu.bandwidth_bytes_per_s)
