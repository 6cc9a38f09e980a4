"""GGUF files against what transformers reads from them, and against the model they were made from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from mllm_tvm.errors import ModelError
from mllm_tvm.frontend import load_model
from mllm_tvm.frontend.float_model import FloatModel
from mllm_tvm.frontend.parameters import column_blocks
from tests.mllm_tvm.frontend.gguf_files import convert, rounded
from tests.mllm_tvm.frontend.tiny_models import (
    GPT2,
    LLAMA3_ROPE,
    MAX_ERROR,
    TOKENS,
    change_config,
    edit_weights,
    reference_logits,
    save_llama,
)

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama-3": ("llama", {"rope_parameters": LLAMA3_ROPE}),
    "qwen2": ("qwen2", {"num_key_value_heads": 4, "tie_word_embeddings": True}),
    "qwen3": ("qwen3", {"head_dim": 24}),
    "gemma": ("gemma", {"head_dim": 32, "tie_word_embeddings": True}),
    "gpt2": ("gpt2", GPT2),
    "phi": ("phi", {"num_key_value_heads": 4}),
}


def _saved(directory: Path, name: str, matrices: str = "F32") -> Path:
    model_type, changes = MODELS[name]
    source = save_llama(directory / "hf", model_type=model_type, **changes)
    return convert(source, directory / "model.gguf", matrices)


def _run(path: Path) -> np.ndarray:
    return FloatModel(load_model(path)).run(TOKENS)[0]


@pytest.mark.parametrize("name", MODELS)
def test_logits_equal_those_of_the_original(name: str, tmp_path: Path) -> None:
    path = _saved(tmp_path, name)
    expected = reference_logits(tmp_path / "hf", TOKENS)
    assert np.abs(_run(path) - expected).max() < MAX_ERROR


@pytest.mark.parametrize("matrices", ["F16", "Q8_0"])
def test_logits_equal_transformers_on_the_rounded_weights(matrices: str, tmp_path: Path) -> None:
    path = _saved(tmp_path, "llama", matrices)

    def round_all(tensors: dict[str, np.ndarray]) -> None:
        tensors.update({name: rounded(array, matrices) for name, array in tensors.items()})

    expected = reference_logits(edit_weights(tmp_path / "hf", round_all), TOKENS)
    assert np.abs(_run(path) - expected).max() < MAX_ERROR


def test_a_directory_with_one_file_is_that_file(tmp_path: Path) -> None:
    path = _saved(tmp_path, "llama")
    model = load_model(path.parent)
    assert model.config.content_hash == load_model(path).config.content_hash
    assert model.parameters["model.layers.0.self_attn.q_proj.weight"].shape == (64, 64)
    name = "model.layers.1.self_attn.k_proj.weight"
    blocks = list(column_blocks(model.parameters, name, 9))
    np.testing.assert_array_equal(np.concatenate(blocks, axis=1), model.parameters[name])


@pytest.mark.parametrize("name", ["stories3M", "stories260K"])
def test_stories_have_the_same_tokens_and_greedy_text(name: str, shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "hf" / name
    texts = [
        "Once upon a time, there was a little girl named Lily.",
        "  two  spaces",
        "naïve – “ünïcode” 🙂\n",
    ]
    original, converted = load_model(source), load_model(convert(source, tmp_path / "m.gguf", "F16"))
    for text in texts:
        ids = original.tokenizer.encode(text)
        assert converted.tokenizer.encode(text) == ids
        assert converted.tokenizer.decode(ids) == original.tokenizer.decode(ids)
    assert _greedy(original, texts[0], 12) == _greedy(converted, texts[0], 12)


def test_a_float16_file_compiles_to_what_the_original_does(tmp_path: Path) -> None:
    """The same module and the same parameters: so also the same artifact and text."""
    source = save_llama(tmp_path / "hf", dtype=torch.float16)
    original = load_model(source)
    converted = load_model(convert(source, tmp_path / "model.gguf", "F16"))
    assert original.module.script() == converted.module.script()
    for name in original.parameter_names():
        np.testing.assert_array_equal(converted.parameters[name], original.parameters[name])
    assert converted.shadow_dtype == original.shadow_dtype == "float16"


def _greedy(model: Any, prompt: str, count: int) -> str:
    runner = FloatModel(model)
    ids = model.tokenizer.encode(prompt)
    logits, *caches = runner.run(ids)
    for _ in range(count):
        ids.append(int(logits[-1].argmax()))
        logits, *caches = runner.run(ids[-1:], caches)
    return str(model.tokenizer.decode(ids))


def test_byte_level_tokenizer_is_the_original(tmp_path: Path) -> None:
    path = _saved(tmp_path, "gpt2")
    converted, original = load_model(path).tokenizer, load_model(tmp_path / "hf").tokenizer
    for text in ["the cat sat", "</s> and\n <s>", "ünïcode  🙂"]:
        assert converted.encode(text) == original.encode(text)


def _refuses(path: Path, *words: str) -> None:
    with pytest.raises(ModelError) as caught:
        load_model(path)
    for word in (path.name, *words):
        assert word in str(caught.value)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _saved(tmp_path_factory.mktemp("gguf"), "llama")


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda data: b"", "not a readable GGUF file"),
        (lambda data: b"GGML" + data[4:], "not a readable GGUF file"),
        (lambda data: data[:100], "not a readable GGUF file"),
        (lambda data: data[: len(data) // 2], "not a readable GGUF file"),
        (lambda data: data[:-4], "not a readable GGUF file"),
        (lambda data: data[:8] + b"\xff" * 16 + data[24:], "not a readable GGUF file"),
    ],
)
def test_corrupt_files(good: Path, tmp_path: Path, damage: Callable[[bytes], bytes], word: str) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(damage(good.read_bytes()))
    _refuses(path, word)


def test_tensor_type_that_is_not_supported(tmp_path: Path) -> None:
    _refuses(_saved(tmp_path, "llama", "Q4_0"), "token_embd.weight", "Q4_0", "Q8_0")


def test_architecture_that_is_not_supported(tmp_path: Path) -> None:
    path = tmp_path / "bert.gguf"
    writer = gguf.GGUFWriter(path, "bert")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    _refuses(path, "'bert'", "supported: llama")


def test_weights_of_another_shape_than_the_metadata(tmp_path: Path) -> None:
    source = change_config(save_llama(tmp_path / "hf"), intermediate_size=128)
    path = convert(source, tmp_path / "model.gguf")
    _refuses(path, "layers.0.mlp.gate_proj.weight", "expected shape [128, 64]", "found [96, 64]")


def test_missing_tensor_and_setting(tmp_path: Path) -> None:
    path = tmp_path / "empty.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("token_embd.weight", np.zeros((8, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    _refuses(path, "hidden_size", "found nothing")
