"""Each architecture quantized, partitioned, compiled and run on the host device, against its original."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mllm_tvm as mt
from mllm_tvm.frontend.float_model import FloatModel
from relax_passes.analyze_token_axis import analyze_token_axis
from tests.mllm_tvm.frontend.tiny_models import GPT2, LLAMA3_ROPE, OPT, TOKENS, save_llama
from tests.mllm_tvm.shaped_model import uncalibrated_recipe

LENGTHS = (8,)
PROMPT, NEW_TOKENS = "the dog sat on the mat", 5

MODELS: dict[str, dict[str, Any]] = {
    "llama": {"rope_parameters": LLAMA3_ROPE, "dtype": torch.bfloat16, "max_shard_size": "100KB"},
    "qwen2": {"tie_word_embeddings": True, "dtype": torch.float16},
    "qwen3": {"head_dim": 24},
    "mistral": {"sliding_window": 6},
    "gemma": {"num_key_value_heads": 1, "head_dim": 32, "tie_word_embeddings": True},
    "phi": {"num_key_value_heads": 4},
    "gpt2": GPT2,
    "opt": OPT,
}


def _decibels(exact: np.ndarray, actual: np.ndarray) -> float:
    return float(10 * np.log10(np.square(exact).sum() / np.square(exact - actual).sum()))


@pytest.mark.parametrize("model_type", MODELS)
def test_compiled_model_follows_the_float_one(model_type: str, tmp_path: Path) -> None:
    model = mt.load_model(save_llama(tmp_path / "hf", model_type=model_type, **MODELS[model_type]))
    mixing = [row.op for row in analyze_token_axis(model.module["main"]).rows if row.mixes]
    assert mixing == ["relax.concat", "relax.concat", "relax.nn.attention"] * model.config.num_layers
    expected = FloatModel(model).run(TOKENS)[0]
    recipe = uncalibrated_recipe(model, shadow_share=1.0)
    artifact = mt.compile(model, recipe, chunk_lengths=LENGTHS).save(tmp_path / "artifact")
    npu = [function for function in artifact.manifest.graph.functions if function.processor == "npu"]
    assert 1 <= len(npu) <= 5
    with mt.Engine(artifact, "host") as engine:
        whole = engine.forward(TOKENS)
        assert _decibels(expected, whole) > 20
        np.testing.assert_array_equal(engine.prefill(TOKENS[:-2]), whole[-3])
        np.testing.assert_array_equal(engine.decode(TOKENS[-2]), whole[-2])
        np.testing.assert_array_equal(engine.decode(TOKENS[-1]), whole[-1])
        prompt = model.tokenizer.encode(PROMPT)
        written = _greedy(engine, prompt)
        text = model.tokenizer.decode(prompt + written).removeprefix(model.tokenizer.decode(prompt))
        assert "".join(engine.generate(PROMPT, NEW_TOKENS)) == text


def _greedy(engine: mt.Engine, tokens: list[int]) -> list[int]:
    """What follows ``tokens``, each step computed from the whole text."""
    found: list[int] = []
    while len(found) < NEW_TOKENS:
        token = int(engine.forward(tokens + found)[-1].argmax())
        if token in engine.artifact.manifest.model["eos_token_ids"]:
            break
        found.append(token)
    return found
