"""Shapes of decoder-only models: all that the simulator needs to know about one, no weights."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import SimulationError


@dataclass(frozen=True)
class ModelShape:
    """A decoder-only transformer.

    ``gated`` feed-forwards have a gate besides the up projection (SwiGLU, GeGLU). In a ``parallel_block``
    attention and feed-forward read the same normalized input and are added together (Phi).
    """

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    gated: bool = True
    parallel_block: bool = False

    @property
    def qkv_columns(self) -> int:
        """Output columns of the query, key and value projections together."""
        return (self.heads + 2 * self.kv_heads) * self.head_dim

    @property
    def up_columns(self) -> int:
        """Output columns of the projections into the feed-forward together."""
        return self.intermediate * (2 if self.gated else 1)

    @property
    def layer_weights(self) -> int:
        """Weights in the linears of one decoder layer."""
        attention = self.hidden * (self.qkv_columns + self.heads * self.head_dim)
        return attention + self.hidden * (self.up_columns + self.intermediate)

    @property
    def linear_weights(self) -> int:
        """Weights in the linears of all decoder layers."""
        return self.layers * self.layer_weights

    @property
    def head_weights(self) -> int:
        """Weights of the output head (and of the embedding table)."""
        return self.vocab * self.hidden

    def kv_bytes(self, tokens: int) -> int:
        """Bytes of the key and value caches of ``tokens`` tokens in float32."""
        return 2 * 4 * self.layers * self.kv_heads * self.head_dim * tokens


_SHAPES = (
    ModelShape("qwen1.5-1.8b", 24, 2048, 16, 16, 128, 5504, 151936),
    ModelShape("gemma-2b", 18, 2048, 8, 1, 256, 16384, 256000),
    ModelShape("phi-2", 32, 2560, 32, 32, 80, 10240, 51200, gated=False, parallel_block=True),
    ModelShape("llama-2-7b", 32, 4096, 32, 32, 128, 11008, 32000),
    ModelShape("mistral-7b", 32, 4096, 32, 8, 128, 14336, 32000),
)
MODELS = {shape.name: shape for shape in _SHAPES}


def find_model(name: str) -> ModelShape:
    """The model of that name; raises SimulationError."""
    if name.lower() not in MODELS:
        raise SimulationError(f"unknown model {name!r}: expected one of {', '.join(MODELS)}")
    return MODELS[name.lower()]
