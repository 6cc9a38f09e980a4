"""Every way a model directory can be wrong is a ModelError that names what is wrong."""

from __future__ import annotations

import pickle
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mllm_tvm.errors import ModelError
from mllm_tvm.frontend import load_model
from tests.mllm_tvm.frontend.tiny_models import change_config, edit_weights, save_llama

Q_PROJ = "model.layers.1.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture
def model_dir(saved: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


def _refuses(path: Path, *words: str) -> None:
    with pytest.raises(ModelError) as caught:
        load_model(path)
    for word in words:
        assert word in str(caught.value)


def test_the_undamaged_copy_loads(model_dir: Path) -> None:
    assert load_model(model_dir).config.num_layers == 2


def test_missing_directory(tmp_path: Path) -> None:
    _refuses(tmp_path / "absent", "absent", "not a directory")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_missing_file(model_dir: Path, name: str) -> None:
    (model_dir / name).unlink()
    _refuses(model_dir, name, "is missing")


class _Bomb:
    """Unpickling it creates the file ``path``."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "model.pth"])
def test_pickled_weights_are_refused_unopened(model_dir: Path, name: str) -> None:
    (model_dir / "model.safetensors").unlink()
    (model_dir / name).write_bytes(pickle.dumps(_Bomb(model_dir / "ran")))
    _refuses(model_dir, "model.safetensors", name, "a pickle", "convert it to safetensors")
    assert not (model_dir / "ran").exists()


@pytest.mark.parametrize("content", ["{", "", "\xff"])
def test_config_is_not_json(model_dir: Path, content: str) -> None:
    (model_dir / "config.json").write_bytes(content.encode("latin-1"))
    _refuses(model_dir, "config.json", "not valid JSON")


def test_config_is_not_an_object(model_dir: Path) -> None:
    (model_dir / "config.json").write_text("[1]")
    _refuses(model_dir, "config.json", "expected a JSON object", "list")


@pytest.mark.parametrize("kind", ["mamba", None, ["llama"]])
def test_unknown_architecture_lists_the_supported_ones(model_dir: Path, kind: object) -> None:
    _refuses(change_config(model_dir, model_type=kind), repr(kind), "supported: gemma, gpt2, llama,")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_act": "mish"}, ["hidden_act", "silu", "'mish'"]),
        ({"rope_parameters": {"rope_type": "longrope"}}, ["rope_parameters", "'longrope'", "llama3"]),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}}, ["rope_parameters", "factor"]),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 0}}, ["rope_parameters", "factor", "positive"]),
        ({"rope_parameters": {"rope_theta": -1.0}}, ["rope_theta", "positive"]),
        ({"rope_parameters": 3}, ["rope_parameters", "an object"]),
        (
            {"rope_parameters": {"partial_rotary_factor": 0.07}},
            ["partial_rotary_factor", "rotated channels of 16"],
        ),
        ({"quantization_config": {"bits": 4}}, ["quantization_config", "not supported"]),
        ({"hidden_size": "64"}, ["hidden_size", "positive integer", "'64'"]),
        ({"num_hidden_layers": 0}, ["num_hidden_layers", "positive integer"]),
        ({"num_hidden_layers": True}, ["num_hidden_layers", "positive integer"]),
        ({"vocab_size": None}, ["vocab_size", "positive integer"]),
        ({"rms_norm_eps": "small"}, ["rms_norm_eps", "positive number"]),
        ({"num_key_value_heads": 3}, ["num_key_value_heads", "divisor"]),
        ({"head_dim": 15}, ["head_dim", "even"]),
        ({"tie_word_embeddings": "no"}, ["tie_word_embeddings", "true or false"]),
        ({"bos_token_id": 320}, ["bos_token_id", "below vocab_size"]),
        ({"bos_token_id": "<s>"}, ["bos_token_id", "token id"]),
    ],
)
def test_unusable_setting_is_named(model_dir: Path, changes: dict[str, Any], words: list[str]) -> None:
    _refuses(change_config(model_dir, **changes), "config.json", *words)


def test_windows_in_some_layers_only_are_refused(tmp_path: Path) -> None:
    path = save_llama(tmp_path, model_type="qwen2", use_sliding_window=True)
    _refuses(path, "use_sliding_window", "not supported")


def test_qwen_puts_no_bos_before_a_text(tmp_path: Path) -> None:
    model = load_model(save_llama(tmp_path, model_type="qwen2"))
    assert model.tokenizer.encode("") == []


def test_missing_setting_is_named(model_dir: Path) -> None:
    file = model_dir / "config.json"
    file.write_text(re.sub(r'"intermediate_size": \d+,', "", file.read_text()))
    _refuses(model_dir, "intermediate_size", "found nothing")


def test_missing_weight_is_named(model_dir: Path) -> None:
    edit_weights(model_dir, lambda tensors: tensors.__delitem__(Q_PROJ))
    _refuses(model_dir, Q_PROJ, "is missing")


def test_misshapen_weight_names_both_shapes_and_the_file(model_dir: Path) -> None:
    edit_weights(model_dir, lambda tensors: tensors.update({Q_PROJ: np.zeros((64, 32), np.float32)}))
    _refuses(model_dir, Q_PROJ, "[64, 64]", "[64, 32]", "model.safetensors")


def test_integer_weight_is_refused(model_dir: Path) -> None:
    edit_weights(model_dir, lambda tensors: tensors.update({Q_PROJ: np.zeros((64, 64), np.int8)}))
    _refuses(model_dir, Q_PROJ, "F32", "I8")


def test_weight_that_the_graph_would_leave_out_is_refused(model_dir: Path) -> None:
    bias = "model.layers.0.self_attn.q_proj.bias"
    edit_weights(model_dir, lambda tensors: tensors.update({bias: np.zeros(64, np.float32)}))
    _refuses(model_dir, "unexpected", bias)


def test_redundant_tensors_are_accepted(model_dir: Path) -> None:
    extra = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.zeros(8, np.float32)}
    edit_weights(model_dir, lambda tensors: tensors.update(extra))
    assert len(load_model(model_dir).parameters) > 0


def _cut_end(data: bytes) -> bytes:
    return data[:-100]


def _cut_in_header(data: bytes) -> bytes:
    return data[:200]


def _empty(_data: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("damage", [_cut_end, _cut_in_header, _empty])
def test_truncated_weights(model_dir: Path, damage: Callable[[bytes], bytes]) -> None:
    file = model_dir / "model.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    _refuses(model_dir, "model.safetensors", "truncated")


@pytest.mark.parametrize("header", [b"no json", b"[1]", b'{"a": 1}', b'{"a": {"dtype": "F32"}}'])
def test_damaged_safetensors_header(model_dir: Path, header: bytes) -> None:
    (model_dir / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    _refuses(model_dir, "model.safetensors", "damaged safetensors header")


def test_file_that_shrinks_after_loading(model_dir: Path) -> None:
    model = load_model(model_dir)
    (model_dir / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="truncated"):
        _ = model.parameters[Q_PROJ]


def test_missing_shard_is_named(tmp_path: Path) -> None:
    path = save_llama(tmp_path, max_shard_size="100KB")
    shard = sorted(path.glob("model-*.safetensors"))[1]
    shard.unlink()
    _refuses(path, shard.name, "is missing")


@pytest.mark.parametrize("weight_map", ['{"a": "../secret.safetensors"}', '{"a": 3}', "[]"])
def test_bad_shard_index(model_dir: Path, weight_map: str) -> None:
    (model_dir / "model.safetensors.index.json").write_text(f'{{"weight_map": {weight_map}}}')
    with pytest.raises(ModelError):
        load_model(model_dir)


def test_damaged_tokenizer(model_dir: Path) -> None:
    (model_dir / "tokenizer.json").write_text("{}")
    _refuses(model_dir, "tokenizer.json", "cannot be read")


def test_tokenizer_of_another_model(saved: Path, tmp_path: Path) -> None:
    path = save_llama(tmp_path, vocab_size=100)
    _refuses(path, "tokenizer.json", "token id", "not below", "vocab_size 100")


def test_generation_config_lists_the_end_tokens(model_dir: Path) -> None:
    (model_dir / "generation_config.json").write_text('{"eos_token_id": [2, 7]}')
    model = load_model(model_dir)
    assert model.config.eos_token_ids == model.tokenizer.eos_ids == (2, 7)


def test_no_code_of_the_directory_runs(model_dir: Path) -> None:
    witness = model_dir / "witness"
    code = f"open({str(witness)!r}, 'w')"
    for name in ("modeling_llama.py", "configuration_llama.py", "__init__.py"):
        (model_dir / name).write_text(code)
    load_model(model_dir)
    change_config(model_dir, auto_map={"AutoConfig": "configuration_llama.X"})
    _refuses(model_dir, "config.json", "auto_map", "never run", "plain llama", "configuration_llama.X")
    assert not witness.exists()
