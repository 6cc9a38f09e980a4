"""Imported models against transformers, whole and with the cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mllm_tvm.frontend import load_model
from mllm_tvm.frontend.float_model import FloatModel
from relax_passes.analyze_token_axis import analyze_token_axis
from relax_passes.expose_linear_inputs import linear_inputs
from tests.mllm_tvm.frontend.tiny_models import MAX_ERROR, TOKENS, reference_logits, save_llama

VARIANTS: dict[str, dict[str, Any]] = {
    "grouped-query": {},
    "multi-head": {"num_key_value_heads": 4},
    "multi-query-tied": {"num_key_value_heads": 1, "tie_word_embeddings": True},
    "wide-heads": {"head_dim": 32},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "rope-and-epsilon": {
        "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
        "rms_norm_eps": 0.05,
    },
    "odd-sizes": {"vocab_size": 333, "intermediate_size": 97, "num_hidden_layers": 1},
    "float16-tied": {"dtype": torch.float16, "tie_word_embeddings": True},
    "bfloat16-sharded": {"dtype": torch.bfloat16, "max_shard_size": "100KB"},
    "mistral": {"model_type": "mistral", "sliding_window": None},
    "qwen2": {"model_type": "qwen2"},
    "qwen3": {"model_type": "qwen3", "head_dim": 24},
}


def _check_against_transformers(path: Path, tokens: list[int]) -> None:
    runner = FloatModel(load_model(path))
    logits, *caches = runner.run(tokens)
    assert logits.shape == (len(tokens), runner.model.config.vocab_size)
    assert np.abs(logits - reference_logits(path, tokens)).max() < MAX_ERROR
    _check_split(runner, tokens, [logits, *caches])


def _check_split(runner: FloatModel, tokens: list[int], whole: list[np.ndarray]) -> None:
    first = runner.run(tokens[:5])
    rest = runner.run(tokens[5:], first[1:])
    np.testing.assert_allclose(np.concatenate([first[0], rest[0]]), whole[0], atol=1e-4)
    for cache, expected in zip(rest[1:], whole[1:], strict=True):
        np.testing.assert_allclose(cache, expected, atol=1e-4)


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_equal_transformers(variant: str, tmp_path: Path) -> None:
    path = save_llama(tmp_path, **VARIANTS[variant])
    shards = list(path.glob("model-*.safetensors"))
    assert (len(shards) > 1) == (variant == "bfloat16-sharded")
    _check_against_transformers(path, TOKENS)


@pytest.mark.parametrize("name", ["stories3M", "stories260K"])
def test_stories_models_equal_transformers(name: str, shared_data: Path) -> None:
    path = shared_data / "hf" / name
    tokens = load_model(path).tokenizer.encode("Once upon a time, there was a little girl named Lily.")
    _check_against_transformers(path, tokens)


def test_demo_model_equals_transformers() -> None:
    from mllm_tvm.demo import MODEL_DIR

    if not Path(MODEL_DIR).is_dir():
        pytest.skip(f"no demo model at {MODEL_DIR}")
    tokens = load_model(MODEL_DIR).tokenizer.encode("Once upon a time, there was a little dog.")
    _check_against_transformers(Path(MODEL_DIR), tokens)


def test_module_has_the_documented_form(tmp_path: Path) -> None:
    model = load_model(save_llama(tmp_path, dtype=torch.float16, tie_word_embeddings=True))
    main = model.module["main"]
    names = [p.name for p in main.params]
    caches = ["k_cache_0", "v_cache_0", "k_cache_1", "v_cache_1"]
    assert names[:6] == ["input_ids", "positions", *caches]
    assert int(main.attrs["num_input"]) == 6
    assert model.parameter_names() == names[6:] == list(model.parameters)
    assert len(main.ret_ty.fields) == 1 + model.num_caches
    table = analyze_token_axis(main)
    mixing = [row.op for row in table.rows if row.mixes]
    assert mixing == ["relax.concat", "relax.concat", "relax.nn.attention"] * 2
    groups = list(linear_inputs(main).values())
    assert [len(group) for group in groups] == [3, 1, 2, 1, 3, 1, 2, 1, 1]
    assert groups[-1] == ("lm_head.weight",)


def test_parameters_have_the_declared_shapes_and_dtypes(tmp_path: Path) -> None:
    model = load_model(save_llama(tmp_path, dtype=torch.float16, tie_word_embeddings=True))
    main = model.module["main"]
    for parameter in main.params[int(main.attrs["num_input"]) :]:
        array = model.parameters[parameter.name]
        assert array.shape == tuple(int(extent) for extent in parameter.ty.shape.values)
        assert str(array.dtype) == parameter.ty.dtype
        assert array.flags.c_contiguous
    assert model.parameters["model.embed_tokens.weight"].dtype == np.float16
    head, table = model.parameters["lm_head.weight"], model.parameters["model.embed_tokens.weight"]
    assert head.dtype == np.float32
    np.testing.assert_array_equal(head, table.T.astype(np.float32))


@pytest.mark.parametrize(
    ("dtype", "embedding", "shadow"),
    [
        (torch.float16, "float16", "float16"),
        (torch.bfloat16, "float32", "float32"),
        (torch.float32, "float32", "float32"),
    ],
)
def test_stored_dtype_decides_embedding_and_shadow(
    dtype: torch.dtype, embedding: str, shadow: str, tmp_path: Path
) -> None:
    model = load_model(save_llama(tmp_path, dtype=dtype))
    assert model.parameters["model.embed_tokens.weight"].dtype == embedding
    assert model.shadow_dtype == shadow


def test_rope_tables_are_rounded_from_float64(tmp_path: Path) -> None:
    model = load_model(save_llama(tmp_path, head_dim=8, max_position_embeddings=100))
    angle = 99 * 10000.0 ** (-2 / 8)  # position 99, pair 1
    assert model.parameters["rope.cos"].shape == (100, 4)
    assert model.parameters["rope.cos"][99, 1] == np.float32(np.cos(angle))
    assert model.parameters["rope.sin"][99, 1] == np.float32(np.sin(angle))


def test_content_hash_follows_the_weights(tmp_path: Path) -> None:
    one = load_model(save_llama(tmp_path / "one")).config.content_hash
    again = load_model(save_llama(tmp_path / "again")).config.content_hash
    other = load_model(save_llama(tmp_path / "other", initializer_range=0.1)).config.content_hash
    assert one == again
    assert one != other
