"""What chunks and layers share, for the paper's five models without weights and for an artifact."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mllm_tvm.artifact import Artifact
from mllm_tvm.cli import main
from mllm_tvm.errors import ArtifactError, ModelError
from mllm_tvm.inspection import (
    inspect_artifact,
    inspect_model,
    load_config,
    token_axis_table,
)
from mllm_tvm.manifest import Call, FunctionSpec, Graph
from mllm_tvm.published import CONFIG_DIR, published_names
from mllm_tvm.runtime.engine import Engine
from mllm_tvm.sharing import measure_sharing
from mllm_tvm.simulate.models import MODELS
from mllm_tvm.tensor_file import tensor_bytes
from tests.mllm_tvm.frontend.gguf_files import convert
from tests.mllm_tvm.frontend.tiny_models import save_llama

PAPER_SHARED, PAPER_SAVED = 120 / 144, 0.75


@pytest.mark.parametrize("name", MODELS)
def test_real_models_share_more_than_the_paper(name: str) -> None:
    sharing = inspect_model(name, prompt=1024, chunk_lengths=(256,), shadow_share=0.15)
    assert sharing.chunks == (256,) * 4
    assert sharing.npu_functions <= 5
    assert PAPER_SHARED <= sharing.shared_share < 1
    assert PAPER_SAVED <= sharing.saved_share < 1
    dynamic = [use for use in sharing.functions if use.kind == "dynamic"]
    assert len(dynamic) == 2  # with and without what does not fit int8
    assert sum(use.calls for use in dynamic) == MODELS[name].layers
    assert sum(use.parameter_bytes for use in dynamic) == 4 * MODELS[name].layers
    weights = MODELS[name].linear_weights + MODELS[name].head_weights
    assert sum(use.parameter_bytes for use in sharing.functions if use.kind == "linear") == weights


@pytest.mark.parametrize("name", MODELS)
def test_shipped_configurations_are_the_simulated_shapes(name: str) -> None:
    config, shape = load_config(name), MODELS[name]
    found = (config.num_layers, config.hidden_size, config.num_heads, config.num_kv_heads, config.head_dim)
    assert found == (shape.layers, shape.hidden, shape.heads, shape.kv_heads, shape.head_dim)
    assert (config.intermediate_size, config.vocab_size) == (shape.intermediate, shape.vocab)


def test_layers_add_calls_but_no_functions(tmp_path: Path) -> None:
    settings = json.loads((CONFIG_DIR / "llama-2-7b.json").read_text())
    found = []
    for layers in (3, 9):
        path = tmp_path / f"{layers}.json"
        path.write_text(json.dumps({**settings, "num_hidden_layers": layers}))
        found.append(inspect_model(path, 1024, (256,)))
    assert [use.name for use in found[0].functions] == [use.name for use in found[1].functions]
    per_layer = (found[1].calls - found[0].calls) / 6
    assert per_layer == int(per_layer) > 4


def test_token_axis_table_of_a_real_model() -> None:
    text = str(token_axis_table("gemma-2b"))
    assert text.count("token-mixing") == 18 * 3  # two cache appends and attention in each layer
    assert "relax.nn.rms_norm" in text


def test_bytes_are_counted_by_hand() -> None:
    """Two layers share a linear of K=4, N=32; three chunks of 8 rows."""
    functions = (FunctionSpec("a", "npu", "linear", 4, 32), FunctionSpec("b", "cpu", "dynamic"))
    calls = (
        Call("a", 0, ("input_ids", "param:w0"), ("%0",)),
        Call("b", 0, ("%0",), ("%1",)),
        Call("a", 1, ("%1", "param:w1"), ("%2",)),
    )
    sharing = measure_sharing(Graph(functions, calls, (), "%2"), {"w0": 128, "w1": 128}, 4, (8,), 20)
    buffers = 8 * (4 + 4 * 32)
    assert sharing.chunks == (8, 8, 8)
    assert sharing.separate_bytes == 3 * (2 * 128 + 2 * buffers)
    assert sharing.shared_bytes == 2 * 128 + buffers
    assert (sharing.shared_calls, sharing.calls, sharing.npu_functions) == (2, 3, 1)
    assert [(use.calls, use.pairs) for use in sharing.functions] == [(2, 6), (1, 3)]


def test_inspect_artifact(demo_artifact: Artifact, capsys: pytest.CaptureFixture[str]) -> None:
    sharing = inspect_artifact(demo_artifact.path, prompt=512)
    assert sharing.chunks == (256, 256)
    assert sharing.npu_functions <= 5
    packed = tensor_bytes(demo_artifact.file("weights.safetensors"))
    others = tensor_bytes(demo_artifact.file("float.safetensors"))
    formats = sum(size for name, size in others.items() if ".glu_" in name)
    held = sum(use.parameter_bytes for use in sharing.functions if use.processor == "npu")
    assert held == sum(packed.values()) + formats > formats > 0
    assert main(["inspect", str(demo_artifact.path)]) == 0
    assert "attention" in capsys.readouterr().out


def test_chunks_are_those_of_the_engine(demo_artifact: Artifact) -> None:
    with Engine(demo_artifact, device="host") as engine:
        for prompt in (20, 300):
            engine.prefill([1] * prompt)
            assert inspect_artifact(demo_artifact.path, prompt).chunks == engine.stats.chunk_lengths


def test_chunks_overlap_on_the_two_processors() -> None:
    """One chunk of 256 costs the NPU least, but hides nothing of the CPU's work."""
    assert len(inspect_model("qwen1.5-1.8b", 256, (64, 256)).chunks) > 1


def test_command_prints_a_table_or_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "--config", "Gemma-2B", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["shared_share"] == report["shared_calls"] / report["calls"]
    assert report["functions"][0]["processor"] == "cpu"
    assert main(["inspect", "--config", "gemma-2b"]) == 0
    text = capsys.readouterr().out
    assert f"{report['shared_calls']} of {report['calls']} calls" in text
    assert "mixes tokens (attention)" in text


def test_all_published_models_are_compared(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["gemma-2b", "qwen1.5-0.5b"]
    assert set(names) | set(MODELS) == set(published_names())
    monkeypatch.setattr("mllm_tvm.published.published_names", lambda: names)
    assert main(["inspect", "--config", "all"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:-3]] == names
    assert "120 of 144" in lines[-3]
    assert "4 x 256" in lines[-2]


def test_a_model_file_is_inspected_without_compiling(tmp_path: Path) -> None:
    """The same functions and calls from a GGUF file as from the directory it was made of."""
    source = save_llama(tmp_path / "hf")
    found = [inspect_model(path, 20, (8,)) for path in (source, convert(source, tmp_path / "m.gguf"))]
    assert found[0].calls == found[1].calls
    assert [use.name for use in found[0].functions] == [use.name for use in found[1].functions]
    assert "relax.nn.attention" in str(token_axis_table(tmp_path / "m.gguf"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["expected an artifact or --config"]),
        (["--config", "gpt-5"], ["gpt-5", *published_names()]),
        (["no/such/artifact"], ["no/such/artifact"]),
        (["--config", "gemma-2b", "--shadow-share", "2"], ["shadow share is 2.0"]),
        (["--config", "gemma-2b", "--chunk-lengths", "0"], ["positive lengths"]),
        (["--config", "gemma-2b", "--prompt", "-3"], ["-3 tokens", "at least 1"]),
    ],
)
def test_errors_name_what_is_wrong(
    arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", *arguments]) == 1
    error = capsys.readouterr().err
    assert all(word in error for word in words)


def test_configuration_that_is_not_one(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "t5", "is_encoder_decoder": true}')
    with pytest.raises(ModelError, match="decoder-only"):
        load_config(tmp_path)


def test_damaged_tensor_file(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"\xff" * 40)
    with pytest.raises(ArtifactError, match=r"x\.safetensors"):
        tensor_bytes(tmp_path / "x.safetensors")
