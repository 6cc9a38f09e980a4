"""GPT-2: learned positions, layer norms, biases, and linears stored [K, N] (``Conv1D``)."""

from __future__ import annotations

from tvm import relax

from mllm_tvm.frontend.builder import LM_HEAD, DecoderBuilder
from mllm_tvm.frontend.config import ConfigReader, ModelConfig, decoder_config
from mllm_tvm.frontend.parameters import Spec, Weight, layer_norm, vector

BASE_PREFIX = "transformer."
REDUNDANT = (".attn.bias", ".attn.masked_bias")

TOKENS, POSITIONS = "transformer.wte.weight", "transformer.wpe.weight"
_NAMES = {
    "hidden_size": "n_embd",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "max_position_embeddings": "n_positions",
    "intermediate_size": "n_inner",
}


def read_config(reader: ConfigReader) -> ModelConfig:
    """The settings of a GPT-2."""
    reader.only("scale_attn_weights", True)
    reader.only("scale_attn_by_inverse_layer_idx", False)
    reader = reader.aliased(_NAMES)
    inner = reader.integer("intermediate_size", 4 * reader.integer("hidden_size"))
    return decoder_config(
        reader,
        num_kv_heads=reader.integer("num_attention_heads"),
        intermediate_size=inner,
        activation=reader.activation("activation_function", "gelu_new"),
        norm_eps=reader.number("layer_norm_epsilon", 1e-5),
        tie_embeddings=reader.flag("tie_word_embeddings", True),
    )


def parameters(config: ModelConfig) -> dict[str, Spec]:
    """Parameter name -> where it comes from, in the argument order of ``main``."""
    shape = (config.vocab_size, config.hidden_size)
    specs: dict[str, Spec] = {
        TOKENS: Weight(TOKENS, shape, keep_float16=True),
        POSITIONS: Weight(POSITIONS, (config.max_positions, config.hidden_size), keep_float16=True),
    }
    for layer in range(config.num_layers):
        specs |= _layer(config, f"transformer.h.{layer}")
    specs |= layer_norm("transformer.ln_f", config.hidden_size)
    head = TOKENS if config.tie_embeddings else LM_HEAD
    return {**specs, LM_HEAD: Weight(head, shape, linear=True, transposed=True)}


def _layer(config: ModelConfig, prefix: str) -> dict[str, Spec]:
    hidden, inner = config.hidden_size, config.intermediate_size
    return {
        **layer_norm(f"{prefix}.ln_1", hidden),
        **_conv1d(f"{prefix}.attn.c_attn", hidden, 3 * hidden),
        **_conv1d(f"{prefix}.attn.c_proj", hidden, hidden),
        **layer_norm(f"{prefix}.ln_2", hidden),
        **_conv1d(f"{prefix}.mlp.c_fc", hidden, inner),
        **_conv1d(f"{prefix}.mlp.c_proj", inner, hidden),
    }


def _conv1d(name: str, inputs: int, outputs: int) -> dict[str, Spec]:
    weight = Weight(f"{name}.weight", (inputs, outputs), linear=True)
    return {f"{name}.weight": weight, **vector(f"{name}.bias", outputs)}


def forward(b: DecoderBuilder) -> relax.Expr:
    """Emits the model; returns the logits [seq, vocab]."""
    hidden = b.add(b.embed(TOKENS), b.embed(POSITIONS, b.positions))
    for layer in range(b.config.num_layers):
        prefix = f"transformer.h.{layer}"
        attended = _attention(b, f"{prefix}.attn", b.layer_norm(hidden, f"{prefix}.ln_1"))
        hidden = b.add(hidden, attended)
        fed = b.linear(b.layer_norm(hidden, f"{prefix}.ln_2"), f"{prefix}.mlp.c_fc")
        hidden = b.add(hidden, b.linear(b.activation(fed), f"{prefix}.mlp.c_proj"))
    return b.linear(b.layer_norm(hidden, "transformer.ln_f"), "lm_head")


def _attention(b: DecoderBuilder, name: str, x: relax.Expr) -> relax.Expr:
    hidden, heads = b.config.hidden_size, b.config.num_heads
    qkv = b.linear(x, f"{name}.c_attn")
    q, k, v = (b.heads(b.columns(qkv, i * hidden, (i + 1) * hidden), heads) for i in range(3))
    return b.linear(b.attention(q, k, v), f"{name}.c_proj")
