"""A model's ``config.json``: the settings that shape the graph, checked before anything is built."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mllm_tvm.errors import ModelError
from mllm_tvm.frontend.rope import Rope

CONFIG_NAME = "config.json"

ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}
"""Hugging Face name of an activation -> its Relax op, ``relax.nn.NAME``."""


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a decoder-only model.

    ``architecture`` is the Hugging Face ``model_type``, ``content_hash`` the SHA-256 (hex) of the settings
    and the weights: what a recipe and an artifact are tied to (empty for a model without weights).
    ``bos_token_id`` is None for models that have none, ``rope`` None for those with learned positions.
    ``sliding_window``: how many tokens, itself included, a token attends to; None for all before it.
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
    bos_token_id: int | None
    eos_token_ids: tuple[int, ...]
    content_hash: str = ""
    norm_eps: float = 1e-6
    activation: str = "silu"
    tie_embeddings: bool = False
    rope: Rope | None = None
    attention_bias: bool = False
    mlp_bias: bool = False
    sliding_window: int | None = None


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; raises ModelError when it is missing, damaged or something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path} is missing: a Hugging Face model directory has a {path.name}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not valid JSON ({error}): download the model again") from None
    if not isinstance(content, dict):
        raise ModelError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


class ConfigReader:
    """Reads typed settings of a ``config.json``; each method raises ModelError naming the setting.

    Args:
        path: the file, for messages.
        settings: its content.
        aliases: usual name of a setting -> the file's own name for it.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], aliases: Mapping[str, str] | None = None):
        self.path = path
        self.settings = settings
        self.aliases = dict(aliases or {})

    def aliased(self, aliases: Mapping[str, str]) -> ConfigReader:
        """A reader that knows settings by their usual names."""
        return ConfigReader(self.path, self.settings, aliases)

    def inner(self, name: str, settings: Mapping[str, Any]) -> ConfigReader:
        """A reader of the object ``name`` within the file."""
        return ConfigReader(Path(f"{self.path}: {name}"), settings)

    def error(self, name: str, expected: str) -> ModelError:
        name = self.aliases.get(name, name)
        found = repr(self.settings[name]) if name in self.settings else "nothing"
        return ModelError(f"{self.path}: {name}: expected {expected}, found {found}")

    def value(self, name: str, default: Any = None) -> Any:
        """A setting as it stands, ``default`` when it is absent or null."""
        found = self.settings.get(self.aliases.get(name, name))
        return default if found is None else found

    def integer(self, name: str, default: int | None = None) -> int:
        """A positive integer."""
        value = self.value(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
            raise self.error(name, "a positive integer")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """A positive number."""
        value = self.value(name, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
            raise self.error(name, "a positive number")
        return float(value)

    def flag(self, name: str, default: bool = False) -> bool:
        """A boolean."""
        value = self.value(name, default)
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

    def activation(self, name: str, default: str) -> str:
        """The Relax op of an activation function."""
        value = self.value(name, default)
        if not isinstance(value, str) or value not in ACTIVATIONS:
            raise self.error(name, f"one of {', '.join(sorted(ACTIVATIONS))}")
        return ACTIVATIONS[value]

    def only(self, name: str, *allowed: object) -> None:
        """Refuses a setting whose value changes the computation in a way that is not implemented."""
        if self.settings.get(name, allowed[0]) not in allowed:
            raise self.error(name, f"{' or '.join(map(repr, allowed))} (others are not supported)")


def decoder_config(reader: ConfigReader, **settings: Any) -> ModelConfig:
    """The settings that all decoders have, under their usual names; ``settings`` replaces or adds some.

    Raises:
        ModelError: a setting is missing, out of range, or asks for something that is not supported.
    """
    reader.only("quantization_config", None)
    reader.only("is_encoder_decoder", False, None)
    reader.only("add_cross_attention", False, None)
    hidden_size, num_heads = reader.integer("hidden_size"), reader.integer("num_attention_heads")
    values: dict[str, Any] = {
        "architecture": str(reader.settings["model_type"]),
        "vocab_size": reader.integer("vocab_size"),
        "hidden_size": hidden_size,
        "num_layers": reader.integer("num_hidden_layers"),
        "num_heads": num_heads,
        "num_kv_heads": reader.integer("num_key_value_heads", num_heads),
        "head_dim": _head_dim(reader, hidden_size, num_heads),
        "intermediate_size": reader.integer("intermediate_size", settings.get("intermediate_size")),
        "max_positions": reader.integer("max_position_embeddings"),
        "bos_token_id": next(iter(reader.token_ids("bos_token_id")), None),
        "eos_token_ids": _eos_token_ids(reader),
    }
    config = ModelConfig(**{**values, **settings})
    _check(reader, config)
    return config


def head_dim(reader: ConfigReader) -> int:
    """Channels of one head: what the file says, or its share of ``hidden_size``."""
    return _head_dim(reader, reader.integer("hidden_size"), reader.integer("num_attention_heads"))


def _head_dim(reader: ConfigReader, hidden_size: int, num_heads: int) -> int:
    if reader.value("head_dim") is None and hidden_size % num_heads:
        raise reader.error("num_attention_heads", f"a divisor of the hidden size ({hidden_size})")
    return reader.integer("head_dim", hidden_size // num_heads)


def _eos_token_ids(reader: ConfigReader) -> tuple[int, ...]:
    """``generation_config.json`` wins: chat models list their end-of-turn tokens only there."""
    generation = reader.path.parent / "generation_config.json"
    if reader.path.name == CONFIG_NAME and generation.is_file():
        ids = ConfigReader(generation, read_json(generation)).token_ids("eos_token_id")
        return ids or reader.token_ids("eos_token_id")
    return reader.token_ids("eos_token_id")


def _check(reader: ConfigReader, config: ModelConfig) -> None:
    if config.num_heads % config.num_kv_heads:
        raise reader.error("num_key_value_heads", f"a divisor of num_attention_heads ({config.num_heads})")
    for name in ("bos_token_id", "eos_token_id"):
        if any(token >= config.vocab_size for token in reader.token_ids(name)):
            raise reader.error(name, f"token ids below vocab_size ({config.vocab_size})")
