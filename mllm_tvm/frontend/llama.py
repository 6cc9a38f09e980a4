"""Llama (``LlamaForCausalLM``): the parameters of its checkpoint and its graph.

Models of the same design reuse both: a bias or a norm of heads is there if its parameter is.
"""

from __future__ import annotations

from tvm import relax

from mllm_tvm.frontend.builder import EMBEDDING, LM_HEAD, DecoderBuilder, rope_tables
from mllm_tvm.frontend.config import ModelConfig
from mllm_tvm.frontend.parameters import Table, Weight


def parameters(config: ModelConfig) -> dict[str, Weight | Table]:
    """Parameter name -> where it comes from, in the argument order of ``main``."""
    embedding_shape = (config.vocab_size, config.hidden_size)
    specs: dict[str, Weight | Table] = {EMBEDDING: Weight(EMBEDDING, embedding_shape, keep_float16=True)}
    specs.update(rope_tables(config))
    for layer in range(config.num_layers):
        specs.update(_layer_parameters(config, f"model.layers.{layer}"))
    specs["model.norm.weight"] = Weight("model.norm.weight", (config.hidden_size,))
    head = EMBEDDING if config.tie_embeddings else LM_HEAD
    specs[LM_HEAD] = Weight(head, embedding_shape, transposed=True)
    return specs


def _layer_parameters(config: ModelConfig, prefix: str) -> dict[str, Weight | Table]:
    hidden, inner = config.hidden_size, config.intermediate_size
    query, key = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    linears = {
        "self_attn.q_proj": (query, hidden, config.attention_bias),
        "self_attn.k_proj": (key, hidden, config.attention_bias),
        "self_attn.v_proj": (key, hidden, config.attention_bias),
        "self_attn.o_proj": (hidden, query, config.attention_bias),
        "mlp.gate_proj": (inner, hidden, config.mlp_bias),
        "mlp.up_proj": (inner, hidden, config.mlp_bias),
        "mlp.down_proj": (hidden, inner, config.mlp_bias),
    }
    specs: dict[str, Weight | Table] = {}
    for norm in ("input_layernorm", "post_attention_layernorm"):
        specs[f"{prefix}.{norm}.weight"] = Weight(f"{prefix}.{norm}.weight", (hidden,))
    for name, (outputs, inputs, bias) in linears.items():
        weight = f"{prefix}.{name}.weight"
        specs[weight] = Weight(weight, (outputs, inputs), transposed=True)
        if bias:
            specs[f"{prefix}.{name}.bias"] = Weight(f"{prefix}.{name}.bias", (outputs,))
    return specs


def forward(b: DecoderBuilder) -> list[relax.Expr]:
    """Emits the model; returns the logits [seq, vocab] and every cache with the new rows appended."""
    hidden, rope = b.embed(), b.rope_rows()
    caches: list[relax.Expr] = []
    for layer in range(b.config.num_layers):
        prefix = f"model.layers.{layer}"
        attended = _attention(
            b, f"{prefix}.self_attn", b.rms_norm(hidden, f"{prefix}.input_layernorm"), rope, caches
        )
        hidden = b.emit(relax.op.add(hidden, attended))
        fed = _mlp(b, f"{prefix}.mlp", b.rms_norm(hidden, f"{prefix}.post_attention_layernorm"))
        hidden = b.emit(relax.op.add(hidden, fed))
    return [b.linear(b.rms_norm(hidden, "model.norm"), "lm_head"), *caches]


def _attention(
    b: DecoderBuilder, name: str, x: relax.Expr, rope: tuple[relax.Var, relax.Var], caches: list[relax.Expr]
) -> relax.Expr:
    """Self-attention; adds the layer's appended caches to ``caches``."""
    q = b.heads(b.linear(x, f"{name}.q_proj"), b.config.num_heads)
    k = b.heads(b.linear(x, f"{name}.k_proj"), b.config.num_kv_heads)
    v = b.heads(b.linear(x, f"{name}.v_proj"), b.config.num_kv_heads)
    q = b.rotate(b.head_norm(q, f"{name}.q_norm"), *rope)
    k = b.rotate(b.head_norm(k, f"{name}.k_norm"), *rope)
    keys = b.append(b.caches[len(caches)], k)
    values = b.append(b.caches[len(caches) + 1], v)
    caches += [keys, values]
    return b.linear(b.attention(q, keys, values), f"{name}.o_proj")


def _mlp(b: DecoderBuilder, name: str, x: relax.Expr) -> relax.Expr:
    gate, up = b.linear(x, f"{name}.gate_proj"), b.linear(x, f"{name}.up_proj")
    gated = b.emit(relax.op.multiply(b.emit(relax.op.nn.silu(gate)), up))
    return b.linear(gated, f"{name}.down_proj")
