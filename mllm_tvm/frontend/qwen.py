"""Qwen 2 and 3: Llama's graph, with biases on queries, keys and values (2) or norms of heads (3)."""

from __future__ import annotations

from mllm_tvm.frontend import llama
from mllm_tvm.frontend.config import ModelConfig
from mllm_tvm.frontend.parameters import Table, Weight


def qwen2_parameters(config: ModelConfig) -> dict[str, Weight | Table]:
    """Parameter name -> where it comes from, in the argument order of ``main``."""
    key = config.num_kv_heads * config.head_dim
    sizes = {"q_proj": config.num_heads * config.head_dim, "k_proj": key, "v_proj": key}
    return _with_attention_vectors(config, {f"{name}.bias": size for name, size in sizes.items()})


def qwen3_parameters(config: ModelConfig) -> dict[str, Weight | Table]:
    """Parameter name -> where it comes from, in the argument order of ``main``."""
    return _with_attention_vectors(config, dict.fromkeys(("q_norm.weight", "k_norm.weight"), config.head_dim))


def _with_attention_vectors(config: ModelConfig, sizes: dict[str, int]) -> dict[str, Weight | Table]:
    """Llama's parameters, and in each layer's attention vectors of the given sizes."""
    specs = llama.parameters(config)
    for layer in range(config.num_layers):
        for name, size in sizes.items():
            full = f"model.layers.{layer}.self_attn.{name}"
            specs[full] = Weight(full, (size,))
    return specs
