"""What a graph does not say: the longest context and the special tokens, from the JSON files beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mllm_tvm.errors import ModelError
from mllm_tvm.frontend.config import CONFIG_NAME, ConfigReader, ModelConfig, read_json
from mllm_tvm.frontend.onnx.file import OnnxFile
from mllm_tvm.frontend.onnx.importer import Importer

GENAI_CONFIG_NAME = "genai_config.json"
GENERATION_CONFIG_NAME = "generation_config.json"
_LONGEST_CONTEXT = ("max_position_embeddings", "n_positions", "context_length")


@dataclass(frozen=True)
class Settings:
    """The settings beside an ONNX file: ``file`` is where they come from."""

    file: Path
    values: Mapping[str, Any]
    max_positions: int
    bos_token_id: int | None
    eos_token_ids: tuple[int, ...]

    @property
    def head_dim(self) -> int | None:
        """The size of a head, None if the settings do not say."""
        hidden, heads = self.number("hidden_size"), self.number("num_attention_heads")
        return self.number("head_dim") or (hidden // heads if hidden and heads else None)

    @property
    def sliding_window(self) -> int | None:
        """How many tokens a token attends to, when that is less than the longest context."""
        window = self.number("sliding_window")
        if window is None or self.values.get("use_sliding_window") is False:
            return None
        return window if window < self.max_positions else None

    def number(self, *names: str) -> int | None:
        """The first of the named settings that is there, as an integer."""
        for name in names:
            if isinstance(self.values.get(name), int):
                return int(self.values[name])
        return None


def read_settings(directory: Path) -> Settings:
    """Reads ``config.json`` (Hugging Face) or ``genai_config.json`` (ONNX Runtime GenAI).

    Raises:
        ModelError: there is neither, one is damaged, or the model is an encoder-decoder.
    """
    if (directory / CONFIG_NAME).is_file():
        file, values = directory / CONFIG_NAME, read_json(directory / CONFIG_NAME)
    elif (directory / GENAI_CONFIG_NAME).is_file():
        file, values = directory / GENAI_CONFIG_NAME, _genai_settings(directory / GENAI_CONFIG_NAME)
    else:
        raise ModelError(
            f"{directory / CONFIG_NAME} is missing: expected it, or a {GENAI_CONFIG_NAME}, beside the ONNX "
            "file (longest context, special tokens)"
        )
    reader = ConfigReader(file, values)
    if reader.flag("is_encoder_decoder"):
        raise reader.error("is_encoder_decoder", "false: only decoder-only models are supported")
    longest = next((name for name in _LONGEST_CONTEXT if name in values), _LONGEST_CONTEXT[0])
    bos = next(iter(reader.token_ids("bos_token_id")), None)
    return Settings(file, values, reader.integer(longest), bos, _eos_token_ids(directory, reader))


def _genai_settings(file: Path) -> dict[str, Any]:
    """The settings under the names of ``config.json``."""
    model = read_json(file).get("model")
    if not isinstance(model, dict) or not isinstance(model.get("decoder"), dict):
        raise ModelError(f"{file}: model.decoder: expected an object")
    decoder = model["decoder"]
    named = {"head_dim": decoder.get("head_size"), "model_type": model.get("type")}
    kept = {name: decoder[name] for name in decoder if name.startswith(("num_", "hidden_"))}
    return {**model, **kept, **{name: value for name, value in named.items() if value is not None}}


def _eos_token_ids(directory: Path, reader: ConfigReader) -> tuple[int, ...]:
    """``generation_config.json`` wins: chat models list their end-of-turn tokens only there."""
    generation = directory / GENERATION_CONFIG_NAME
    if generation.is_file():
        ids = ConfigReader(generation, read_json(generation)).token_ids("eos_token_id")
        if ids:
            return ids
    return reader.token_ids("eos_token_id")


def model_config(
    file: OnnxFile, settings: Settings, importer: Importer, sizes: Mapping[str, int]
) -> ModelConfig:
    """The model's settings, as the graph has them; ``sizes``: vocab_size, hidden_size, intermediate_size.

    Raises:
        ModelError: ``config.json`` says something else than the graph.
    """
    first = importer.layers[0]
    found = {
        "vocab_size": sizes["vocab_size"],
        "hidden_size": sizes["hidden_size"],
        "num_hidden_layers": len(importer.layers),
        "num_attention_heads": first.heads,
        "num_key_value_heads": first.kv_heads,
        "head_dim": first.head_dim,
    }
    for name, value in found.items():
        said = settings.values.get(name)
        if isinstance(said, int) and said != value:
            raise ModelError(
                f"{settings.file}: {name}: expected {value} as in {file.path.name}, found {said}; "
                "the two are of different models"
            )
    return ModelConfig(
        architecture=str(settings.values.get("model_type", "onnx")),
        vocab_size=sizes["vocab_size"],
        hidden_size=sizes["hidden_size"],
        num_layers=len(importer.layers),
        num_heads=first.heads,
        num_kv_heads=first.kv_heads,
        head_dim=first.head_dim,
        intermediate_size=sizes["intermediate_size"],
        max_positions=settings.max_positions,
        bos_token_id=settings.bos_token_id,
        eos_token_ids=settings.eos_token_ids,
        content_hash=file.content_hash(settings.file),
    )
