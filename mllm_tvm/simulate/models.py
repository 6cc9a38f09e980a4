"""Shapes of decoder-only models: all that the simulator needs to know about one, no weights."""

from __future__ import annotations

from dataclasses import dataclass

from mllm_tvm.published import PAPER_MODELS, published_settings

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


def _published(name: str) -> ModelShape:
    """The shape of a published model: Phi is the one with a parallel block and no gate."""
    settings = published_settings(name)
    is_phi = settings["model_type"] == "phi"
    hidden, heads = settings["hidden_size"], settings["num_attention_heads"]
    return ModelShape(
        name=name,
        layers=settings["num_hidden_layers"],
        hidden=hidden,
        heads=heads,
        kv_heads=settings["num_key_value_heads"],
        head_dim=settings.get("head_dim", hidden // heads),
        intermediate=settings["intermediate_size"],
        vocab=settings["vocab_size"],
        gated=not is_phi,
        parallel_block=is_phi,
    )


MODELS = {name: _published(name) for name in PAPER_MODELS}
"""The paper's models."""


def find_model(name: str) -> ModelShape:
    """The model of that name; raises SimulationError."""
    if name.lower() not in MODELS:
        raise SimulationError(f"unknown model {name!r}: expected one of {', '.join(MODELS)}")
    return MODELS[name.lower()]
