"""``profile kernels`` and the shapes it takes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mllm_tvm.cli import main
from mllm_tvm.errors import ModelError
from mllm_tvm.tuning import Shape
from mllm_tvm.tuning.shapes import model_shapes
from targets.hexagon.tiling import Tiling, traffic

CONFIG = {
    "model_type": "llama",
    "hidden_size": 192,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "intermediate_size": 500,
    "vocab_size": 4096,
    "num_hidden_layers": 2,
    "max_position_embeddings": 64,
}


@pytest.mark.skipif(shutil.which("qemu-hexagon") is None, reason="qemu-hexagon is not installed")
def test_kernels_are_counted_and_checked(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["profile", "kernels", "--untuned", "--contexts", "4", "64x256x320", "1x64x64"]
    assert main([*command, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    kernels = report["kernels"]
    assert [(k["m"], k["k"], k["n"], k["chunk_length"]) for k in kernels] == [
        (64, 256, 320, 64),
        (1, 64, 64, 1),
    ]
    for kernel, limit in zip(kernels, (256, 128), strict=True):
        macs = kernel["m"] * kernel["k"] * kernel["n"]
        moved = traffic(kernel["m"], kernel["k"], kernel["n"], Tiling(**kernel["tiling"]))
        assert kernel["exact"] is True
        assert kernel["mac_per_packet"] == pytest.approx(macs / kernel["packets"], abs=0.01)
        assert kernel["share"] == pytest.approx(macs / kernel["packets"] / limit, abs=1e-4)
        assert kernel["mac_per_packet"] < kernel["gemm_mac_per_packet"] < limit
        assert kernel["memory_bytes"] == moved.memory
    assert kernels[0]["context_ratio"] == pytest.approx(
        kernels[0]["packets"] / kernels[0]["context_packets"], abs=1e-3
    )
    assert kernels[0]["context_ratio"] > 3.7
    assert kernels[0]["context_packets"] * 4 > kernels[0]["total_packets"] > kernels[0]["packets"]
    assert main(["profile", "kernels", "--untuned", "1x64x64"]) == 0
    assert "1x64x64" in capsys.readouterr().out


def test_more_contexts_than_there_are_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for contexts in ("0", "5"):
        assert main(["profile", "kernels", "64x64x64", "--contexts", contexts]) == 1
        assert "qcom/hexagon-v68 has 4" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["64x512", "axbxc", "64x-1x32"])
def test_a_bad_shape_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "kernels", text]) == 1
    assert "MxKxN" in capsys.readouterr().err


def test_no_shape_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "kernels"]) == 1
    assert "--model" in capsys.readouterr().err


def test_a_shape_without_room_in_32_bits_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "kernels", "64x65536x131072"]) == 1
    assert "32-bit address space" in capsys.readouterr().err


def test_shapes_of_a_model_directory(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    assert model_shapes(str(tmp_path), [16]) == [
        Shape(16, 192, 320),
        Shape(16, 192, 192),
        Shape(16, 192, 1024),
        Shape(16, 500, 192),
        Shape(16, 192, 4096),
    ]


def test_shapes_of_an_artifact(tmp_path: Path) -> None:
    functions = [
        {"name": "a", "processor": "npu", "kind": "linear", "k": 64, "n": 96},
        {"name": "b", "processor": "cpu", "kind": "float", "k": 0, "n": 0},
        {"name": "c", "processor": "npu", "kind": "mlp", "k": 64, "n": 64, "channels": 100},
    ]
    (tmp_path / "manifest.json").write_text(json.dumps({"graph": {"functions": functions}}))
    linears = [(64, 96), (64, 256), (100, 64)]
    assert model_shapes(str(tmp_path), [16, 64]) == [Shape(m, k, n) for m in (16, 64) for k, n in linears]


@pytest.mark.parametrize("text", ["{}", '{"graph": {"functions": [{"name": "a"}]}}'])
def test_a_manifest_without_functions_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ModelError, match=r"manifest.json .*compile the model again"):
        model_shapes(str(tmp_path), [16])


def test_shapes_of_published_models() -> None:
    """Phi-2's feed-forward reads what its attention does: one kernel for both."""
    found = {shape[1:] for shape in model_shapes("Phi-2", [64])}
    assert found == {(2560, 3 * 2560 + 10240), (2560, 2560), (10240, 2560), (2560, 51200)}
    assert len(model_shapes("mistral-7b", [64, 256])) == 10


def test_a_name_that_is_no_model_is_refused() -> None:
    with pytest.raises(ModelError, match=r"gpt-5.*ONNX or GGUF.*llama-2-7b"):
        model_shapes("gpt-5", [64])


@pytest.mark.parametrize("text", ["", "[]", '{"hidden_size": 64}', '{"hidden_size": "x"}'])
def test_a_damaged_configuration_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelError, match=r"config.json"):
        model_shapes(str(tmp_path), [64])
