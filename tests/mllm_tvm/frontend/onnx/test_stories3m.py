"""The real export of stories3M against its Hugging Face directory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from tvm import ir

from mllm_tvm.frontend import load_model
from mllm_tvm.frontend.float_model import FloatModel
from relax_passes.graph import bindings, op_name
from tests.mllm_tvm.frontend.onnx.exports import export
from tests.mllm_tvm.frontend.onnx.fused_graphs import write_genai, write_opset23

NEW_TOKENS = 24


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


def test_logits_equal_the_hugging_face_road(onnx_model: FloatModel, hf_model: FloatModel) -> None:
    tokens = hf_model.model.tokenizer.encode("Once upon a time, there was a little girl named Lily.")
    assert onnx_model.model.tokenizer.encode("Once upon a time") == tokens[:5]
    for found, expected in zip(onnx_model.run(tokens), hf_model.run(tokens), strict=True):
        assert np.abs(found - expected).max() < 1e-3


def test_greedy_text_equals_the_hugging_face_road(onnx_model: FloatModel, hf_model: FloatModel) -> None:
    tokens = hf_model.model.tokenizer.encode("Tom had a red ball")
    text = list(_greedy(onnx_model, tokens))
    assert text == list(_greedy(hf_model, tokens))
    assert len(set(text)) > NEW_TOKENS // 2  # it is a story


def test_parameters_and_operations_are_those_of_the_hugging_face_road(
    onnx_model: FloatModel, hf_model: FloatModel
) -> None:
    ours, theirs = onnx_model.model, hf_model.model
    assert set(ours.parameters) == set(theirs.parameters)
    for name, array in ours.parameters.items():
        np.testing.assert_allclose(array, theirs.parameters[name], atol=2e-3)  # one is stored as float16
    assert _operations(ours.module) == _operations(theirs.module)


EXPORTERS: dict[str, Callable[[Path, Path], Path]] = {
    "torchscript": lambda source, target: export(source, target, dynamo=False),
    "dynamo": export,
    "genai": write_genai,
    "opset23": lambda source, target: write_opset23(source, target, flat=False),
}


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_every_exporter_gives_the_same_text(exporter: str, hf_model: FloatModel, tmp_path: Path) -> None:
    file = EXPORTERS[exporter](hf_model.model.path, tmp_path / "onnx")
    runner = FloatModel(load_model(file))
    tokens = runner.model.tokenizer.encode("Tom had a red ball")
    found, expected = runner.run(tokens)[0], hf_model.run(tokens)[0]
    assert np.abs(found - expected).max() < 1e-3
    assert list(_greedy(runner, tokens)) == list(_greedy(hf_model, tokens))


def _operations(module: ir.IRModule) -> Counter[str]:
    return Counter(op_name(binding.value) for binding in bindings(module["main"]))
