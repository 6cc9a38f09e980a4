"""Loads a model directory; :data:`ARCHITECTURES` is the list of supported ones."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tvm import ir, relax

from mllm_tvm.errors import ModelError
from mllm_tvm.frontend import llama, qwen
from mllm_tvm.frontend.builder import EMBEDDING, LM_HEAD, DecoderBuilder
from mllm_tvm.frontend.checkpoint import Checkpoint
from mllm_tvm.frontend.config import (
    CONFIG_NAME,
    ModelConfig,
    read_decoder_config,
    read_json,
    read_mistral_config,
    read_qwen_config,
)
from mllm_tvm.frontend.model import Model
from mllm_tvm.frontend.parameters import LazyParameters, Table, Weight, check_nothing_left
from mllm_tvm.tokenizer import Tokenizer


@dataclass(frozen=True)
class Architecture:
    """How to import one ``model_type``: its settings, its parameters and its graph."""

    read_config: Callable[[Path, Mapping[str, Any], str], ModelConfig]
    parameters: Callable[[ModelConfig], dict[str, Weight | Table]]
    forward: Callable[[DecoderBuilder], list[relax.Expr]]


ARCHITECTURES = {
    "llama": Architecture(read_decoder_config, llama.parameters, llama.forward),
    "mistral": Architecture(read_mistral_config, llama.parameters, llama.forward),
    "qwen2": Architecture(read_qwen_config, qwen.qwen2_parameters, llama.forward),
    "qwen3": Architecture(read_qwen_config, qwen.qwen3_parameters, llama.forward),
}
"""Hugging Face ``model_type`` -> its importer."""


def load_model(path: str | os.PathLike[str]) -> Model:
    """Imports a Hugging Face model directory: ``config.json``, safetensors weights, ``tokenizer.json``.

    Weights are checked (names, shapes, dtypes) but read only when asked for. No code of the directory is run.

    Raises:
        ModelError: the directory or a file is missing or damaged, or the model is of an unsupported kind.
    """
    directory = Path(path)
    if not directory.is_dir():
        raise ModelError(f"{directory} is not a directory: expected a Hugging Face model directory")
    settings = read_json(directory / CONFIG_NAME)
    architecture = _architecture(directory, settings)
    checkpoint = Checkpoint(directory)
    config = architecture.read_config(directory, settings, checkpoint.content_hash(directory / CONFIG_NAME))
    specs = architecture.parameters(config)
    weights = LazyParameters(checkpoint, specs, directory)
    check_nothing_left(checkpoint, specs, lambda name: _is_redundant(name, config))
    module = _build(architecture, config, weights)
    tokenizer = Tokenizer.from_directory(
        directory, config.bos_token_id, config.eos_token_ids, config.vocab_size
    )
    return Model(module, weights, config, tokenizer, directory, weights.linear_dtype())


def _architecture(directory: Path, settings: Mapping[str, Any]) -> Architecture:
    kind = settings.get("model_type")
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        supported = ", ".join(sorted(ARCHITECTURES))
        raise ModelError(
            f"{directory / CONFIG_NAME}: model_type {kind!r} is not supported; supported: {supported}"
        )
    return ARCHITECTURES[kind]


def _is_redundant(name: str, config: ModelConfig) -> bool:
    """Tensors that old tools write although they follow from others."""
    return name.endswith(".rotary_emb.inv_freq") or (name == LM_HEAD and config.tie_embeddings)


def _build(architecture: Architecture, config: ModelConfig, weights: LazyParameters) -> ir.IRModule:
    builder = DecoderBuilder(config, weights.specs, weights.dtype(EMBEDDING))
    return builder.build(architecture.forward)
