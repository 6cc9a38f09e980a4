"""Parameters made block by block: the same as made whole, in little memory, in files of the right size."""

from __future__ import annotations

import dataclasses
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import mllm_tvm as mt
from mllm_tvm.artifact import WEIGHTS_FILE
from mllm_tvm.errors import ArtifactError
from mllm_tvm.frontend.parameters import LazyParameters
from mllm_tvm.parameters import make_parameter, parameter_file, quantize_weight, weight_scale
from mllm_tvm.tensor_file import TensorWriter, read_tensors, tensor_bytes
from relax_passes.lower_linear import PACKED
from relax_passes.quantize_w8a8 import HOT, INPUT_SCALE, INT8, OUTPUT_SCALE
from targets.packing import pack_weight
from tests.mllm_tvm.shaped_model import save_shaped, uncalibrated_recipe

VOCAB, HIDDEN = 40_000, 512
SHAPE = {
    "vocab_size": VOCAB,
    "hidden_size": HIDDEN,
    "intermediate_size": 768,
    "num_hidden_layers": 1,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "max_position_embeddings": 256,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> mt.Model:
    return mt.load_model(save_shaped(tmp_path_factory.mktemp("shaped") / "model", "qwen1.5-0.5b", **SHAPE))


def test_blocks_make_the_same_parameters_as_whole_weights(model: mt.Model) -> None:
    recipe = uncalibrated_recipe(model, shadow_share=1.0)
    linears = (dataclasses.replace(linear, hot_channels=(70, 3)) for linear in recipe.linears)
    recipe = dataclasses.replace(recipe, linears=tuple(linears))
    for name in ("lm_head.weight", "model.layers.0.self_attn.k_proj.weight"):
        weight = model.parameters[name]
        scale = weight_scale(weight)

        def made(suffix: str, dtype: str, name: str = name) -> np.ndarray:
            return make_parameter(name + suffix, dtype, model.parameters, recipe)

        expected = pack_weight(quantize_weight(weight, scale))
        np.testing.assert_array_equal(made(INT8 + PACKED, "uint8"), expected)
        step = np.float32(recipe.scale(name))
        np.testing.assert_array_equal(made(OUTPUT_SCALE, "float32"), scale * step)
        np.testing.assert_array_equal(made(HOT, "float16"), weight[[70, 3]].astype(np.float16))
        assert made(INPUT_SCALE, "float32") == step


def test_writing_needs_less_than_one_float_matrix(model: mt.Model, tmp_path: Path) -> None:
    compiled = mt.compile(model, uncalibrated_recipe(model, shadow_share=1.0))
    tracemalloc.start()
    compiled._write_parameters(tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    float_matrix = 4 * VOCAB * HIDDEN
    assert peak < 0.8 * float_matrix  # the float16 embedding is half of it
    written = sum(size for file in tmp_path.iterdir() for size in tensor_bytes(file).values())
    linears = sum(k * n for k, n in _linear_shapes(model))
    assert written < 1.03 * (linears + 2 * VOCAB * HIDDEN)
    assert tensor_bytes(tmp_path / WEIGHTS_FILE) == {
        name: int(np.prod(shape)) for name, (shape, _) in compiled._parameter_types().items() if _packed(name)
    }


def _packed(name: str) -> bool:
    return parameter_file(name) == WEIGHTS_FILE


def _linear_shapes(model: mt.Model) -> list[tuple[int, ...]]:
    assert isinstance(model.parameters, LazyParameters)
    return [spec.shape for spec in model.parameters.specs.values() if getattr(spec, "linear", False)]


def test_opening_and_compiling_reads_no_weights(model: mt.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_self: object, name: str) -> np.ndarray:
        raise AssertionError(f"{name} was read")

    monkeypatch.setattr(LazyParameters, "__getitem__", refuse)
    mt.compile(model, uncalibrated_recipe(model))


def test_tensor_writer_checks_what_it_is_given(tmp_path: Path) -> None:
    layout = {"a": ((2, 3), "float32"), "b": ((4,), "int8")}
    b = np.arange(4, dtype=np.int8)
    path = tmp_path / "x.safetensors"
    with TensorWriter(path, layout) as writer:
        writer.write("b", [b[:1], b[1:]])
        writer.write("a", [np.ones((1, 3), np.float32)] * 2)
    np.testing.assert_array_equal(read_tensors(path)["b"], b)
    with (
        pytest.raises(ArtifactError, match=r"'b': expected 4 bytes .* got 3"),
        TensorWriter(path, layout) as w,
    ):
        w.write("b", [b[:3]])
    with pytest.raises(ArtifactError, match="'b': expected int8, got a block of float64"):
        TensorWriter(path, layout).write("b", [np.zeros(4)])
    with pytest.raises(ArtifactError, match="'a' was not written"), TensorWriter(path, layout) as w:
        w.write("b", [b])
    with pytest.raises(ArtifactError, match="'c' has dtype complex64"):
        TensorWriter(path, {"c": ((1,), "complex64")})
