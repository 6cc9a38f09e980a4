"""Qwen 1.5, 2 and 2.5: Llama with biases on queries, keys and values."""

from __future__ import annotations

from mllm_tvm.frontend.architectures.llama import REDUNDANT, forward, llama_config, with_attention_vectors
from mllm_tvm.frontend.config import ConfigReader, ModelConfig
from mllm_tvm.frontend.parameters import Spec

__all__ = ["REDUNDANT", "forward", "parameters", "read_config"]


def read_config(reader: ConfigReader) -> ModelConfig:
    """The settings of a Qwen 2; refuses sliding windows."""
    reader.only("use_sliding_window", False, None)
    # Its "bos" only separates documents in pre-training; Qwen's tokenizer puts none before a text.
    return llama_config(reader, bos_token_id=None)


def parameters(config: ModelConfig) -> dict[str, Spec]:
    """Parameter name -> where it comes from, in the argument order of ``main``."""
    key = config.num_kv_heads * config.head_dim
    sizes = {"q_proj": config.num_heads * config.head_dim, "k_proj": key, "v_proj": key}
    return with_attention_vectors(config, {f"{name}.bias": size for name, size in sizes.items()})
