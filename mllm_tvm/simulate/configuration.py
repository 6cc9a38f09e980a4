"""How a system runs a prompt: chunking, number format, placement and policy."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from .errors import SimulationError

PLACEABLE = ("linear", "norm", "activation", "attention")


@dataclass(frozen=True)
class Placement:
    """The processor of each kind of function: ``cpu`` or ``npu``; shadows are on the CPU."""

    linear: str = "npu"
    norm: str = "cpu"
    activation: str = "npu"
    attention: str = "cpu"

    def __post_init__(self) -> None:
        for kind in PLACEABLE:
            processor = getattr(self, kind)
            if processor not in ("cpu", "npu"):
                raise SimulationError(f"placement of {kind} is {processor!r}, expected cpu or npu")


@dataclass(frozen=True)
class Configuration:
    """One way to run a prompt."""

    name: str
    chunk_lengths: tuple[int, ...] = (256,)
    """Compiled lengths; empty for one graph of exactly the prompt's length."""
    policy: str = "paper"
    pruned_share: float = 0.85
    """Share of the layers that have no shadow path; 1.0 for no shadow outliers at all."""
    placement: Placement = field(default_factory=Placement)
    grouped: bool = False
    """Linears quantized in groups along K rather than per tensor."""
    plain_shapes: bool = False
    """Activations keep their plain shape; only fixed chunk lengths can be profiled for a better one."""
    pads_float: bool = True
    """Float functions run on a chunk's padding too."""
    fuses_float: bool = False
    """Float functions on the CPU are compiled into one pass rather than run operator by operator."""
    separates_attention: bool = False
    """Attention and the quantization of its result are a function; what is token-wise before is another."""
    integer_mlp: bool = False
    """A gated MLP whose activation is on the NPU is one function there, in layers with shadows too: its
    activation is integer, its outliers are upper bytes. There is no such function for MLPs without a gate."""
    merges_on_cpu: bool = False
    """In layers with shadows the norms and activations that add their results are on the CPU: the NPU never
    waits for a float result."""
    merges_linears: bool = False
    """In a parallel block too, linears that read the same value are one function. Its activation is on the
    CPU then: what follows a function with several uses is no part of it."""
    last_row_head: bool = False
    """What only the logits need (in the last layer, all behind its keys and values) runs on the last row."""
    plans_chunks: bool = False
    """The engine's planner cuts the prompt, which counts what does not overlap; else NPU time decides."""
    builds_graph: bool = False
    """The NPU graph is built and optimized again for each prompt."""
    sets_up: bool = True
    """State is allocated and first touched in each prefill rather than once when the engine opens."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.pruned_share <= 1.0:
            raise SimulationError(f"pruned share is {self.pruned_share!r}, expected 0 to 1")
        if any(length < 1 for length in self.chunk_lengths):
            raise SimulationError(f"chunk lengths {self.chunk_lengths}: expected positive numbers")

    def fuses_mlp(self, gated: bool) -> bool:
        """Whether the MLPs of a model, ``gated`` or not, are integer NPU functions."""
        return self.integer_mlp and gated and self.placement.activation == "npu"


_CPU = Placement("cpu", "cpu", "cpu")
CPU_ONLY = Configuration(
    "cpu", (), "sequential", 1.0, _CPU, pads_float=False, fuses_float=True, sets_up=False
)
PAPER = Configuration("paper")
SHADOW = replace(PAPER, name="shadow-outliers", policy="sequential")
_NPU = Placement("npu", "npu", "npu", "npu")
CHUNKED = replace(SHADOW, name="chunk-sharing", pruned_share=1.0, grouped=True, placement=_NPU)
NAIVE = replace(CHUNKED, name="naive-npu", chunk_lengths=(), plain_shapes=True, builds_graph=True)
OURS = Configuration(
    "ours",
    (32, 64, 96, 128, 256, 320, 384, 640),
    "ours",
    merges_on_cpu=True,
    merges_linears=True,
    last_row_head=True,
    plans_chunks=True,
    pads_float=False,
    fuses_float=True,
    separates_attention=True,
    integer_mlp=True,
    sets_up=False,
)
"""What the compiler emits and the engine runs: the same calls in a layer, with the same dependencies."""
OURS_UNFUSED = replace(OURS, name="ours-unfused", placement=Placement(activation="cpu"))
"""The same with every float function on the CPU."""
OURS_NORMS = replace(OURS, name="ours-norms", placement=Placement(norm="npu"))
"""What norms on the NPU would bring; the compiler has no such kernel."""
ABLATION = (CPU_ONLY, NAIVE, CHUNKED, SHADOW, PAPER)
"""The paper's steps, from no NPU to the whole system."""
CONFIGURATIONS = {
    configuration.name: configuration for configuration in (*ABLATION, OURS, OURS_UNFUSED, OURS_NORMS)
}


def find_configuration(name: str) -> Configuration:
    """The configuration of that name; raises SimulationError."""
    if name not in CONFIGURATIONS:
        raise SimulationError(f"unknown configuration {name!r}: expected one of {', '.join(CONFIGURATIONS)}")
    return CONFIGURATIONS[name]
