"""A model from its settings and its weights, wherever they were stored."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tvm import ir

from mllm_tvm.errors import ModelError
from mllm_tvm.frontend import architectures
from mllm_tvm.frontend.architectures import Architecture
from mllm_tvm.frontend.builder import LM_HEAD, DecoderBuilder
from mllm_tvm.frontend.config import ConfigReader, ModelConfig
from mllm_tvm.frontend.model import Model
from mllm_tvm.frontend.parameters import LazyParameters, TensorSource, Weight, check_nothing_left
from mllm_tvm.tokenizer import Tokenizer


def find_architecture(reader: ConfigReader) -> Architecture:
    """The importer that ``model_type`` names; raises ModelError naming the supported ones."""
    kind = reader.settings.get("model_type")
    if reader.settings.get("is_encoder_decoder") is True:
        raise reader.error("is_encoder_decoder", f"a decoder-only model ({kind} also has an encoder)")
    if reader.settings.get("auto_map"):
        raise reader.error(
            "auto_map", f"no code of the model's own, which is never run; remove it if this is a plain {kind}"
        )
    known = architectures.supported()
    if not isinstance(kind, str) or kind not in known:
        raise ModelError(
            f"{reader.path}: model_type {kind!r} is not supported (encoders are not either); "
            f"supported: {', '.join(known)}"
        )
    return architectures.find(kind)


def read_config(reader: ConfigReader) -> ModelConfig:
    """The checked settings of a model; raises ModelError naming the setting that cannot be used."""
    return find_architecture(reader).read_config(reader)


def build_module(config: ModelConfig, weights: LazyParameters | None = None) -> ir.IRModule:
    """``main`` of a model; without ``weights``, embedding tables are declared float16."""
    architecture = architectures.find(config.architecture)
    specs = architecture.parameters(config)

    def dtype(name: str) -> str:
        if weights is not None:
            return weights.dtype(name)
        spec = specs[name]
        return spec.dtype("F16") if isinstance(spec, Weight) else "float32"

    return DecoderBuilder(config, specs, dtype).build(architecture.forward)


def assemble(
    config: ModelConfig,
    settings: Mapping[str, Any],
    source: TensorSource,
    content_hash: str,
    tokenizer: Tokenizer,
    path: Path,
) -> Model:
    """The model of a configuration and the tensors it asks for.

    Args:
        config: its checked settings.
        settings: what ``config.json`` says, or would.
        source: its tensors, under their Hugging Face names.
        content_hash: SHA-256 (hex) of everything it was read from.
        path: where it was read from.

    Raises:
        ModelError: a tensor is missing, left over, or of another shape or dtype than the settings say.
    """
    architecture = architectures.find(config.architecture)
    specs = architecture.parameters(config)
    weights = LazyParameters(source, specs, path)

    def redundant(name: str) -> bool:
        return name.endswith(architecture.redundant) or (name == LM_HEAD and config.tie_embeddings)

    check_nothing_left(source, specs, redundant)
    config = dataclasses.replace(config, content_hash=content_hash)
    module = build_module(config, weights)
    return Model(module, weights, config, tokenizer, path, weights.linear_dtype(), settings)
