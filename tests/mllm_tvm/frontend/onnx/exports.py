"""Exports of tiny models by PyTorch's two exporters, and what ONNX Runtime computes for an ONNX file."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from transformers import AutoModelForCausalLM, DynamicCache

from tests.mllm_tvm.frontend.tiny_models import TOKENS

DYNAMIC = torch.export.Dim.DYNAMIC


class _Cached(torch.nn.Module):
    """New tokens after cached ones: takes and returns every layer's keys and values."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, position_ids: torch.Tensor, *past: Any
    ) -> tuple[torch.Tensor, ...]:
        cache = DynamicCache(list(zip(past[::2], past[1::2], strict=True)))
        result = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=True,
        )
        present = [x for layer in result.past_key_values.layers for x in (layer.keys, layer.values)]
        return (result.logits, *present)


class _Uncached(torch.nn.Module):
    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=input_ids, use_cache=False).logits


def export(
    source: Path,
    target: Path,
    *,
    cached: bool = True,
    opset: int = 18,
    dynamo: bool = True,
    sdpa: bool = True,
) -> Path:
    """Exports a Hugging Face directory; ``dynamo=False`` is the exporter that ``optimum`` uses.

    Returns the ONNX file; tokenizer and settings are copied beside it.
    """
    attention = "sdpa" if sdpa else "eager"
    model = AutoModelForCausalLM.from_pretrained(source, attn_implementation=attention, dtype=torch.float32)
    target.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(source / name, target)
    file = target / "model.onnx"
    ids = torch.tensor([TOKENS[:6]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not cached:
            shapes = {"input_ids": {1: DYNAMIC}}
            wrapper = _Uncached(model.eval())
            torch.onnx.export(
                wrapper, (ids,), file, dynamo=True, opset_version=opset, dynamic_shapes=shapes, verbose=False
            )
        else:
            _export_cached(model.eval(), ids, file, opset, dynamo)
    return file


def _export_cached(model: Any, ids: torch.Tensor, file: Path, opset: int, dynamo: bool) -> None:
    layers = model(ids, use_cache=True).past_key_values.layers
    past = [torch.randn_like(rows[:, :, :4]) for layer in layers for rows in (layer.keys, layer.values)]
    arguments = (ids, torch.ones(1, 10, dtype=torch.int64), torch.arange(4, 10)[None], *past)
    if dynamo:
        shapes = ({1: DYNAMIC}, {1: DYNAMIC}, {1: DYNAMIC}, tuple({2: DYNAMIC} for _ in past))
        torch.onnx.export(
            _Cached(model),
            arguments,
            file,
            dynamo=True,
            opset_version=opset,
            dynamic_shapes=shapes,
            verbose=False,
        )
        return
    names = [f"past_key_values.{i // 2}.{('key', 'value')[i % 2]}" for i in range(len(past))]
    inputs = ["input_ids", "attention_mask", "position_ids", *names]
    torch.onnx.export(
        _Cached(model),
        arguments,
        file,
        dynamo=False,
        opset_version=opset,
        input_names=inputs,
        output_names=["logits", *(name.replace("past_key_values", "present") for name in names)],
        dynamic_axes={
            name: {0: "batch", (1 if i < 3 else 2): f"length_{i}"} for i, name in enumerate(inputs)
        },
    )


def reference(file: Path, tokens: Sequence[int], head_dim: int = 16) -> np.ndarray:
    """Logits [seq, vocab] that ONNX Runtime computes, without cached tokens."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    count = len(tokens)
    feeds: dict[str, np.ndarray] = {}
    for value in session.get_inputs():
        if len(value.shape) == 4:
            heads = value.shape[1]
            feeds[value.name] = np.zeros((1, heads, 0, head_dim), np.float32)
        elif "mask" in value.name:
            feeds[value.name] = np.ones((1, count), np.int64)
        elif "pos" in value.name:
            feeds[value.name] = np.arange(count)[None]
        else:
            feeds[value.name] = np.array([tokens], np.int64)
    return session.run(None, feeds)[0][0]
