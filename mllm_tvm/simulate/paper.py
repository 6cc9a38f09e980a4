"""Figures of *Fast On-device LLM Inference with NPUs* (ASPLOS'25) the simulator is fitted on or held to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import mean

DEVICE = "snapdragon-8gen3"


@dataclass(frozen=True)
class MatmulRow:
    """Milliseconds of [m, k] x [k, n] (Table 3)."""

    m: int
    k: int
    n: int
    npu_int8_ms: float
    cpu_int8_ms: float
    npu_fp16_ms: float


MATMULS = (
    MatmulRow(64, 2048, 2048, 0.9, 4.2, 252),
    MatmulRow(64, 2048, 8192, 1.5, 6.8, 986),
    MatmulRow(64, 2048, 11008, 2.0, 11.6, 1207),
    MatmulRow(32, 4096, 4096, 1.7, 7.5, 1054),
    MatmulRow(32, 4096, 8192, 2.9, 13.1, 2009),
    MatmulRow(32, 4096, 11008, 4.1, 19.6, 3112),
)


@dataclass(frozen=True)
class PrefillCell:
    """Prefill seconds of the paper's system, averaged over prompts of ``shortest`` to ``longest`` tokens."""

    model: str
    data: str
    shortest: int
    longest: int
    seconds: float

    def simulated(self, seconds: Callable[[int], float]) -> float:
        """Mean of ``seconds(prompt tokens)`` over five prompt lengths that span the range."""
        step = (self.longest - self.shortest) / 4
        return mean(seconds(round(self.shortest + i * step)) for i in range(5))


MODELS = ("qwen1.5-1.8b", "gemma-2b", "phi-2", "llama-2-7b", "mistral-7b")
LENGTHS = {
    "2wikimqa": (1451, 1672),
    "persona-chat": (488, 584),
    "triviaqa": (1511, 1787),
    "droidtask-long": (656, 827),
    "droidtask-short": (505, 645),
}
"""Shortest and longest prompt of each data set (Table 5)."""


def _cells(data: str, *seconds: float) -> tuple[PrefillCell, ...]:
    pairs = zip(MODELS, seconds, strict=True)
    return tuple(PrefillCell(model, data, *LENGTHS[data], value) for model, value in pairs)


# Table 5. Persona-Chat of Qwen is printed as 2.92, slower than 2wikimqa: taken as a misprint for 0.92.
PREFILLS = _cells("2wikimqa", 1.49, 1.68, 2.79, 4.62, 4.61) + _cells(
    "persona-chat", 0.92, 0.67, 1.91, 2.88, 2.88
)
FURTHER_PREFILLS = (
    _cells("triviaqa", 1.49, 1.75, 2.94, 4.93, 4.82)
    + _cells("droidtask-long", 1.16, 0.97, 2.72, 4.28, 4.26)
    + _cells("droidtask-short", 0.90, 0.72, 2.07, 3.10, 3.13)
)
"""The rest of Table 5, which nothing was fitted on and no target is set for."""
LLAMA_CPP = (
    _cells("2wikimqa", 26.43, 34.31, 53.00, 145.25, 199.37)
    + _cells("persona-chat", 8.07, 11.24, 15.24, 40.37, 46.02)
    + _cells("triviaqa", 26.57, 35.72, 55.60, 154.90, 208.41)
    + _cells("droidtask-long", 10.16, 16.25, 24.62, 59.83, 67.91)
    + _cells("droidtask-short", 7.83, 12.11, 18.65, 43.40, 49.95)
)
"""The same prompts with llama.cpp on the CPU."""
DECODED = {"2wikimqa": 3, "persona-chat": 46, "triviaqa": 8, "droidtask-long": 3, "droidtask-short": 4}
"""Tokens decoded, middle of the printed range."""
DECODES = (
    _cells("2wikimqa", 0.24, 0.25, 0.34, 0.70, 0.87)
    + _cells("persona-chat", 3.80, 3.48, 3.22, 8.30, 10.28)
    + _cells("triviaqa", 0.47, 0.43, 0.68, 1.28, 1.57)
    + _cells("droidtask-long", 0.25, 0.23, 0.34, 0.53, 0.65)
    + _cells("droidtask-short", 0.25, 0.20, 0.34, 0.52, 0.65)
)
"""Seconds to decode them on the CPU."""

CONTRADICTED = (("gemma-2b", "persona-chat"), ("gemma-2b", "2wikimqa"))
"""Cells that no model in which more tokens take longer can fit together with the paper's own speeds: Gemma-2B
takes 0.80 s for 256 tokens and 1.22 s for 512, yet 0.67 s for 488 to 584; 1.70 s for 1024, yet 1.68 s for
1451 to 1672."""

ABLATION_PROMPT = 512
ABLATION: dict[str, tuple[float, ...]] = {
    "gemma-2b": (46, 18, 91, 355, 420),
    "qwen1.5-1.8b": (65, 25, 37, 395, 569),
    "llama-2-7b": (13, 5, 15, 133, 186),
}
"""Tokens a second (Fig. 19): llama.cpp on the CPU, naive NPU, + chunk sharing, + shadows, + out of order."""

GEMMA_SPEEDS = {64: 148, 256: 322, 1024: 604}
"""Tokens a second of Gemma-2B's prefill by prompt length."""

IN_ORDER_BUBBLE = 0.37
GRAPH_BUILD_S = {"gemma-2b": 0.36 + 11.54, "qwen1.5-1.8b": 0.45 + 3.30}
"""Building and optimizing a graph for a new prompt length (Fig. 2)."""
GROUPED_SLOWDOWN = (8.1, 10.7)
"""Of quantization in groups on the NPU, against per tensor (Fig. 4)."""
QWEN_256_NPU_S = 0.315
"""NPU time of Qwen1.5-1.8B at prompt 256, about twice that of the CPU."""
PLAIN_SHAPE_SLOWDOWN = 1.62
UNPRUNED_SYNCHRONIZATION = 0.297
"""Share of the latency that synchronization takes when no layer is pruned."""
CHUNK_LENGTH = 256
ENERGY_RATIOS = (35.6, 59.5)
"""llama.cpp's energy over the system's, prompt 1024."""
WATTS = {"system": 8.89, "npu": 4.96, "cpu": 8.22}
"""Measured independently with a 2-billion-parameter model: this system, a pure-NPU and a CPU runtime."""
