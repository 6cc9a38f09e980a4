"""What a simulated request comes to: times, idle share, bound, energy and memory."""

from __future__ import annotations

from dataclasses import dataclass

from .configuration import Configuration
from .decode import decode_busy_s
from .energy import energy_j
from .memory import check_memory, memory_use
from .models import ModelShape
from .prefill import PrefillRun, simulate_prefill
from .profile import DeviceProfile


@dataclass(frozen=True)
class Request:
    """What is simulated: a prompt and the tokens decoded after it, on ``decode_on`` (cpu or npu)."""

    model: ModelShape
    profile: DeviceProfile
    prompt: int
    output: int = 0
    decode_on: str = "cpu"


@dataclass(frozen=True)
class Summary:
    """The figures of one simulated request under one configuration; seconds, joules, bytes."""

    model: str
    profile: str
    configuration: str
    policy: str
    prompt: int
    chunk_lengths: tuple[int, ...]
    placement: dict[str, str]
    tokens_per_s: float
    prefill_s: float
    bubble: float
    lower_bound_s: float
    npu_busy_s: float
    cpu_busy_s: float
    energy_j: float
    peak_memory_bytes: int
    output: int
    decode_on: str
    decode_s: float
    decode_tokens_per_s: float
    decode_energy_j: float


def simulate_request(request: Request, configuration: Configuration) -> tuple[Summary, PrefillRun]:
    """The summary and the prefill it is of. Raises what ``simulate_prefill`` does, for the output too."""
    check_memory(request.model, configuration, request.profile, request.prompt, max(request.output, 0))
    run = simulate_prefill(request.model, configuration, request.profile, request.prompt)
    return summarize(request, run), run


def summarize(request: Request, run: PrefillRun) -> Summary:
    """The figures of a prefill that was simulated, and of the decode that follows."""
    busy, profile = run.busy_s, request.profile
    decode = decode_busy_s(request.model, profile, request.decode_on, request.prompt, request.output)
    decode_s = sum(decode.values())
    memory = memory_use(request.model, run.configuration, request.prompt, request.output)
    return Summary(
        model=request.model.name,
        profile=profile.name,
        configuration=run.configuration.name,
        policy=run.configuration.policy,
        prompt=request.prompt,
        chunk_lengths=tuple(chunk.length for chunk in run.chunks),
        placement=vars(run.configuration.placement),
        tokens_per_s=run.tokens_per_s,
        prefill_s=run.seconds,
        bubble=run.bubble,
        lower_bound_s=run.lower_bound_s,
        npu_busy_s=busy["npu"],
        cpu_busy_s=busy["cpu"],
        energy_j=energy_j(profile, run.seconds, busy),
        peak_memory_bytes=memory.total,
        output=request.output,
        decode_on=request.decode_on,
        decode_s=decode_s,
        decode_tokens_per_s=request.output / decode_s if decode_s else 0.0,
        decode_energy_j=energy_j(profile, decode_s, decode),
    )
