"""Phi 1, 1.5 and 2: attention and feed-forward side by side, partly rotated heads, layer norms, biases."""

from __future__ import annotations

from tvm import relax

from mllm_tvm.frontend.architectures.llama import REDUNDANT
from mllm_tvm.frontend.builder import EMBEDDING, LM_HEAD, DecoderBuilder, rope_tables
from mllm_tvm.frontend.config import ConfigReader, ModelConfig, decoder_config, head_dim
from mllm_tvm.frontend.parameters import Spec, Weight, layer_norm, linear, vector
from mllm_tvm.frontend.rope import read_rope

__all__ = ["REDUNDANT", "forward", "parameters", "read_config"]


def read_config(reader: ConfigReader) -> ModelConfig:
    """The settings of a Phi; refuses norms of heads."""
    reader.only("qk_layernorm", False, None)
    return decoder_config(
        reader,
        activation=reader.activation("hidden_act", "gelu_new"),
        norm_eps=reader.number("layer_norm_eps", 1e-5),
        rope=read_rope(reader, head_dim(reader), default_share=0.5),
        tie_embeddings=reader.flag("tie_word_embeddings"),
    )


def parameters(config: ModelConfig) -> dict[str, Spec]:
    """Parameter name -> where it comes from, in the argument order of ``main``."""
    shape = (config.vocab_size, config.hidden_size)
    specs: dict[str, Spec] = {EMBEDDING: Weight(EMBEDDING, shape, keep_float16=True), **rope_tables(config)}
    for layer in range(config.num_layers):
        specs |= _layer(config, f"model.layers.{layer}")
    specs |= layer_norm("model.final_layernorm", config.hidden_size)
    head = EMBEDDING if config.tie_embeddings else LM_HEAD
    specs[LM_HEAD] = Weight(head, shape, linear=True, transposed=True)
    return {**specs, **vector("lm_head.bias", config.vocab_size)}


def _layer(config: ModelConfig, prefix: str) -> dict[str, Spec]:
    hidden, inner = config.hidden_size, config.intermediate_size
    query, key = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    return {
        **layer_norm(f"{prefix}.input_layernorm", hidden),
        **linear(f"{prefix}.self_attn.q_proj", hidden, query, bias=True),
        **linear(f"{prefix}.self_attn.k_proj", hidden, key, bias=True),
        **linear(f"{prefix}.self_attn.v_proj", hidden, key, bias=True),
        **linear(f"{prefix}.self_attn.dense", query, hidden, bias=True),
        **linear(f"{prefix}.mlp.fc1", hidden, inner, bias=True),
        **linear(f"{prefix}.mlp.fc2", inner, hidden, bias=True),
    }


def forward(b: DecoderBuilder) -> relax.Expr:
    """Emits the model; returns the logits [seq, vocab]."""
    hidden, rope = b.embed(), b.rope_rows()
    for layer in range(b.config.num_layers):
        prefix = f"model.layers.{layer}"
        x = b.layer_norm(hidden, f"{prefix}.input_layernorm")
        attended = _attention(b, f"{prefix}.self_attn", x, rope)
        fed = b.linear(b.activation(b.linear(x, f"{prefix}.mlp.fc1")), f"{prefix}.mlp.fc2")
        hidden = b.add(attended, fed, hidden)
    return b.linear(b.layer_norm(hidden, "model.final_layernorm"), "lm_head")


def _attention(b: DecoderBuilder, name: str, x: relax.Expr, rope: tuple[relax.Var, relax.Var]) -> relax.Expr:
    q = b.rotate(b.heads(b.linear(x, f"{name}.q_proj"), b.config.num_heads), *rope)
    k = b.rotate(b.heads(b.linear(x, f"{name}.k_proj"), b.config.num_kv_heads), *rope)
    v = b.heads(b.linear(x, f"{name}.v_proj"), b.config.num_kv_heads)
    return b.linear(b.attention(q, k, v), f"{name}.dense")
