"""A model's ``config.json``: the settings that shape the graph, checked before anything is built."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mllm_tvm.errors import ModelError

CONFIG_NAME = "config.json"


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a decoder-only model.

    ``architecture`` is the Hugging Face ``model_type``, ``content_hash`` the SHA-256 (hex) of ``config.json``
    and the weights: what a recipe and an artifact are tied to. ``bos_token_id`` is None for models that have
    none.
    """

    architecture: str
    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    max_positions: int
    rope_theta: float
    rms_norm_eps: float
    bos_token_id: int | None
    eos_token_ids: tuple[int, ...]
    tie_embeddings: bool
    attention_bias: bool
    mlp_bias: bool
    content_hash: str


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; raises ModelError when it is missing, damaged or something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path} is missing: a Hugging Face model directory has a {path.name}") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} is not valid JSON ({error}): download the model again") from None
    if not isinstance(content, dict):
        raise ModelError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


class ConfigReader:
    """Reads typed settings of a ``config.json``; each method raises ModelError naming the setting."""

    def __init__(self, path: Path, settings: Mapping[str, Any]):
        self.path = path
        self.settings = settings

    def error(self, name: str, expected: str) -> ModelError:
        found = repr(self.settings[name]) if name in self.settings else "nothing"
        return ModelError(f"{self.path}: {name}: expected {expected}, found {found}")

    def integer(self, name: str, default: int | None = None) -> int:
        """A positive integer."""
        value = self._value(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
            raise self.error(name, "a positive integer")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """A positive number."""
        value = self._value(name, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
            raise self.error(name, "a positive number")
        return float(value)

    def flag(self, name: str, default: bool = False) -> bool:
        """A boolean."""
        value = self._value(name, default)
        if not isinstance(value, bool):
            raise self.error(name, "true or false")
        return value

    def token_ids(self, name: str) -> tuple[int, ...]:
        """A token id, a list of them, or nothing."""
        value = self.settings.get(name)
        ids = value if isinstance(value, list) else [] if value is None else [value]
        if not all(isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in ids):
            raise self.error(name, "a token id or a list of them")
        return tuple(ids)

    def only(self, name: str, *allowed: object) -> None:
        """Refuses a setting whose value changes the computation in a way that is not implemented."""
        if self.settings.get(name, allowed[0]) not in allowed:
            raise self.error(name, f"{' or '.join(map(repr, allowed))} (others are not supported)")

    def _value(self, name: str, default: Any) -> Any:
        value = self.settings.get(name)
        return default if value is None else value


def read_mistral_config(path: Path, settings: Mapping[str, Any], content_hash: str) -> ModelConfig:
    """As :func:`read_decoder_config`; refuses sliding windows."""
    ConfigReader(path / CONFIG_NAME, settings).only("sliding_window", None)
    return read_decoder_config(path, settings, content_hash)


def read_qwen_config(path: Path, settings: Mapping[str, Any], content_hash: str) -> ModelConfig:
    """As :func:`read_decoder_config`; refuses sliding windows."""
    ConfigReader(path / CONFIG_NAME, settings).only("use_sliding_window", False, None)
    config = read_decoder_config(path, settings, content_hash)
    # Its "bos" only separates documents in pre-training; Qwen's tokenizer puts none before a text.
    return dataclasses.replace(config, bos_token_id=None)


def rope_theta(reader: ConfigReader) -> float:
    """The rotary base; refuses scaled variants by name (settings of transformers 4 and 5)."""
    theta = reader.settings.get("rope_theta", 10000.0)
    for name in ("rope_scaling", "rope_parameters"):
        rope = reader.settings.get(name) or {}
        if not isinstance(rope, dict):
            raise reader.error(name, "an object or null")
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind != "default":
            raise ModelError(
                f"{reader.path}: {name}: rotary scaling {kind!r} is not supported, only 'default'"
            )
        theta = rope.get("rope_theta", theta)
        ConfigReader(reader.path, rope).only("partial_rotary_factor", 1.0, None)
    return ConfigReader(reader.path, {"rope_theta": theta}).number("rope_theta")


def read_decoder_config(path: Path, settings: Mapping[str, Any], content_hash: str) -> ModelConfig:
    """The settings of a Llama-like decoder.

    Args:
        path: the model directory.
        settings: the content of its ``config.json``.
        content_hash: see :class:`ModelConfig`.

    Raises:
        ModelError: a setting is missing, out of range, or asks for something that is not supported.
    """
    reader = ConfigReader(path / CONFIG_NAME, settings)
    reader.only("hidden_act", "silu")
    reader.only("quantization_config", None)
    reader.only("partial_rotary_factor", 1.0, None)
    hidden_size, num_heads = reader.integer("hidden_size"), reader.integer("num_attention_heads")
    config = ModelConfig(
        architecture=str(settings["model_type"]),
        vocab_size=reader.integer("vocab_size"),
        hidden_size=hidden_size,
        num_layers=reader.integer("num_hidden_layers"),
        num_heads=num_heads,
        num_kv_heads=reader.integer("num_key_value_heads", num_heads),
        head_dim=reader.integer("head_dim", hidden_size // num_heads),
        intermediate_size=reader.integer("intermediate_size"),
        max_positions=reader.integer("max_position_embeddings"),
        rope_theta=rope_theta(reader),
        rms_norm_eps=reader.number("rms_norm_eps", 1e-6),
        bos_token_id=next(iter(reader.token_ids("bos_token_id")), None),
        eos_token_ids=_eos_token_ids(path, reader),
        tie_embeddings=reader.flag("tie_word_embeddings"),
        attention_bias=reader.flag("attention_bias"),
        mlp_bias=reader.flag("mlp_bias"),
        content_hash=content_hash,
    )
    _check_heads(reader, config)
    return config


def _eos_token_ids(path: Path, reader: ConfigReader) -> tuple[int, ...]:
    """``generation_config.json`` wins: chat models list their end-of-turn tokens only there."""
    generation = path / "generation_config.json"
    if generation.is_file() and (
        ids := ConfigReader(generation, read_json(generation)).token_ids("eos_token_id")
    ):
        return ids
    return reader.token_ids("eos_token_id")


def _check_heads(reader: ConfigReader, config: ModelConfig) -> None:
    if config.num_heads % config.num_kv_heads:
        raise reader.error("num_key_value_heads", f"a divisor of num_attention_heads ({config.num_heads})")
    if config.head_dim % 2:
        raise reader.error("head_dim", "an even number (rotary embeddings rotate pairs)")
    for name in ("bos_token_id", "eos_token_id"):
        if any(token >= config.vocab_size for token in reader.token_ids(name)):
            raise reader.error(name, f"token ids below vocab_size ({config.vocab_size})")
