"""Converts small Hugging Face models to GGUF, by the conventions of llama.cpp's converter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter
from safetensors.numpy import load_file
from transformers import AutoConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

ARCHITECTURES = {
    "llama": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma": "gemma",
    "gpt2": "gpt2",
    "phi": "phi2",
}
TYPES = {
    "F32": GGMLQuantizationType.F32,
    "F16": GGMLQuantizationType.F16,
    "Q8_0": GGMLQuantizationType.Q8_0,
    "Q4_0": GGMLQuantizationType.Q4_0,
}


def convert(source: Path, target: Path, matrices: str = "F32") -> Path:
    """Writes ``target``; matrices are stored as ``matrices``, vectors as F32."""
    config = json.loads((source / "config.json").read_text())
    architecture = ARCHITECTURES[config["model_type"]]
    writer = GGUFWriter(target, architecture)
    _add_settings(writer, architecture, config)
    _add_tokenizer(writer, json.loads((source / "tokenizer.json").read_text()), config)
    names = gguf.get_tensor_name_map(_architecture(architecture), writer_layers(config))
    for name, array in load_file(source / "model.safetensors").items():
        stored = names.get_name(name, try_suffixes=(".weight", ".bias"))
        _add_tensor(writer, stored, _rearranged(name, array.astype(np.float32), config), TYPES[matrices])
    if (config.get("rope_parameters") or {}).get("rope_type") == "llama3":
        writer.add_tensor("rope_freqs.weight", _divisors(source))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def _divisors(source: Path) -> np.ndarray:
    """What Llama 3's scaling divides each frequency by, from transformers' own frequencies."""
    config = AutoConfig.from_pretrained(source)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config)
    dim = 2 * len(scaled)
    plain = config.rope_parameters["rope_theta"] ** -(np.arange(0, dim, 2) / dim)
    return (plain / scaled.numpy()).astype(np.float32)


def _architecture(name: str) -> Any:
    return {value: key for key, value in gguf.MODEL_ARCH_NAMES.items()}[name]


def writer_layers(config: dict[str, Any]) -> int:
    return int(config.get("num_hidden_layers", config.get("n_layer", 0)))


def _add_settings(writer: GGUFWriter, architecture: str, config: dict[str, Any]) -> None:
    heads = config.get("num_attention_heads", config.get("n_head"))
    hidden = config.get("hidden_size", config.get("n_embd"))
    head_dim = config.get("head_dim") or hidden // heads
    writer.add_context_length(config.get("max_position_embeddings", config.get("n_positions")))
    writer.add_embedding_length(hidden)
    writer.add_block_count(writer_layers(config))
    writer.add_feed_forward_length(4 * hidden if architecture == "gpt2" else config["intermediate_size"])
    writer.add_head_count(heads)
    if architecture == "gpt2":
        writer.add_layer_norm_eps(config["layer_norm_epsilon"])
        return
    rope = config.get("rope_parameters") or {}
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(head_dim)
    writer.add_rope_freq_base(rope.get("rope_theta", 10000.0))
    writer.add_rope_dimension_count(int(head_dim * rope.get("partial_rotary_factor", 1.0)))
    if architecture == "phi2":
        writer.add_layer_norm_eps(config["layer_norm_eps"])
    else:
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])


def _add_tokenizer(writer: GGUFWriter, tokenizer: dict[str, Any], config: dict[str, Any]) -> None:
    model = tokenizer["model"]
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    special = {added["content"] for added in tokenizer["added_tokens"]}
    writer.add_token_list(tokens)
    if model.get("byte_fallback"):
        writer.add_tokenizer_model("llama")
        ranks = {"".join(merge.split(" ")): -float(i) for i, merge in reversed(list(enumerate(merges)))}
        writer.add_token_scores([ranks.get(token, -1e6) for token in tokens])
        kinds = [_kind(token, special) for token in tokens]
    else:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("gpt-2")
        writer.add_token_merges(merges)
        kinds = [3 if token in special else 1 for token in tokens]
    writer.add_token_types(kinds)
    writer.add_add_bos_token(True)
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])


def _kind(token: str, special: set[str]) -> int:
    if token == "<unk>":
        return 2
    if token in special:
        return 3
    return 6 if token.startswith("<0x") else 1


def _rearranged(name: str, array: np.ndarray, config: dict[str, Any]) -> np.ndarray:
    kind = config["model_type"]
    heads = {"q_proj.weight": "num_attention_heads", "k_proj.weight": "num_key_value_heads"}
    for suffix, count in heads.items():
        if kind == "llama" and name.endswith(suffix):
            halves = array.reshape(config[count], 2, -1, array.shape[1])
            return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(array.shape))
    if kind == "gemma" and name.endswith("norm.weight"):
        return array + np.float32(1)
    if kind == "gpt2" and name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")):
        return np.ascontiguousarray(array.T)
    return array


def rounded(array: np.ndarray, matrices: str) -> np.ndarray:
    """A tensor as a file with matrices of that type holds it, by the gguf package's own arithmetic."""
    if array.ndim == 1:
        return array
    kind = TYPES[matrices]
    return gguf.quants.dequantize(gguf.quants.quantize(array, kind), kind)


def _add_tensor(writer: GGUFWriter, name: str, array: np.ndarray, kind: GGMLQuantizationType) -> None:
    if array.ndim == 1 or kind == GGMLQuantizationType.F32:
        writer.add_tensor(name, array)
    elif kind == GGMLQuantizationType.F16:
        writer.add_tensor(name, array.astype(np.float16))
    else:
        writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)
