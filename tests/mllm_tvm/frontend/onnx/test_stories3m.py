"""stories3M from every kind of file against its Hugging Face directory: the same bits, the same text."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from tvm import ir

from mllm_tvm.frontend import Model, load_model
from mllm_tvm.frontend.float_model import FloatModel
from mllm_tvm.quantization.executor import QuantizedModel
from mllm_tvm.quantization.hot_rows import model_bytes
from relax_passes.expose_linear_inputs import linear_inputs
from relax_passes.graph import bindings, op_name
from tests.mllm_tvm.frontend.gguf_files import convert
from tests.mllm_tvm.frontend.onnx.exports import export
from tests.mllm_tvm.frontend.onnx.fused_graphs import Style, write_genai, write_opset23
from tests.mllm_tvm.shaped_model import uncalibrated_recipe

NEW_TOKENS = 16
PROMPT = "Tom had a red ball"

Story = tuple[list[int], np.ndarray]


def _greedy(runner: FloatModel, tokens: list[int]) -> Iterator[int]:
    logits, *caches = runner.run(tokens)
    for _ in range(NEW_TOKENS):
        token = int(logits[-1].argmax())
        yield token
        logits, *caches = runner.run([token], caches)


@pytest.fixture(scope="module")
def onnx_model(shared_data: Path) -> FloatModel:
    return FloatModel(load_model(shared_data / "onnx" / "stories3M-optimum"))


@pytest.fixture(scope="module")
def hf_model(shared_data: Path) -> FloatModel:
    return FloatModel(load_model(shared_data / "hf" / "stories3M"))


@pytest.fixture(scope="module")
def quantized_story(hf_model: FloatModel) -> Story:
    """The prompt and what the W8A8 model writes greedily, and its logits after each of these tokens."""
    model = QuantizedModel(hf_model.model, uncalibrated_recipe(hf_model.model, shadow_share=1.0))
    tokens = hf_model.model.tokenizer.encode(PROMPT)
    for _ in range(NEW_TOKENS):
        tokens.append(int(model.run(tokens)[-1].argmax()))
    return tokens, model.run(tokens)


def test_the_story_is_one(hf_model: FloatModel) -> None:
    """What the other roads are compared with is a text, not one token again and again."""
    text = list(_greedy(hf_model, hf_model.model.tokenizer.encode(PROMPT)))
    assert len(set(text)) > NEW_TOKENS // 2


ROADS: dict[str, Callable[[Path, Path, Path], Path]] = {
    "optimum": lambda _source, onnx, _target: onnx,
    "dynamo": lambda source, _onnx, target: export(source, target / "onnx"),
    "genai": lambda source, _onnx, target: write_genai(source, target / "onnx", Style(packed=False)),
    "opset23": lambda source, _onnx, target: write_opset23(source, target / "onnx", flat=False),
    "gguf": lambda source, _onnx, target: convert(source, target / "model.gguf", "F16"),
}


@pytest.mark.parametrize("road", ROADS)
def test_every_road_gives_the_same_bits(
    road: str, hf_model: FloatModel, quantized_story: Story, shared_data: Path, tmp_path: Path
) -> None:
    """The same parameters and operations, so the same recipe; the same W8A8 logits, so the same text."""
    model = load_model(ROADS[road](hf_model.model.path, shared_data / "onnx" / "stories3M-optimum", tmp_path))
    tokens, expected = quantized_story
    assert model.tokenizer.encode(PROMPT) == tokens[:-NEW_TOKENS]
    assert _arrays(model) == _arrays(hf_model.model)
    assert _operations(model.module) == _operations(hf_model.model.module)
    assert _bytes(model) == _bytes(hf_model.model)
    found = QuantizedModel(model, uncalibrated_recipe(model, shadow_share=1.0)).run(tokens)
    np.testing.assert_array_equal(found, expected)


def _arrays(model: Model) -> Counter[bytes]:
    """The parameters, whatever their names, storage type and axes of one."""
    flat = (np.asarray(array, np.float32).tobytes() for array in model.parameters.values())
    return Counter(hashlib.sha256(array).digest() for array in flat)


def _bytes(model: Model) -> int:
    """What calibration knows of a model's memory."""
    linears = linear_inputs(model.module["main"]).values()
    return model_bytes(model, [weight for weights in linears for weight in weights])


def _operations(module: ir.IRModule) -> Counter[str]:
    return Counter(op_name(binding.value) for binding in bindings(module["main"]))
