"""Decoders of every exporter against ONNX Runtime and transformers, whole and with the cache."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from mllm_tvm.frontend import load_model
from mllm_tvm.frontend.float_model import FloatModel
from relax_passes.analyze_token_axis import analyze_token_axis
from relax_passes.expose_linear_inputs import linear_inputs
from tests.mllm_tvm.frontend.onnx.exports import export, reference
from tests.mllm_tvm.frontend.onnx.fused_graphs import Style, write_genai, write_opset23
from tests.mllm_tvm.frontend.tiny_models import GPT2, MAX_ERROR, OPT, TOKENS, reference_logits, save_llama

TIED = {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True, "num_key_value_heads": 1}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grouped-query attention, embeddings not tied, no biases."""
    return save_llama(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One key/value head, tied embeddings, biases everywhere."""
    return save_llama(tmp_path_factory.mktemp("tied"), **TIED)


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One layer, tied embeddings, biases, heads wider than hidden size / heads."""
    changes = {**TIED, "num_hidden_layers": 1, "head_dim": 32, "num_key_value_heads": 2}
    return save_llama(tmp_path_factory.mktemp("single"), **changes)


def _check(source: Path, file: Path, groups: list[int]) -> FloatModel:
    """Logits against both references, prefill in two parts, and the documented form of ``main``."""
    model = load_model(file)
    runner = FloatModel(model)
    logits, *caches = runner.run(TOKENS)
    assert np.abs(logits - reference(file, TOKENS, model.config.head_dim)).max() < MAX_ERROR
    assert np.abs(logits - reference_logits(source, TOKENS)).max() < MAX_ERROR
    first = runner.run(TOKENS[:5])
    rest = runner.run(TOKENS[5:-1], first[1:])
    last = runner.run(TOKENS[-1:], rest[1:])
    np.testing.assert_allclose(np.concatenate([first[0], rest[0], last[0]]), logits, atol=1e-4)
    for cache, expected in zip(last[1:], caches, strict=True):
        np.testing.assert_allclose(cache, expected, atol=1e-4)
    _check_form(model, groups)
    return runner


def _check_form(model: Any, groups: list[int]) -> None:
    main = model.module["main"]
    layers = model.config.num_layers
    assert int(main.attrs["num_input"]) == 2 + 2 * layers
    table = analyze_token_axis(main)
    mixing = [row.op for row in table.rows if row.mixes]
    assert mixing == ["relax.concat", "relax.concat", "relax.nn.attention"] * layers
    assert [len(group) for group in linear_inputs(main).values()] == [*groups * layers, 1]
    for parameter in main.params[int(main.attrs["num_input"]) :]:
        array = model.parameters[parameter.name]
        assert array.shape == tuple(int(extent) for extent in parameter.ty.shape.values)
        assert str(array.dtype) == parameter.ty.dtype


SEPARATE, PACKED = [3, 1, 2, 1], [1, 1, 2, 1]


def test_torchscript_with_past(tied: Path, tmp_path: Path) -> None:
    _check(tied, export(tied, tmp_path / "onnx", dynamo=False), SEPARATE)


ARCHITECTURES: dict[str, dict[str, Any]] = {
    "qwen3": {"head_dim": 24},
    "gemma": {"num_key_value_heads": 1, "head_dim": 32, "tie_word_embeddings": True},
    "phi": {"num_key_value_heads": 4},
    "gpt2": {**GPT2, "num_key_value_heads": 4},
    "opt": {**OPT, "num_key_value_heads": 4},
}


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_architectures_with_past(model_type: str, tmp_path: Path) -> None:
    source = save_llama(tmp_path / "hf", model_type=model_type, **ARCHITECTURES[model_type])
    runner = FloatModel(load_model(export(source, tmp_path / "onnx", dynamo=False)))
    logits = runner.run(TOKENS)[0]
    assert np.abs(logits - reference_logits(source, TOKENS)).max() < MAX_ERROR
    first = runner.run(TOKENS[:-1])
    last = runner.run(TOKENS[-1:], first[1:])
    np.testing.assert_allclose(np.concatenate([first[0], last[0]]), logits, atol=1e-4)


@pytest.mark.parametrize(
    "options",
    [{}, {"cached": False, "sdpa": False}, {"opset": 23}],
    ids=["past", "no-past", "past-opset23"],
)
def test_dynamo(options: dict[str, Any], single: Path, tmp_path: Path) -> None:
    file = export(single, tmp_path / "onnx", **options)
    assert (tmp_path / "onnx" / "model.onnx.data").is_file()
    runner = _check(single, file, SEPARATE)
    assert any(name.endswith("layers.0.mlp.down_proj.weight") for name in runner.model.parameters)


@pytest.mark.parametrize(
    ("model", "style"),
    [
        ("plain", Style()),
        ("tied", Style(packed=False, external=True)),
        ("plain", Style(packed=False, rotary="separate", position_ids=True)),
        ("tied", Style(position_ids=True, names=("cache_{}_a", "cache_{}_b"))),
    ],
    ids=["packed", "separate-external", "rotary-operator", "position-ids"],
)
def test_genai(model: str, style: Style, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    source = request.getfixturevalue(model)
    _check(source, write_genai(source, tmp_path / "onnx", style), PACKED if style.packed else SEPARATE)


def test_genai_settings_and_symbolic_head_size(plain: Path, tmp_path: Path) -> None:
    file = write_genai(plain, tmp_path / "onnx")
    config = json.loads((file.parent / "config.json").read_text())
    (file.parent / "config.json").unlink()
    decoder = {name: config[name] for name in ("hidden_size", "num_attention_heads", "num_hidden_layers")}
    model = {name: config[name] for name in ("bos_token_id", "eos_token_id", "vocab_size")}
    model.update(context_length=100, type="llama", decoder={**decoder, "head_size": 16})
    (file.parent / "genai_config.json").write_text(json.dumps({"model": model}))
    graph = onnx.load(file)
    for value in graph.graph.input:
        if value.name.startswith("past"):
            value.type.tensor_type.shape.dim[3].dim_param = "kv_cache_dim"
    onnx.save(graph, file)
    found = load_model(file.parent).config
    assert (found.head_dim, found.num_kv_heads, found.max_positions) == (16, 2, 100)
    assert (found.architecture, found.bos_token_id, found.eos_token_ids) == ("llama", 1, (2,))


@pytest.mark.parametrize("flat", [True, False])
def test_opset23(flat: bool, plain: Path, tmp_path: Path) -> None:
    _check(plain, write_opset23(plain, tmp_path / "onnx", flat=flat), SEPARATE)


@pytest.mark.parametrize("separate", [False, True])
def test_interleaved_rotary_and_window_equal_onnxruntime(separate: bool, plain: Path, tmp_path: Path) -> None:
    rotary = "separate" if separate else "inside"
    style = Style(packed=False, interleaved=True, rotary=rotary, position_ids=separate, window=6)
    file = write_genai(plain, tmp_path / "onnx", style)
    runner = FloatModel(load_model(file))
    expected = reference(file, TOKENS)
    assert np.abs(expected - reference_logits(plain, TOKENS)).max() > 0.1  # it is another model
    first = runner.run(TOKENS[:5])
    rest = runner.run(TOKENS[5:], first[1:])
    assert np.abs(np.concatenate([first[0], rest[0]]) - expected).max() < MAX_ERROR
