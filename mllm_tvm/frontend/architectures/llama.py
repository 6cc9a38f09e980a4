"""Llama (``LlamaForCausalLM``): grouped-query attention, RMS norms, SwiGLU; rotary scaling of Llama 3.

Models of the same design reuse its functions: a bias or a norm of heads is there if its parameter is.
"""

from __future__ import annotations

from typing import Any

from tvm import relax

from mllm_tvm.frontend.builder import EMBEDDING, LM_HEAD, DecoderBuilder, rope_tables
from mllm_tvm.frontend.config import ConfigReader, ModelConfig, decoder_config, head_dim
from mllm_tvm.frontend.parameters import Spec, Weight, linear, vector
from mllm_tvm.frontend.rope import read_rope

REDUNDANT = (".rotary_emb.inv_freq",)


def read_config(reader: ConfigReader) -> ModelConfig:
    """The settings of a Llama."""
    return llama_config(reader)


def llama_config(reader: ConfigReader, **settings: Any) -> ModelConfig:
    """The settings of a model with Llama's names; ``settings`` replaces or adds some."""
    defaults: dict[str, Any] = {
        "activation": reader.activation("hidden_act", "silu"),
        "norm_eps": reader.number("rms_norm_eps", 1e-6),
        "rope": read_rope(reader, head_dim(reader)),
        "tie_embeddings": reader.flag("tie_word_embeddings"),
        "attention_bias": reader.flag("attention_bias"),
        "mlp_bias": reader.flag("mlp_bias"),
    }
    return decoder_config(reader, **{**defaults, **settings})


def parameters(config: ModelConfig) -> dict[str, Spec]:
    """Parameter name -> where it comes from, in the argument order of ``main``."""
    return llama_parameters(config)


def llama_parameters(config: ModelConfig, norm_offset: float = 0.0) -> dict[str, Spec]:
    """The parameters of a model with Llama's names; ``norm_offset`` is added to its norms' weights."""
    shape = (config.vocab_size, config.hidden_size)
    specs: dict[str, Spec] = {EMBEDDING: Weight(EMBEDDING, shape, keep_float16=True), **rope_tables(config)}
    for layer in range(config.num_layers):
        specs |= _layer(config, f"model.layers.{layer}", norm_offset)
    specs |= vector("model.norm.weight", config.hidden_size, norm_offset)
    head = EMBEDDING if config.tie_embeddings else LM_HEAD
    return {**specs, LM_HEAD: Weight(head, shape, linear=True, transposed=True)}


def _layer(config: ModelConfig, prefix: str, norm_offset: float) -> dict[str, Spec]:
    hidden, inner = config.hidden_size, config.intermediate_size
    query, key = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    attention, mlp = f"{prefix}.self_attn", f"{prefix}.mlp"
    return {
        **vector(f"{prefix}.input_layernorm.weight", hidden, norm_offset),
        **vector(f"{prefix}.post_attention_layernorm.weight", hidden, norm_offset),
        **linear(f"{attention}.q_proj", hidden, query, config.attention_bias),
        **linear(f"{attention}.k_proj", hidden, key, config.attention_bias),
        **linear(f"{attention}.v_proj", hidden, key, config.attention_bias),
        **linear(f"{attention}.o_proj", query, hidden, config.attention_bias),
        **linear(f"{mlp}.gate_proj", hidden, inner, config.mlp_bias),
        **linear(f"{mlp}.up_proj", hidden, inner, config.mlp_bias),
        **linear(f"{mlp}.down_proj", inner, hidden, config.mlp_bias),
    }


def with_attention_vectors(config: ModelConfig, sizes: dict[str, int]) -> dict[str, Spec]:
    """Llama's parameters, and in each layer's attention vectors of the given sizes."""
    specs = llama_parameters(config)
    for layer in range(config.num_layers):
        for name, size in sizes.items():
            specs |= vector(f"model.layers.{layer}.self_attn.{name}", size)
    return specs


def forward(b: DecoderBuilder) -> relax.Expr:
    """Emits the model; returns the logits [seq, vocab]."""
    return decoder(b, b.embed())


def decoder(b: DecoderBuilder, hidden: relax.Expr) -> relax.Expr:
    """Everything behind the embedding ``hidden`` [seq, hidden_size]."""
    rope = b.rope_rows()
    for layer in range(b.config.num_layers):
        prefix = f"model.layers.{layer}"
        normed = b.rms_norm(hidden, f"{prefix}.input_layernorm")
        hidden = b.add(hidden, _attention(b, f"{prefix}.self_attn", normed, rope))
        normed = b.rms_norm(hidden, f"{prefix}.post_attention_layernorm")
        hidden = b.add(hidden, _mlp(b, f"{prefix}.mlp", normed))
    return b.linear(b.rms_norm(hidden, "model.norm"), "lm_head")


def _attention(b: DecoderBuilder, name: str, x: relax.Expr, rope: tuple[relax.Var, relax.Var]) -> relax.Expr:
    q = b.heads(b.linear(x, f"{name}.q_proj"), b.config.num_heads)
    k = b.heads(b.linear(x, f"{name}.k_proj"), b.config.num_kv_heads)
    v = b.heads(b.linear(x, f"{name}.v_proj"), b.config.num_kv_heads)
    q = b.rotate(b.head_norm(q, f"{name}.q_norm"), *rope)
    k = b.rotate(b.head_norm(k, f"{name}.k_norm"), *rope)
    return b.linear(b.attention(q, k, v), f"{name}.o_proj")


def _mlp(b: DecoderBuilder, name: str, x: relax.Expr) -> relax.Expr:
    gate, up = b.linear(x, f"{name}.gate_proj"), b.linear(x, f"{name}.up_proj")
    gated = b.emit(relax.op.multiply(b.activation(gate), up))
    return b.linear(gated, f"{name}.down_proj")
