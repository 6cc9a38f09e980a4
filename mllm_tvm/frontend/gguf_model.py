"""Loads a model from a GGUF file: its metadata as Hugging Face settings, its tensors, its tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mllm_tvm.errors import ModelError
from mllm_tvm.frontend import architectures
from mllm_tvm.frontend.assemble import assemble
from mllm_tvm.frontend.config import ConfigReader, ModelConfig
from mllm_tvm.frontend.gguf_file import GgufFile, GgufSource, Transform
from mllm_tvm.frontend.gguf_tokenizer import read_tokenizer
from mllm_tvm.frontend.model import Model
from mllm_tvm.frontend.parameters import Weight

MODEL_TYPES = {
    "llama": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma": "gemma",
    "phi2": "phi",
    "gpt2": "gpt2",
}
"""GGUF's name of an architecture -> Hugging Face ``model_type``."""

_SETTINGS = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "attention.layer_norm_epsilon": "layer_norm_eps",
}
_GPT2_SETTINGS = {
    **_SETTINGS,
    "context_length": "n_positions",
    "embedding_length": "n_embd",
    "block_count": "n_layer",
    "feed_forward_length": "n_inner",
    "attention.head_count": "n_head",
    "attention.layer_norm_epsilon": "layer_norm_epsilon",
}
_EMBEDDING, _HEAD, _DIVISORS = "token_embd.weight", "output.weight", "rope_freqs.weight"


def load_gguf(path: Path) -> Model:
    """Imports a GGUF file with tensors in F32, F16, BF16 or Q8_0, and its tokenizer.

    Raises:
        ModelError: the file is damaged, or of an architecture, tensor type or tokenizer that is unsupported.
    """
    file = GgufFile(path)
    kind = file.value("general.architecture", str)
    if kind not in MODEL_TYPES:
        raise ModelError(
            f"{path}: general.architecture {kind!r} is not supported; supported: {', '.join(MODEL_TYPES)}"
        )
    settings = _settings(file, kind)
    architecture = architectures.find(MODEL_TYPES[kind])
    config = architecture.read_config(ConfigReader(path, settings))
    file.tensors.pop(_DIVISORS, None)
    weights = [s for s in architecture.parameters(config).values() if isinstance(s, Weight)]
    names = dict.fromkeys(weight.tensor for weight in weights)
    source = GgufSource(file, kind, names, config.num_layers, lambda name: _transform(config, kind, name))
    tokenizer = read_tokenizer(file, config.bos_token_id, config.eos_token_ids, config.vocab_size)
    return assemble(config, settings, source, file.content_hash(), tokenizer, path)


def _settings(file: GgufFile, kind: str) -> dict[str, Any]:
    """What ``config.json`` would say."""
    names = _GPT2_SETTINGS if kind == "gpt2" else _SETTINGS
    settings = _renamed(file, kind, names)
    if _EMBEDDING not in file.tensors:
        raise ModelError(f"{file.path}: tensor {_EMBEDDING} is missing: expected a language model")
    settings["model_type"] = MODEL_TYPES[kind]
    settings["vocab_size"] = file.tensors[_EMBEDDING].stored_shape[0]
    settings["tie_word_embeddings"] = _HEAD not in file.tensors
    if kind != "gpt2":
        settings["rope_parameters"] = _rope(file, kind, settings)
    return {**settings, **_special_tokens(file)}


def _renamed(file: GgufFile, kind: str, names: Mapping[str, str]) -> dict[str, Any]:
    """The metadata of an architecture whose keys are in ``names``, under the names there."""
    found = {name: file.metadata.get(f"{kind}.{key}") for key, name in names.items()}
    return {name: _decimal(value) for name, value in found.items() if value is not None}


def _decimal(value: Any) -> Any:
    """A float32 as the shortest decimal that means it: 1e-6, not 9.99999997e-7."""
    return float(str(np.float32(value))) if isinstance(value, (float, np.floating)) else value


def _rope(file: GgufFile, kind: str, settings: dict[str, Any]) -> dict[str, Any]:
    keys = {
        "rope.freq_base": "rope_theta",
        "rope.scaling.factor": "factor",
        "rope.scaling.original_context_length": "original_max_position_embeddings",
        "rope.scaling.attn_factor": "attention_factor",
    }
    rope = _renamed(file, kind, keys)
    scaling = file.metadata.get(f"{kind}.rope.scaling.type", "none")
    rope["rope_type"] = "default" if scaling == "none" else scaling
    if _DIVISORS in file.tensors:
        rope["frequency_divisors"] = [float(x) for x in file.tensors[_DIVISORS].read()]
    rotated = file.metadata.get(f"{kind}.rope.dimension_count")
    heads, hidden = settings.get("num_attention_heads", 0), settings.get("hidden_size", 0)
    if isinstance(rotated, int) and heads and hidden >= heads:
        rope["partial_rotary_factor"] = rotated / (settings.get("head_dim") or hidden // heads)
    return rope


def _special_tokens(file: GgufFile) -> dict[str, Any]:
    """Which token begins a text, if any, and which end one."""
    key = "tokenizer.ggml."
    begins = file.value(f"{key}add_bos_token", bool, file.metadata.get(f"{key}model") == "llama")
    ends = [file.metadata.get(f"{key}{name}_token_id") for name in ("eos", "eot")]
    return {
        "bos_token_id": file.metadata.get(f"{key}bos_token_id") if begins else None,
        "eos_token_id": list(dict.fromkeys(token for token in ends if token is not None)),
    }


def _transform(config: ModelConfig, kind: str, name: str) -> Transform | None:
    """What undoes the converter's rearrangement of a tensor; None if there was none."""
    if kind == "llama" and name.endswith("q_proj.weight"):
        return lambda array: _split_halves(array, config.num_heads)
    if kind == "llama" and name.endswith("k_proj.weight"):
        return lambda array: _split_halves(array, config.num_kv_heads)
    if kind == "gemma" and name.endswith("norm.weight"):
        return lambda array: array - np.float32(1.0)
    if kind == "gpt2" and name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")):
        return lambda array: array.T
    return None


def _split_halves(array: np.ndarray, heads: int) -> np.ndarray:
    """Rows of each head from (pair, half) order, as interleaved rotation wants them, to (half, pair)."""
    rows, *rest = array.shape
    paired = array.reshape(heads, rows // heads // 2, 2, *rest)
    return paired.swapaxes(1, 2).reshape(array.shape)
