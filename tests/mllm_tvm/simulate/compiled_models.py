"""Layers of published models, as the compiler cuts them."""

from __future__ import annotations

import json
from pathlib import Path

from tvm import ir

from mllm_tvm.inspection import float_module
from mllm_tvm.published import published_settings
from relax_passes import pipeline
from relax_passes.expose_linear_inputs import linear_inputs
from relax_passes.quantize_w8a8 import LinearScheme

LAYERS = 2
MODELS = ("qwen1.5-1.8b", "gemma-2b", "phi-2")


def placed_module(name: str, shadow: bool, folder: Path) -> ir.IRModule:
    """The placed functions of a published model's first layers, all linears with a shadow path or none."""
    config = folder / "config.json"
    config.write_text(json.dumps({**published_settings(name), "num_hidden_layers": LAYERS}))
    module = float_module(config)
    weights = [weight for group in linear_inputs(module["main"]).values() for weight in group]
    return pipeline.run(module, {w: LinearScheme(shadow=shadow) for w in weights}, fuse_mlp=True)
