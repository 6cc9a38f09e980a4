"""OPT: learned positions that start at row 2, layer norms before each block, biases, ReLU."""

from __future__ import annotations

from tvm import relax

from mllm_tvm.frontend.builder import LM_HEAD, DecoderBuilder
from mllm_tvm.frontend.config import ConfigReader, ModelConfig, decoder_config
from mllm_tvm.frontend.parameters import Spec, Weight, layer_norm, linear

BASE_PREFIX = "model."

TOKENS, POSITIONS = "model.decoder.embed_tokens.weight", "model.decoder.embed_positions.weight"
_FIRST_POSITION = 2


def read_config(reader: ConfigReader) -> ModelConfig:
    """The settings of an OPT; refuses the variants with norms behind blocks or narrow embeddings (350m)."""
    reader.only("do_layer_norm_before", True)
    reader.only("_remove_final_layer_norm", False)
    reader.only("enable_bias", True)
    reader.only("layer_norm_elementwise_affine", True)
    reader.only("word_embed_proj_dim", None, reader.settings.get("hidden_size"))
    return decoder_config(
        reader.aliased({"intermediate_size": "ffn_dim"}),
        num_kv_heads=reader.integer("num_attention_heads"),
        activation=reader.activation("activation_function", "relu"),
        norm_eps=1e-5,
        tie_embeddings=reader.flag("tie_word_embeddings", True),
    )


def parameters(config: ModelConfig) -> dict[str, Spec]:
    """Parameter name -> where it comes from, in the argument order of ``main``."""
    shape = (config.vocab_size, config.hidden_size)
    positions = (config.max_positions + _FIRST_POSITION, config.hidden_size)
    specs: dict[str, Spec] = {
        TOKENS: Weight(TOKENS, shape, keep_float16=True),
        POSITIONS: Weight(POSITIONS, positions, keep_float16=True),
    }
    for layer in range(config.num_layers):
        specs |= _layer(config, f"model.decoder.layers.{layer}")
    specs |= layer_norm("model.decoder.final_layer_norm", config.hidden_size)
    head = TOKENS if config.tie_embeddings else LM_HEAD
    return {**specs, LM_HEAD: Weight(head, shape, linear=True, transposed=True)}


def _layer(config: ModelConfig, prefix: str) -> dict[str, Spec]:
    hidden, inner = config.hidden_size, config.intermediate_size
    specs = {
        **layer_norm(f"{prefix}.self_attn_layer_norm", hidden),
        **layer_norm(f"{prefix}.final_layer_norm", hidden),
    }
    for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
        specs |= linear(f"{prefix}.self_attn.{name}", hidden, hidden, bias=True)
    specs |= linear(f"{prefix}.fc1", hidden, inner, bias=True)
    return {**specs, **linear(f"{prefix}.fc2", inner, hidden, bias=True)}


def forward(b: DecoderBuilder) -> relax.Expr:
    """Emits the model; returns the logits [seq, vocab]."""
    rows = b.add(b.positions, relax.const(_FIRST_POSITION, "int32"))
    hidden = b.add(b.embed(TOKENS), b.embed(POSITIONS, rows))
    for layer in range(b.config.num_layers):
        prefix = f"model.decoder.layers.{layer}"
        x = b.layer_norm(hidden, f"{prefix}.self_attn_layer_norm")
        hidden = b.add(hidden, _attention(b, f"{prefix}.self_attn", x))
        x = b.layer_norm(hidden, f"{prefix}.final_layer_norm")
        fed = b.activation(b.linear(x, f"{prefix}.fc1"))
        hidden = b.add(hidden, b.linear(fed, f"{prefix}.fc2"))
    return b.linear(b.layer_norm(hidden, "model.decoder.final_layer_norm"), "lm_head")


def _attention(b: DecoderBuilder, name: str, x: relax.Expr) -> relax.Expr:
    heads = b.config.num_heads
    q, k, v = (b.heads(b.linear(x, f"{name}.{part}_proj"), heads) for part in "qkv")
    return b.linear(b.attention(q, k, v), f"{name}.out_proj")
