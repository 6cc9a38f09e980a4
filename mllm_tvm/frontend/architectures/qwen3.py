"""Qwen 3: Llama with norms of each query and key head."""

from __future__ import annotations

from mllm_tvm.frontend.architectures.llama import REDUNDANT, forward, with_attention_vectors
from mllm_tvm.frontend.architectures.qwen2 import read_config
from mllm_tvm.frontend.config import ModelConfig
from mllm_tvm.frontend.parameters import Spec

__all__ = ["REDUNDANT", "forward", "parameters", "read_config"]


def parameters(config: ModelConfig) -> dict[str, Spec]:
    """Parameter name -> where it comes from, in the argument order of ``main``."""
    return with_attention_vectors(config, dict.fromkeys(("q_norm.weight", "k_norm.weight"), config.head_dim))
