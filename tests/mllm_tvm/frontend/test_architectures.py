"""Every architecture against transformers: whole, in chunks and token by token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tvm import ir

from mllm_tvm.errors import ModelError
from mllm_tvm.frontend import architectures, load_model
from mllm_tvm.frontend.float_model import FloatModel
from mllm_tvm.frontend.parameters import column_blocks
from relax_passes import pipeline
from relax_passes.analyze_token_axis import analyze_token_axis
from relax_passes.expose_linear_inputs import linear_inputs
from relax_passes.quantize_w8a8 import LinearScheme
from tests.mllm_tvm.frontend.tiny_models import (
    GPT2,
    LLAMA3_ROPE,
    MAX_ERROR,
    OPT,
    TOKENS,
    change_config,
    edit_weights,
    reference_logits,
    save_llama,
)

_YARN = {"rope_type": "yarn", "rope_theta": 500.0, "factor": 4.0, "original_max_position_embeddings": 16}

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama-3": ("llama", {"rope_parameters": LLAMA3_ROPE}),
    "llama-linear": (
        "llama",
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 3.0}},
    ),
    "llama-dynamic": (
        "llama",
        {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 3.0}},
    ),
    "llama-yarn": ("llama", {"rope_parameters": _YARN}),
    "llama-yarn-wide": (
        "llama",
        {"head_dim": 64, "rope_parameters": {**_YARN, "beta_fast": 4.0, "attention_factor": 1.5}},
    ),
    "mistral-window": ("mistral", {"sliding_window": 4}),
    "gemma": ("gemma", {"num_key_value_heads": 1, "head_dim": 32}),
    "gemma-float16": ("gemma", {"head_dim": 16, "hidden_act": "gelu", "dtype": torch.float16}),
    "phi": ("phi", {"num_key_value_heads": 4}),
    "phi-partial": (
        "phi",
        {
            "head_dim": 20,
            "hidden_size": 80,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.4},
        },
    ),
    "gpt2": ("gpt2", GPT2),
    "gpt2-untied": ("gpt2", {**GPT2, "n_inner": 100, "tie_word_embeddings": False}),
    "opt": ("opt", OPT),
    "opt-float16": ("opt", {**OPT, "activation_function": "gelu", "dtype": torch.float16}),
}


def _save(path: Path, variant: str) -> Path:
    model_type, changes = VARIANTS[variant]
    return save_llama(path, model_type=model_type, **changes)


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_chunks_and_decode_equal_transformers(variant: str, tmp_path: Path) -> None:
    path = _save(tmp_path, variant)
    expected = reference_logits(path, TOKENS)
    runner = FloatModel(load_model(path))
    whole = runner.run(TOKENS)
    assert np.abs(whole[0] - expected).max() < MAX_ERROR
    caches, parts = None, []
    for begin, end in [(0, 6), (6, 15), (15, 16), (16, 17)]:
        logits, *caches = runner.run(TOKENS[begin:end], caches)
        parts.append(logits)
    np.testing.assert_array_equal(np.concatenate(parts), whole[0])


def test_a_sliding_window_changes_the_logits(tmp_path: Path) -> None:
    """Else the comparison above would also pass for a window that is ignored."""
    narrow = reference_logits(_save(tmp_path / "narrow", "mistral-window"), TOKENS)
    wide = reference_logits(save_llama(tmp_path / "wide", model_type="mistral", sliding_window=None), TOKENS)
    assert np.abs(narrow - wide).max() > 0.1


@pytest.mark.parametrize("variant", ["gemma", "phi", "gpt2", "opt", "mistral-window"])
def test_layers_share_at_most_five_npu_functions(variant: str, tmp_path: Path) -> None:
    model = load_model(_save(tmp_path, variant))
    main = model.module["main"]
    mixing = [row.op for row in analyze_token_axis(main).rows if row.mixes]
    assert mixing == ["relax.concat", "relax.concat", "relax.nn.attention"] * model.config.num_layers
    linears = {name: LinearScheme() for group in linear_inputs(main).values() for name in group}
    module = pipeline.run(model.module, linears)
    assert 1 <= len(_functions(module, "npu")) <= 5
    assert len([name for name in _functions(module, "cpu") if name.startswith("attention")]) == 1


def _functions(module: ir.IRModule, processor: str) -> list[str]:
    return [
        name.name_hint
        for name, function in module.functions.items()
        if function.attrs and str(function.attrs.get("processor", "")) == processor
    ]


def test_base_model_checkpoints_have_shorter_names(tmp_path: Path) -> None:
    """``gpt2`` on the hub is such a one; it also has its causal masks in the file."""
    path = _save(tmp_path, "gpt2")
    expected = load_model(path).parameters["transformer.h.1.mlp.c_fc.weight"]

    def shorten(tensors: dict[str, np.ndarray]) -> None:
        for name in list(tensors):
            tensors[name.removeprefix("transformer.")] = tensors.pop(name)
        tensors["h.0.attn.bias"] = np.ones((1, 1, 128, 128), np.float32)

    model = load_model(edit_weights(path, shorten))
    np.testing.assert_array_equal(model.parameters["transformer.h.1.mlp.c_fc.weight"], expected)


def test_column_blocks_make_up_the_whole(tmp_path: Path) -> None:
    for variant, name in [("gpt2", "transformer.h.0.attn.c_attn.weight"), ("phi", "lm_head.weight")]:
        parameters = load_model(_save(tmp_path / variant, variant)).parameters
        blocks = list(column_blocks(parameters, name, 100))
        assert max(block.shape[1] for block in blocks) == 100
        np.testing.assert_array_equal(np.concatenate(blocks, axis=1), parameters[name])


@pytest.mark.parametrize(
    ("variant", "changes", "words"),
    [
        ("opt", {"word_embed_proj_dim": 32}, ["word_embed_proj_dim", "32"]),
        ("opt", {"do_layer_norm_before": False}, ["do_layer_norm_before"]),
        ("phi", {"qk_layernorm": True}, ["qk_layernorm"]),
        ("gpt2", {"add_cross_attention": True}, ["add_cross_attention"]),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, ["scale_attn_by_inverse_layer_idx"]),
        ("gpt2", {"n_head": 5}, ["n_head", "divisor"]),
        ("gpt2", {"activation_function": "mish"}, ["activation_function", "'mish'", "gelu_new"]),
        ("gpt2", {"is_encoder_decoder": True}, ["is_encoder_decoder", "decoder-only"]),
        ("gpt2", {"model_type": "bert"}, ["'bert'", "encoders are not", "supported: gemma, gpt2"]),
        ("gpt2", {"model_type": "../llama"}, ["'../llama'"]),
        ("gpt2", {"n_inner": 128}, ["c_fc.weight", "[64, 128]", "[64, 256]"]),
        ("gemma", {"use_bidirectional_attention": True}, ["use_bidirectional_attention"]),
        ("mistral-window", {"sliding_window": -1}, ["sliding_window", "positive integer"]),
    ],
)
def test_unusable_models_are_named(
    variant: str, changes: dict[str, Any], words: list[str], tmp_path: Path
) -> None:
    path = change_config(_save(tmp_path, variant), **changes)
    with pytest.raises(ModelError) as caught:
        load_model(path)
    for word in ["config.json" if len(words) < 3 else "", *words]:
        assert word in str(caught.value)


def test_one_file_for_each_architecture() -> None:
    assert architectures.supported() == ["gemma", "gpt2", "llama", "mistral", "opt", "phi", "qwen2", "qwen3"]
