"""Mistral: Llama with a sliding window of attention."""

from __future__ import annotations

from mllm_tvm.frontend.architectures.llama import REDUNDANT, forward, llama_config, parameters
from mllm_tvm.frontend.config import ConfigReader, ModelConfig

__all__ = ["REDUNDANT", "forward", "parameters", "read_config"]


def read_config(reader: ConfigReader) -> ModelConfig:
    """The settings of a Mistral; a missing window means 4096 tokens, null means none."""
    has_window = reader.settings.get("sliding_window", 4096) is not None
    window = reader.integer("sliding_window", 4096) if has_window else None
    return llama_config(reader, sliding_window=window)
